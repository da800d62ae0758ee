//! `convoy register`: one registration, for scripts that heartbeat by themselves.

use std::io::Write;

use clap::Args;
use convoy_client::{
    json::format_duration,
    proto::{Lease, RegisterResponse},
};

use super::{options::Options, output, registration::Registration, tables};

const EXAMPLES: &str = "Examples:
  convoy register --service reviews --port 8080 --id reviews-1 --address 10.0.0.7 --ttl 10m
  convoy register --service reviews --port 8080 --id reviews-1 -o json | jq -r .lease.id";

/// Register an instance once, and print its lease
///
/// Nobody heartbeats for it: it goes when its lease ends, unless you renew that
/// (POST /v1/leases/ID/heartbeat). `convoy agent` keeps an instance registered by itself.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Register {
    #[command(flatten)]
    registration: Registration,
    /// A number that only grows from one start to the next; the present time in milliseconds when not set
    #[arg(long, value_name = "NUMBER")]
    incarnation: Option<u64>,
    /// Not to take traffic yet
    #[arg(long)]
    not_ready: bool,
}

pub(super) async fn run(register: Register, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut builder = register.registration.builder(options).ready(!register.not_ready);
    if let Some(incarnation) = register.incarnation {
        builder = builder.incarnation(incarnation);
    }
    let answer = options.client()?.register(builder.into_request()).await?;
    let names: Vec<String> = answer.instances.iter().map(tables::instance_name).collect();
    output::print(out, options, &answer, &names, "", |_| table(&answer))
}

pub(super) fn table(answer: &RegisterResponse) -> output::Table {
    let lease = answer.lease.clone().unwrap_or_default();
    let Lease { id, ttl, heartbeat_interval } = lease;
    let text = |time: Option<prost_types::Duration>| {
        time.and_then(|time| std::time::Duration::try_from(time).ok()).map(format_duration).unwrap_or_default()
    };
    let row = |name| {
        let (ttl, every) = (text(ttl), text(heartbeat_interval));
        vec![name, id.clone(), ttl, every, answer.revision.to_string()]
    };
    output::Table {
        header: vec!["INSTANCE", "LEASE", "TTL", "HEARTBEAT EVERY", "REVISION"],
        rows: answer.instances.iter().map(tables::instance_name).map(row).collect(),
    }
}
