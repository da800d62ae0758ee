//! The command line: one file a command, each a client of the public gRPC API (`serve` and `bootstrap` apart).
//!
//! Arguments are parsed into types that cannot be wrong; a command writes what it is asked for to standard output,
//! everything else to standard error, and gives its errors back; they are printed once, here. Exit codes: 0 fine, 1 an
//! error, 2 wrong usage, 3 found what should not be, 4 waited in vain; `agent` ends with the status of its command.

mod agent;
mod backup;
mod bootstrap;
mod brake;
mod card;
mod check;
mod child;
mod deregister;
mod documents;
mod drain;
mod explain;
mod get;
mod health;
mod names;
mod options;
mod output;
mod proxy;
mod query;
mod register;
mod registration;
mod report;
mod resource;
mod restore;
mod serve;
mod service;
mod tables;
mod watch;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use options::Options;

/// An Envoy xDS control plane backed by its own service registry.
#[derive(Debug, Parser)]
#[command(name = "convoy", version, about, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    options: Options,
}

/// The exit code of a command that found what should not be.
const FOUND: u8 = 3;
/// Of one that waited in vain.
const IN_VAIN: u8 = 4;

const EXAMPLES: &str = "Examples:
  convoy serve
  convoy agent --service reviews --port 8080 -- ./reviews";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Agent(agent::Agent),
    Register(register::Register),
    Deregister(deregister::Deregister),
    Drain(drain::Drain),
    Health(health::Health),
    Explain(explain::Explain),
    Brake(brake::BrakeCommand),
    Card(card::CardCommand),
    Get(get::Get),
    Query(query::Query),
    Watch(watch::Watch),
    Proxy(proxy::Proxy),
    Service(service::ServiceCommand),
    Resource(resource::ResourceCommand),
    Bootstrap(bootstrap::Bootstrap),
    Backup(backup::Backup),
    Restore(restore::Restore),
}

/// Parses, runs, and prints the error if there is one.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let server = cli.options.server.clone();
    match run(cli) {
        Ok(code) => code,
        // `convoy get instances | head`: the reader has seen enough, which is no error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, the exit code still tells.
            let _ = write!(io::stderr(), "{}", report::explain(&error, &server));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    // A client is one task or two; only the server has work for every core.
    let mut runtime = match cli.command {
        Command::Serve(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let options = &cli.options;
    let out = &mut io::stdout().lock();
    runtime.enable_all().build()?.block_on(async {
        match cli.command {
            Command::Serve(command) => serve::run(command).await?,
            Command::Agent(command) => return agent::run(command, options).await,
            Command::Register(command) => register::run(command, options, out).await?,
            Command::Deregister(command) => deregister::run(&command, options, out).await?,
            Command::Drain(command) => return drain::run(&command, options, out).await,
            Command::Health(command) => health::run(command, options, out).await?,
            Command::Explain(command) => explain::run(command, options, out).await?,
            Command::Brake(command) => brake::run(command, options, out).await?,
            Command::Card(command) => card::run(command, options, out).await?,
            Command::Get(command) => get::run(command, options, out).await?,
            Command::Query(command) => query::run(command, options, out).await?,
            Command::Watch(command) => watch::run(command, options, out).await?,
            Command::Proxy(command) => return proxy::run(command, options, out).await,
            Command::Service(command) => service::run(command, options, out).await?,
            Command::Resource(command) => resource::run(command, options, out).await?,
            Command::Backup(command) => backup::run(&command, options, out).await?,
            Command::Restore(command) => restore::run(command, options, out)?,
            Command::Bootstrap(command) => bootstrap::run(&command, options, out)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_grammar_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_two_examples() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.lines().filter(|line| line.starts_with("  convoy ")).count() >= 2, "{}", command.get_name());
            command.get_subcommands().filter(|command| command.get_name() != "help").for_each(check);
        }
        check(&Cli::command());
    }

    /// As a shell reads them: apart by blanks, but for those in single quotes.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        for (index, part) in line.trim().split('\'').enumerate() {
            for (at, piece) in part.split(if index % 2 == 0 { ' ' } else { '\n' }).enumerate() {
                if at > 0 {
                    words.push(String::new());
                }
                words.last_mut().expect("there is one").push_str(piece);
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn every_example_parses() {
        fn check(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  convoy ")) {
                let words = words(line);
                let words = words.iter().take_while(|word| !matches!(word.as_str(), ">" | "|"));
                Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn the_grammar_takes_and_refuses() {
        for line in [
            "get svc",
            "get service reviews",
            "get services -A -o wide",
            "get inst",
            "get instances reviews -o json",
            "get instance reviews/reviews-1 -n prod",
            "card register readers/reader-1 - --address 10.0.0.7 --ttl 10m",
            "card get readers/reader-1",
            "card list readers -o json",
            "get px --no-headers",
            "get proxies web-1 -o name",
            "query instance.ready --order-by load --limit 5",
            "query --text legal --near eu/eu-a --facet zone --facet label:language -o json --fields id,labels.language",
            "watch",
            "watch reviews -o json --timeout 1s",
            "service put reviews --port http:8080 --export-to shop,bank --drain-time 5s",
            "service put reviews --export-to *",
            "service delete reviews",
            "resource put -f a.yaml b.json -f -",
            "resource get",
            "resource get routes convoy/outbound -o wide",
            "resource delete routes convoy/outbound --variant edge",
            "proxy status",
            "proxy status web-1 -o yaml",
            "proxy config web-1",
            "proxy config web-1 endpoints --name reviews -o json",
            "proxy wait",
            "proxy wait --revision 7 --timeout 1m",
            "deregister reviews/reviews-1",
            "drain reviews/reviews-1 --for 30s --wait --timeout 10s",
            "drain reviews/reviews-1 --wait-gone",
            "--server 127.0.0.1:7071 get svc",
            "serve --storage redb --http-address [::1]:0",
            "bootstrap --node web-1 --sotw --import cart --import users",
            "bootstrap --node web-1 --grpc",
            "backup /var/backups/convoy -o json",
            "restore /var/backups/convoy --data-dir /var/lib/convoy --force",
            "agent --service reviews --port 8080 --port admin:9000/tcp --label a=b -- sleep 1 --flag",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("convoy").chain(line.split(' ')));
            parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "",
            "get",
            "get things",
            "get svc -o xml",
            "get svc --timeout 5",
            "get inst /x",
            "drain reviews",
            "drain reviews/",
            "drain a/b/c",
            "deregister",
            "proxy",
            "proxy config",
            "proxy config web-1 things",
            "proxy wait --revision now",
            "bootstrap",
            "backup",
            "restore",
            "bootstrap --node x --sotw --delta",
            "agent --port 1",
            "agent --service a --port 0",
            "agent --service a --port 80 sleep",
            "serve --storage disk",
            "serve --http-address 7070",
            "register --service a --port 80 --label a",
            "card",
            "card register readers/reader-1",
            "card get readers",
            "watch a b",
            "query --limit 0",
            "query --near eu --order-by load",
            "service put",
            "service put a --port x",
            "resource put",
            "resource delete clusters",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("convoy").chain(line.split_whitespace()));
            assert_eq!(parsed.err().map(|error| error.exit_code()), Some(2), "{line:?}");
        }
    }
}
