//! Maps by what is a hash already, or a random number that Convoy drew: to hash it again gives nothing.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hash, Hasher},
};

pub type Prehashed = BuildHasherDefault<Number>;

/// Takes the number itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 ^= number;
    }

    fn write_u128(&mut self, number: u128) {
        self.0 ^= (number >> 64) as u64 ^ number as u64;
    }
}

const SHARDS: usize = 64;

/// A large map in parts that grow one after the other: one table of a million entries would stand still for as long as
/// it takes to move them all.
#[derive(Debug)]
pub struct Sharded<K, V>(Vec<HashMap<K, V, Prehashed>>);

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| HashMap::default()).collect())
    }
}

impl<K: Eq + Hash, V> Sharded<K, V> {
    fn at(key: &K) -> usize {
        let mut number = Number::default();
        key.hash(&mut number);
        // The tables use the lowest bits, and the highest seven.
        (number.finish() >> 48) as usize % SHARDS
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.0[Self::at(key)].get(key)
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0[Self::at(key)].get_mut(key)
    }

    pub fn entry(&mut self, key: K) -> Entry<'_, K, V> {
        self.0[Self::at(&key)].entry(key)
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.0[Self::at(&key)].insert(key, value)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.0[Self::at(key)].remove(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().flatten()
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(HashMap::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sharded_map_is_a_map_and_its_parts_are_alike() {
        let (mut sharded, mut plain) = (Sharded::default(), HashMap::new());
        for round in 0..50_000_u64 {
            let key = u128::from(round % 20_000).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            match round % 7 {
                6 => assert_eq!(sharded.remove(&key), plain.remove(&key)),
                _ => assert_eq!(sharded.insert(key, round), plain.insert(key, round)),
            }
        }
        assert_eq!(sharded.len(), plain.len());
        assert!(plain.iter().all(|(key, value)| sharded.get(key) == Some(value)));
        let sizes = || sharded.0.iter().map(HashMap::len);
        assert!(sizes().max() < sizes().min().map(|least| least * 2), "{:?}", sizes().collect::<Vec<_>>());
    }
}
