//! What streams share: sets of names and tables of resources, found by their digests. They are held by the streams;
//! here they are only known, and what no stream holds any more is forgotten.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering},
};

use dashmap::DashMap;

use super::{held::Base, name_set::NameSet};
use crate::model::ResourceType;

/// So many may be forgotten ones before they are looked for.
const FORGOTTEN: usize = 256;

#[derive(Debug)]
pub struct Pool<T> {
    known: DashMap<(ResourceType, u128), Weak<T>>,
    limit: AtomicUsize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { known: DashMap::new(), limit: AtomicUsize::new(FORGOTTEN) }
    }
}

impl<T> Pool<T> {
    pub fn get(&self, kind: ResourceType, digest: u128) -> Option<Arc<T>> {
        self.known.get(&(kind, digest))?.upgrade()
    }

    pub fn put(&self, kind: ResourceType, digest: u128, shared: &Arc<T>) {
        self.known.insert((kind, digest), Arc::downgrade(shared));
        if self.known.len() > self.limit.load(Ordering::Relaxed) {
            self.known.retain(|_, shared| shared.strong_count() > 0);
            self.limit.store(FORGOTTEN + 2 * self.known.len(), Ordering::Relaxed);
        }
    }
}

#[derive(Debug, Default)]
pub struct Sharing {
    pub names: Pool<NameSet>,
    pub bases: Pool<Base>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let pool = Pool::default();
        let kept = Arc::new(0);
        pool.put(ResourceType::Cluster, 0, &kept);
        for digest in 1..=1000 {
            pool.put(ResourceType::Cluster, digest, &Arc::new(digest));
        }
        assert!(pool.known.len() <= FORGOTTEN + 2, "{} are known", pool.known.len());
        assert_eq!(pool.get(ResourceType::Cluster, 0), Some(kept));
        assert_eq!(pool.get(ResourceType::Cluster, 1000), None);
        assert_eq!(pool.get(ResourceType::Endpoint, 0), None);
    }
}
