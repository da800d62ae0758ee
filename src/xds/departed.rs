//! Proxies that have left: remembered for a while, since one that is cut off from Convoy may still send requests to
//! whom it knows. Bounded in time, in number and in names; the oldest go first.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use convoy_client::proto;
use tokio::time::Instant;

use super::{name_set::NameSet, standing::Lag};
use crate::model::Revision;

/// How long who has left is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(300);
const MAX_DEPARTED: usize = 10_000;
/// The names of endpoints that are remembered, of all together: about 60 bytes each.
const MAX_NAMES: usize = 1_000_000;

/// A stream as it was when its client left.
#[derive(Debug)]
pub struct Departed {
    /// As it is shown.
    pub proxy: proto::Proxy,
    pub left_at: Instant,
    /// Up to which revision it had been told everything.
    pub told: Revision,
    /// The endpoints that it followed.
    pub endpoints: Arc<NameSet>,
    /// Of some it had not got the state.
    pub lagging: BTreeMap<Arc<str>, Lag>,
}

impl Departed {
    /// Whether it followed one of these, and has not ACKed its state as of a revision.
    pub fn lags<'a>(&self, mut clusters: impl Iterator<Item = &'a Arc<str>>, revision: Revision) -> bool {
        let lags = |name: &str| self.lagging.contains_key(name) || self.told < revision;
        clusters.any(|name| self.endpoints.contains(name) && lags(name))
    }
}

#[derive(Debug, Default)]
pub struct Memory {
    by_node: HashMap<String, Vec<Arc<Departed>>>,
    /// Whoever left first is first.
    order: VecDeque<Arc<Departed>>,
    names: usize,
}

impl Memory {
    /// Remembers a stream that has just ended. Those of its node that had ended before it began are replaced by it.
    pub fn remember(&mut self, departed: Departed, connected_at: Instant) {
        let departed = Arc::new(departed);
        self.forget_until(departed.left_at);
        self.names += departed.endpoints.len();
        let of_node = self.by_node.entry(departed.proxy.node.clone()).or_default();
        of_node.retain(|other| other.left_at >= connected_at);
        of_node.push(departed.clone());
        self.order.push_back(departed);
        while self.order.len() > MAX_DEPARTED || self.names > MAX_NAMES {
            if self.forget_oldest().is_none() {
                return;
            }
        }
    }

    /// Who is still remembered.
    pub fn all(&mut self, now: Instant) -> Vec<Arc<Departed>> {
        self.forget_until(now);
        self.by_node.values().flatten().cloned().collect()
    }

    fn forget_until(&mut self, now: Instant) {
        while self.order.front().is_some_and(|first| first.left_at + REMEMBERED <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) -> Option<()> {
        let oldest = self.order.pop_front()?;
        self.names -= oldest.endpoints.len();
        if let Some(of_node) = self.by_node.get_mut(&oldest.proxy.node) {
            of_node.retain(|other| !Arc::ptr_eq(other, &oldest));
            if of_node.is_empty() {
                self.by_node.remove(&oldest.proxy.node);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn departed(node: &str, left_at: Instant, names: usize) -> Departed {
        let names: Vec<String> = (0..names).map(|number| number.to_string()).collect();
        let endpoints = Arc::new(names.iter().map(String::as_str).collect());
        let proxy = proto::Proxy { node: node.into(), ..Default::default() };
        Departed { proxy, left_at, told: Revision(5), endpoints, lagging: BTreeMap::new() }
    }

    fn nodes(memory: &mut Memory, now: Instant) -> Vec<String> {
        let mut nodes: Vec<String> = memory.all(now).iter().map(|departed| departed.proxy.node.clone()).collect();
        nodes.sort();
        nodes
    }

    #[test]
    fn who_has_left_is_remembered_for_a_while() {
        let (mut memory, start, second) = (Memory::default(), Instant::now(), Duration::from_secs(1));
        memory.remember(departed("a", start, 1), start);
        memory.remember(departed("b", start + second, 1), start);
        assert_eq!(nodes(&mut memory, start + second), ["a", "b"]);
        assert_eq!(nodes(&mut memory, start + REMEMBERED), ["b"]);
        assert_eq!(nodes(&mut memory, start + REMEMBERED + second), [""; 0]);
        assert_eq!((memory.names, memory.by_node.len(), memory.order.len()), (0, 0, 0));
    }

    #[test]
    fn a_later_stream_of_a_node_replaces_the_earlier() {
        let (mut memory, start, second) = (Memory::default(), Instant::now(), Duration::from_secs(1));
        memory.remember(departed("a", start, 1), start);
        // Two streams of one client end together.
        memory.remember(departed("a", start, 1), start);
        assert_eq!(nodes(&mut memory, start), ["a", "a"]);
        memory.remember(departed("a", start + second, 1), start + second);
        assert_eq!(nodes(&mut memory, start + second), ["a"]);
    }

    #[test]
    fn there_is_a_limit_to_what_is_remembered() {
        let (mut memory, start) = (Memory::default(), Instant::now());
        for number in 0..3 {
            memory.remember(departed(&number.to_string(), start, MAX_NAMES / 2), start);
        }
        assert_eq!(nodes(&mut memory, start), ["1", "2"]);
    }

    #[test]
    fn it_lags_in_what_it_followed_and_had_not_acked() {
        let cluster = |name: &str| [Arc::<str>::from(name)];
        let mut one = departed("a", Instant::now(), 2);
        one.lagging.insert("1".into(), Lag::Pending);
        for (name, revision, lags) in [("0", 5, false), ("0", 6, true), ("1", 5, true), ("other", 6, false)] {
            assert_eq!(one.lags(cluster(name).iter(), Revision(revision)), lags, "{name} {revision}");
        }
    }
}
