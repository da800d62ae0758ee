//! One of several Convoys over one store.

use std::{fmt, net::SocketAddr, sync::Arc};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Invalid, LeaseId, UnixMillis};

/// Made anew when a replica starts: one that starts again is another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl ReplicaId {
    /// Where the store has one writer, nobody has to be told from others.
    pub const ONLY: Self = Self(0);

    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let digits = text.len() == 16 && text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f'));
        let id = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or_else(|| Invalid::new(field, text, "a replica's id: 16 hexadecimal digits"))
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a replica says of itself. It is there as long as it renews that, and gone soon after it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// For people: the host's.
    pub name: Arc<str>,
    /// Where the other replicas reach it (its gRPC API).
    pub address: SocketAddr,
    pub since: UnixMillis,
}

/// Which of some replicas something is shared out to: each gets about as much, and when one comes or goes, only what it
/// gets or had moves (highest random weight, Thaler and Ravishankar 1998).
pub fn share_of(something: &[u8], replicas: impl IntoIterator<Item = ReplicaId>) -> Option<ReplicaId> {
    replicas.into_iter().max_by_key(|replica| (xxh3_64_with_seed(something, replica.0), *replica))
}

pub fn share_of_lease(lease: LeaseId, replicas: impl IntoIterator<Item = ReplicaId>) -> Option<ReplicaId> {
    share_of(&lease.0.to_be_bytes(), replicas)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn ids_read_as_they_are_written() {
        let id = ReplicaId(0xfeed);
        assert_eq!(ReplicaId::parse("replica", &id.to_string()), Ok(id));
        for bad in ["", "feed", &"F".repeat(16), &"0".repeat(17), "+00000000000feed"] {
            assert!(ReplicaId::parse("replica", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_about_equal_and_only_those_of_who_leaves_move() {
        let replicas = [3, 5, 9].map(ReplicaId);
        let leases = || (0..3000).map(LeaseId);
        let shares = |replicas: &[ReplicaId]| -> BTreeMap<LeaseId, ReplicaId> {
            leases().map(|lease| (lease, share_of_lease(lease, replicas.iter().copied()).expect("one"))).collect()
        };
        let (all, rest) = (shares(&replicas), shares(&replicas[..2]));
        for replica in replicas {
            let count = all.values().filter(|of| **of == replica).count();
            assert!((900..1100).contains(&count), "{replica}: {count}");
        }
        for lease in leases() {
            assert!(all[&lease] == replicas[2] || all[&lease] == rest[&lease], "{lease} moves without a reason");
        }
        assert_eq!(share_of_lease(LeaseId(1), []), None);
    }
}
