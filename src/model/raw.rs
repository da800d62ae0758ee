//! An xDS resource that somebody wrote, in place of a generated one or beside them.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Invalid, NodeSelector, ResourceType};

/// Letters of a resource's name.
pub const MAX_NAME_BYTES: usize = 1024;
const MAX_VARIANT_BYTES: usize = 63;

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
    /// Reads what names a resource: the type by its name or URL, the resource's exact name, and the variant.
    pub fn parse(kind: &str, name: &str, variant: &str) -> Result<Self, Invalid> {
        let known = || {
            let names: Vec<&str> = ResourceType::ALL.iter().map(|kind| kind.as_str()).collect();
            Invalid::new("type", kind, format!("one of {}, or the type URL of one of them", names.join(", ")))
        };
        let kind = ResourceType::parse(kind).ok_or_else(known)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name == "*" {
            return Err(Invalid::new("name", name, format!("1 to {MAX_NAME_BYTES} bytes, and not \"*\"")));
        }
        let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if variant.len() > MAX_VARIANT_BYTES || !variant.chars().all(letter) {
            let rule = format!("up to {MAX_VARIANT_BYTES} of [A-Za-z0-9._-]");
            return Err(Invalid::new("variant", variant, rule));
        }
        Ok(Self { kind, name: name.into(), variant: variant.into() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_named_by_type_and_name() {
        let key = RawKey::parse("clusters", "web", "").expect("valid");
        assert_eq!(RawKey::parse(ResourceType::Cluster.type_url(), "web", "").expect("valid"), key);
        assert_eq!(key.to_string(), "clusters/web");
        assert_eq!(RawKey::parse("routes", "a/b c", "edge-1").expect("valid").to_string(), "routes/a/b c (edge-1)");
        for (kind, name, variant, field) in [
            ("cluster", "web", "", "type"),
            ("clusters", "", "", "name"),
            ("clusters", "*", "", "name"),
            ("clusters", &"x".repeat(MAX_NAME_BYTES + 1), "", "name"),
            ("clusters", "web", "a/b", "variant"),
            ("clusters", "web", &"x".repeat(64), "variant"),
        ] {
            assert_eq!(RawKey::parse(kind, name, variant).expect_err(field).field, field);
        }
    }
}
