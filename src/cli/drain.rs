//! `convoy drain`: an instance leaves traffic, then goes.

use std::{io::Write, time::Duration};

use clap::Args;
use convoy_client::{
    Drained,
    json::{format_duration, parse_duration},
    proto::{DrainRequest, GetInstanceRequest},
};
use tokio::time::Instant;

use super::{
    names::InstanceName,
    options::{Format, Options},
    output,
};

/// With `--wait`, how long after the drain time the instance may still be there: its removal takes a write and our
/// next look.
const GRACE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "Examples:
  convoy drain reviews/reviews-1
  convoy drain reviews/reviews-1 --for 30s --wait";

/// Take an instance out of traffic, and remove it after a while
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Drain {
    /// The instance
    #[arg(value_name = "SERVICE/ID")]
    instance: InstanceName,
    /// How long until it is removed, up to 24h; the service's drain time when not set
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    drain_time: Option<Duration>,
    /// Wait until it is removed
    #[arg(long)]
    wait: bool,
}

pub(super) async fn run(drain: &Drain, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let InstanceName { service, id } = drain.instance.clone();
    let (namespace, name) = (options.namespace(), format!("{service}/{id}"));
    let client = options.client()?;
    let started = Instant::now();
    let answer = client
        .drain(DrainRequest {
            namespace: namespace.clone(),
            service: service.clone(),
            id: id.clone(),
            incarnation: None,
            drain_time: drain.drain_time.map(convoy_client::duration),
            wait: None,
        })
        .await?;
    let drain_time = answer.drain_time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default();
    let for_people = matches!(options.output, Format::Table | Format::Wide);
    if for_people {
        writeln!(out, "{name} is draining; it is removed after {}", format_duration(drain_time))?;
        out.flush()?;
    }
    if drain.wait {
        let incarnation = answer.instance.as_ref().map(|instance| instance.incarnation);
        let deadline = started + drain_time + GRACE;
        let instance = GetInstanceRequest { namespace, service, id };
        match client.wait_until_gone(instance, incarnation, deadline).await? {
            Drained::Gone if for_people => writeln!(out, "{name} is gone")?,
            Drained::Gone => {}
            Drained::TimeOver => anyhow::bail!(
                "{name} is still there, or Convoy does not answer, {} after its drain time",
                format_duration(GRACE)
            ),
        }
    }
    if for_people { Ok(()) } else { output::print(out, options, &answer, &[name], "", |_| output::Table::default()) }
}
