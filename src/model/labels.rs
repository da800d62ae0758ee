//! Names with values, sorted by name, in one piece of memory: a registry of a million instances has five million.
//!
//! The pairs stand one after the other in a text: the name's length, the name, the value's length, the value. A length is
//! written in 6 bits a letter, the last with a higher bit, so that everything stays text.

use std::{collections::BTreeMap, fmt, sync::Arc};

/// The letter that ends a length has this bit.
const LAST: u8 = 0x40;
const BITS: u32 = 6;

#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Arc<str>);

impl Labels {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// In the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let name = take(&mut rest)?;
            Some((name, take(&mut rest)?))
        })
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What it takes to look at all of them.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Takes a text off the front.
fn take<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let (mut length, mut shift) = (0usize, 0);
    let letters = rest.bytes().position(|letter| {
        length |= usize::from(letter & (LAST - 1)) << shift;
        shift += BITS;
        letter & LAST != 0
    })? + 1;
    let text = rest.get(letters..letters + length)?;
    *rest = &rest[letters + length..];
    Some(text)
}

fn put(text: &str, into: &mut String) {
    let mut length = text.len();
    loop {
        let letter = length as u8 & (LAST - 1);
        length >>= BITS;
        into.push(char::from(if length == 0 { letter | LAST } else { letter }));
        if length == 0 {
            break;
        }
    }
    into.push_str(text);
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        map.into_iter().collect()
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Labels {
    fn from(pairs: [(&str, &str); N]) -> Self {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Of equal names the last one stays.
impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut text = String::new();
        for (name, value) in pairs.into_iter().collect::<BTreeMap<_, _>>() {
            put(&name, &mut text);
            put(&value, &mut text);
        }
        // All empty ones are one.
        if text.is_empty() { Self::default() } else { Self(text.into()) }
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn labels_are_the_map_they_were_made_of(map in prop::collection::btree_map(".{0,70}", ".{0,300}", 0..9)) {
            let labels = Labels::from(map.clone());
            prop_assert_eq!(&labels.to_map(), &map);
            prop_assert_eq!((labels.len(), labels.is_empty()), (map.len(), map.is_empty()));
            for (name, value) in &map {
                prop_assert_eq!(labels.get(name), Some(value.as_str()));
            }
            prop_assert!(labels.get("a name that is not there").is_none());
        }
    }

    #[test]
    fn long_values() {
        let long = "ä".repeat(100_000);
        let labels = Labels::from([("a", long.as_str()), ("b", "")]);
        assert_eq!((labels.get("a"), labels.get("b")), (Some(long.as_str()), Some("")));
        assert_eq!(format!("{:?}", Labels::from([("b", "2"), ("a", "1")])), r#"{"a": "1", "b": "2"}"#);
    }
}
