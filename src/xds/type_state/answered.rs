//! Taking the client's word on an earlier response: it was accepted, or refused.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::{Contents, Outstanding, TypeState};
use crate::{
    model::{Revision, limits::quoted},
    xds::{
        nack::suspects,
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
                        let kept = contents.into_iter().filter(|(name, _)| follows(name));
                        kept.for_each(|(name, resource)| self.held.accept(&name, resource));
                    }
                }
            }
            self.status.acked_at = Some(now.unix);
            self.status.rejected = false;
            if self.outstanding.is_empty() {
                self.held.settle(self.kind, catalog);
            }
            return Some(Verdict::Ack(since.map(|since| now.at.saturating_duration_since(since))));
        };
        let outstanding = self.outstanding.remove(position)?;
        self.refused(outstanding, message, now);
        Some(Verdict::Nack)
    }

    fn refused(&mut self, outstanding: Outstanding, message: &str, now: Now) {
        let message = quoted(message, MAX_NACK_BYTES);
        let (withdrawn, contents) = match outstanding.contents {
            Contents::Listed(contents) => (false, contents),
            Contents::Full(full) => {
                self.held.withdraw_offer();
                let missing = full.missing.iter().map(|name| (name.clone(), None));
                let sent = full.base.iter().map(|(name, resource)| (name.clone(), Some(resource.clone())));
                (true, sent.chain(missing).collect())
            }
        };
        let suspects = suspects(&message, contents.iter().map(|(name, _)| name));
        let at_fault: HashSet<&Arc<str>> = suspects.iter().collect();
        for (name, resource) in &contents {
            let (version, sent) = (resource.as_ref().map(|resource| resource.version), self.held.sent(name));
            // Something newer may be on its way already, or it is not wanted any more.
            if self.subscription.follows(name)
                && sent.map(|resource| resource.version) == if withdrawn { None } else { version }
            {
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
