//! The drain barrier: whether any proxy may still pick an instance that is draining. Pure: how each proxy stands goes
//! in, the answer comes out.
//!
//! It holds when every connected proxy that follows the service's endpoints has ACKed the instance as draining or
//! absent. Who has left without that ACK, and is not back, may still send requests to it.

use std::collections::BTreeSet;

use convoy_client::proto::{self, BarrierOutcome, MissingReason};
use prost_types::Timestamp;

/// How many of those missing are named.
const MAX_MISSING: usize = 100;

/// A stream whose client follows endpoints, whosever.
#[derive(Clone, Debug, PartialEq)]
pub struct Follower {
    pub node: String,
    pub namespace: String,
    pub address: String,
    pub state: State,
}

/// How it stands to the service's endpoints, as of the drain.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It follows those of other services only.
    Elsewhere,
    Acked,
    Lagging,
    /// In these words.
    Rejected(String),
    /// It followed them when it left.
    Left {
        at: Timestamp,
        acked: bool,
    },
}

/// What is to be said of them, and of the replicas that could not be asked for theirs; `waited` is left to the caller.
pub fn judge(followers: Vec<Follower>, unknown_replicas: Vec<String>) -> proto::Barrier {
    let left = |state: &State| matches!(state, State::Left { .. });
    let connected = followers.iter().filter(|follower| !left(&follower.state));
    let back: BTreeSet<String> = connected.map(|follower| follower.node.clone()).collect();
    let concerned = followers.into_iter().filter(|follower| match follower.state {
        State::Elsewhere => false,
        State::Left { .. } => !back.contains(&follower.node),
        State::Acked | State::Lagging | State::Rejected(_) => true,
    });
    let (mut proxies, mut missing) = (0u32, Vec::new());
    for follower in concerned {
        proxies += 1;
        missing.extend(missing_of(follower));
    }
    let acked = proxies - u32::try_from(missing.len()).unwrap_or(proxies);
    let is_complete = missing.is_empty() && unknown_replicas.is_empty();
    let outcome = if is_complete { BarrierOutcome::Complete } else { BarrierOutcome::Incomplete };
    missing.sort_by(|a, b| a.node.cmp(&b.node));
    missing.truncate(MAX_MISSING);
    proto::Barrier { outcome: outcome.into(), waited: None, proxies, acked, missing, unknown_replicas }
}

fn missing_of(Follower { node, namespace, address, state }: Follower) -> Option<proto::MissingProxy> {
    let (reason, message, left_at) = match state {
        State::Elsewhere | State::Acked | State::Left { acked: true, .. } => return None,
        State::Lagging => (MissingReason::Lagging, String::new(), None),
        State::Rejected(message) => (MissingReason::Rejected, message, None),
        State::Left { at, acked: false } => (MissingReason::Disconnected, String::new(), Some(at)),
    };
    Some(proto::MissingProxy { node, namespace, address, reason: reason.into(), message, left_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use State::{Acked, Elsewhere, Lagging, Left, Rejected};

    const AT: Timestamp = Timestamp { seconds: 1, nanos: 0 };

    #[test]
    fn it_holds_when_all_who_follow_have_acked() {
        let gone = |acked| Left { at: AT, acked };
        let no = || Rejected("no".into());
        for (followers, proxies, acked, missing) in [
            (vec![], 0, 0, vec![]),
            (vec![("a", Elsewhere)], 0, 0, vec![]),
            (vec![("a", Acked), ("b", Acked)], 2, 2, vec![]),
            (vec![("b", Lagging), ("a", no()), ("c", Acked)], 3, 1, vec![("a", "rejected"), ("b", "lagging")]),
            // Two streams of one node are two clients of the endpoints.
            (vec![("a", Acked), ("a", Lagging)], 2, 1, vec![("a", "lagging")]),
            // Who left without an ACK counts, unless it is back and follows endpoints: then that is what counts.
            (vec![("a", gone(false))], 1, 0, vec![("a", "disconnected")]),
            (vec![("a", gone(true))], 1, 1, vec![]),
            (vec![("a", gone(false)), ("a", Acked)], 1, 1, vec![]),
            (vec![("a", gone(false)), ("a", Lagging)], 1, 0, vec![("a", "lagging")]),
            (vec![("a", gone(false)), ("a", Elsewhere)], 0, 0, vec![]),
            (vec![("a", gone(false)), ("b", Acked)], 2, 1, vec![("a", "disconnected")]),
        ] {
            let follower = |(node, state): &(&str, State)| Follower {
                node: (*node).into(),
                namespace: "default".into(),
                address: "10.0.0.1:1".into(),
                state: state.clone(),
            };
            let barrier = judge(followers.iter().map(follower).collect(), vec![]);
            let named: Vec<(String, String)> =
                barrier.missing.iter().map(|proxy| (proxy.node.clone(), proxy.reason().to_string())).collect();
            let expected: Vec<(String, String)> =
                missing.iter().map(|(node, reason): &(&str, &str)| ((*node).into(), (*reason).into())).collect();
            assert_eq!((barrier.proxies, barrier.acked, named), (proxies, acked, expected), "{followers:?}");
            let complete = barrier.outcome() == BarrierOutcome::Complete;
            assert_eq!(complete, missing.is_empty(), "{followers:?}");
        }
    }

    #[test]
    fn a_refusal_is_told_in_its_words_and_not_all_are_named() {
        let follower = |number: usize| Follower {
            node: format!("{number:03}"),
            namespace: "default".into(),
            address: String::new(),
            state: Rejected("bad host".into()),
        };
        let barrier = judge((0..150).map(follower).collect(), vec![]);
        assert_eq!((barrier.proxies, barrier.acked, barrier.missing.len()), (150, 0, MAX_MISSING));
        assert_eq!((&*barrier.missing[0].node, &*barrier.missing[0].message), ("000", "bad host"));
    }
}
