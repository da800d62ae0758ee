//! Sending what is due: what was sent is remembered until the client has answered, and laid out.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::{Batch, TypeState};
use crate::{
    model::Revision,
    xds::{
        full::Full,
        protocol::{Catalog, Dialect, Now, Response},
        resource::{Resource, Version},
        response::{Absent, Head},
        session::Session,
    },
};

/// Responses on their way that are remembered one by one. A client that has so many to answer is sent no more until it
/// answers or patience ends; then older ones are remembered together.
pub(super) const MAX_OUTSTANDING: usize = 8;

/// What a response changed.
#[derive(Debug)]
pub(super) enum Contents {
    /// A resource, or its absence.
    Listed(Vec<(Arc<str>, Option<Arc<Resource>>)>),
    /// Everything, to a client that had nothing.
    Full(Arc<Full>),
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) nonce: u64,
    pub(super) version: Version,
    pub(super) sent_at: Instant,
    /// When the oldest change in it happened, if it was a change that made it be sent.
    pub(super) since: Option<Instant>,
    /// Of the oldest change in it.
    pub(super) revision: Revision,
    pub(super) contents: Contents,
    /// A full set has beside its changes what went before: of that, what was refused since.
    pub(super) spoiled: Option<Vec<Arc<str>>>,
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

impl TypeState {
    pub(in crate::xds) fn send(
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

    /// The names whose removal is on its way.
    pub(super) fn being_removed(&self) -> HashSet<Arc<str>> {
        self.outstanding.iter().flat_map(Outstanding::removed).cloned().collect()
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

    pub(super) fn set_sent(
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
    pub(super) fn heartbeat_soon(&mut self, now: Now, others: &Session) {
        if others.hears_ttls() && self.held.has_ttl() {
            self.heartbeat_at = Some(now.at);
        }
    }

    /// The heartbeat that is due. It changes nothing, and is not waited for.
    pub(in crate::xds) fn heartbeat(&mut self, nonce: u64, now: Now, others: &Session) -> Option<Response> {
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
}
