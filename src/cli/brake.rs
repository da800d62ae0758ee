//! `convoy brake`: what is kept because too many fell silent at once.

use std::io::Write;

use clap::{Args, Subcommand, ValueEnum};
use convoy_client::{
    json::format_duration,
    proto::{ActiveBrake, BrakeScope, ListBrakesRequest, ReleaseBrakeRequest},
};

use super::{
    options::{Format, Options},
    output::{self, Table},
};

const EXAMPLES: &str = "Examples:
  convoy brake list
  convoy brake release service default/reviews";

/// What is kept because too many fell silent at once, and how to end it
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct BrakeCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// What is being braked now
    #[command(after_help = "Examples:\n  convoy brake list\n  convoy brake list -o json")]
    List,
    /// Let those go that are kept: they expire at once
    #[command(after_help = "Examples:\n  convoy brake release service default/reviews\n  convoy brake release all")]
    Release {
        /// Of what too much fell silent
        scope: Scope,
        /// NAMESPACE/SERVICE or REGION/ZONE; all of the scope when not set
        #[arg(default_value = "", hide_default_value = true)]
        name: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    All,
    Service,
    Zone,
    Intake,
}

pub(super) async fn run(command: BrakeCommand, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    match command.verb {
        Verb::List => {
            let answer = options.client()?.list_brakes(ListBrakesRequest {}).await?;
            let names: Vec<String> = answer.brakes.iter().map(|brake| brake.name.clone()).collect();
            let none = format!("Nothing is braked; {} of {} leases are overdue.", answer.overdue, answer.leases);
            output::print(out, options, &answer, &names, &none, |_| table(&answer.brakes))
        }
        Verb::Release { scope, name } => {
            let scope = match scope {
                Scope::All => BrakeScope::Unspecified,
                Scope::Service => BrakeScope::Service,
                Scope::Zone => BrakeScope::Zone,
                Scope::Intake => BrakeScope::Intake,
            };
            let request = ReleaseBrakeRequest { scope: scope.into(), name };
            let answer = options.client()?.release_brake(request).await?;
            match options.output {
                Format::Table | Format::Wide => Ok(writeln!(out, "{} leases are let go", answer.leases)?),
                _ => output::print(out, options, &answer, &[], "", |_| Table::default()),
            }
        }
    }
}

fn table(brakes: &[ActiveBrake]) -> Table {
    let row = |brake: &ActiveBrake| {
        let age = brake.age.and_then(|age| std::time::Duration::try_from(age).ok()).unwrap_or_default();
        vec![
            brake.scope().to_string(),
            brake.name.clone(),
            format!("{}/{}", brake.overdue, brake.of),
            brake.kept.to_string(),
            format_duration(std::time::Duration::from_secs(age.as_secs())),
        ]
    };
    Table { header: vec!["SCOPE", "NAME", "OVERDUE", "LEASES KEPT", "AGE"], rows: brakes.iter().map(row).collect() }
}
