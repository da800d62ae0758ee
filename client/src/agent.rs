//! An agent: one instance that this process registers and keeps alive.

use std::time::Duration;

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    Client, Error,
    builder::AgentBuilder,
    proto::{self, Load},
    task::{Command, Task},
};

/// Commands wait in here while a call is under way; more than this many at once is no use of an agent.
const COMMANDS: usize = 16;
/// How long after its drain time an instance may still be there: its removal is a write, and we only look now and then.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// A registered instance, kept alive by a task in the background.
///
/// Dropping the agent stops its heartbeats and does not deregister it: the instance goes when its lease ends. Say
/// [`drain`](Agent::drain) and [`deregister`](Agent::deregister) to leave in order.
#[derive(Debug)]
pub struct Agent {
    client: Client,
    registration: proto::Registration,
    incarnation: u64,
    commands: mpsc::Sender<Command>,
    load: watch::Sender<Option<Load>>,
    states: watch::Receiver<State>,
    /// Ends the task when the agent is dropped.
    _task: JoinSet<()>,
}

/// How an agent stands with its server.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum State {
    /// Not registered yet, and trying.
    Starting,
    /// Registered, and heartbeats are answered.
    Registered {
        /// The id of the lease.
        lease: String,
    },
    /// The last call failed, and the agent tries again; the instance stays registered until its lease ends.
    Away(Error),
    /// The server refuses the registration. The agent asks again every 30 s.
    Refused(Error),
    /// Deregistered, drained to the end, or (with the error) superseded by a newer incarnation or an operator.
    Over(Option<Error>),
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// The server has removed the instance.
    Gone,
    /// The drain time is over, and the server has not said that the instance is gone.
    TimeOver,
}

impl Agent {
    /// Begins an agent for one instance of `service`, at the server's gRPC address, such as `http://127.0.0.1:7071`.
    pub fn builder(server: impl Into<String>, service: impl Into<String>) -> AgentBuilder {
        AgentBuilder::new(server.into(), service.into())
    }

    pub(crate) fn spawn(client: Client, request: proto::RegisterRequest) -> Self {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (load, load_receiver) = watch::channel(None);
        let (state, states) = watch::channel(State::Starting);
        let incarnation = request.incarnation.unwrap_or_default();
        let registration = request.instances.first().cloned().unwrap_or_default();
        let mut task = JoinSet::new();
        task.spawn(Task::new(client.clone(), request, load_receiver, state).run(receiver));
        Self { client, registration, incarnation, commands, load, states, _task: task }
    }

    /// Waits until the agent is registered: a server that is away is waited for, a refusal is not.
    ///
    /// # Errors
    /// If the server refuses, the agent is over, or the time is; the agent goes on trying all the same.
    pub async fn registered(&self, timeout: Duration) -> Result<(), Error> {
        let mut states = self.states.clone();
        let settled = states.wait_for(|state| !matches!(state, State::Starting | State::Away(_)));
        // Whether settled or out of time, the state tells. An ended task leaves its last one.
        drop(tokio::time::timeout(timeout, settled).await);
        match self.states.borrow().clone() {
            State::Registered { .. } => Ok(()),
            State::Starting => Err(Error::Deadline(timeout)),
            State::Away(error) | State::Refused(error) | State::Over(Some(error)) => Err(error),
            State::Over(None) => Err(Error::Over),
        }
    }

    /// The namespace of the instance.
    pub fn namespace(&self) -> &str {
        &self.registration.namespace
    }

    /// The service of the instance.
    pub fn service(&self) -> &str {
        &self.registration.service
    }

    /// The id of the instance.
    pub fn id(&self) -> &str {
        &self.registration.id
    }

    /// The incarnation that this agent registered with.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// How the agent stands now, and, as the receiver says, whenever that changes.
    pub fn states(&self) -> watch::Receiver<State> {
        self.states.clone()
    }

    /// Says whether the instance can take traffic now, and waits until the server has it.
    ///
    /// # Errors
    /// If the server is away the wish is kept and goes with the next registration, so that a temporary error needs no
    /// repetition.
    pub async fn set_ready(&self, ready: bool) -> Result<(), Error> {
        self.command(|reply| Command::SetReady(ready, reply)).await
    }

    /// Says how loaded the agent is. Goes with every heartbeat from the next one on, until the next report; only the
    /// latest report is kept.
    pub fn report(&self, load: Load) {
        self.load.send_replace(Some(load));
    }

    /// Takes the instance out of traffic, and waits until it is gone or its drain time (the service's, 15 s unless
    /// set) is over. Until then requests still come, fewer and fewer: go on serving. Heartbeats go on meanwhile.
    ///
    /// # Errors
    /// If the server does not take the drain; the agent then stays registered.
    pub async fn drain(&self) -> Result<Drained, Error> {
        self.drain_within(None).await
    }

    /// As [`drain`](Agent::drain), with a drain time for this instance, up to 24 h.
    ///
    /// # Errors
    /// As for [`drain`](Agent::drain).
    pub async fn drain_for(&self, drain_time: Duration) -> Result<Drained, Error> {
        self.drain_within(Some(drain_time)).await
    }

    async fn drain_within(&self, drain_time: Option<Duration>) -> Result<Drained, Error> {
        let drain_time = self.command(|reply| Command::Drain(drain_time, reply)).await?;
        let deadline = Instant::now() + drain_time + DRAIN_GRACE;
        let instance = proto::GetInstanceRequest {
            namespace: self.registration.namespace.clone(),
            service: self.registration.service.clone(),
            id: self.registration.id.clone(),
        };
        self.client.wait_until_gone(instance, Some(self.incarnation), deadline).await
    }

    /// Removes the instance at once, and stops the heartbeats. An instance that is gone already is no error.
    ///
    /// # Errors
    /// If the server does not answer: call again, or drop the agent and let the lease end.
    pub async fn deregister(&self) -> Result<(), Error> {
        match self.command(Command::Deregister).await {
            Err(Error::Over) => Ok(()),
            answer => answer,
        }
    }

    async fn command<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Over)?;
        answer.await.map_err(|_| Error::Over)?
    }
}
