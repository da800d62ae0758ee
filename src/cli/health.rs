//! `convoy health`: an operator's word over an instance's health.

use std::{io::Write, time::SystemTime};

use clap::{Args, ValueEnum};
use convoy_client::proto::{OverrideHealth, SetOverrideRequest};

use super::{names::InstanceName, options::Options, output, tables};

const EXAMPLES: &str = "Examples:
  convoy health reviews/reviews-1 unhealthy --reason ticket-81
  convoy health reviews/reviews-1 clear";

/// Put your word over an instance's health, or take it back
///
/// `unhealthy` takes it out of traffic, `degraded` leaves it for when too few are healthy, `healthy` goes over what its
/// agent and its checks say (a lease that lapses counts still). It stays until it is cleared.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Health {
    /// The instance
    #[arg(value_name = "SERVICE/ID")]
    instance: InstanceName,
    /// What it is taken to be
    health: Word,
    /// Why, for others to read
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Word {
    Healthy,
    Degraded,
    Unhealthy,
    Clear,
}

pub(super) async fn run(command: Health, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let InstanceName { service, id } = command.instance;
    let health = match command.health {
        Word::Healthy => OverrideHealth::Healthy,
        Word::Degraded => OverrideHealth::Degraded,
        Word::Unhealthy => OverrideHealth::Unhealthy,
        Word::Clear => OverrideHealth::Unspecified,
    };
    let name = format!("{service}/{id}");
    let (namespace, reason) = (options.namespace(), command.reason);
    let request = SetOverrideRequest { namespace, service, id, health: health.into(), reason };
    let answer = options.client()?.set_override(request).await?;
    output::print(out, options, &answer, &[name], "", |width| {
        tables::instances(answer.instance.as_slice(), width, false, SystemTime::now())
    })
}
