//! Identifiers. Each is a type of its own, checked when it is made, cheap to clone: a short one, as most are, stands where it
//! is used, and nothing is counted or looked up for it.

use std::fmt;

use smol_str::SmolStr;

use super::{UnixMillis, limits::Invalid};

/// The longest DNS label (RFC 1035, 2.3.4).
pub const MAX_NAME_BYTES: usize = 63;
/// The longest instance id; the longest DNS name fits.
pub const MAX_INSTANCE_ID_BYTES: usize = 253;

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks the rule; `field` is the name by which the error calls it.
            pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
                $check(field, text)?;
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text_id!(
    /// A tenant: names are unique inside it. A DNS label.
    Namespace,
    check_label
);
text_id!(
    /// The name under which instances are found. A DNS label.
    ServiceName,
    check_label
);
text_id!(
    /// The name of a port. A DNS label.
    PortName,
    check_label
);
text_id!(
    /// One instance of a service.
    InstanceId,
    check_instance_id
);

impl Namespace {
    pub const DEFAULT: &'static str = "default";

    /// The namespace meant by a name that may be left out.
    pub fn parse_or_default(field: &str, text: &str) -> Result<Self, Invalid> {
        Self::parse(field, if text.is_empty() { Self::DEFAULT } else { text })
    }

    pub fn is_default(&self) -> bool {
        &*self.0 == Self::DEFAULT
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

/// RFC 1123, in lower case.
pub fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    (1..=MAX_NAME_BYTES).contains(&bytes.len())
        && bytes.iter().all(|&c| inner(c) || c == b'-')
        && bytes.first().copied().is_some_and(inner)
        && bytes.last().copied().is_some_and(inner)
}

fn check_label(field: &str, text: &str) -> Result<(), Invalid> {
    if is_label(text) {
        return Ok(());
    }
    Err(Invalid::new(field, text, "a DNS label: 1 to 63 of a-z, 0-9 and '-', with a letter or digit at both ends"))
}

fn check_instance_id(field: &str, text: &str) -> Result<(), Invalid> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    // `.` and `..` could not stand in a path.
    let somebody = text.bytes().any(|c| c != b'.');
    if (1..=MAX_INSTANCE_ID_BYTES).contains(&text.len()) && text.bytes().all(allowed) && somebody {
        return Ok(());
    }
    Err(Invalid::new(field, text, "1 to 253 of A-Z, a-z, 0-9, '.', '_' and '-', and not dots alone"))
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub namespace: Namespace,
    pub name: ServiceName,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceKey {
    pub service: ServiceKey,
    pub id: InstanceId,
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.id)
    }
}

/// A number that an agent picks at start and that only grows; see the design's fencing rules in `registry::plan`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// The registry's one counter: the number of the atomic write that made a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Made by Convoy, unguessable: whoever has it may renew it. It begins with the time, so that those that are written together
/// stand together in a store; 80 of its bits are random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u128);

impl LeaseId {
    pub fn new(at: UnixMillis, random: u128) -> Self {
        Self(u128::from(at.0) << 80 | random >> 48)
    }

    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        let rule = "a lease id as an earlier answer gave it: 32 hexadecimal digits";
        let digits = text.len() == 32 && text.bytes().all(|c| c.is_ascii_digit() || matches!(c, b'a'..=b'f'));
        let id = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or_else(|| Invalid::new(field, text, rule))
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["a", "0", "reviews", "a-b", &"x".repeat(63)] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", "a b", &"x".repeat(64)] {
            assert!(!is_label(bad), "{bad}");
        }
    }

    #[test]
    fn instance_ids() {
        for good in ["a", "Pod_1.zone-2", &"x".repeat(253)] {
            assert!(InstanceId::parse("id", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", &"x".repeat(254)] {
            assert!(InstanceId::parse("id", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lease_ids_stand_in_the_order_of_their_time() {
        let new = |ms, random| LeaseId::new(UnixMillis(ms), random);
        assert!(new(1_800_000_000_000, u128::MAX) < new(1_800_000_000_001, 0));
        assert_eq!(new(1, 1 << 48), LeaseId(1 << 80 | 1));
    }

    #[test]
    fn lease_ids_read_as_they_are_written() {
        let id = LeaseId(0xfeed);
        assert_eq!(LeaseId::parse("lease", &id.to_string()), Ok(id));
        for bad in ["", "feed", "+000000000000000000000000000feed", &"F".repeat(32), &"0".repeat(33)] {
            assert!(LeaseId::parse("lease", bad).is_err(), "{bad}");
        }
    }
}
