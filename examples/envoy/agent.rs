//! The demo's agent: a small HTTP server that answers every request with its own instance id, found through Convoy.
//! It registers when its listener is up; when told to stop (SIGTERM, Ctrl-C) it drains, goes on serving until the
//! drain is over, and exits. One line on standard output for each thing that happens.

use std::{
    fmt, mem,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use axum::{Router, routing::any};
use clap::Parser;
use convoy_client::{Agent, AgentBuilder, Drained, Protocol, State, json::parse_duration};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};

/// How long open connections may take to end after the drain. Nobody should have a request on one by then.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
#[command(about = "A demo agent: answers every HTTP request with its instance id")]
struct Options {
    /// The service to register
    #[arg(long, env = "AGENT_SERVICE")]
    service: String,
    /// The instance's id [default: made of service, host name and process id]
    #[arg(long, env = "AGENT_ID")]
    id: Option<String>,
    /// Where to listen
    #[arg(long, env = "AGENT_LISTEN", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The IP address to register [default: the one listened on, or for 0.0.0.0 the one that Convoy sees]
    #[arg(long, env = "AGENT_ADDRESS")]
    address: Option<String>,
    /// Convoy's gRPC address
    #[arg(long, env = "AGENT_CONVOY", default_value = "http://127.0.0.1:7071")]
    convoy: String,
    /// How long the registration holds without a heartbeat
    #[arg(long, env = "AGENT_TTL", default_value = "30s", value_parser = parse_duration)]
    ttl: Duration,
    /// How long to drain at most
    #[arg(long, env = "AGENT_DRAIN_TIME", default_value = "15s", value_parser = parse_duration)]
    drain_time: Duration,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let listener = TcpListener::bind(options.listen).await.with_context(|| format!("listen on {}", options.listen))?;
    let address = listener.local_addr()?;
    let builder = describe(&options, address);
    let id = id_of(&builder)?;
    let mut stop = stop_signals()?;

    let (close, closed) = watch::channel(false);
    let mut server = tokio::spawn(serve(listener, id.clone(), closed));
    say(&id, format_args!("listening on {address}"));

    say(&id, format_args!("registering at {}", options.convoy));
    let agent = tokio::select! {
        agent = builder.id(&id).start() => agent.context("cannot register")?,
        () = told(&mut stop) => return Ok(()),
    };
    say(&id, format_args!("registered in {}/{}", agent.namespace(), agent.service()));

    tokio::select! {
        () = told(&mut stop) => drain(&agent, &options, &mut stop).await,
        () = tell_states(&id, agent.states()) => {}
        ended = &mut server => return ended?.context("cannot serve"),
    }
    close.send_replace(true);
    finish(&id, server).await
}

fn describe(options: &Options, listening: SocketAddr) -> AgentBuilder {
    let mut builder = Agent::builder(&options.convoy, &options.service)
        .port("http", listening.port(), Protocol::Http)
        .label("demo", "yes")
        .ttl(options.ttl);
    if let Some(id) = &options.id {
        builder = builder.id(id);
    }
    match &options.address {
        Some(address) => builder.address(address),
        None if listening.ip().is_unspecified() => builder,
        None => builder.address(listening.ip().to_string()),
    }
}

/// The id that the builder registers, which may be of its own making.
fn id_of(builder: &AgentBuilder) -> anyhow::Result<String> {
    let request = builder.clone().into_request();
    request.instances.into_iter().next().map(|instance| instance.id).context("the builder describes no instance")
}

async fn serve(listener: TcpListener, id: String, mut closed: watch::Receiver<bool>) -> std::io::Result<()> {
    let answer = ([("x-instance", id.clone())], format!("{id}\n"));
    let app = Router::new().fallback(any(async move || answer.clone()));
    let close = async move { drop(closed.wait_for(|closed| *closed).await) };
    axum::serve(listener, app).with_graceful_shutdown(close).await
}

/// Leaves the traffic, and waits until that is done, or until told a second time.
async fn drain(agent: &Agent, options: &Options, stop: &mut [Signal; 2]) {
    say(agent.id(), format_args!("draining for {:?} at most", options.drain_time));
    tokio::select! {
        drained = agent.drain_for(options.drain_time) => match drained {
            Ok(Drained::Gone) => say(agent.id(), format_args!("drained")),
            Ok(_) => say(agent.id(), format_args!("drained for as long as was given")),
            Err(error) => say(agent.id(), format_args!("leaving without a drain: {error}")),
        },
        () = told(stop) => say(agent.id(), format_args!("leaving before the drain is over")),
    }
}

/// Lets the last answers out.
async fn finish(id: &str, server: JoinHandle<std::io::Result<()>>) -> anyhow::Result<()> {
    match timeout(CLOSE_LIMIT, server).await {
        Ok(ended) => ended?.context("cannot close")?,
        Err(_) => say(id, format_args!("connections still open after {CLOSE_LIMIT:?}")),
    }
    say(id, format_args!("stopped"));
    Ok(())
}

/// Says how the agent stands with Convoy whenever that changes, until it is over: somebody else drained or
/// deregistered it, or started a newer incarnation.
async fn tell_states(id: &str, mut states: watch::Receiver<State>) {
    states.mark_unchanged();
    let mut away = false;
    while states.changed().await.is_ok() {
        let state = states.borrow_and_update();
        let was_away = mem::replace(&mut away, matches!(*state, State::Away(_)));
        match &*state {
            State::Away(_) if was_away => {} // one more attempt, and no news
            State::Registered { .. } => say(id, format_args!("back with Convoy")),
            State::Away(error) => say(id, format_args!("serving on while Convoy is away: {error}")),
            State::Refused(error) => say(id, format_args!("refused by Convoy: {error}")),
            State::Over(why) => {
                let why = why.as_ref().map_or_else(|| "removed".into(), ToString::to_string);
                return say(id, format_args!("over: {why}"));
            }
            _ => {}
        }
    }
}

fn stop_signals() -> std::io::Result<[Signal; 2]> {
    Ok([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?])
}

async fn told([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// One line, with the time in microseconds, which the demo reads.
fn say(id: &str, what: fmt::Arguments<'_>) {
    let mut now = prost_types::Timestamp::from(SystemTime::now());
    now.nanos -= now.nanos % 1000;
    println!("{now} {id}: {what}");
}
