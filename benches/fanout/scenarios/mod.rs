//! What is measured, a file each; and what they share.

mod changes;
mod memory;
mod registry;
mod services;
mod subject;

use crate::{options::Options, report::Report};

pub const HELP: &str = "Scenarios:
  change    a one change to all of 1 to 5 000 streams, and b the server's CPU for one response
  services  c the same with 10, 1 000 and 10 000 services registered
  memory    f one stream that is subscribed to 1 000 services";

const NAMES: [&str; 3] = ["change", "services", "memory"];

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    if let Some(unknown) = options.words.iter().find(|word| !NAMES.contains(&word.as_str())) {
        anyhow::bail!("there is no scenario {unknown:?}; there are {}", NAMES.join(", "));
    }
    for name in NAMES {
        if !options.words.is_empty() && !options.words.iter().any(|word| word == name) {
            continue;
        }
        match name {
            "change" => changes::run(options, report).await?,
            "services" => services::run(options, report).await?,
            _ => memory::run(options, report).await?,
        }
    }
    Ok(())
}
