//! An agent of the mesh: it registers, and heartbeats where it is told to.

use std::{net::IpAddr, time::Duration};

use convoy::{
    model::{InstanceKey, LeaseId, ReplicaId, parse},
    registry::{
        Held,
        command::{Error, Outcome},
    },
};
use tokio::time::Instant;

use super::{Call, PASSED_ON, REPLICAS, TTL};

pub type Registered = Result<(Outcome, Held), Error>;

pub struct Agent {
    pub key: InstanceKey,
    pub host: u8,
    pub incarnation: u64,
    /// The last incarnation that deregistered.
    pub fenced: u64,
    pub lease: Option<LeaseId>,
    pub running: bool,
    pub drains: bool,
    /// Its drain is over: it deregisters as soon as somebody answers.
    pub leaves: bool,
    /// By which replica.
    pub registering: Option<(ReplicaId, Call<Registered>)>,
    pub at: usize,
    pub next: Instant,
    /// Heartbeats and registrations that were answered: when, by whom, and whether it was a write.
    pub beats: Vec<(Instant, ReplicaId, bool)>,
    /// The last one that was passed on, as far as its lease held until then.
    passed_on: Option<Instant>,
    /// The same, of one that came in time: its lease held long enough for it to be passed on.
    pub heard: Option<Instant>,
}

impl Agent {
    pub fn new(number: usize) -> Self {
        Self {
            key: parse::instance_key("", ["web", "api"][number % 2], &number.to_string()).expect("a key"),
            host: u8::try_from(number).expect("few") + 1,
            incarnation: 1,
            fenced: 0,
            lease: None,
            running: true,
            drains: false,
            leaves: false,
            registering: None,
            at: number % REPLICAS,
            next: Instant::now(),
            beats: Vec::new(),
            passed_on: None,
            heard: None,
        }
    }

    pub fn address(&self) -> IpAddr {
        [10, 0, 0, self.host].into()
    }

    /// As another process.
    pub fn start_again(&mut self) {
        *self = Self {
            key: self.key.clone(),
            host: self.host,
            incarnation: self.incarnation + 1,
            fenced: self.fenced,
            at: self.at,
            ..Self::new(0)
        };
    }

    /// What came of its registration; nothing if nobody answered in time.
    pub fn registered(&mut self, by: ReplicaId, answer: Option<Registered>) {
        let now = Instant::now();
        match answer {
            Some(Ok((_, held))) => {
                (self.lease, self.next) = (Some(held.lease), now + held.heartbeat_interval);
                self.beats.push((now, by, true));
            }
            Some(Err(Error::Fenced { .. })) => {
                // Its deregistration was not answered, and has happened.
                (self.incarnation, self.lease, self.next) = (self.incarnation + 1, None, now);
            }
            _ => (self.at, self.next) = ((self.at + 1) % REPLICAS, now + Duration::from_millis(200)),
        }
    }

    /// Takes in which of its heartbeats have been passed on by now.
    pub fn look_back(&mut self, went_on: impl Fn(ReplicaId, Instant) -> bool) {
        let now = Instant::now();
        let (due, rest): (Vec<_>, Vec<_>) = self.beats.drain(..).partition(|(at, ..)| now > *at + PASSED_ON);
        self.beats = rest;
        for (at, _, is_write) in due.into_iter().filter(|(at, by, _)| went_on(*by, *at)) {
            let in_time = self.passed_on.is_some_and(|before| at < before + (TTL - PASSED_ON));
            if in_time || is_write {
                self.heard = Some(at);
            }
            self.passed_on = Some(at);
        }
    }
}
