//! Texts and places that very many instances have in common are kept once: a registry of a million instances would keep a
//! million copies of `http`. Each thread remembers some that it made last; what is forgotten is only made again.

use std::{
    cell::RefCell,
    hash::{BuildHasher, Hash, RandomState},
    sync::{Arc, LazyLock},
};

use super::{Capability, Locality, Port, Sla};

/// So many are remembered; what is more often said than forgotten is shared.
const REMEMBERED: usize = 1024;
/// Longer texts are rarely the same.
const MAX_BYTES: usize = 64;

struct Remembered<T> {
    hasher: RandomState,
    slots: Vec<Option<T>>,
}

impl<T: Clone> Remembered<T> {
    fn new() -> Self {
        Self { hasher: RandomState::new(), slots: vec![None; REMEMBERED] }
    }

    fn share<K: Hash + ?Sized>(&mut self, key: &K, is: impl Fn(&T) -> bool, make: impl FnOnce() -> T) -> T {
        let slot = &mut self.slots[self.hasher.hash_one(key) as usize % REMEMBERED];
        match slot {
            Some(known) if is(known) => known.clone(),
            _ => slot.insert(make()).clone(),
        }
    }
}

thread_local! {
    static TEXTS: RefCell<Remembered<Arc<str>>> = RefCell::new(Remembered::new());
    static PLACES: RefCell<Remembered<Arc<Locality>>> = RefCell::new(Remembered::new());
    static PORTS: RefCell<Remembered<Arc<[Port]>>> = RefCell::new(Remembered::new());
    static CAPABILITIES: RefCell<Remembered<Arc<[Capability]>>> = RefCell::new(Remembered::new());
}

pub fn text(text: &str) -> Arc<str> {
    match text.len() {
        // All empty ones are one by themselves.
        0 => Arc::default(),
        1..=MAX_BYTES => TEXTS.with_borrow_mut(|texts| texts.share(text, |known| **known == *text, || text.into())),
        _ => text.into(),
    }
}

pub fn locality(of: Locality) -> Arc<Locality> {
    static NOWHERE: LazyLock<Arc<Locality>> = LazyLock::new(Arc::default);
    if of == Locality::default() {
        return NOWHERE.clone();
    }
    PLACES.with_borrow_mut(|places| places.share(&of, |known| **known == of, || Arc::new(of.clone())))
}

pub fn ports(of: Vec<Port>) -> Arc<[Port]> {
    PORTS.with_borrow_mut(|ports| ports.share(&*of, |known| **known == *of, || of.as_slice().into()))
}

pub fn capabilities(of: Vec<Capability>) -> Arc<[Capability]> {
    if of.is_empty() {
        return Arc::default();
    }
    CAPABILITIES.with_borrow_mut(|lists| lists.share(&*of, |known| **known == *of, || of.as_slice().into()))
}

pub fn sla(of: Sla) -> Arc<Sla> {
    static NONE: LazyLock<Arc<Sla>> = LazyLock::new(Arc::default);
    if of == Sla::default() { NONE.clone() } else { Arc::new(of) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_equal_is_one() {
        assert!(Arc::ptr_eq(&text("http"), &text("http")) && Arc::ptr_eq(&text(""), &text("")));
        let place = |zone: &str| locality(Locality { zone: zone.into(), ..Locality::default() });
        assert!(Arc::ptr_eq(&place("a"), &place("a")) && !Arc::ptr_eq(&place("a"), &place("b")));
        for number in 0..10_000 {
            let said = number.to_string();
            assert_eq!(*text(&said), *said);
            assert_eq!(place(&said).zone, said);
        }
    }
}
