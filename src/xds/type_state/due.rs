//! What is due, and how each name stands: what is said of it now, later, or not at all.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{TypeState, sending::MAX_OUTSTANDING};
use crate::{
    model::{ResourceType, Revision},
    xds::{
        full::Full,
        held::Base,
        protocol::{ACK_PATIENCE, Catalog, Dialect, Now, RESPONSE_BYTES, Readiness, STEP_PATIENCE},
        request::text,
        resource::{Resource, Version},
        resume::Claim,
        session::Session,
    },
};

/// A type's share of a response's bytes that is not its resources: the head, and keys and lengths.
const ELEMENT_BYTES: usize = 8;

/// What is to be said in one response.
#[derive(Default)]
pub(in crate::xds) struct Batch {
    pub(in crate::xds) changed: Vec<(Arc<str>, Arc<Resource>)>,
    /// Everything there is: then nothing stands in `changed` and `removed`.
    pub(in crate::xds) full: Option<Arc<Full>>,
    pub(in crate::xds) removed: Vec<Arc<str>>,
    pub(super) since: Option<Instant>,
    pub(super) revision: Option<Revision>,
    pub(super) overdue: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty() && self.full.is_none()
    }
}

impl TypeState {
    /// What is due and can go now; none if nothing is to be said.
    pub(in crate::xds) fn collect(
        &mut self,
        now: Now,
        catalog: &dyn Catalog,
        readiness: Readiness,
        others: &Session,
    ) -> Option<Batch> {
        let merging = self.outstanding.back().map(|last| last.sent_at + ACK_PATIENCE > now.at);
        if !self.has_work() {
            // What was held back has been dropped.
            self.held_back_since = None;
            return None;
        }
        let asks = !self.asked.is_empty() || self.all_asked;
        if merging == Some(true) && (!asks || self.outstanding.len() >= MAX_OUTSTANDING) {
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
            if self.held.rejected(&name).is_some() {
                self.absolve(&name, catalog);
            }
            let step = self.look(&name, catalog, readiness, others);
            if step.waits && !patience_over {
                held_back = true;
                self.mark_dirty(name, revision);
                continue;
            }
            batch.overdue |= step.waits;
            let size = match &step.action {
                Action::Send(resource) => resource.incremental().len(),
                Action::Remove => name.len() + ELEMENT_BYTES,
                Action::Wait => {
                    unknown = true;
                    self.mark_dirty(name, revision);
                    continue;
                }
                Action::Nothing => {
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
            if let Action::Send(resource) = step.action {
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

    /// What the client is to have under a name.
    fn wanted(&self, name: &Arc<str>, catalog: &dyn Catalog) -> Option<Arc<Resource>> {
        let named = self.subscription.names().contains(name);
        let wanted = named || (self.subscription.is_wildcard() && catalog.in_wildcard(self.kind, name));
        wanted.then(|| catalog.get(self.kind, name)).flatten()
    }

    /// A refusal is over when what was refused has been taken back.
    fn absolve(&mut self, name: &Arc<str>, catalog: &dyn Catalog) {
        let now = self.wanted(name, catalog).map(|resource| resource.version);
        self.held.absolve(name, now);
        self.status.rejected &= self.held.rejected_since().is_some();
    }

    /// How one name stands, and what is to be said of it.
    fn look(&self, name: &Arc<str>, catalog: &dyn Catalog, readiness: Readiness, others: &Session) -> Step {
        let kind = self.kind;
        let asked = self.asked.contains(name);
        let sent = self.held.sent(name).map(|resource| resource.version);
        let named = self.subscription.names().contains(name);
        let resource = self.wanted(name, catalog);
        // In a partial state of the world absence says nothing; only errors can say it.
        let in_set = others.dialect() == Dialect::Incremental || kind.is_full_set();
        let can_remove = in_set || (named && others.features().resource_errors);
        match resource {
            Some(resource) if self.held.rejected(name).is_some_and(|(version, _)| version == resource.version) => {
                match self.held.acked(name) {
                    Some(acked) if asked && acked.is_known() => Step::of(Action::Send(acked.clone())),
                    _ => Step::of(Action::Nothing),
                }
            }
            Some(resource) if asked || sent != Some(resource.version) => {
                Step { waits: others.waits_for_clusters(&resource, catalog), action: Action::Send(resource) }
            }
            Some(_) => Step::of(Action::Nothing),
            None if readiness < Readiness::Ready && named => Step::of(Action::Wait),
            // Nothing can be said, and the client has it until what leads to it has gone.
            None if !can_remove => {
                Step { waits: sent.is_some() && others.is_in_use(kind, name), action: Action::Nothing }
            }
            // Envoy would take it from its filters at once, and fail their requests: it goes when nobody names it.
            None if kind == ResourceType::ExtensionConfig && sent.is_some() && !asked => Step::of(Action::Nothing),
            // What the client asks about, or has dropped itself, is answered at once.
            None if sent.is_some() => Step { waits: !asked && others.is_in_use(kind, name), action: Action::Remove },
            None if asked => Step::of(Action::Remove),
            None => Step::of(Action::Nothing),
        }
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
