//! Taking the client's word on an earlier response: it was accepted, or refused.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::{Contents, Outstanding, TypeState};
use crate::{
    model::{Revision, limits::quoted},
    xds::{
        nack::{named, suspects},
        protocol::{Catalog, Nack, Now, Verdict},
        resource::Version,
    },
};

/// How many of the resources at fault are kept to be shown.
const MAX_NACK_RESOURCES: usize = 100;
/// What a client says of a refusal is read, kept and shown up to here.
const MAX_NACK_BYTES: usize = 4096;

impl TypeState {
    /// Takes the client's word on an earlier response.
    pub(in crate::xds) fn answered(
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
}
