//! One type on one stream: what the client has asked for, what it was sent and has ACKed, and what is due. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    full::Full,
    held::{Base, Held},
    nack::{named, suspects},
    protocol::{
        ACK_PATIENCE, Catalog, Dialect, Nack, Now, RESPONSE_BYTES, Readiness, Response, STEP_PATIENCE, TypeStatus,
        Verdict,
    },
    request::text,
    resource::{Resource, Version},
    response::{Absent, Head},
    resume::Claim,
    session::Session,
    subscription::{Changed, Subscription},
};
use crate::model::{ResourceType, Revision, limits::quoted};

/// How many of the resources at fault are kept to be shown.
const MAX_NACK_RESOURCES: usize = 100;
/// What a client says of a refusal is read, kept and shown up to here.
const MAX_NACK_BYTES: usize = 4096;
/// Responses on their way that are remembered one by one. A client that has so many to answer is sent no more until it
/// answers or patience ends; then older ones are remembered together.
const MAX_OUTSTANDING: usize = 8;
/// A type's share of a response's bytes that is not its resources: the head, and keys and lengths.
const ELEMENT_BYTES: usize = 8;

/// What a response changed.
#[derive(Debug)]
enum Contents {
    /// A resource, or its absence.
    Listed(Vec<(Arc<str>, Option<Arc<Resource>>)>),
    /// Everything, to a client that had nothing.
    Full(Arc<Full>),
}

#[derive(Debug)]
struct Outstanding {
    nonce: u64,
    version: Version,
    sent_at: Instant,
    /// When the oldest change in it happened, if it was a change that made it be sent.
    since: Option<Instant>,
    /// Of the oldest change in it.
    revision: Revision,
    contents: Contents,
    /// A full set has beside its changes what went before: of that, what was refused since.
    spoiled: Option<Vec<Arc<str>>>,
}

impl Outstanding {
    fn removed(&self) -> impl Iterator<Item = &Arc<str>> {
        let contents = match &self.contents {
            Contents::Full(_) => &[],
            Contents::Listed(contents) => &contents[..],
        };
        contents.iter().filter(|(_, resource)| resource.is_none()).map(|(name, _)| name)
    }

    /// Remembers an older one with it: whoever accepts this has taken both.
    fn absorb(&mut self, older: Self) {
        let (Contents::Listed(newer), Contents::Listed(older_contents)) = (&mut self.contents, older.contents) else {
            return;
        };
        let known: HashSet<Arc<str>> = newer.iter().map(|(name, _)| name.clone()).collect();
        newer.extend(older_contents.into_iter().filter(|(name, _)| !known.contains(name)));
        self.since = self.since.into_iter().chain(older.since).min();
        self.revision = self.revision.min(older.revision);
    }
}

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

/// What is to be said in one response.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) changed: Vec<(Arc<str>, Arc<Resource>)>,
    /// Everything there is: then nothing stands in `changed` and `removed`.
    pub(super) full: Option<Arc<Full>>,
    removed: Vec<Arc<str>>,
    since: Option<Instant>,
    revision: Option<Revision>,
    overdue: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty() && self.full.is_none()
    }
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
        let named = self.subscription.names().contains(name);
        let unanswered = self.claim.is_some()
            || (self.all_asked && named)
            || (self.wildcard_due && !named)
            || self.asked.contains(name);
        let sent = |outstanding: &&Outstanding| match &outstanding.contents {
            Contents::Full(_) => true,
            Contents::Listed(contents) => contents.iter().any(|(of, _)| **of == *name),
        };
        let outstanding = self.outstanding.iter().filter(sent).map(|outstanding| outstanding.revision).min();
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

    /// Takes the client's word on an earlier response.
    pub(super) fn answered(
        &mut self,
        nonce: &str,
        error: Option<&str>,
        now: Now,
        catalog: &dyn Catalog,
    ) -> Option<Verdict> {
        let nonce: u64 = nonce.parse().ok()?;
        let position = self.outstanding.iter().position(|outstanding| outstanding.nonce == nonce)?;
        let Some(message) = error else {
            // Responses are taken in order, and a refusal is always said: what went before is accepted too.
            let mut since: Option<Instant> = None;
            for outstanding in self.outstanding.drain(..=position) {
                since = since.into_iter().chain(outstanding.since).min();
                self.status.version_acked = Some(outstanding.version);
                // Who has dropped a name meanwhile has thrown away what it was sent.
                let follows = |name: &str| self.subscription.follows(name);
                match outstanding.contents {
                    Contents::Full(_) => self.held.accept_offer(follows),
                    Contents::Listed(contents) => {
                        let kept = contents.into_iter().filter(|(name, resource)| resource.is_none() || follows(name));
                        kept.for_each(|(name, resource)| self.held.accept(&name, resource));
                    }
                }
            }
            self.keep_what_was_dropped_and_named_again();
            self.status.acked_at = Some(now.unix);
            self.status.rejected = false;
            if self.outstanding.is_empty() {
                self.held.settle(self.kind, catalog);
            }
            return Some(Verdict::Ack(since.map(|since| now.at.saturating_duration_since(since))));
        };
        let outstanding = self.outstanding.remove(position)?;
        self.refused(outstanding, message, now, catalog);
        Some(Verdict::Nack)
    }

    /// A name that was dropped and is wanted again, and came by a response that was on its way all the time: the client
    /// has it after all.
    fn keep_what_was_dropped_and_named_again(&mut self) {
        let leaving = self.held.leaving();
        let removed = if leaving.is_empty() { HashSet::new() } else { self.being_removed() };
        for (name, acked) in leaving {
            if !removed.contains(&name) {
                self.held.set_sent(&name, Some(acked));
                self.dirty.entry(name).or_default();
            }
        }
    }

    /// The names whose removal is on its way.
    fn being_removed(&self) -> HashSet<Arc<str>> {
        self.outstanding.iter().flat_map(Outstanding::removed).cloned().collect()
    }

    fn refused(&mut self, outstanding: Outstanding, message: &str, now: Now, catalog: &dyn Catalog) {
        let message = quoted(message, MAX_NACK_BYTES);
        let spoiled = outstanding.spoiled.unwrap_or_default();
        let (withdrawn, contents) = match outstanding.contents {
            Contents::Listed(contents) => (false, contents),
            Contents::Full(full) => {
                self.held.withdraw_offer();
                let missing = full.missing.iter().map(|name| (name.clone(), None));
                let sent = full.base.iter().map(|(name, resource)| (name.clone(), Some(resource.clone())));
                (true, sent.chain(missing).collect())
            }
        };
        let changed = || contents.iter().map(|(name, _)| name);
        let suspects = match named(&message, spoiled.iter()) {
            // It is refused for what another was refused for, which went again with it.
            spoiled if !spoiled.is_empty() && named(&message, changed()).is_empty() => spoiled,
            _ => suspects(&message, changed()),
        };
        for later in self.outstanding.iter_mut().filter(|later| later.nonce > outstanding.nonce) {
            later.spoiled.iter_mut().for_each(|spoiled| spoiled.extend(suspects.iter().cloned()));
        }
        let at_fault: HashSet<&Arc<str>> = suspects.iter().collect();
        for (name, resource) in &contents {
            let (version, sent) = (resource.as_ref().map(|resource| resource.version), self.held.sent(name));
            let named = self.subscription.names().contains(name);
            let by_wildcard = || version.is_none() || catalog.in_wildcard(self.kind, name);
            let wanted = named || (self.subscription.is_wildcard() && by_wildcard());
            // Something newer may be on its way already, or it is not wanted any more.
            if wanted && sent.map(|resource| resource.version) == if withdrawn { None } else { version } {
                self.refused_one(name, version, at_fault.contains(name), outstanding.revision);
            }
        }
        self.status.nacks += 1;
        self.status.rejected = true;
        let resources = suspects.iter().take(MAX_NACK_RESOURCES).cloned().collect();
        let version = outstanding.version.to_string();
        self.status.last_nack = Some(Nack { message, version, resources, at: now.unix });
    }

    /// The response that had this was refused. What is not at fault is unconfirmed, and goes once more.
    fn refused_one(&mut self, name: &Arc<str>, version: Option<Version>, suspect: bool, since: Revision) {
        let acked = self.held.acked(name).cloned();
        if self.held.sent(name).is_some() || acked.is_some() {
            self.held.set_sent(name, acked);
        }
        match version {
            Some(version) if suspect => self.held.reject(name, version, since),
            None if suspect => {}
            _ => {
                self.asked.insert(name.clone());
            }
        }
    }

    /// What is due and can go now; none if nothing is to be said.
    pub(super) fn collect(
        &mut self,
        now: Now,
        catalog: &dyn Catalog,
        readiness: Readiness,
        others: &Session,
    ) -> Option<Batch> {
        let merging = self.outstanding.back().map(|last| last.sent_at + ACK_PATIENCE > now.at);
        let asks = !self.asked.is_empty() || self.all_asked;
        if !self.has_work() || (merging == Some(true) && (!asks || self.outstanding.len() >= MAX_OUTSTANDING)) {
            return None;
        }
        if self.subscription.is_wildcard() && readiness == Readiness::Unknown {
            return None;
        }
        if let Some(full) = self.full(catalog, readiness) {
            match self.claim.take() {
                Some(claim) if claim.is(&full) => {
                    self.is_up_to_date(full.base.clone(), others.dialect());
                    self.heartbeat_soon(now, others);
                }
                Some(claim) => self.claim = Some(claim),
                // The layout has no TTLs.
                None if full.fits() && !(others.hears_ttls() && full.base.has_ttl()) => {
                    return Some(self.take_full(full));
                }
                None => {}
            }
        }
        if let Some(claim) = self.claim.take() {
            self.compare(claim, catalog);
            self.heartbeat_soon(now, others);
        }
        let mut batch = Batch { overdue: merging == Some(false), ..Batch::default() };
        let mut names: BTreeMap<Arc<str>, Revision> =
            self.asked.iter().map(|name| (name.clone(), Revision(0))).collect();
        if std::mem::take(&mut self.all_asked) {
            self.asked.extend(self.subscription.names().iter().cloned());
            names.extend(self.asked.iter().map(|name| (name.clone(), Revision(0))));
        }
        // A full set that goes for what is newly asked for takes the rest along: it would hold it as it was.
        let is_set = others.dialect() == Dialect::StateOfTheWorld && self.kind.is_full_set();
        if merging != Some(true) || is_set {
            for (name, revision) in std::mem::take(&mut self.dirty) {
                names.entry(name).or_insert(revision);
            }
        }
        if std::mem::take(&mut self.wildcard_due) {
            let all = catalog.wildcard(self.kind).into_iter();
            // And what the client had from before, and is gone.
            for name in all.chain(self.held.names()) {
                names.entry(name).or_default();
            }
        }
        let waits = self.look_at_all(names, &mut batch, now, catalog, readiness, others);
        if batch.is_empty() && (waits || !self.answer_due) {
            return None;
        }
        self.answer_due = false;
        Some(batch)
    }

    /// What the wildcard or the names mean, all of it, if that is what is due and the client has nothing yet. Types
    /// whose resources wait for others are looked at one by one.
    fn full(&self, catalog: &dyn Catalog, readiness: Readiness) -> Option<Arc<Full>> {
        let in_one_go = matches!(self.kind, ResourceType::Cluster | ResourceType::Endpoint | ResourceType::Secret)
            || self.claim.is_some();
        let fresh = self.held.is_empty() && self.outstanding.is_empty() && self.asked.is_empty();
        if !in_one_go || !fresh || readiness < Readiness::Ready {
            return None;
        }
        match (self.wildcard_due, self.all_asked) {
            (true, false) => Some(catalog.full(self.kind, None)),
            (false, true) if !self.subscription.is_wildcard() => {
                Some(catalog.full(self.kind, Some(self.subscription.names())))
            }
            _ => None,
        }
    }

    fn take_full(&mut self, full: Arc<Full>) -> Batch {
        self.all_asked = false;
        self.wildcard_due = false;
        self.answer_due = false;
        Batch { full: Some(full), ..Batch::default() }
    }

    /// The client has exactly what there is.
    fn is_up_to_date(&mut self, base: Arc<Base>, dialect: Dialect) {
        // A wildcard wants a first answer, which in the state of the world would have to hold everything.
        self.answer_due &= dialect == Dialect::Incremental;
        let version = Some(Version(base.digest()));
        self.held.adopt(base);
        self.all_asked = false;
        self.wildcard_due = false;
        self.status.version_sent = version;
        self.status.version_acked = version;
    }

    /// Looks at each name that a client says that it has. What it has as it is now is not due.
    fn compare(&mut self, claim: Claim, catalog: &dyn Catalog) {
        let Claim::Versions { versions, .. } = claim else {
            return;
        };
        if std::mem::take(&mut self.all_asked) {
            let claimed: HashSet<&[u8]> = versions.iter().map(|(name, _)| &name[..]).collect();
            let new = self.subscription.names().iter().filter(|name| !claimed.contains(name.as_bytes()));
            self.asked.extend(new.cloned());
        }
        for (name, version) in versions {
            let Some(name) = text(&name).map(Arc::<str>::from) else { continue };
            let now = catalog.get(self.kind, &name);
            let same = now.filter(|resource| resource.version == version);
            let has = same.unwrap_or_else(|| Arc::new(Resource::of_version(self.kind, name.clone(), version)));
            self.held.set_sent(&name, Some(has.clone()));
            self.held.accept(&name, Some(has));
            self.dirty.entry(name).or_default();
        }
        let version = Some(Version(self.held.digest()));
        self.status.version_sent = version;
        self.status.version_acked = version;
    }

    /// Sorts the names into what is said now and what later; true if something waits, or is not known yet.
    fn look_at_all(
        &mut self,
        names: BTreeMap<Arc<str>, Revision>,
        batch: &mut Batch,
        now: Now,
        catalog: &dyn Catalog,
        readiness: Readiness,
        others: &Session,
    ) -> bool {
        let patience_over = self.held_back_since.is_some_and(|since| since + STEP_PATIENCE <= now.at);
        let can_split = others.dialect() == Dialect::Incremental || !self.kind.is_full_set();
        let (mut held_back, mut unknown, mut bytes) = (false, false, 0);
        for (name, revision) in names {
            let step = self.look(&name, catalog, readiness, others);
            if step.waits && !patience_over {
                held_back = true;
                self.mark_dirty(name, revision);
                continue;
            }
            batch.overdue |= step.waits;
            if self.is_obsolete(&name, &step.action) {
                self.held.forgive(&name);
            }
            let size = match &step.action {
                Action::Send(resource) | Action::StandIn(resource) => resource.incremental().len(),
                Action::Remove => name.len() + ELEMENT_BYTES,
                Action::Wait => {
                    unknown = true;
                    continue;
                }
                Action::Nothing | Action::Refused => {
                    self.asked.remove(&name);
                    continue;
                }
            };
            bytes += size;
            if can_split && bytes > RESPONSE_BYTES && bytes > size {
                // The rest goes in responses of its own, at once.
                self.asked.insert(name);
                continue;
            }
            if let Action::Send(resource) | Action::StandIn(resource) = step.action {
                if !self.asked.contains(&name) {
                    batch.since = batch.since.into_iter().chain([resource.since]).min();
                }
                batch.changed.push((name.clone(), resource));
            } else {
                batch.removed.push(name.clone());
            }
            batch.revision = batch.revision.into_iter().chain([revision]).min();
            self.asked.remove(&name);
        }
        self.held_back_since = held_back.then(|| self.held_back_since.unwrap_or(now.at));
        held_back || unknown
    }

    /// Whether what the client refused of a name is no matter any more: it is gone, or is again what the client has.
    fn is_obsolete(&self, name: &str, action: &Action) -> bool {
        match action {
            Action::Nothing => true,
            Action::Send(resource) => self.held.acked(name).is_some_and(|acked| acked.version == resource.version),
            _ => false,
        }
    }

    /// How one name stands, and what is to be said of it.
    fn look(&self, name: &Arc<str>, catalog: &dyn Catalog, readiness: Readiness, others: &Session) -> Step {
        let kind = self.kind;
        let asked = self.asked.contains(name);
        let sent = self.held.sent(name).map(|resource| resource.version);
        let named = self.subscription.names().contains(name);
        let wanted = named || (self.subscription.is_wildcard() && catalog.in_wildcard(kind, name));
        let resource = wanted.then(|| catalog.get(kind, name)).flatten();
        // In a partial state of the world absence says nothing; only errors can say it.
        let in_set = others.dialect() == Dialect::Incremental || kind.is_full_set();
        let can_remove = in_set || (named && others.features().resource_errors);
        match resource {
            Some(resource) if self.held.rejected(name).is_some_and(|(version, _)| version == resource.version) => {
                match self.held.acked(name) {
                    Some(acked) if asked && acked.is_known() => Step::of(Action::StandIn(acked.clone())),
                    _ => Step::of(Action::Refused),
                }
            }
            Some(resource) if asked || sent != Some(resource.version) => {
                Step { waits: others.waits_for_clusters(&resource), action: Action::Send(resource) }
            }
            Some(_) => Step::of(Action::Nothing),
            None if readiness < Readiness::Ready && named => Step::of(Action::Wait),
            None if !can_remove => Step::of(Action::Nothing),
            // Envoy would take it from its filters at once, and fail their requests: it goes when nobody names it.
            None if kind == ResourceType::ExtensionConfig && sent.is_some() && !asked => Step::of(Action::Nothing),
            // What the client asks about, or has dropped itself, is answered at once.
            None if sent.is_some() => Step { waits: !asked && others.is_in_use(kind, name), action: Action::Remove },
            None if asked => Step::of(Action::Remove),
            None => Step::of(Action::Nothing),
        }
    }

    pub(super) fn send(
        &mut self,
        nonce: u64,
        now: Now,
        batch: Batch,
        others: &Session,
        catalog: &dyn Catalog,
    ) -> Response {
        let Batch { changed, full, removed, since, revision, overdue } = batch;
        let absent = self.absent(full.as_ref().map_or(&removed, |full| &full.missing));
        let contents = match full {
            Some(full) => {
                self.held.offer(full.base.clone());
                Contents::Full(full)
            }
            None => Contents::Listed(self.set_sent(changed, removed)),
        };
        let version = Version(self.held.digest());
        let head = self.head(nonce, version, others);
        let is_set = head.dialect == Dialect::StateOfTheWorld && self.kind.is_full_set();
        let chunks = match &contents {
            Contents::Full(full) => head.respond_full(full, &absent),
            Contents::Listed(_) if is_set => head.respond(self.full_set(catalog).iter(), &absent),
            Contents::Listed(contents) => {
                head.respond(contents.iter().filter_map(|(_, resource)| resource.as_ref()), &absent)
            }
        };
        self.status.version_sent = Some(version);
        self.status.responses += 1;
        self.last_nonce = nonce;
        self.schedule_heartbeat(&contents, now, others);
        let revision = revision.unwrap_or_default();
        let spoiled = is_set.then(Vec::new);
        self.remember(Outstanding { nonce, version, sent_at: now.at, since, revision, contents, spoiled });
        Response { kind: Some(self.kind), chunks, overdue }
    }

    fn remember(&mut self, outstanding: Outstanding) {
        self.outstanding.push_back(outstanding);
        if self.outstanding.len() <= MAX_OUTSTANDING {
            return;
        }
        // One that holds everything is the first, and stays by itself.
        let oldest =
            usize::from(self.outstanding.front().is_some_and(|first| matches!(first.contents, Contents::Full(_))));
        if let Some(older) = self.outstanding.remove(oldest)
            && let Some(next) = self.outstanding.get_mut(oldest)
        {
            next.absorb(older);
        }
    }

    /// What is to be said of names of which there is nothing. Before these are taken for sent.
    fn absent(&self, names: &[Arc<str>]) -> Vec<Absent> {
        let absent = |name: &Arc<str>| Absent {
            name: name.clone(),
            named: self.subscription.names().contains(name),
            held: self.has_sent(name),
        };
        names.iter().map(absent).collect()
    }

    fn set_sent(
        &mut self,
        changed: Vec<(Arc<str>, Arc<Resource>)>,
        removed: Vec<Arc<str>>,
    ) -> Vec<(Arc<str>, Option<Arc<Resource>>)> {
        let changed = changed.into_iter().map(|(name, resource)| (name, Some(resource)));
        let contents: Vec<_> = changed.chain(removed.into_iter().map(|name| (name, None))).collect();
        let come_back = contents.iter().any(|(name, resource)| resource.is_some() && self.held.is_leaving(name));
        let removed = if come_back { self.being_removed() } else { HashSet::new() };
        for (name, resource) in &contents {
            if resource.is_some() && removed.contains(name) {
                self.held.return_to(name);
            }
            self.held.set_sent(name, resource.clone());
        }
        contents
    }

    fn head(&self, nonce: u64, version: Version, others: &Session) -> Head<'static> {
        let (dialect, features) = (others.dialect(), others.features());
        Head { dialect, features, type_url: self.kind.type_url(), version, nonce }
    }

    /// Everything of a type that the client is to have, in the order of the names: what this response leaves out, the
    /// client deletes.
    fn full_set(&self, catalog: &dyn Catalog) -> Vec<Arc<Resource>> {
        let sent = |name: &Arc<str>| {
            let sent = self.held.sent(name)?;
            if sent.is_known() { Some(sent.clone()) } else { catalog.get(self.kind, name) }
        };
        self.held.names().iter().filter_map(sent).collect()
    }

    /// Of resources with a TTL the client hears again after half of it.
    fn schedule_heartbeat(&mut self, contents: &Contents, now: Now, others: &Session) {
        if !others.hears_ttls() {
            return;
        }
        let ttl = match contents {
            Contents::Full(full) => full.base.iter().filter_map(|(_, resource)| resource.ttl).min(),
            Contents::Listed(contents) => contents.iter().filter_map(|(_, resource)| resource.as_ref()?.ttl).min(),
        };
        let at = ttl.map(|ttl| now.at + ttl / 2);
        self.heartbeat_at = self.heartbeat_at.into_iter().chain(at).min();
    }

    /// How long a client that has come back has not heard of what it has is not known: it hears at once.
    fn heartbeat_soon(&mut self, now: Now, others: &Session) {
        if others.hears_ttls() && self.held.has_ttl() {
            self.heartbeat_at = Some(now.at);
        }
    }

    /// The heartbeat that is due. It changes nothing, and is not waited for.
    pub(super) fn heartbeat(&mut self, nonce: u64, now: Now, others: &Session) -> Option<Response> {
        self.heartbeat_at.filter(|at| *at <= now.at)?;
        let names = self.held.names();
        let kept = |name: &Arc<str>| self.held.sent(name).filter(|resource| resource.ttl.is_some()).cloned();
        let resources: Vec<Arc<Resource>> = names.iter().filter_map(kept).collect();
        let ttl = resources.iter().filter_map(|resource| resource.ttl).min();
        self.heartbeat_at = ttl.map(|ttl| now.at + ttl / 2);
        if resources.is_empty() {
            return None;
        }
        let head = self.head(nonce, Version(self.held.digest()), others);
        let chunks = head.heartbeat(resources.iter().map(|resource| &**resource));
        Some(Response { kind: Some(self.kind), chunks, overdue: false })
    }

    /// State of the world: whether a request answers an earlier response than the last. One without a nonce was sent
    /// before any response came; and before there was one a nonce is that of another stream, which means nothing.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        self.last_nonce > 0 && !nonce.is_empty() && nonce.parse() != Ok(self.last_nonce)
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
    /// What was accepted before goes in place of what was refused.
    StandIn(Arc<Resource>),
    Remove,
    Nothing,
    /// The same was refused.
    Refused,
    /// It is not known yet whether it exists.
    Wait,
}
