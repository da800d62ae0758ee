//! `convoy deregister`: an instance goes at once.

use std::io::Write;

use clap::Args;
use convoy_client::proto::DeregisterRequest;

use super::{
    names::InstanceName,
    options::{Format, Options},
    output,
};

const EXAMPLES: &str = "Examples:
  convoy deregister reviews/reviews-1
  convoy deregister -n prod reviews/reviews-1 -o json";

/// Remove an instance at once
///
/// Its agent does not bring it back, but a restarted one (a newer incarnation) does. Requests under way may fail:
/// `convoy drain` takes it out of traffic first.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Deregister {
    /// The instance
    #[arg(value_name = "SERVICE/ID")]
    instance: InstanceName,
    /// Leave it alone if it is of a newer incarnation than this
    #[arg(long, value_name = "NUMBER")]
    incarnation: Option<u64>,
}

pub(super) async fn run(deregister: &Deregister, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let InstanceName { service, id } = deregister.instance.clone();
    let name = format!("{service}/{id}");
    let (namespace, incarnation) = (options.namespace(), deregister.incarnation);
    let answer = options.client()?.deregister(DeregisterRequest { namespace, service, id, incarnation }).await?;
    match options.output {
        Format::Table | Format::Wide => Ok(writeln!(out, "{name} is deregistered, revision {}", answer.revision)?),
        Format::Json | Format::Yaml | Format::Name => {
            output::print(out, options, &answer, &[name], "", |_| output::Table::default())
        }
    }
}
