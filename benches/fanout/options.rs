//! The command line.

use std::net::SocketAddr;

use clap::Parser;

/// Measures xDS fan-out beside a bare tonic server that writes the same bytes. Writes target/fanout-report.{md,json}.
#[derive(Debug, Parser)]
#[command(after_help = crate::scenarios::HELP)]
pub struct Options {
    /// Which scenarios to run; all when not set
    #[arg(value_name = "SCENARIO")]
    pub words: Vec<String>,
    /// How often each measurement is repeated; the medians are shown
    #[arg(long)]
    pub rounds: Option<usize>,
    /// Scenario change: with so many streams only, and without redb; to profile a server
    #[arg(long)]
    pub streams: Option<usize>,
    /// Fewer streams and rounds: whether it works, in less than two minutes
    #[arg(long)]
    pub quick: bool,
    /// Be the floor, at this address; the words are its tape and the database that it commits to
    #[arg(long, hide = true)]
    pub floor: Option<SocketAddr>,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    /// How many rounds of a measurement: fewer of one that takes long.
    pub fn rounds(&self, usual: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { 2.min(usual) } else { usual })
    }

    /// A number that is smaller in a quick run.
    pub fn size(&self, usual: usize, quick: usize) -> usize {
        if self.quick { quick } else { usual }
    }
}
