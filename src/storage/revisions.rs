//! The revision of every key, to check a transaction's conditions without reading. By a hash of the key, which takes a third
//! of the key's own place: nobody knows its seed, or can make two keys meet.

use std::{fmt, hash::Hash};

use xxhash_rust::xxh3::Xxh3;

use super::{Key, Transaction};
use crate::{model::Revision, prehashed::Sharded};

#[derive(Debug)]
pub(super) struct Revisions {
    present: Sharded<u128, Revision>,
    hash: Seeded,
}

/// Begun with its seed, and used again and again: to begin one anew takes longer than to hash a key.
struct Seeded(Xxh3);

impl fmt::Debug for Seeded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Seeded")
    }
}

impl Default for Revisions {
    fn default() -> Self {
        Self { present: Sharded::default(), hash: Seeded(Xxh3::with_seed(rand::random())) }
    }
}

impl Revisions {
    fn hash(&mut self, key: &Key) -> u128 {
        let Seeded(hash) = &mut self.hash;
        hash.reset();
        key.hash(hash);
        hash.digest128()
    }

    /// Whether a transaction's expectations hold.
    pub(super) fn hold(&mut self, transaction: &Transaction) -> bool {
        transaction.expect.iter().all(|(key, revision)| {
            let key = self.hash(key);
            self.present.get(&key).copied().unwrap_or_default() == *revision
        })
    }

    /// A key is written, or deleted; what it was before.
    pub(super) fn put(&mut self, key: &Key, revision: Option<Revision>) -> Before {
        let key = self.hash(key);
        self.put_hashed(key, revision)
    }

    /// Undoes it. Of several the last goes first.
    pub(super) fn put_back(&mut self, Before(key, revision): Before) {
        self.put_hashed(key, revision);
    }

    fn put_hashed(&mut self, key: u128, revision: Option<Revision>) -> Before {
        let before = match revision {
            Some(revision) => self.present.insert(key, revision),
            None => self.present.remove(&key),
        };
        Before(key, before)
    }
}

/// A key, by its hash, and the revision that it had.
#[derive(Debug)]
pub(super) struct Before(u128, Option<Revision>);
