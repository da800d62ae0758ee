//! `convoy agent`: keeps an instance registered for a program that knows nothing of Convoy, and runs it.
//!
//! The order is that of no failed request: the command runs, listens, and only then gets traffic; told to stop, the
//! instance leaves traffic, and only then the command is told. Convoy being away neither keeps the command from running
//! nor ends it.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use convoy_client::{Drained, Error, State, json::parse_duration};
use rustix::process::Signal;
use tokio::{net::TcpStream, time::Instant};

use super::{
    child::{Child, StopSignals, ended_by, exit_code},
    options::Options,
    registration::Registration,
};

/// How long a wrong registration has to be refused before the command runs.
const FIRST_ANSWER: Duration = Duration::from_secs(3);
/// How often to look whether the command listens.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the command has to stop before it is killed.
const STOP_TIME: Duration = Duration::from_secs(10);

const EXAMPLES: &str = "Examples:
  convoy agent --service reviews --port 8080 --label language=python -- python3 reviews.py
  convoy agent --service db --port sql:5432/tcp --address 10.0.0.9";

/// Keep an instance registered, and run its program
///
/// Told to stop (SIGTERM, Ctrl-C) it drains the instance, waits until that is over, and then stops the
/// program; told again, it stops at once. When the program ends, the instance is deregistered and its exit status is
/// that of the agent.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Agent {
    #[command(flatten)]
    registration: Registration,
    /// How long a drain takes at most; the service's drain time when not set
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    drain_time: Option<Duration>,
    /// How long to wait for the program to listen on its first port before it gets traffic; 0 not to wait
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "10s")]
    listen_timeout: Duration,
    /// The program to run, and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(super) async fn run(arguments: Agent, options: &Options) -> anyhow::Result<ExitCode> {
    let mut signals = StopSignals::listen()?;
    let waits_to_listen = !arguments.command.is_empty() && !arguments.listen_timeout.is_zero();
    let builder = arguments.registration.builder(options).client(options.client()?).ready(!waits_to_listen);
    let agent = builder.spawn()?;
    let mut states = agent.states();
    tokio::select! {
        registered = agent.registered(FIRST_ANSWER) => match registered {
            Err(error) if !error.is_temporary() => return Err(error.into()),
            _ => states.mark_changed(),
        },
        _ = signals.next() => {
            leave(&agent).await;
            return Ok(ExitCode::SUCCESS);
        }
    }
    let mut child = if arguments.command.is_empty() { None } else { Some(Child::spawn(&arguments.command)?) };
    let mut listening = std::pin::pin!(listens(&arguments));
    let mut is_ready = !waits_to_listen;
    let mut said = String::new();
    loop {
        tokio::select! {
            status = ended(&mut child) => {
                leave(&agent).await;
                return Ok(exit_code(status?));
            }
            signal = signals.next() => return stop(&agent, &arguments, child, signal, &mut signals).await,
            Ok(()) = states.changed() => {
                let state = states.borrow_and_update().clone();
                let news = describe(&agent, &options.server, &state);
                // The same failure, again and again, is told once.
                if !news.is_empty() && news != said {
                    say(&news);
                    said = news;
                }
                // Without a program there is nothing left to do.
                if let (State::Over(Some(error)), None) = (state, &child) {
                    return Err(error.into());
                }
            }
            listens = &mut listening, if !is_ready => {
                is_ready = true;
                if !listens {
                    say("the program does not listen on its first port yet; it gets traffic all the same");
                }
                // An error is told with the state, and the agent tries again.
                drop(agent.set_ready(true).await);
            }
        }
    }
}

/// Drains, then stops the program. A second signal, or the program's end, cuts the drain short.
async fn stop(
    agent: &convoy_client::Agent,
    arguments: &Agent,
    mut child: Option<Child>,
    signal: Signal,
    signals: &mut StopSignals,
) -> anyhow::Result<ExitCode> {
    say(&format!("draining {}/{}; once more to stop at once", agent.service(), agent.id()));
    let mut status = None;
    tokio::select! {
        drained = drain(agent, arguments.drain_time) => match drained {
            Ok(Drained::Gone) => say("drained"),
            Ok(Drained::TimeOver) => say("the drain time is over"),
            Err(error) => say(&format!("cannot drain: {error}")),
        },
        ended = ended(&mut child) => status = Some(ended?),
        _ = signals.next() => {}
    }
    leave(agent).await;
    let status = match (status, &mut child) {
        (Some(status), _) => status,
        (None, Some(child)) => tokio::select! {
            status = child.stop(signal, STOP_TIME) => status?,
            _ = signals.next() => child.stop(Signal::KILL, STOP_TIME).await?,
        },
        (None, None) => return Ok(ExitCode::SUCCESS),
    };
    // To end by the signal that was passed on is to do as told.
    Ok(if ended_by(status, signal) { ExitCode::SUCCESS } else { exit_code(status) })
}

async fn drain(agent: &convoy_client::Agent, drain_time: Option<Duration>) -> Result<Drained, Error> {
    match drain_time {
        Some(drain_time) => agent.drain_for(drain_time).await,
        None => agent.drain().await,
    }
}

/// Deregisters. If that fails, the lease will end by itself.
async fn leave(agent: &convoy_client::Agent) {
    if let Err(error) = agent.deregister().await {
        say(&format!("cannot deregister: {error}; the instance goes when its lease ends"));
    }
}

/// The program's end, or never if there is none.
async fn ended(child: &mut Option<Child>) -> anyhow::Result<std::process::ExitStatus> {
    match child {
        Some(child) => {
            let status = child.wait().await?;
            say(&format!("{} ended: {status}", child.name()));
            Ok(status)
        }
        None => std::future::pending().await,
    }
}

/// Waits until the first port accepts a connection; false if it does not in time.
async fn listens(arguments: &Agent) -> bool {
    let port = arguments.registration.ports.first().map_or(0, |port| port.number);
    let address = arguments.registration.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let deadline = Instant::now() + arguments.listen_timeout;
    let connects = async {
        while TcpStream::connect(SocketAddr::new(address, port)).await.is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout_at(deadline, connects).await.is_ok()
}

/// A state in words; empty if there is nothing to tell yet, or it is as we wanted it.
fn describe(agent: &convoy_client::Agent, server: &str, state: &State) -> String {
    let name = format!("{}/{}", agent.service(), agent.id());
    match state {
        State::Registered { lease } => format!("{name} is registered at {server}, lease {lease}"),
        State::Away(error) => format!("no answer from {server}, trying again: {error}"),
        State::Refused(error) => format!("{server} refuses {name}, trying again: {error}"),
        State::Over(Some(error)) => format!("{name} is not registered any more: {error}"),
        _ => String::new(),
    }
}

/// Tells people. Standard output belongs to the program.
fn say(text: &str) {
    // If nobody can hear it, the program still has to run.
    let _ = writeln!(io::stderr(), "convoy agent: {}", super::output::one_line(text));
}
