//! `convoy proxy config`: what Convoy knows that a proxy has, resource by resource.

use std::io::Write;

use clap::{Args, ValueEnum};
use convoy_client::proto::{GetProxyConfigRequest, ProxyResource};

use super::{
    super::{
        options::Options,
        output::{self, Table, Width},
    },
    short_version,
};
use crate::any_json;

const EXAMPLES: &str = "Examples:
  convoy proxy config web-1
  convoy proxy config web-1 endpoints --name reviews -o json";

/// What a proxy has of each resource: what it ACKed, which it may still be about to apply
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Config {
    /// The node id
    node: String,
    /// One type of resources; all when not set
    #[arg(value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
    /// One name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
}

/// As the API names the types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    #[value(aliases = ["cluster", "c"])]
    Clusters,
    #[value(aliases = ["endpoint", "ep"])]
    Endpoints,
    #[value(aliases = ["listener", "l"])]
    Listeners,
    ScopedRoutes,
    #[value(aliases = ["route", "r"])]
    Routes,
    VirtualHosts,
    #[value(aliases = ["secret", "s"])]
    Secrets,
    ExtensionConfigs,
    Runtimes,
}

pub(super) async fn run(config: Config, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let kind = config.kind.and_then(|kind| kind.to_possible_value()).map(|value| value.get_name().to_owned());
    let (kind, name) = (kind.unwrap_or_default(), config.name.unwrap_or_default());
    let request = GetProxyConfigRequest { node: config.node.clone(), r#type: kind, name };
    let answer = options.client()?.get_proxy_config(request).await?;
    let names: Vec<String> = answer.resources.iter().map(|resource| resource.name.clone()).collect();
    let none = format!("{} has asked for nothing like that.", config.node);
    let document = any_json::proxy_config(&answer);
    output::print(out, options, &document, &names, &none, |width| table(&answer.resources, width))
}

fn table(resources: &[ProxyResource], width: Width) -> Table {
    let mut header = vec!["TYPE", "NAME", "SYNC", "VERSION"];
    if width == Width::Wide {
        header.extend(["SENT", "BYTES", "ADDRESS"]);
    }
    let row = |of: &ProxyResource| {
        let sync = of.sync().to_string().to_uppercase();
        let mut row = vec![of.r#type.clone(), of.name.clone(), sync, short_version(&of.version_acked, width)];
        if width == Width::Wide {
            let bytes = of.resource.as_ref().map(|resource| resource.value.len().to_string()).unwrap_or_default();
            row.extend([of.version_sent.clone(), bytes, of.address.clone()]);
        }
        row
    };
    Table { header, rows: resources.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use convoy_client::proto::SyncState;

    use super::*;
    use crate::model::ResourceType;

    #[test]
    fn one_row_a_resource() {
        let resource = |name: &str, sync: SyncState, version: &str| ProxyResource {
            r#type: "endpoints".into(),
            name: name.into(),
            sync: sync.into(),
            version_acked: version.into(),
            ..Default::default()
        };
        let resources = [resource("web", SyncState::Synced, "0123456789abcdef"), resource("x", SyncState::Absent, "")];
        let text = "\
TYPE       NAME  SYNC    VERSION
endpoints  web   SYNCED  0123456789ab
endpoints  x     ABSENT
";
        assert_eq!(table(&resources, Width::Narrow).render(true), text);
        let wide = table(&resources, Width::Wide);
        assert!(wide.rows.iter().all(|row| row.len() == wide.header.len()));
    }

    #[test]
    fn types_are_named_as_in_the_api() {
        let kinds = Kind::value_variants().iter().filter_map(|kind| kind.to_possible_value());
        let names: Vec<String> = kinds.map(|value| value.get_name().to_owned()).collect();
        assert_eq!(names, ResourceType::ALL.map(ResourceType::as_str));
    }
}
