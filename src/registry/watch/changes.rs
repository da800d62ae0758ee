//! What of an instance is not as it was.

use std::ops::BitOr;

use crate::model::Instance;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Aspect {
    /// The verdict, its reason, or one of the axes that it follows from.
    Health,
    /// The static weight, or the step that load has brought it to.
    Weight,
    /// Labels, capabilities, locality, SLA, description, agent card.
    Metadata,
    /// The address or the ports.
    Address,
    /// Incarnation or lease: it was registered anew.
    Registration,
}

impl Aspect {
    pub const ALL: [Self; 5] = [Self::Health, Self::Weight, Self::Metadata, Self::Address, Self::Registration];
}

/// A set of aspects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes(u8);

impl Changes {
    pub fn between(before: &Instance, after: &Instance) -> Self {
        let (old, new) = (&before.spec, &after.spec);
        let changed = |aspect: &Aspect| match aspect {
            Aspect::Health => {
                old.ready != new.ready
                    || before.ready_since != after.ready_since
                    || before.lapsed != after.lapsed
                    || before.disbelieved != after.disbelieved
                    || before.checks != after.checks
                    || before.operator != after.operator
                    || before.drain != after.drain
                    || before.health_since != after.health_since
                    || before.health() != after.health()
            }
            Aspect::Weight => old.weight != new.weight || before.share != after.share,
            Aspect::Metadata => {
                old.labels != new.labels
                    || old.capabilities != new.capabilities
                    || old.locality != new.locality
                    || old.sla != new.sla
                    || old.description != new.description
                    || old.card != new.card
            }
            Aspect::Address => old.address != new.address || old.ports != new.ports,
            Aspect::Registration => {
                before.incarnation != after.incarnation
                    || before.lease != after.lease
                    || before.registered_at != after.registered_at
            }
        };
        Aspect::ALL.into_iter().filter(changed).fold(Self::default(), |all, aspect| all | Self::from(aspect))
    }

    pub fn iter(self) -> impl Iterator<Item = Aspect> {
        Aspect::ALL.into_iter().filter(move |aspect| self.0 & Self::from(*aspect).0 != 0)
    }
}

impl From<Aspect> for Changes {
    fn from(aspect: Aspect) -> Self {
        Self(1 << aspect as u8)
    }
}

impl BitOr for Changes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
