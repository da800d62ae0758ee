//! One type on one stream: what the client has asked for, what it was sent and has ACKed, and what is due. Pure.

mod answered;
mod due;
mod sending;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

pub(super) use self::due::Batch;
use self::sending::{Contents, Outstanding};
use super::{
    held::Held,
    protocol::{ACK_PATIENCE, Catalog, Dialect, Now, STEP_PATIENCE, TypeStatus},
    resource::Resource,
    resume::Claim,
    subscription::{Changed, Subscription},
};
use crate::model::{ResourceType, Revision};

#[derive(Debug)]
pub(super) struct TypeState {
    pub(super) kind: ResourceType,
    pub(super) subscription: Subscription,
    held: Held,
    /// May have changed, and since which revision.
    dirty: BTreeMap<Arc<str>, Revision>,
    /// Must be answered even if they have not changed.
    asked: BTreeSet<Arc<str>>,
    /// So must all names that are subscribed to.
    all_asked: bool,
    /// All of the wildcard is due.
    wildcard_due: bool,
    /// An answer is due even if there is nothing to say.
    answer_due: bool,
    /// What a client that came back says that it has, until it is compared with what there is.
    claim: Option<Claim>,
    outstanding: VecDeque<Outstanding>,
    last_nonce: u64,
    /// Since when a step waits for another type's ACK.
    held_back_since: Option<Instant>,
    /// When the client has to hear of what it may not keep for ever.
    heartbeat_at: Option<Instant>,
    status: TypeStatus,
}

impl TypeState {
    pub(super) fn new(kind: ResourceType) -> Self {
        Self {
            kind,
            subscription: Subscription::default(),
            held: Held::default(),
            dirty: BTreeMap::new(),
            asked: BTreeSet::new(),
            all_asked: false,
            wildcard_due: false,
            answer_due: false,
            claim: None,
            outstanding: VecDeque::new(),
            last_nonce: 0,
            held_back_since: None,
            heartbeat_at: None,
            status: TypeStatus::default(),
        }
    }

    pub(super) fn names(&self) -> usize {
        self.subscription.names().len()
    }

    pub(super) fn held(&self) -> &Held {
        &self.held
    }

    pub(super) fn status(&self) -> TypeStatus {
        TypeStatus {
            wildcard: self.subscription.is_wildcard(),
            subscribed: self.names(),
            pending: !self.outstanding.is_empty(),
            behind: self.behind(),
            ..self.status.clone()
        }
    }

    /// The revision of the oldest change that the client has not accepted; zero if it has yet to be told anything.
    pub(super) fn behind(&self) -> Option<Revision> {
        let unanswered = self.all_asked || self.wildcard_due || !self.asked.is_empty() || self.claim.is_some();
        let unanswered = unanswered.then_some(Revision(0));
        let dirty = self.dirty.values().min().copied();
        let outstanding = self.outstanding.iter().map(|outstanding| outstanding.revision).min();
        unanswered.into_iter().chain(dirty).chain(outstanding).chain(self.held.rejected_since()).min()
    }

    /// The same for one name; and whether it was refused.
    pub(super) fn behind_on(&self, name: &str) -> Option<(Revision, bool)> {
        let sent = |outstanding: &&Outstanding| match &outstanding.contents {
            Contents::Full(_) => true,
            Contents::Listed(contents) => contents.iter().any(|(of, _)| **of == *name),
        };
        self.behind_with(name, self.outstanding.iter().filter(sent).map(|outstanding| outstanding.revision).min())
    }

    /// As `behind_on`, for many names: what is under way is looked through once.
    pub(super) fn behind_on_each(&self, names: Vec<Arc<str>>) -> impl Iterator<Item = (Arc<str>, bool)> {
        let mut of_all: Option<Revision> = None;
        let mut listed: HashMap<Arc<str>, Revision> = HashMap::new();
        for outstanding in &self.outstanding {
            match &outstanding.contents {
                Contents::Full(_) => of_all = of_all.into_iter().chain([outstanding.revision]).min(),
                Contents::Listed(contents) => {
                    for (name, _) in contents {
                        let oldest = listed.entry(name.clone()).or_insert(outstanding.revision);
                        *oldest = outstanding.revision.min(*oldest);
                    }
                }
            }
        }
        names.into_iter().filter_map(move |name| {
            let outstanding = of_all.into_iter().chain(listed.get(&name).copied()).min();
            let (_, rejected) = self.behind_with(&name, outstanding)?;
            Some((name, rejected))
        })
    }

    fn behind_with(&self, name: &str, outstanding: Option<Revision>) -> Option<(Revision, bool)> {
        let named = self.subscription.names().contains(name);
        let unanswered = self.claim.is_some()
            || (self.all_asked && named)
            || (self.wildcard_due && !named)
            || self.asked.contains(name);
        let dirty = self.dirty.get(name).copied();
        let pending = unanswered.then_some(Revision(0)).into_iter().chain(dirty).chain(outstanding).min();
        // A newer content of what was refused may be accepted.
        let rejected = || self.held.rejected(name).map(|(_, since)| (since, true));
        pending.map(|revision| (revision, false)).or_else(rejected)
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// How many names the stream keeps for itself, and shares with nobody.
    pub(super) fn own_names(&self) -> usize {
        let shared = Arc::strong_count(self.subscription.names()) > 1;
        let subscribed = if shared { 0 } else { self.names() };
        subscribed + self.held.own() + self.dirty.len() + self.asked.len()
    }

    fn has_work(&self) -> bool {
        self.wildcard_due || self.all_asked || self.answer_due || !self.dirty.is_empty() || !self.asked.is_empty()
    }

    /// When patience ends that has not ended yet: what could go now, has gone.
    pub(super) fn deadline(&self, now: Now) -> Option<Instant> {
        let heartbeat = self.heartbeat_at;
        if !self.has_work() {
            return heartbeat;
        }
        let ack = self.outstanding.back().map(|outstanding| outstanding.sent_at + ACK_PATIENCE);
        let step = self.held_back_since.map(|since| since + STEP_PATIENCE);
        ack.into_iter().chain(step).filter(|at| *at > now.at).chain(heartbeat).min()
    }

    pub(super) fn mark_dirty(&mut self, name: Arc<str>, revision: Revision) {
        self.dirty.entry(name).or_insert(revision);
    }

    /// What the client follows is due once more, changed or not.
    pub(super) fn ask_again(&mut self, name: &Arc<str>) {
        if self.subscription.names().contains(name) {
            self.asked.insert(name.clone());
        }
    }

    /// Whether all names are about to be answered anyway.
    pub(super) fn asks_all(&self) -> bool {
        self.all_asked && self.claim.is_none()
    }

    /// All hosts of a route configuration that the client follows.
    pub(super) fn ask_hosts_of(&mut self, route: &str) {
        let of_route = |name: &&Arc<str>| name.strip_prefix(route).is_some_and(|host| host.starts_with('/'));
        self.asked.extend(self.subscription.names().iter().filter(of_route).cloned());
    }

    /// What was refused is tried once more.
    pub(super) fn retry(&mut self) -> usize {
        let refused = self.held.pardon();
        let count = refused.len();
        self.asked.extend(refused);
        count
    }

    /// Whether the client has it, and it is not on its way out.
    pub(super) fn has_acked(&self, name: &str) -> bool {
        self.held.has(name)
    }

    pub(super) fn has_sent(&self, name: &str) -> bool {
        self.held.sent(name).is_some()
    }

    /// What the client's request changed of the subscription.
    pub(super) fn subscribe(&mut self, changed: &Changed, dialect: Dialect, catalog: &dyn Catalog) {
        if changed.wildcard_ended || !changed.removed.is_empty() {
            // It has thrown away what it dropped, even if it asks for that again in a moment.
            self.claim = self.claim.take().and_then(|claim| claim.kept(&self.subscription));
        }
        for name in &changed.removed {
            self.asked.remove(name);
            if !self.subscription.is_wildcard() {
                self.forget(name);
                continue;
            }
            let stays = catalog.in_wildcard(self.kind, name);
            if !stays {
                self.held.forgive(name);
            }
            // How it stands now is to be said; in the state of the world the full set says it, if that is another.
            if stays && dialect == Dialect::StateOfTheWorld {
                self.dirty.entry(name.clone()).or_default();
            } else {
                self.asked.insert(name.clone());
            }
        }
        if changed.wildcard_ended {
            let kept = self.subscription.names().clone();
            self.wildcard_due = false;
            self.answer_due = false;
            self.asked.retain(|name| kept.contains(name));
            self.dirty.retain(|name, _| kept.contains(name));
            let gone = self.held.names().into_iter().filter(|name| !kept.contains(name));
            gone.for_each(|name| self.forget(&name));
        }
        if changed.wildcard_began {
            self.wildcard_due = true;
            self.answer_due = true;
        }
        self.all_asked |= changed.all_new;
        self.asked.extend(changed.added.iter().cloned());
        // Whoever asks for a set wants to be told even that it is empty.
        let named = changed.all_new || !changed.added.is_empty();
        self.answer_due |= dialect == Dialect::StateOfTheWorld && self.kind.is_full_set() && named;
    }

    /// A client that has come back says what it has.
    pub(super) fn claims(&mut self, claim: Claim) {
        self.claim = Some(claim);
    }

    fn forget(&mut self, name: &Arc<str>) {
        self.held.forget(name);
        self.dirty.remove(name);
    }

    /// Whether a route or listener that the client has, or was sent, leads to a cluster.
    pub(super) fn leads_to(&self, cluster: &Arc<str>) -> bool {
        let leads = |resource: Option<&Arc<Resource>>| match resource {
            // Of an earlier stream, and another than now: it may.
            Some(resource) => !resource.is_known() || resource.clusters.contains(cluster),
            None => false,
        };
        // What it says that it has has yet to be looked at.
        self.claim.is_some()
            || self.held.names().iter().any(|name| leads(self.held.sent(name)) || leads(self.held.acked(name)))
    }

    /// State of the world: whether a request answers an earlier response than the last. One without a nonce was sent
    /// before any response came; and before there was one a nonce is that of another stream, which means nothing.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        self.last_nonce > 0 && !nonce.is_empty() && nonce.parse() != Ok(self.last_nonce)
    }
}
