//! An xDS resource that somebody wrote, in place of a generated one or beside them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Invalid, NodeSelector, ResourceType, ids};

/// A longer name is a mistake; those of `xdstp://` fit.
pub const MAX_RESOURCE_NAME_BYTES: usize = 1024;
/// A shorter TTL would be spent on saying it again; a longer one is no TTL.
pub const MIN_RESOURCE_TTL: Duration = Duration::from_secs(1);
pub const MAX_RESOURCE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// Under one type and name there may be several variants, for different proxies. A proxy gets the first whose selector
/// matches it, in the order of the variants' names; those without a selector come last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawKey {
    pub kind: ResourceType,
    pub name: Arc<str>,
    /// Empty for the plain one.
    pub variant: Arc<str>,
}

impl RawKey {
    /// Checks the rules of names. `kind` is a type's name in the API, or its URL.
    pub fn parse(kind: &str, name: &str, variant: &str) -> Result<Self, Invalid> {
        let kind = Self::kind("type", kind)?;
        let plain = name.chars().all(|c| !c.is_control());
        if !(1..=MAX_RESOURCE_NAME_BYTES).contains(&name.len()) || !plain {
            let rule = format!("1 to {MAX_RESOURCE_NAME_BYTES} bytes without control characters");
            return Err(Invalid::new("name", name, rule));
        }
        if !variant.is_empty() && !ids::is_label(variant) {
            return Err(Invalid::new("variant", variant, "empty, or a DNS label: 1 to 63 of a-z, 0-9 and '-'"));
        }
        Ok(Self { kind, name: name.into(), variant: variant.into() })
    }

    /// A type by its name in the API, or by its URL.
    pub fn kind(field: &str, text: &str) -> Result<ResourceType, Invalid> {
        ResourceType::parse(text).ok_or_else(|| {
            let known = ResourceType::ALL.map(ResourceType::as_str).join(", ");
            Invalid::new(field, text, format!("one of {known}, or the type URL of one of them"))
        })
    }
}

impl fmt::Display for RawKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, " ({})", self.variant) }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct RawResource {
    /// The encoded message, exactly as it is sent.
    pub bytes: Bytes,
    /// Which proxies it is for; all if none.
    pub selector: Option<NodeSelector>,
    /// How long a client may keep it without hearing of it again.
    pub ttl: Option<Duration>,
}

impl RawResource {
    /// The hash of its bytes, as proxies see it.
    pub fn version(&self) -> String {
        format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&self.bytes))
    }
}

/// Checks a TTL's bounds.
pub fn check_ttl(ttl: Duration) -> Result<Duration, Invalid> {
    if (MIN_RESOURCE_TTL..=MAX_RESOURCE_TTL).contains(&ttl) {
        return Ok(ttl);
    }
    let text = convoy_client::json::format_duration;
    let rule = format!("from {} to {}", text(MIN_RESOURCE_TTL), text(MAX_RESOURCE_TTL));
    Err(Invalid::new("ttl", text(ttl), rule))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_name_the_field_at_fault() {
        let long = "n".repeat(MAX_RESOURCE_NAME_BYTES + 1);
        for (kind, name, variant, field) in [
            ("cluster", "a", "", "type"),
            ("", "a", "", "type"),
            ("clusters", "", "", "name"),
            ("clusters", "a\nb", "", "name"),
            ("clusters", &long, "", "name"),
            ("clusters", "a", "A", "variant"),
            ("clusters", "a", "a/b", "variant"),
        ] {
            assert_eq!(RawKey::parse(kind, name, variant).expect_err(field).field, field, "{kind} {name} {variant}");
        }
        let by_url = RawKey::parse(ResourceType::Cluster.type_url(), "convoy/a b", "edge").expect("valid");
        assert_eq!(by_url, RawKey::parse("clusters", "convoy/a b", "edge").expect("valid"));
        assert_eq!(by_url.to_string(), "clusters/convoy/a b (edge)");
    }
}
