//! The task around the decisions of `keepalive`: it makes the calls, tells what came of them, and waits.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use crate::{
    Client, Error, State,
    keepalive::{Action, DEFAULT_INTERVAL, Event, Keepalive, Step},
    link::Link,
    proto::{
        DeregisterRequest, DrainRequest, HeartbeatRequest, Lease, LeaseHeartbeat, LeaseOutcome, LeaseStatus, Load,
        RegisterRequest,
    },
};

type Reply<T> = oneshot::Sender<Result<T, Error>>;

/// What the agent's handle asks of the task.
#[derive(Debug)]
pub(crate) enum Command {
    SetReady(bool, Reply<()>),
    /// Answered with the time after which the instance is gone.
    Drain(Option<Duration>, Reply<Duration>),
    Deregister(Reply<()>),
}

/// One agent's task. It alone talks to the server about the registration, so that a change and a heartbeat never
/// overtake each other.
#[derive(Debug)]
pub(crate) struct Task {
    client: Client,
    request: RegisterRequest,
    lease: String,
    /// The digest and revision of what the server took last: with them it tells when that does not stand any more.
    taken: (String, u64),
    link: Option<Link>,
    load: watch::Receiver<Option<Load>>,
    /// The load last reported was refused: a lease is not lost over it, so heartbeats go without it.
    load_refused: bool,
    state: watch::Sender<State>,
    keepalive: Keepalive,
}

impl Task {
    pub(crate) fn new(
        client: Client,
        request: RegisterRequest,
        load: watch::Receiver<Option<Load>>,
        state: watch::Sender<State>,
    ) -> Self {
        let keepalive = Keepalive::new(Instant::now().into_std());
        Self {
            client,
            request,
            lease: String::new(),
            taken: Default::default(),
            link: None,
            load,
            load_refused: false,
            state,
            keepalive,
        }
    }

    /// Runs until the agent is over, or its handle is gone.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Step::Do(action, at) = self.keepalive.step() {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                error = lost(&mut self.link) => {
                    self.link = None;
                    self.tell(State::Away(error));
                    self.happened(Event::ConnectionLost);
                }
                () = tokio::time::sleep_until(Instant::from_std(at)) => self.act(action).await,
            }
        }
        // Superseded: the reason is told already.
        if !matches!(*self.state.borrow(), State::Over(_)) {
            self.tell(State::Over(None));
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Register => drop(self.register().await),
            Action::Heartbeat => self.heartbeat().await,
        }
    }

    async fn obey(&mut self, command: Command) {
        // A reply that nobody waits for any more is no error.
        match command {
            Command::SetReady(ready, reply) => drop(reply.send(self.set_ready(ready).await)),
            Command::Drain(drain_time, reply) => drop(reply.send(self.drain(drain_time).await)),
            Command::Deregister(reply) => drop(reply.send(self.deregister().await)),
        }
    }

    async fn set_ready(&mut self, ready: bool) -> Result<(), Error> {
        if self.keepalive.is_leaving() {
            return Err(Error::Over);
        }
        if let Some(instance) = self.request.instances.first_mut() {
            instance.ready = Some(ready);
        }
        self.happened(Event::Changed);
        self.register().await
    }

    async fn register(&mut self) -> Result<(), Error> {
        match self.client.register(self.request.clone()).await {
            Ok(answer) => {
                let lease = answer.lease.unwrap_or_default();
                let interval = interval(&lease);
                self.lease = lease.id;
                self.taken = (answer.digest, answer.revision);
                self.tell(State::Registered { lease: self.lease.clone() });
                self.happened(Event::Registered(interval));
                Ok(())
            }
            Err(error) => {
                self.failed(error.clone());
                Err(error)
            }
        }
    }

    async fn heartbeat(&mut self) {
        if self.load.has_changed().unwrap_or(false) {
            self.load_refused = false;
        }
        let load = self.load.borrow_and_update().clone().filter(|_| !self.load_refused);
        let has_load = load.is_some();
        let (digest, revision) = self.taken.clone();
        let leases = vec![LeaseHeartbeat { lease: self.lease.clone(), load, digest, revision }];
        let request = HeartbeatRequest { leases };
        match self.send(request).await {
            Ok(LeaseStatus { outcome, lease, elsewhere }) => {
                let (outcome, lease) =
                    (outcome.try_into().unwrap_or(LeaseOutcome::Unspecified), lease.unwrap_or_default());
                let interval = interval(&lease);
                if elsewhere {
                    self.link = None;
                    self.client.go_elsewhere();
                }
                match outcome {
                    LeaseOutcome::Kept => {
                        self.tell(State::Registered { lease: self.lease.clone() });
                        self.happened(Event::Kept(interval));
                    }
                    LeaseOutcome::RegisterAgain => self.happened(Event::RegisterAgain),
                    LeaseOutcome::Retry | LeaseOutcome::Unspecified => {
                        self.tell(State::Away(Error::Unavailable("the server cannot tell now".into())));
                        self.happened(Event::Retry(interval));
                    }
                }
            }
            Err(error) => {
                self.load_refused |= has_load && !error.is_temporary();
                self.failed(error);
            }
        }
    }

    /// Sends a heartbeat through the link, opened if there is none. After an error there is no link.
    async fn send(&mut self, request: HeartbeatRequest) -> Result<LeaseStatus, Error> {
        let answer = match self.link.take() {
            Some(mut link) => {
                let answer = link.heartbeat(request).await?;
                self.link = Some(link);
                answer
            }
            None => {
                let (link, answer) = Link::open(&self.client, request).await?;
                self.link = Some(link);
                answer
            }
        };
        Ok(answer.leases.into_iter().next().unwrap_or_default())
    }

    async fn drain(&mut self, drain_time: Option<Duration>) -> Result<Duration, Error> {
        let (namespace, service, id) = self.name();
        let drain_time = drain_time.map(crate::duration);
        let incarnation = self.request.incarnation;
        let answer =
            self.client.drain(DrainRequest { namespace, service, id, incarnation, drain_time, wait: None }).await?;
        self.happened(Event::Leaving);
        Ok(answer.drain_time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default())
    }

    async fn deregister(&mut self) -> Result<(), Error> {
        // Before the call: if its answer is lost, the agent must not come back by itself.
        self.happened(Event::Leaving);
        let (namespace, service, id) = self.name();
        let incarnation = self.request.incarnation;
        match self.client.deregister(DeregisterRequest { namespace, service, id, incarnation }).await {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        self.happened(Event::RegisterAgain);
        Ok(())
    }

    fn name(&self) -> (String, String, String) {
        let instance = self.request.instances.first().cloned().unwrap_or_default();
        (instance.namespace, instance.service, instance.id)
    }

    /// An action of the keep-alive failed.
    fn failed(&mut self, error: Error) {
        if error.is_temporary() {
            self.tell(State::Away(error));
            self.happened(Event::Failed);
        } else if error.is_superseded() {
            self.tell(State::Over(Some(error)));
            self.happened(Event::Superseded);
        } else {
            self.tell(State::Refused(error));
            self.happened(Event::Refused);
        }
    }

    fn happened(&mut self, event: Event) {
        self.keepalive.on(event, Instant::now().into_std(), rand::random());
    }

    fn tell(&self, state: State) {
        self.state.send_if_modified(|last| {
            let same = matches!((&*last, &state), (State::Registered { lease: old }, State::Registered { lease: new })
                if old == new);
            *last = state;
            !same
        });
    }
}

/// Waits for ever if there is no link.
async fn lost(link: &mut Option<Link>) -> Error {
    match link {
        Some(link) => link.lost().await,
        None => std::future::pending().await,
    }
}

fn interval(lease: &Lease) -> Duration {
    lease.heartbeat_interval.and_then(|interval| Duration::try_from(interval).ok()).unwrap_or(DEFAULT_INTERVAL)
}
