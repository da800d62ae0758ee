//! What it costs to bring the registry's changes to thousands of xDS streams, always beside the floor: a bare tonic server
//! that writes the same bytes to the same streams. `cargo bench --bench fanout -- --help`; `docs/performance.md` says
//! what it all means.
//!
//! One thread holds all streams and drives the scenarios (`fleet`, `stream`); the servers are child processes (`server`,
//! `floor`).

#[path = "../shared/bare_put.rs"]
mod bare_put;
mod board;
mod change;
#[path = "../../tests/support/etcd.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod etcd;
mod fleet;
mod floor;
mod http2;
mod machine;
mod messages;
mod options;
mod report;
mod scenarios;
mod server;
mod stream;
mod tape;
#[path = "../../tests/support/wheel.rs"]
mod wheel;
mod wire;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::{options::Options, report::Report};

/// The floor's allocator is Convoy's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    machine::raise_file_limit()?;
    if let Some(address) = options.floor {
        machine::end_with_parent()?;
        let [tape, commit @ ..] = &options.words[..] else { anyhow::bail!("--floor ADDRESS TAPE [DATABASE]") };
        return floor::run(address, tape.as_ref(), commit.first().map(AsRef::as_ref));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ran = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            ran = run(&options) => ran,
            _ = terminate.recv() => anyhow::bail!("terminated"),
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        }
    });
    std::fs::remove_dir_all(server::directory()?)?;
    ran
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let mut report = Report::new();
    let ran = scenarios::run(options, &mut report).await;
    // What was measured before a failure is worth keeping.
    report.save()?;
    ran
}
