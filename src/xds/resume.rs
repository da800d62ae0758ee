//! What a client that comes back says that it has. If that is what there is now, which a digest tells, it is told
//! nothing, and nobody looks at its names.

use bytes::Bytes;

use super::{
    full::Full,
    held::held_digest,
    request::{InitialVersion, text},
    resource::Version,
    subscription::Subscription,
};

#[derive(Debug)]
pub(super) enum Claim {
    /// State of the world: the version of the whole set.
    Set(Version),
    /// Incremental: a version for each name.
    Versions { versions: Vec<(Bytes, Version)>, digest: u128 },
}

impl Claim {
    pub(super) fn versions(versions: Vec<InitialVersion>) -> Self {
        let mut digest: u128 = 0;
        let mut parse = |initial: InitialVersion| {
            // A version that is none of ours is one to replace.
            let version = text(&initial.version).and_then(Version::parse).unwrap_or(Version(1));
            digest = digest.wrapping_add(held_digest(text(&initial.name)?, version));
            Some((initial.name, version))
        };
        let versions = versions.into_iter().filter_map(&mut parse).collect();
        Self::Versions { versions, digest }
    }

    /// What is left of it now that the client has dropped names.
    pub(super) fn kept(self, subscription: &Subscription) -> Option<Self> {
        match self {
            Self::Set(_) => subscription.is_wildcard().then_some(self),
            Self::Versions { mut versions, .. } => {
                versions.retain(|(name, _)| text(name).is_some_and(|name| subscription.follows(name)));
                let add = |sum: u128, (name, version): &(Bytes, Version)| {
                    sum.wrapping_add(text(name).map_or(0, |name| held_digest(name, *version)))
                };
                let digest = versions.iter().fold(0, add);
                Some(Self::Versions { versions, digest })
            }
        }
    }

    /// Whether the client has exactly all that there is.
    pub(super) fn is(&self, full: &Full) -> bool {
        full.missing.is_empty()
            && match self {
                Self::Set(version) => version.0 == full.base.digest(),
                Self::Versions { versions, digest } => {
                    *digest == full.base.digest() && versions.len() == full.base.len()
                }
            }
    }
}
