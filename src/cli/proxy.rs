//! `convoy proxy status`: what each connected xDS client has taken, and what it refused.

use std::{io::Write, time::SystemTime};

use clap::{Args, Subcommand};
use convoy_client::proto::{
    Dialect, ListProxiesRequest, ListProxiesResponse, Proxy as Connected, ProxyType, SyncState,
};

use super::{
    options::Options,
    output::{self, Table, Width, age},
};

/// What every Envoy with our bootstrap asks for. A type of these that a proxy never asked for is shown as such.
const USUAL_TYPES: [&str; 4] = ["clusters", "endpoints", "listeners", "routes"];
/// How much of a version is shown; the rest is in `-o wide`.
const VERSION_LETTERS: usize = 12;

const EXAMPLES: &str = "Examples:
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
    #[command(after_help = EXAMPLES)]
    Status {
        /// One node id; all when not set
        node: Option<String>,
    },
}

pub(super) async fn run(proxy: Proxy, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let Command::Status { node } = proxy.command;
    let answer = options.client()?.list_proxies(ListProxiesRequest::default()).await?;
    print(answer, node.as_deref(), options, out, status)
}

/// Prints the proxies asked for: of one node, of the namespace if one is named, or all.
pub(super) fn print(
    mut answer: ListProxiesResponse,
    node: Option<&str>,
    options: &Options,
    out: &mut dyn Write,
    table: fn(&[Connected], Width, SystemTime) -> Table,
) -> anyhow::Result<()> {
    answer.proxies.retain(|proxy| options.includes(&proxy.namespace));
    if let Some(node) = node {
        answer.proxies.retain(|proxy| proxy.node == node);
        anyhow::ensure!(!answer.proxies.is_empty(), "no proxy with the node id {node:?} is connected");
    }
    let names: Vec<String> = answer.proxies.iter().map(|proxy| proxy.node.clone()).collect();
    let none = "No proxies are connected. `convoy bootstrap --node NAME` prints what an Envoy needs to connect.";
    output::print(out, options, &answer, &names, none, |width| table(&answer.proxies, width, SystemTime::now()))
}

/// One row a proxy.
pub(super) fn overview(proxies: &[Connected], width: Width, now: SystemTime) -> Table {
    let mut header = vec!["PROXY", "NAMESPACE", "ADDRESS", "CLIENT", "DIALECT", "SYNCED", "AGE"];
    if width == Width::Wide {
        header.push("CLUSTER");
    }
    let row = |proxy: &Connected| {
        let synced = proxy.types.iter().filter(|of_type| of_type.sync() == SyncState::Synced).count();
        let mut row = vec![
            proxy.node.clone(),
            proxy.namespace.clone(),
            proxy.address.clone(),
            proxy.user_agent.clone(),
            dialect(proxy).into(),
            format!("{synced}/{}", proxy.types.len()),
            age(proxy.connected_at.as_ref(), now),
        ];
        if width == Width::Wide {
            row.push(proxy.cluster.clone());
        }
        row
    };
    Table { header, rows: proxies.iter().map(row).collect() }
}

/// One row for each proxy and type.
fn status(proxies: &[Connected], width: Width, now: SystemTime) -> Table {
    let mut header = vec!["PROXY", "TYPE", "SYNC", "VERSION", "AGE", "NAMES", "NACKS"];
    if width == Width::Wide {
        header.extend(["SENT", "DIALECT", "REFUSED AGO", "REFUSED RESOURCES"]);
    }
    header.push("LAST NACK");
    let mut rows = Vec::new();
    for proxy in proxies {
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

/// The version that the proxy has; with an arrow, the one that it was sent since.
fn versions(of_type: &ProxyType, width: Width) -> String {
    let short = |version: &str| match width {
        Width::Narrow => version.chars().take(VERSION_LETTERS).collect(),
        Width::Wide => version.to_owned(),
    };
    let (acked, sent) = (short(&of_type.version_acked), short(&of_type.version_sent));
    match (acked.is_empty(), of_type.version_acked == of_type.version_sent) {
        (_, true) => acked,
        (true, false) => format!("none -> {sent}"),
        (false, false) => format!("{acked} -> {sent}"),
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
            ..Default::default()
        };
        let nack = Nack { message: "bad\nroute".into(), resources: vec!["a".into()], ..Default::default() };
        Connected {
            node: "web-1".into(),
            namespace: "default".into(),
            user_agent: "envoy 1.40.0".into(),
            dialect: Dialect::Incremental.into(),
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
PROXY  TYPE       SYNC       VERSION     AGE  NAMES  NACKS  LAST NACK
web-1  clusters   SYNCED     v2          12s  *      0
web-1  endpoints  PENDING    v2 -> v3    12s  3      0
web-1  routes     REJECTED   none -> v1  12s  0      1      bad route
web-1  listeners  NOT ASKED
";
        assert_eq!(status(&[proxy()], Width::Narrow, now).render(true), text);
        let wide = status(&[proxy()], Width::Wide, now);
        assert!(wide.rows.iter().all(|row| row.len() == wide.header.len()));
        let overview = overview(&[proxy()], Width::Wide, now);
        assert_eq!(overview.rows[0][3..6], ["envoy 1.40.0", "delta", "1/3"]);
    }
}
