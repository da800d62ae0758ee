//! Search by words: what instances say of themselves, ranked by BM25.
//!
//! The copies of a service say the same, so a document is what they say, once, whatever their number; a word that
//! a thousand copies share is no less telling for it. What names something counts more than what describes it: its words
//! count as often as they weigh, which is BM25F with one length for all fields.

use std::{collections::HashMap, hash::Hasher};

use bm25::{Embedder, EmbedderBuilder, Embedding, Scorer, Tokenizer};
use roaring::RoaringBitmap;
use xxhash_rust::xxh3::Xxh3Default;

use crate::model::InstanceSpec;

/// How often a word counts that stands in a capability's name, in a description, in an attribute.
const NAME: usize = 4;
const DESCRIPTION: usize = 2;
const ATTRIBUTE: usize = 1;
/// The length of a document that is neither short nor long, in words as they count.
const USUAL_LENGTH: f32 = 60.0;
/// Words of one document, and of all: one takes some 60 bytes. What is beyond is not found by words.
const MAX_WORDS: usize = 1_000;
const MAX_ALL_WORDS: usize = 4_000_000;
/// The library keeps words that no document has any more: after so many removals it is worth starting anew.
const MAX_REMOVED: usize = 20_000;
/// Words this frequent in any text say nothing.
const STOP_WORDS: [&str; 20] = [
    "a", "an", "and", "are", "as", "at", "by", "can", "for", "from", "in", "is", "it", "of", "on", "or", "that", "the",
    "to", "with",
];

type Words = Embedding<u64>;
/// What a document says, by its digest.
type Digest = u128;

#[derive(Debug)]
struct Document {
    number: u32,
    words: usize,
    /// Who says it.
    slots: RoaringBitmap,
}

pub struct TextIndex {
    embedder: Embedder<u64, Tokens>,
    scorer: Scorer<u32, u64>,
    documents: HashMap<Digest, Document>,
    by_number: HashMap<u32, Digest>,
    next: u32,
    /// Of all documents.
    words: usize,
    removed: usize,
}

impl Default for TextIndex {
    fn default() -> Self {
        let embedder = EmbedderBuilder::with_avgdl(USUAL_LENGTH).tokenizer(Tokens).build();
        let (documents, by_number) = Default::default();
        Self { embedder, scorer: Scorer::new(), documents, by_number, next: 0, words: 0, removed: 0 }
    }
}

impl std::fmt::Debug for TextIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextIndex").field("documents", &self.documents.len()).field("words", &self.words).finish()
    }
}

impl TextIndex {
    pub fn insert(&mut self, slot: u32, spec: &InstanceSpec) {
        if spec.capabilities.is_empty() && spec.description.is_empty() {
            return;
        }
        let digest = digest(spec);
        if let Some(document) = self.documents.get_mut(&digest) {
            document.slots.insert(slot);
            return;
        }
        let said: Words = self.embedder.embed(&written(spec));
        let words = said.len();
        if self.words + words > MAX_ALL_WORDS {
            return;
        }
        self.words += words;
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.scorer.upsert(&number, said);
        self.documents.insert(digest, Document { number, words, slots: RoaringBitmap::from([slot]) });
        self.by_number.insert(number, digest);
    }

    pub fn remove(&mut self, slot: u32, spec: &InstanceSpec) {
        let digest = digest(spec);
        let Some(document) = self.documents.get_mut(&digest) else { return };
        document.slots.remove(slot);
        if document.slots.is_empty() {
            self.words -= document.words;
            self.removed += 1;
            self.scorer.remove(&document.number);
            self.by_number.remove(&document.number);
            self.documents.remove(&digest);
        }
    }

    /// Whether more has left it than is in it.
    pub fn is_worn(&self) -> bool {
        self.removed > MAX_REMOVED + self.documents.len()
    }

    /// Who says one of the words, and how well that fits.
    pub fn search(&self, text: &str) -> impl Iterator<Item = (f32, &RoaringBitmap)> {
        let words: Words = self.embedder.embed(text);
        let found = self.scorer.matches(&words);
        found.into_iter().filter_map(|document| {
            let digest = self.by_number.get(&document.id)?;
            Some((document.score, &self.documents.get(digest)?.slots))
        })
    }
}

fn digest(spec: &InstanceSpec) -> Digest {
    let mut hasher = Xxh3Default::new();
    let mut put = |text: &str| {
        hasher.write_u64(text.len() as u64);
        hasher.write(text.as_bytes());
    };
    put(&spec.description);
    for capability in &*spec.capabilities {
        put(&capability.name);
        put(&capability.description);
        capability.attributes.iter().for_each(|(name, value)| {
            put(name);
            put(value);
        });
        put("");
    }
    hasher.digest128()
}

/// All that it says, with what weighs more said more often.
fn written(spec: &InstanceSpec) -> String {
    let mut text = String::new();
    let mut put = |words: &str, times: usize| {
        for _ in 0..times {
            text.push_str(words);
            text.push(' ');
        }
    };
    put(&spec.description, DESCRIPTION);
    for capability in &*spec.capabilities {
        put(&capability.name, NAME);
        put(&capability.description, DESCRIPTION);
        capability.attributes.iter().for_each(|(name, value)| {
            put(name, ATTRIBUTE);
            put(value, ATTRIBUTE);
        });
    }
    text
}

/// Runs of letters and digits, in lower case, also the parts of `imageProcessing`; without stop words and the endings of
/// English plurals and verbs.
#[derive(Debug, Default)]
pub struct Tokens;

impl Tokenizer for Tokens {
    fn tokenize(&self, text: &str) -> Vec<String> {
        let words = text.split(|c: char| !c.is_alphanumeric()).flat_map(parts);
        let words = words.map(|word| word.to_lowercase()).filter(|word| !STOP_WORDS.contains(&word.as_str()));
        words.map(|word| stem(&word).to_owned()).filter(|word| !word.is_empty()).take(MAX_WORDS).collect()
    }
}

fn parts(word: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut lower) = (0, false);
    for (at, letter) in word.char_indices() {
        if lower && letter.is_uppercase() {
            parts.push(&word[start..at]);
            start = at;
        }
        lower = letter.is_lowercase();
    }
    parts.push(&word[start..]);
    parts
}

/// `summarises`, `summarised`, `summarising` and `summarise` as one word. Endings that leave less than four letters stay.
fn stem(word: &str) -> &str {
    let mut stem = word;
    for ending in ["ings", "ing", "ations", "ation", "ies", "ers", "ed", "es", "er", "s", "e", "y"] {
        if let Some(rest) = stem.strip_suffix(ending)
            && rest.chars().count() >= 4
        {
            stem = rest;
            break;
        }
    }
    stem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_text() {
        for (text, words) in [
            ("Summarise legal documents", vec!["summaris", "legal", "document"]),
            ("summarises the document", vec!["summaris", "document"]),
            ("imageProcessing, image-classification/v2", vec!["imag", "process", "imag", "classific", "v2"]),
            ("HTTPServer for 10.0.0.1", vec!["httpserv", "10", "0", "0", "1"]),
            ("Übersetzt nach Köln", vec!["übersetzt", "nach", "köln"]),
            ("the of and", vec![]),
        ] {
            assert_eq!(Tokens.tokenize(text), words, "{text}");
        }
        assert_eq!(Tokens.tokenize(&"word ".repeat(5_000)).len(), MAX_WORDS);
    }
}
