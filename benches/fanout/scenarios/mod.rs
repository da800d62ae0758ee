//! What is measured, a file each; and what they share.

mod burst;
mod changes;
mod connect;
mod memory;
mod rate;
mod registry;
mod replicas;
mod restart;
mod services;
mod subject;

use crate::{options::Options, report::Report};

pub const HELP: &str = "Scenarios:
  change     a: one change to all of 1 to 5 000 streams; b: the server's CPU for one response
  services   c: the same with 10, 1 000 and 10 000 services registered
  rate       d: 1 000 changes a second, for a while
  burst      e: 10 000 changes while some do not read
  memory     f: one stream that is subscribed to 1 000 services
  returning  g: 5 000 clients that have it all connect at once
  cold       h: 5 000 clients that have nothing connect at once
  restart    i: from the start with a full store to the first complete answer
  replicas   j: a change by way of another replica; k: a replica with 1 000 streams is killed; over a real etcd";

const NAMES: [&str; 9] = ["change", "services", "rate", "burst", "memory", "returning", "cold", "restart", "replicas"];

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if let Some(unknown) = options.words.iter().find(|word| !NAMES.contains(&word.as_str())) {
        anyhow::bail!("there is no scenario {unknown:?}; there are {}", NAMES.join(", "));
    }
    let mut failed = Vec::new();
    for name in NAMES {
        if !options.words.is_empty() && !options.words.iter().any(|word| word == name) {
            continue;
        }
        // One that fails says something too, and the others are still of use.
        if let Err(error) = scenario(name, options, report).await {
            eprintln!("{name} has failed: {error:#}");
            failed.push(name);
        }
    }
    anyhow::ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

async fn scenario(name: &str, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    match name {
        "change" => Box::pin(changes::run(options, report)).await,
        "services" => services::run(options, report).await,
        "rate" => rate::run(options, report).await,
        "burst" => burst::run(options, report).await,
        "memory" => memory::run(options, report).await,
        "returning" => connect::run_returning(options, report).await,
        "cold" => connect::run_cold(options, report).await,
        "restart" => restart::run(options, report).await,
        _ => Box::pin(replicas::run(options, report)).await,
    }
}
