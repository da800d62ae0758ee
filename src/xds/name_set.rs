//! The names that a client has asked for, as a value that can be shared: thousands of proxies ask for the same thousand
//! names, and hold one set between them. A digest tells equal sets from others without looking at the names.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use xxhash_rust::xxh3::xxh3_128_with_seed;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet {
    names: BTreeSet<Arc<str>>,
    digest: u128,
    /// Of the names, together.
    bytes: usize,
}

/// Names are chosen by clients, and sets of equal digests are one to everybody: without a secret, thousands of names whose
/// sum is that of another's set are quickly found. Another in each process, as the standard library has it for its maps.
static SEED: LazyLock<u64> = LazyLock::new(rand::random);

/// What a name adds to the digest of a set, in this process. Sums do not depend on the order.
pub fn name_digest(name: &str) -> u128 {
    xxh3_128_with_seed(name.as_bytes(), *SEED)
}

impl NameSet {
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn digest(&self) -> u128 {
        self.digest
    }

    pub fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names.iter()
    }

    /// False if it was there already.
    pub fn insert(&mut self, name: Arc<str>) -> bool {
        let (digest, bytes) = (name_digest(&name), name.len());
        let new = self.names.insert(name);
        if new {
            self.bytes += bytes;
            self.digest = self.digest.wrapping_add(digest);
        }
        new
    }

    pub fn take(&mut self, name: &str) -> Option<Arc<str>> {
        let taken = self.names.take(name)?;
        self.bytes -= name.len();
        self.digest = self.digest.wrapping_sub(name_digest(name));
        Some(taken)
    }
}

impl<'a> FromIterator<&'a str> for NameSet {
    fn from_iter<I: IntoIterator<Item = &'a str>>(names: I) -> Self {
        let mut set = Self::default();
        for name in names {
            set.insert(name.into());
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_outside_knows_a_digest() {
        let set: NameSet = ["a"].into_iter().collect();
        assert_ne!(set.digest(), xxhash_rust::xxh3::xxh3_128(b"a"));
    }

    #[test]
    fn equal_sets_have_equal_digests_however_they_were_made() {
        let made: NameSet = ["a", "b", "c", "b"].into_iter().collect();
        let mut grown: NameSet = ["d", "c"].into_iter().collect();
        grown.insert("b".into());
        grown.insert("a".into());
        assert_ne!(grown.digest(), made.digest());
        assert_eq!(grown.take("d").as_deref(), Some("d"));
        assert_eq!(grown.take("d"), None);
        assert_eq!((grown.digest(), grown.len()), (made.digest(), made.len()));
        assert_eq!(NameSet::default().digest(), 0);
    }
}
