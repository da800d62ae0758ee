//! One type on one stream: what the client has asked for, what it was sent and has ACKed, and what is due. Pure.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    nack::suspects,
    protocol::{ACK_PATIENCE, Catalog, Dialect, Nack, Now, Readiness, Response, STEP_PATIENCE, TypeStatus, Verdict},
    resource::{Resource, Version},
    response,
    session::Session,
    subscription::{Changed, Subscription},
};
use crate::{model::limits::quoted, translate::ResourceType};

/// How many of the resources at fault are kept to be shown.
const MAX_NACK_RESOURCES: usize = 100;
/// What a client says of a refusal is read, kept and shown up to here.
const MAX_NACK_BYTES: usize = 4096;
/// Responses on their way that are remembered; the ACK of an older one is of no use.
const MAX_OUTSTANDING: usize = 8;

/// What the client has of a resource.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// It said so when it came back.
    Version(Version),
    Resource(Arc<Resource>),
}

impl Known {
    pub(super) fn version(&self) -> Version {
        match self {
            Self::Version(version) => *version,
            Self::Resource(resource) => resource.version,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) sent: Option<Known>,
    pub(super) acked: Option<Known>,
    /// It was refused in this version, and is represented by what was ACKed until its content changes.
    pub(super) rejected: Option<Version>,
}

#[derive(Debug)]
pub(super) struct Outstanding {
    nonce: String,
    version: String,
    sent_at: Instant,
    /// When the oldest change in it happened, if it was a change that made it be sent.
    since: Option<Instant>,
    /// What it changed: a resource, or its absence.
    pub(super) contents: Vec<(Arc<str>, Option<Arc<Resource>>)>,
}

#[derive(Debug, Default)]
pub(super) struct TypeState {
    pub(super) subscription: Subscription,
    pub(super) held: HashMap<Arc<str>, Held>,
    pub(super) dirty: BTreeSet<Arc<str>>,
    pub(super) asked: BTreeSet<Arc<str>>,
    /// All of the wildcard is due.
    wildcard_due: bool,
    /// An answer is due even if there is nothing to say.
    answer_due: bool,
    pub(super) outstanding: VecDeque<Outstanding>,
    last_nonce: String,
    /// Since when a step waits for another type's ACK.
    held_back_since: Option<Instant>,
    /// The sum of the versions sent: the version of the set.
    pub(super) digest: u128,
    status: TypeStatus,
}

/// What is to be said in one response.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) changed: Vec<(Arc<str>, Arc<Resource>)>,
    removed: Vec<Arc<str>>,
    since: Option<Instant>,
    overdue: bool,
}

impl TypeState {
    pub(super) fn names(&self) -> usize {
        self.subscription.names().len()
    }

    pub(super) fn status(&self) -> TypeStatus {
        TypeStatus {
            wildcard: self.subscription.is_wildcard(),
            subscribed: self.names(),
            pending: !self.outstanding.is_empty(),
            ..self.status.clone()
        }
    }

    pub(super) fn has_work(&self) -> bool {
        self.wildcard_due || self.answer_due || !self.dirty.is_empty() || !self.asked.is_empty()
    }

    /// When patience ends that has not ended yet: what could go now, has gone.
    pub(super) fn deadline(&self, now: Now) -> Option<Instant> {
        if !self.has_work() {
            return None;
        }
        let ack = self.outstanding.back().map(|outstanding| outstanding.sent_at + ACK_PATIENCE);
        let step = self.held_back_since.map(|since| since + STEP_PATIENCE);
        ack.into_iter().chain(step).filter(|at| *at > now.at).min()
    }

    pub(super) fn mark_dirty(&mut self, name: Arc<str>) {
        self.dirty.insert(name);
    }

    /// What the client follows is due once more, changed or not.
    pub(super) fn ask_again(&mut self, name: &Arc<str>) {
        if self.subscription.names().contains(name) {
            self.asked.insert(name.clone());
        }
    }

    pub(super) fn has_acked(&self, name: &Arc<str>) -> bool {
        self.held.get(name).is_some_and(|held| held.acked.is_some())
    }

    pub(super) fn has_sent(&self, name: &Arc<str>) -> bool {
        self.held.get(name).is_some_and(|held| held.sent.is_some())
    }

    /// What the client's request changed of the subscription.
    pub(super) fn subscribe(&mut self, kind: ResourceType, changed: &Changed, dialect: Dialect) {
        for name in &changed.removed {
            self.asked.remove(name);
            match dialect {
                // The wildcard may still hold it: say how it stands now.
                Dialect::Incremental if self.subscription.is_wildcard() => {
                    self.asked.insert(name.clone());
                }
                _ if self.subscription.is_wildcard() => {
                    self.dirty.insert(name.clone());
                }
                _ => self.forget(name),
            }
        }
        if changed.wildcard_ended {
            let kept = self.subscription.names().clone();
            let gone: Vec<_> = self.held.keys().filter(|name| !kept.contains(*name)).cloned().collect();
            gone.iter().for_each(|name| self.forget(name));
        }
        if changed.wildcard_began {
            self.wildcard_due = true;
            self.answer_due = true;
        }
        self.asked.extend(changed.added.iter().cloned());
        // Whoever asks for a set wants to be told even that it is empty.
        self.answer_due |= dialect == Dialect::StateOfTheWorld && kind.is_full_set() && !changed.added.is_empty();
    }

    /// What the client says that it has.
    pub(super) fn holds(&mut self, name: Arc<str>, version: Version) {
        let known = Some(Known::Version(version));
        self.set_sent(&name, known.clone());
        if let Some(held) = self.held.get_mut(&name) {
            held.acked = known;
        }
        self.asked.remove(&name);
        self.dirty.insert(name);
    }

    /// The client has exactly these, as its version proves. They are looked at once more when the index knows this
    /// session, so that a change between the two is not lost.
    pub(super) fn holds_all(&mut self, resources: Vec<Arc<Resource>>, version: &str) {
        self.dirty.append(&mut self.asked);
        for resource in resources {
            let known = Some(Known::Resource(resource.clone()));
            self.set_sent(&resource.name, known.clone());
            if let Some(held) = self.held.get_mut(&resource.name) {
                held.acked = known;
            }
        }
        self.answer_due = false;
        self.status.version_sent = version.to_owned();
        self.status.version_acked = version.to_owned();
    }

    fn set_sent(&mut self, name: &Arc<str>, known: Option<Known>) {
        let held = self.held.entry(name.clone()).or_default();
        let before = std::mem::replace(&mut held.sent, known);
        let of = |known: &Option<Known>| known.as_ref().map_or(0, |known| known.version().0);
        self.digest = self.digest.wrapping_sub(of(&before)).wrapping_add(of(&held.sent));
    }

    fn forget(&mut self, name: &Arc<str>) {
        if let Some(held) = self.held.remove(name) {
            self.digest = self.digest.wrapping_sub(held.sent.map_or(0, |known| known.version().0));
        }
        self.dirty.remove(name);
    }

    /// Whether a route or listener that the client has, or was sent, leads to a cluster.
    pub(super) fn leads_to(&self, cluster: &Arc<str>) -> bool {
        let leads = |known: &Option<Known>| match known {
            Some(Known::Resource(resource)) => resource.clusters.contains(cluster),
            // Of an earlier stream, and another than now: it may.
            Some(Known::Version(_)) => true,
            None => false,
        };
        self.held.values().any(|held| leads(&held.sent) || leads(&held.acked))
    }

    /// Takes the client's word on an earlier response.
    pub(super) fn answered(&mut self, nonce: &str, error: Option<&str>, now: Now) -> Option<Verdict> {
        let position = self.outstanding.iter().position(|outstanding| outstanding.nonce == nonce)?;
        let Some(message) = error else {
            // Responses are taken in order, and a refusal is always said: what went before is accepted too.
            let accepted: Vec<Outstanding> = self.outstanding.drain(..=position).collect();
            let since = accepted.iter().filter_map(|outstanding| outstanding.since).min();
            for outstanding in accepted {
                self.status.version_acked = outstanding.version;
                for (name, resource) in outstanding.contents {
                    self.acked(&name, resource);
                }
            }
            self.status.acked_at = Some(now.unix);
            self.status.rejected = false;
            return Some(Verdict::Ack(since.map(|since| now.at.saturating_duration_since(since))));
        };
        let outstanding = self.outstanding.remove(position)?;
        let message = quoted(message, MAX_NACK_BYTES);
        let suspects = suspects(&message, outstanding.contents.iter().map(|(name, _)| name));
        let at_fault: HashSet<&Arc<str>> = suspects.iter().collect();
        for (name, resource) in &outstanding.contents {
            self.refused(name, resource.as_ref(), at_fault.contains(name));
        }
        self.status.nacks += 1;
        self.status.rejected = true;
        let resources = suspects.iter().take(MAX_NACK_RESOURCES).cloned().collect();
        self.status.last_nack = Some(Nack { message, version: outstanding.version, resources, at: now.unix });
        Some(Verdict::Nack)
    }

    fn acked(&mut self, name: &Arc<str>, resource: Option<Arc<Resource>>) {
        let Some(held) = self.held.get_mut(name) else { return };
        held.acked = resource.map(Known::Resource);
        held.rejected = None;
        if held.sent.is_none() && held.acked.is_none() {
            self.held.remove(name);
        }
    }

    /// The response that had this was refused. What is not at fault is unconfirmed, and goes once more.
    fn refused(&mut self, name: &Arc<str>, resource: Option<&Arc<Resource>>, suspect: bool) {
        let Some(held) = self.held.get_mut(name) else { return };
        let sent = held.sent.as_ref().map(Known::version);
        if sent != resource.map(|resource| resource.version) {
            // Something newer is on its way already.
            return;
        }
        if suspect {
            held.rejected = sent;
        }
        let acked = held.acked.clone();
        self.set_sent(name, acked);
        if !suspect {
            self.asked.insert(name.clone());
        }
    }

    /// What is due and can go now; none if nothing is to be said.
    pub(super) fn collect(
        &mut self,
        kind: ResourceType,
        now: Now,
        catalog: &dyn Catalog,
        readiness: Readiness,
        others: &Session,
    ) -> Option<Batch> {
        let merging = self.outstanding.back().map(|last| last.sent_at + ACK_PATIENCE > now.at);
        if !self.has_work() || (merging == Some(true) && self.asked.is_empty()) {
            return None;
        }
        if self.subscription.is_wildcard() && readiness == Readiness::Unknown {
            return None;
        }
        let mut batch = Batch { overdue: merging == Some(false), ..Batch::default() };
        let mut names = self.asked.clone();
        if merging != Some(true) {
            names.append(&mut self.dirty);
        }
        if std::mem::take(&mut self.wildcard_due) {
            names.extend(catalog.wildcard(kind));
            // What the client had from before, and is gone.
            names.extend(self.held.keys().cloned());
        }
        let patience_over = self.held_back_since.is_some_and(|since| since + STEP_PATIENCE <= now.at);
        let (mut held_back, mut unknown) = (false, false);
        for name in names {
            self.recognise(kind, &name, catalog);
            let step = self.look(kind, &name, catalog, readiness, others);
            if step.waits && !patience_over {
                held_back = true;
                self.dirty.insert(name);
                continue;
            }
            batch.overdue |= step.waits;
            match step.action {
                Action::Send(resource) => {
                    if !self.asked.contains(&name) {
                        batch.since = batch.since.into_iter().chain([resource.since]).min();
                    }
                    batch.changed.push((name.clone(), resource));
                }
                Action::Remove => batch.removed.push(name.clone()),
                Action::Wait => {
                    unknown = true;
                    continue;
                }
                Action::Nothing => {}
            }
            self.asked.remove(&name);
        }
        self.held_back_since = held_back.then(|| self.held_back_since.unwrap_or(now.at));
        let nothing = batch.changed.is_empty() && batch.removed.is_empty();
        if nothing && (held_back || unknown || !self.answer_due) {
            return None;
        }
        self.answer_due = false;
        Some(batch)
    }

    /// What the client said that it holds is the resource of now, if the versions are equal.
    fn recognise(&mut self, kind: ResourceType, name: &Arc<str>, catalog: &dyn Catalog) {
        let Some(held) = self.held.get_mut(name) else { return };
        let Some(Known::Version(version)) = held.sent else { return };
        if let Some(resource) = catalog.get(kind, name).filter(|resource| resource.version == version) {
            held.sent = Some(Known::Resource(resource.clone()));
            held.acked = Some(Known::Resource(resource));
        }
    }

    /// How one name stands, and what is to be said of it.
    fn look(
        &self,
        kind: ResourceType,
        name: &Arc<str>,
        catalog: &dyn Catalog,
        readiness: Readiness,
        others: &Session,
    ) -> Step {
        let asked = self.asked.contains(name);
        let held = self.held.get(name);
        let sent = held.and_then(|held| held.sent.as_ref()).map(Known::version);
        let named = self.subscription.names().contains(name);
        let wanted = named || (self.subscription.is_wildcard() && catalog.in_wildcard(kind, name));
        let resource = wanted.then(|| catalog.get(kind, name)).flatten();
        let rejected = |resource: &Arc<Resource>| held.and_then(|held| held.rejected) == Some(resource.version);
        // In a partial state of the world absence says nothing, and there is no way to say it.
        let can_remove = others.dialect() == Dialect::Incremental || kind.is_full_set();
        match resource {
            Some(resource) if rejected(&resource) => match held.and_then(|held| held.acked.as_ref()) {
                Some(Known::Resource(acked)) if asked => Step::of(Action::Send(acked.clone())),
                _ => Step::of(Action::Nothing),
            },
            Some(resource) if asked || sent != Some(resource.version) => {
                Step { waits: others.waits_for_clusters(&resource), action: Action::Send(resource) }
            }
            Some(_) => Step::of(Action::Nothing),
            None if readiness < Readiness::Ready && named => Step::of(Action::Wait),
            None if !can_remove => Step::of(Action::Nothing),
            None if sent.is_some() => Step { waits: others.is_in_use(kind, name), action: Action::Remove },
            None if asked => Step::of(Action::Remove),
            None => Step::of(Action::Nothing),
        }
    }

    pub(super) fn send(
        &mut self,
        kind: ResourceType,
        dialect: Dialect,
        nonce: String,
        now: Now,
        batch: Batch,
        catalog: &dyn Catalog,
    ) -> Response {
        let mut contents = Vec::with_capacity(batch.changed.len() + batch.removed.len());
        for (name, resource) in batch.changed {
            self.set_sent(&name, Some(Known::Resource(resource.clone())));
            contents.push((name, Some(resource)));
        }
        for name in batch.removed {
            self.set_sent(&name, None);
            contents.push((name, None));
        }
        let version = Version(self.digest).to_string();
        let chunks = match dialect {
            Dialect::Incremental => response::incremental(kind.type_url(), &version, &nonce, &contents),
            Dialect::StateOfTheWorld => {
                let resources = if kind.is_full_set() { self.full_set(kind, catalog) } else { changed(&contents) };
                response::state_of_the_world(kind.type_url(), &version, &nonce, &resources)
            }
        };
        self.status.version_sent = version.clone();
        self.status.responses += 1;
        self.last_nonce.clone_from(&nonce);
        let outstanding = Outstanding { nonce, version, sent_at: now.at, since: batch.since, contents };
        self.outstanding.push_back(outstanding);
        if self.outstanding.len() > MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        Response { kind: Some(kind), chunks, overdue: batch.overdue }
    }

    /// Everything of a type that the client is to have, in the order of the names: what this response leaves out, the
    /// client deletes.
    fn full_set(&self, kind: ResourceType, catalog: &dyn Catalog) -> Vec<Arc<Resource>> {
        let mut resources: Vec<Arc<Resource>> = self
            .held
            .iter()
            .filter_map(|(name, held)| match held.sent.as_ref()? {
                Known::Resource(resource) => Some(resource.clone()),
                Known::Version(_) => catalog.get(kind, name),
            })
            .collect();
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        resources
    }

    /// State of the world: whether a request answers an earlier response than the last. One without a nonce was sent
    /// before any response came.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        !nonce.is_empty() && nonce != self.last_nonce
    }
}

struct Step {
    action: Action,
    /// It should wait for the ACK of another type.
    waits: bool,
}

impl Step {
    fn of(action: Action) -> Self {
        Self { action, waits: false }
    }
}

enum Action {
    Send(Arc<Resource>),
    Remove,
    Nothing,
    /// It is not known yet whether it exists.
    Wait,
}

fn changed(contents: &[(Arc<str>, Option<Arc<Resource>>)]) -> Vec<Arc<Resource>> {
    contents.iter().filter_map(|(_, resource)| resource.clone()).collect()
}
