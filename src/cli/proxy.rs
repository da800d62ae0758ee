//! `convoy proxy`: what each xDS client has taken and refused (`status`), each resource of one (`config`), and waiting
//! until all have a revision (`wait`).

mod config;
mod wait;

use std::{
    io::{self, Write},
    process::ExitCode,
    time::SystemTime,
};

use clap::{Args, Subcommand};
use convoy_client::proto::{
    Dialect, GetConvergenceRequest, ListProxiesRequest, ListProxiesResponse, Proxy as Connected, ProxyType,
    RetryProxyRequest, SyncState,
};

use super::{
    options::Options,
    output::{self, Table, Width, age},
    tables,
};

/// What every Envoy with our bootstrap asks for. A type of these that a proxy never asked for is shown as such.
const USUAL_TYPES: [&str; 4] = ["clusters", "endpoints", "listeners", "routes"];
/// How a proxy that has left is in sync; its age is the time since.
const LEFT: &str = "LEFT";
/// How much of a version is shown; the rest is in `-o wide`.
const VERSION_LETTERS: usize = 12;

const EXAMPLES: &str = "Examples:
  convoy proxy status
  convoy proxy config web-1 endpoints
  convoy proxy wait --timeout 1m";
const RETRY: &str = "Examples:
  convoy proxy retry web-1
  convoy proxy retry web-1 -o json";
const STATUS: &str = "Examples:
  convoy proxy status
  convoy proxy status web-1 -o wide";

/// Look at the xDS clients connected
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Proxy {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Per resource type: whether the proxy has the newest state, since when, and what it refused
    #[command(after_help = STATUS)]
    Status {
        /// One node id; all when not set
        node: Option<String>,
    },
    Config(config::Config),
    Wait(wait::Wait),
    /// Send a proxy once more what it refused
    #[command(after_help = RETRY)]
    Retry {
        /// The node id of a connected proxy
        node: String,
    },
}

pub(super) async fn run(proxy: Proxy, options: &Options, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    match proxy.command {
        Command::Status { node } => run_status(node.as_deref(), options, out).await?,
        Command::Config(command) => config::run(command, options, out).await?,
        Command::Retry { node } => run_retry(node, options, out).await?,
        Command::Wait(command) => return wait::run(&command, options, out).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_retry(node: String, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let answer = options.client()?.retry_proxy(RetryProxyRequest { node: node.clone() }).await?;
    if options.for_people() {
        return Ok(writeln!(out, "{node} is sent {} resources once more", answer.resources)?);
    }
    output::print(out, options, &answer, &[node], "", |_| Table::default())
}

async fn run_status(node: Option<&str>, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let (client, namespace) = (options.client()?, options.namespace_if_set());
    let answer = client.list_proxies(ListProxiesRequest { namespace: namespace.clone() }).await?;
    let any = !answer.proxies.is_empty();
    print(answer, node, options, out, status)?;
    if any && node.is_none() && options.for_people() && !options.no_headers {
        let convergence = client.get_convergence(GetConvergenceRequest { namespace, revision: None }).await?;
        writeln!(out, "\n{}", wait::sentence(&convergence))?;
    }
    Ok(())
}

/// Prints the proxies asked for: of one node, of the namespace if one is named, or all.
pub(super) fn print(
    mut answer: ListProxiesResponse,
    node: Option<&str>,
    options: &Options,
    out: &mut dyn Write,
    table: fn(&[Connected], Width, SystemTime) -> Table,
) -> anyhow::Result<()> {
    if let Some(node) = node {
        answer.proxies.retain(|proxy| proxy.node == node);
        anyhow::ensure!(
            !answer.proxies.is_empty(),
            "no proxy with the node id {node:?} is connected, or was in the last 5 minutes"
        );
    }
    let names: Vec<String> = answer.proxies.iter().map(|proxy| proxy.node.clone()).collect();
    let none = "No proxies are connected. `convoy bootstrap --node NAME` prints what an Envoy needs to connect.";
    if !answer.unknown_replicas.is_empty() {
        writeln!(io::stderr(), "The proxies of {} are not known: no answer", answer.unknown_replicas.join(", "))?;
    }
    output::print(out, options, &answer, &names, none, |width| table(&answer.proxies, width, SystemTime::now()))
}

/// One row a proxy.
pub(super) fn overview(proxies: &[Connected], width: Width, now: SystemTime) -> Table {
    let mut header = vec!["PROXY", "NAMESPACE", "ADDRESS", "CLIENT", "DIALECT", "SYNCED", "REVISION", "AGE"];
    if width == Width::Wide {
        header.extend(["CLUSTER", "ZONE", "REPLICA"]);
    }
    let row = |proxy: &Connected| {
        let synced = proxy.types.iter().filter(|of_type| of_type.sync() == SyncState::Synced).count();
        let (synced, since) = match proxy.connected {
            true => (format!("{synced}/{}", proxy.types.len()), &proxy.connected_at),
            false => (LEFT.to_owned(), &proxy.left_at),
        };
        let mut row = vec![
            proxy.node.clone(),
            proxy.namespace.clone(),
            proxy.address.clone(),
            proxy.user_agent.clone(),
            dialect(proxy).into(),
            synced,
            revision(proxy.synced_revision),
            age(since.as_ref(), now),
        ];
        if width == Width::Wide {
            let zone = proxy.locality.as_ref().map(tables::zone).unwrap_or_default();
            row.extend([proxy.cluster.clone(), zone, proxy.replica.clone()]);
        }
        row
    };
    Table { header, rows: proxies.iter().map(row).collect() }
}

/// One row for each proxy and type.
fn status(proxies: &[Connected], width: Width, now: SystemTime) -> Table {
    let mut header = vec!["PROXY", "TYPE", "SYNC", "REVISION", "VERSION", "AGE", "NAMES", "NACKS"];
    if width == Width::Wide {
        header.extend(["SENT", "DIALECT", "REFUSED AGO", "REFUSED RESOURCES"]);
    }
    header.push("LAST NACK");
    let mut rows = Vec::new();
    for proxy in proxies {
        if !proxy.connected {
            let gone = age(proxy.left_at.as_ref(), now);
            let mut row = vec![proxy.node.clone(), String::new(), LEFT.into(), String::new(), String::new(), gone];
            row.resize(header.len(), String::new());
            rows.push(row);
            continue;
        }
        rows.extend(proxy.types.iter().map(|of_type| type_row(proxy, of_type, width, now)));
        for usual in USUAL_TYPES.iter().filter(|usual| proxy.types.iter().all(|of_type| of_type.r#type != **usual)) {
            let mut row = vec![proxy.node.clone(), (*usual).into(), "NOT ASKED".into()];
            row.resize(header.len(), String::new());
            rows.push(row);
        }
    }
    Table { header, rows }
}

fn type_row(proxy: &Connected, of_type: &ProxyType, width: Width, now: SystemTime) -> Vec<String> {
    let names = if of_type.wildcard { "*".into() } else { of_type.subscribed.to_string() };
    let mut row = vec![
        proxy.node.clone(),
        of_type.r#type.clone(),
        of_type.sync().to_string().to_uppercase(),
        revision(of_type.synced_revision),
        versions(of_type, width),
        age(of_type.acked_at.as_ref(), now),
        names,
        of_type.nacks.to_string(),
    ];
    let nack = of_type.last_nack.clone().unwrap_or_default();
    if width == Width::Wide {
        let refused = age(nack.at.as_ref(), now);
        row.extend([of_type.responses.to_string(), dialect(proxy).into(), refused, nack.resources.join(",")]);
    }
    row.push(nack.message);
    row
}

/// Up to which a proxy has everything; nothing if that is not known.
fn revision(revision: Option<u64>) -> String {
    revision.map(|revision| revision.to_string()).unwrap_or_default()
}

/// The version that the proxy has; with an arrow, the one that it was sent since.
fn versions(of_type: &ProxyType, width: Width) -> String {
    let short = |version: &str| short_version(version, width);
    let (acked, sent) = (short(&of_type.version_acked), short(&of_type.version_sent));
    match (acked.is_empty(), of_type.version_acked == of_type.version_sent) {
        (_, true) => acked,
        (true, false) => format!("none -> {sent}"),
        (false, false) => format!("{acked} -> {sent}"),
    }
}

pub(super) fn short_version(version: &str, width: Width) -> String {
    match width {
        Width::Narrow => version.chars().take(VERSION_LETTERS).collect(),
        Width::Wide => version.to_owned(),
    }
}

fn dialect(proxy: &Connected) -> &'static str {
    match proxy.dialect() {
        Dialect::Unspecified => "",
        Dialect::StateOfTheWorld => "sotw",
        Dialect::Incremental => "delta",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use convoy_client::proto::Nack;

    use super::*;

    fn proxy() -> Connected {
        let of_type = |name: &str, sync: SyncState, sent: &str, acked: &str| ProxyType {
            r#type: name.into(),
            sync: sync.into(),
            version_sent: sent.into(),
            version_acked: acked.into(),
            acked_at: Some(prost_types::Timestamp { seconds: 88, nanos: 0 }),
            synced_revision: (sync == SyncState::Synced).then_some(7),
            ..Default::default()
        };
        let nack = Nack { message: "bad\nroute".into(), resources: vec!["a".into()], ..Default::default() };
        Connected {
            node: "web-1".into(),
            namespace: "default".into(),
            user_agent: "envoy 1.40.0".into(),
            dialect: Dialect::Incremental.into(),
            connected: true,
            types: vec![
                ProxyType { wildcard: true, ..of_type("clusters", SyncState::Synced, "v2", "v2") },
                ProxyType { subscribed: 3, ..of_type("endpoints", SyncState::Pending, "v3", "v2") },
                ProxyType { nacks: 1, last_nack: Some(nack), ..of_type("routes", SyncState::Rejected, "v1", "") },
            ],
            ..Default::default()
        }
    }

    #[test]
    fn the_first_table_tells_what_was_refused() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let text = "\
PROXY  TYPE       SYNC       REVISION  VERSION     AGE  NAMES  NACKS  LAST NACK
web-1  clusters   SYNCED     7         v2          12s  *      0
web-1  endpoints  PENDING              v2 -> v3    12s  3      0
web-1  routes     REJECTED             none -> v1  12s  0      1      bad route
web-1  listeners  NOT ASKED
web-2             LEFT                             10s
";
        let left_at = Some(prost_types::Timestamp { seconds: 90, nanos: 0 });
        let gone = Connected { node: "web-2".into(), connected: false, left_at, ..proxy() };
        assert_eq!(status(&[proxy(), gone], Width::Narrow, now).render(true), text);
        let wide = status(&[proxy()], Width::Wide, now);
        assert!(wide.rows.iter().all(|row| row.len() == wide.header.len()));
        let overview = overview(&[proxy()], Width::Wide, now);
        assert_eq!(overview.rows[0][3..6], ["envoy 1.40.0", "delta", "1/3"]);
    }
}
