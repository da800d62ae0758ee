//! The names that a client has asked for, as a value that can be shared: thousands of proxies ask for the same thousand
//! names, and hold one set between them. A digest tells equal sets from others without looking at the names.

use std::{collections::BTreeSet, sync::Arc};

use xxhash_rust::xxh3::xxh3_128;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSet {
    names: BTreeSet<Arc<str>>,
    digest: u128,
    /// Of the names, together.
    bytes: usize,
}

/// What a name adds to the digest of a set. Sums do not depend on the order.
pub fn name_digest(name: &str) -> u128 {
    xxh3_128(name.as_bytes())
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
