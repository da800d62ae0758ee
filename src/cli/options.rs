//! What every command understands.

use std::time::Duration;

use clap::{Args, ValueEnum};
use convoy_client::{Client, Error, json::parse_duration};

const TIMEOUT: Duration = Duration::from_secs(5);
const WAIT: Duration = Duration::from_secs(30);

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(super) struct Options {
    /// The address of Convoy's gRPC API; of several replicas, with commas between them
    #[arg(long, global = true, value_name = "ADDRESS", env = "CONVOY_ADDR", default_value = "http://127.0.0.1:7071")]
    pub(super) server: String,
    /// The namespace; `default` when not set
    #[arg(short, long, global = true, value_name = "NAME", env = "CONVOY_NAMESPACE")]
    pub(super) namespace: Option<String>,
    /// All namespaces, whichever is set
    #[arg(short = 'A', long, global = true)]
    pub(super) all_namespaces: bool,
    /// How to print: tables for people, json and yaml as in the HTTP API, name as other commands take it
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    pub(super) output: Format,
    /// How long each call to the server may take, 5s when not set; of commands that wait: how long they do, 30s when
    /// not set
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Leave the header out of tables
    #[arg(long, global = true)]
    pub(super) no_headers: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

impl Options {
    /// A client of the server; it connects when first needed.
    pub(super) fn client(&self) -> Result<Client, Error> {
        Ok(Client::new(&self.server)?.with_deadline(self.timeout()))
    }

    /// A client for calls that wait at the server: the timeout is that of the wait.
    pub(super) fn waiting_client(&self) -> Result<Client, Error> {
        Ok(Client::new(&self.server)?.with_deadline(TIMEOUT))
    }

    /// How long each call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT)
    }

    /// How long a command that waits does so.
    pub(super) fn wait(&self) -> Duration {
        self.timeout.unwrap_or(WAIT)
    }

    /// The namespace of one thing.
    pub(super) fn namespace(&self) -> String {
        self.namespace.clone().unwrap_or_else(|| "default".into())
    }

    /// The namespace of a list: empty, as in the API, for all.
    pub(super) fn namespaces(&self) -> String {
        if self.all_namespaces { String::new() } else { self.namespace() }
    }

    /// The namespace of a list that is of all namespaces unless one is set.
    pub(super) fn namespace_if_set(&self) -> String {
        if self.all_namespaces { String::new() } else { self.namespace.clone().unwrap_or_default() }
    }

    /// Whether tables and sentences are printed, and not a document.
    pub(super) fn for_people(&self) -> bool {
        matches!(self.output, Format::Table | Format::Wide)
    }

    /// How a list's namespace is called in a sentence.
    pub(super) fn whereabouts(&self) -> String {
        if self.all_namespaces { "in any namespace".into() } else { format!("in namespace {}", self.namespace()) }
    }
}
