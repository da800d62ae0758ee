//! What many events come to, for a watch that is behind: one for each instance, or none. Pure.
//!
//! For each instance it only counts whether the watch had been told of it before, and whether it is there for it now:
//!
//! | told of before | there now | |
//! | --- | --- | --- |
//! | no | no | nothing |
//! | no | yes | added |
//! | yes | yes | changed, in everything that has changed since |
//! | yes | no | left or removed, as it last did |
//!
//! Each stands where the last of its events stood, so that revisions keep growing.

use std::{collections::HashMap, sync::Arc};

use super::{changes::Changes, log::Entry, seen::Seen};
use crate::{model::InstanceKey, registry::state::EventKind};

/// An event, as a watch sees it.
#[derive(Clone, Debug)]
pub struct Told {
    pub entry: Arc<Entry>,
    pub seen: Seen,
}

#[derive(Debug)]
struct Merged {
    /// The first of its events.
    first: Told,
    last: Told,
    changes: Changes,
}

impl Merged {
    fn add(&mut self, told: Told) {
        self.changes = self.changes | changes(&told);
        self.last = told;
    }

    fn outcome(self) -> Option<Told> {
        let was_there = self.first.seen != Seen::Added;
        let seen = match (was_there, self.last.seen.is_there()) {
            (false, false) => return None,
            (false, true) => Seen::Added,
            (true, true) => Seen::Changed(self.all_changes()),
            (true, false) => self.last.seen,
        };
        Some(Told { entry: self.last.entry, seen })
    }

    /// Also of one that was away meanwhile.
    fn all_changes(&self) -> Changes {
        let away = match &self.first.entry.event.before {
            Some(before) => Changes::between(&before.value, &self.last.entry.event.instance.value),
            None => Changes::default(),
        };
        self.changes | away
    }
}

fn changes(told: &Told) -> Changes {
    match told.entry.event.kind {
        EventKind::Changed => told.entry.changes(),
        _ => Changes::default(),
    }
}

/// Events in order → what they come to, in order.
pub fn merge(events: Vec<Told>) -> Vec<Told> {
    let mut merged: HashMap<InstanceKey, Merged> = HashMap::new();
    for told in events {
        match merged.get_mut(&told.entry.event.instance.value.key) {
            Some(before) => before.add(told),
            None => {
                let key = told.entry.event.instance.value.key.clone();
                merged.insert(key, Merged { first: told.clone(), changes: changes(&told), last: told });
            }
        }
    }
    let mut outcome: Vec<Told> = merged.into_values().filter_map(Merged::outcome).collect();
    outcome.sort_unstable_by_key(|told| told.entry.position);
    outcome
}
