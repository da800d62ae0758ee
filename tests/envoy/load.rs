//! Load: an application that asks its sidecar for a service, over several connections, and remembers every answer.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use crate::{http::Connection, wait::until};

/// No answer for so long is a failed request.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// One request.
#[derive(Clone, Debug)]
pub struct Sample {
    pub begun: Instant,
    pub ended: Instant,
    /// Who answered, or what went wrong.
    pub outcome: Result<String, String>,
}

/// What is asked, and how often.
#[derive(Clone, Copy)]
pub struct Plan {
    pub host: &'static str,
    pub connections: u32,
    /// Each connection sends a request so often, or when the one before is answered.
    pub every: Duration,
}

pub struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    tasks: JoinSet<()>,
}

impl Load {
    pub fn start(server: SocketAddr, plan: Plan) -> Self {
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let mut tasks = JoinSet::new();
        for _ in 0..plan.connections {
            tasks.spawn(ask(server, plan, samples.clone()));
        }
        Self { samples, tasks }
    }

    pub fn count(&self) -> usize {
        self.samples.lock().expect("nobody panics with it").len()
    }

    /// The requests that ended after the first `skip`.
    pub fn samples_after(&self, skip: usize) -> Vec<Sample> {
        self.samples.lock().expect("nobody panics with it")[skip..].to_vec()
    }

    /// Waits until so many requests have ended.
    pub async fn reaches(&self, count: usize) {
        let limit = Duration::from_secs(60);
        until("requests are answered", limit, async || {
            let now = self.count();
            if now >= count { Ok(()) } else { Err(format!("{now} of {count}")) }
        })
        .await;
    }

    /// Ends; requests under way are not counted.
    pub fn stop(mut self) -> Report {
        self.tasks.abort_all();
        Report { samples: self.samples_after(0) }
    }
}

async fn ask(server: SocketAddr, plan: Plan, samples: Arc<Mutex<Vec<Sample>>>) {
    let mut connection = Connection::new(server);
    let mut ticks = interval(plan.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let outcome = match timeout(ANSWER_LIMIT, connection.get(plan.host, "/")).await {
            Ok(Ok(answer)) if answer.status.is_success() => Ok(answer.body),
            Ok(Ok(answer)) => Err(format!("{}: {}", answer.status, answer.body)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(format!("no answer within {ANSWER_LIMIT:?}")),
        };
        let sample = Sample { begun, ended: Instant::now(), outcome };
        samples.lock().expect("nobody panics with it").push(sample);
    }
}

#[derive(Debug)]
pub struct Report {
    pub samples: Vec<Sample>,
}

impl Report {
    pub fn failures(&self) -> Vec<&Sample> {
        self.samples.iter().filter(|sample| sample.outcome.is_err()).collect()
    }

    /// How many requests each agent answered.
    pub fn by_agent(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for agent in self.samples.iter().filter_map(|sample| sample.outcome.as_deref().ok()) {
            *counts.entry(agent).or_default() += 1;
        }
        counts
    }

    /// The longest time that a request took.
    pub fn slowest(&self) -> Duration {
        self.samples.iter().map(|sample| sample.ended - sample.begun).max().unwrap_or_default()
    }

    pub fn has_no_failure(&self, what: &str) {
        let failures = self.failures();
        println!(
            "{what}: {} requests, {} failed, slowest {:?}, by agent {:?}",
            self.samples.len(),
            failures.len(),
            self.slowest(),
            self.by_agent()
        );
        assert!(failures.is_empty(), "{what}: {} failed: {:#?}", failures.len(), &failures[..failures.len().min(10)]);
    }
}
