//! An event as one watch sees it: through its filter, something that changed may come, go, or never have been there.

use super::{changes::Changes, filter::Filter, log::Entry};
use crate::{model::RemovalCause, registry::state::EventKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new, or has begun to match.
    Added,
    Changed(Changes),
    /// It is there still, and does not match any more.
    Left,
    Removed(RemovalCause),
}

/// How many ways there are to see one event: those that see it in the same way share its bytes.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(super) enum View {
    Comes,
    Stays,
    Goes,
}

impl View {
    pub(super) const COUNT: usize = 3;
}

impl Seen {
    /// None if it is no business of the filter's.
    pub fn of(entry: &Entry, filter: &Filter) -> Option<Self> {
        let event = &entry.event;
        let was = event.before.as_ref().is_some_and(|before| filter.matches(&before.value));
        match event.kind {
            EventKind::Removed(cause) => was.then_some(Self::Removed(cause)),
            _ => match (was, filter.matches(&event.instance.value)) {
                (false, false) => None,
                (false, true) => Some(Self::Added),
                (true, true) => Some(Self::Changed(entry.changes())),
                (true, false) => Some(Self::Left),
            },
        }
    }

    /// Whether it is there for the watch afterwards.
    pub fn is_there(self) -> bool {
        matches!(self, Self::Added | Self::Changed(_))
    }

    pub(super) fn view(self) -> View {
        match self {
            Self::Added => View::Comes,
            Self::Changed(_) => View::Stays,
            Self::Left | Self::Removed(_) => View::Goes,
        }
    }
}
