//! An agent of the one Convoy: it says what it is, says it again when it is told to, and changes what it says.

use std::{net::IpAddr, sync::Arc, time::Duration};

use convoy::{
    model::{Incarnation, InstanceKey, InstanceSpec, LeaseId, parse},
    registry::{
        Held, Registry,
        command::{Error, Outcome},
        lease::Known,
    },
};
use tokio::time::Instant;

use super::TTL;
use crate::{
    agents::spec,
    mesh::{Call, call},
};

pub type Registered = Result<(Outcome, Held), Error>;

pub struct Agent {
    pub key: InstanceKey,
    pub host: u8,
    pub incarnation: u64,
    /// The last incarnation that deregistered, and was told so.
    pub fenced: u64,
    pub running: bool,
    pub cut_off: Option<Instant>,
    pub weight: u16,
    pub lease: Option<LeaseId>,
    /// What was acknowledged last of what it said.
    pub known: Option<Known>,
    pub registering: Option<Call<Registered>>,
    /// Every heartbeat since it registered has been answered, or nobody was there.
    pub is_heard: bool,
    /// The Convoy that is there has been told of it.
    pub has_returned: bool,
    /// An answer to what it said has been lost: what stands is not known.
    pub is_doubtful: bool,
    pub last_heard: Instant,
    pub next: Instant,
}

impl Agent {
    pub fn new(number: usize) -> Self {
        Self {
            key: parse::instance_key("", ["web", "api"][number % 2], &number.to_string()).expect("a key"),
            host: u8::try_from(number).expect("few") + 1,
            incarnation: 1,
            fenced: 0,
            running: true,
            cut_off: None,
            weight: 100,
            lease: None,
            known: None,
            registering: None,
            is_heard: false,
            has_returned: false,
            is_doubtful: false,
            last_heard: Instant::now(),
            next: Instant::now(),
        }
    }

    pub fn address(&self) -> IpAddr {
        [10, 0, 0, self.host].into()
    }

    pub fn spec(&self) -> InstanceSpec {
        InstanceSpec { weight: self.weight, ..InstanceSpec::clone(&spec(self.host)) }
    }

    /// As another process.
    pub fn start_again(&mut self) {
        let (key, last_heard) = (self.key.clone(), self.last_heard);
        let (host, incarnation, fenced) = (self.host, self.incarnation + 1, self.fenced);
        *self = Self { key, host, incarnation, fenced, last_heard, ..Self::new(0) };
    }

    /// It is there, and nothing has kept it from being heard.
    pub fn is_alive(&self) -> bool {
        self.running && self.is_heard
    }

    /// What stands is what it said.
    pub fn is_settled(&self) -> bool {
        self.is_alive() && self.has_returned && self.registering.is_none() && !self.is_doubtful
    }

    /// Says what it is, under its lease if it has one.
    pub fn register(&mut self, registry: &Registry) {
        let (registry, lease, instances) =
            (registry.clone(), self.lease, vec![(self.key.clone(), Arc::new(self.spec()))]);
        let incarnation = Some(Incarnation(self.incarnation));
        let said = async move { registry.register(lease, Some(TTL), incarnation, instances).await };
        self.registering = Some(call(said));
    }

    /// What came of that; nothing if nobody answered in time.
    pub fn registered(&mut self, answer: Option<Registered>) {
        let now = Instant::now();
        match answer {
            Some(Ok((outcome, held))) => {
                self.known = Some(Known { digest: outcome.digest, revision: outcome.revision });
                (self.lease, self.last_heard, self.next) = (Some(held.lease), now, now + held.heartbeat_interval);
                (self.is_heard, self.has_returned, self.is_doubtful) = (true, true, false);
            }
            Some(Err(Error::LeaseNotFound { .. } | Error::LeaseIncarnation { .. })) => {
                (self.lease, self.known, self.next) = (None, None, now);
            }
            Some(Err(error @ (Error::Fenced { .. } | Error::OlderIncarnation { .. }))) => {
                panic!("{} of {} is refused: {error}", self.key, self.incarnation)
            }
            _ => (self.is_doubtful, self.next) = (true, now + Duration::from_millis(200)),
        }
    }
}
