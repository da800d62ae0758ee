//! What the registry's intake costs: heartbeats over gRPC streams and HTTP/1.1, and registrations, beside empty handlers
//! of the same servers. `cargo bench --bench registry -- --help`; `docs/performance.md` says what it all means.
//!
//! One thread makes the load (`http1`, `streams`, `calls`); Convoy and the empty handlers (`floor`) are child processes
//! (`server`), so that all share the machine as they would.

#[path = "../shared/callers.rs"]
mod callers;
mod calls;
mod durable;
mod floor;
mod http1;
#[path = "../fanout/http2.rs"]
mod http2;
#[path = "../fanout/machine.rs"]
mod machine;
mod million;
mod sample;
mod scenarios;
mod server;
mod streams;

use std::{net::SocketAddr, time::Duration};

use clap::Parser;

/// The floor's allocator is Convoy's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures heartbeats and registrations beside empty handlers.
#[derive(Clone, Debug, Parser)]
#[command(after_help = scenarios::HELP)]
struct Options {
    /// Which scenarios to run; all when not set
    #[arg(value_name = "SCENARIO")]
    words: Vec<String>,
    /// How often each measurement is repeated; the medians are shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement takes
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Threads of the empty handlers; as many as there are cores when not set
    #[arg(long)]
    floor_threads: Option<usize>,
    /// Be the empty handlers, at these addresses: HTTP, gRPC
    #[arg(long, hide = true, num_args = 2)]
    floor: Vec<SocketAddr>,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let [http, grpc] = options.floor[..] {
        machine::end_with_parent()?;
        return floor::run(http, grpc, options.floor_threads);
    }
    machine::raise_file_limit()?;
    for (what, value) in machine::describe() {
        println!("{what}: {value}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(scenarios::run(&options))
}
