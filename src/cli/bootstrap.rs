//! `convoy bootstrap`: what a proxy needs to find Convoy.
//!
//! The YAML is a text and not a tree, so that it tells its reader why each line is there. What comes from arguments is
//! written as JSON strings, which are YAML strings too, whatever is in them.

use std::{fmt, io::Write, net::IpAddr, net::SocketAddr, str::FromStr};

use clap::Args;
use serde_json::{Value, json};

use super::options::Options;

const EXAMPLES: &str = "Examples:
  convoy bootstrap --node web-1 > envoy.yaml
  convoy bootstrap --node web-1 --xds-address convoy-1:7080,convoy-2:7080,convoy-3:7080 > envoy.yaml
  convoy bootstrap --node web-1 --grpc > bootstrap.json";

/// Print a bootstrap for a proxy, ready to run
///
/// For Envoy: `convoy bootstrap --node web-1 > envoy.yaml && envoy -c envoy.yaml`. For a proxyless gRPC
/// client: `convoy bootstrap --node web-1 --grpc > b.json`, and GRPC_XDS_BOOTSTRAP=b.json in its environment.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Bootstrap {
    /// The node id, by which the proxy is known
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    node: String,
    /// The service that the proxy stands before; the node id when not set
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Where Convoy serves xDS; of several replicas, with commas between them
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', default_value = "127.0.0.1:7080")]
    xds_address: Vec<HostPort>,
    /// Where the proxy listens for its application's requests
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15001")]
    outbound_address: SocketAddr,
    /// Where the proxy's admin interface listens; leave it on loopback, it can stop the proxy
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin_address: SocketAddr,
    /// A service that the proxy needs: SERVICE, SERVICE.NAMESPACE, or * and *.NAMESPACE for all of a namespace. It is
    /// told of these only; without any, of all that it may see
    #[arg(long = "import", value_name = "SERVICE")]
    imports: Vec<String>,
    /// Ask in the state-of-the-world dialect
    #[arg(long, conflicts_with = "delta")]
    sotw: bool,
    /// Ask in the incremental dialect; the default
    #[arg(long)]
    delta: bool,
    /// Print the JSON bootstrap of proxyless gRPC instead of Envoy's
    #[arg(long, conflicts_with_all = ["sotw", "delta", "outbound_address", "admin_address"])]
    grpc: bool,
    /// Where the proxy runs
    #[arg(long, default_value = "", hide_default_value = true)]
    region: String,
    /// Where in the region it runs
    #[arg(long, default_value = "", hide_default_value = true)]
    zone: String,
    /// Where in the zone it runs
    #[arg(long, default_value = "", hide_default_value = true)]
    sub_zone: String,
}

pub(super) fn run(bootstrap: &Bootstrap, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let namespace = options.namespace();
    if bootstrap.grpc {
        return Ok(writeln!(out, "{}", serde_json::to_string_pretty(&bootstrap.grpc(&namespace))?)?);
    }
    Ok(out.write_all(bootstrap.envoy(&namespace).as_bytes())?)
}

impl Bootstrap {
    fn cluster(&self) -> &str {
        self.cluster.as_deref().unwrap_or(&self.node)
    }

    /// What the proxy says of itself, the same for Envoy and gRPC.
    fn node(&self, namespace: &str) -> Value {
        let mut metadata = json!({ "namespace": namespace });
        if !self.grpc {
            metadata["outbound"] = json!(self.outbound_address.to_string());
        }
        if !self.imports.is_empty() {
            metadata["imports"] = json!(self.imports);
        }
        let mut node = json!({ "id": self.node, "cluster": self.cluster(), "metadata": metadata });
        let parts = [("region", &self.region), ("zone", &self.zone), ("sub_zone", &self.sub_zone)];
        for (name, part) in parts {
            if !part.is_empty() {
                node["locality"][name] = json!(part);
            }
        }
        node
    }

    fn grpc(&self, namespace: &str) -> Value {
        // The first that can be reached is asked (gRFC A71).
        let server = |address: &HostPort| {
            json!({
                "server_uri": address.to_string(),
                "channel_creds": [{ "type": "insecure" }],
                "server_features": ["xds_v3"],
            })
        };
        let servers: Vec<Value> = self.xds_address.iter().map(server).collect();
        json!({ "xds_servers": servers, "node": self.node(namespace) })
    }

    fn envoy(&self, namespace: &str) -> String {
        let node = self.node(namespace);
        let mut text = String::from("# Made by `convoy bootstrap`.\nnode:\n");
        for part in ["id", "cluster", "metadata", "locality"] {
            if let Some(value) = node.get(part) {
                text += &format!("  {part}: {value}\n");
            }
        }
        let admin = self.admin_address;
        text += &format!(
            "admin:\n  address:\n    socket_address: {{address: {}, port_value: {}}}\n",
            json!(admin.ip().to_string()),
            admin.port()
        );
        let resources = DYNAMIC_RESOURCES.replace("API_TYPE", if self.sotw { "GRPC" } else { "DELTA_GRPC" });
        text += &resources;
        let are_literal = self.xds_address.iter().all(|address| address.host.parse::<IpAddr>().is_ok());
        text += &STATIC_RESOURCES.replace("CLUSTER_TYPE", if are_literal { STATIC } else { STRICT_DNS });
        for HostPort { host, port } in &self.xds_address {
            // Last, since the host is the only free text.
            text += &ENDPOINT.replace("PORT", &port.to_string()).replace("HOST", &json!(host).to_string());
        }
        text
    }
}

const DYNAMIC_RESOURCES: &str = "\
dynamic_resources:
  ads_config:
    api_type: API_TYPE
    transport_api_version: V3
    # The node is large; the server remembers it.
    set_node_on_first_message_only: true
    grpc_services:
    - envoy_grpc:
        cluster_name: convoy/xds
        # Without it the cluster's name is sent, which is no valid host with its slash.
        authority: convoy
        # Envoy's own backoff grows to 30 s, for which a restarted server would not be heard.
        retry_policy:
          retry_back_off: {base_interval: 0.2s, max_interval: 2s}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
# How many requests go where, for `convoy get load`.
cluster_manager:
  load_stats_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services:
    - envoy_grpc: {cluster_name: convoy/xds, authority: convoy}
";

const STATIC: &str = "type: STATIC";
/// IPv4 first: `localhost` has an IPv6 address too, where Convoy does not listen by default.
const STRICT_DNS: &str = "type: STRICT_DNS\n    dns_lookup_family: V4_PREFERRED";

const STATIC_RESOURCES: &str = "\
static_resources:
  clusters:
  - name: convoy/xds
    CLUSTER_TYPE
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config:
          http2_protocol_options:
            # A server that vanished without a word is noticed within 15 s.
            connection_keepalive: {interval: 10s, timeout: 5s}
    upstream_connection_options:
      tcp_keepalive: {keepalive_probes: 3, keepalive_time: 10, keepalive_interval: 5}
    load_assignment:
      cluster_name: convoy/xds
      endpoints:
      - lb_endpoints:
";

const ENDPOINT: &str = r"        - endpoint:
            address:
              socket_address: {address: HOST, port_value: PORT}
";

/// `HOST:PORT`, where the host is a name or an IP address (an IPv6 one in brackets).
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostPort {
    host: String,
    port: u16,
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not HOST:PORT");
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { host: address.ip().to_string(), port: address.port() });
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(bad)?;
        let is_name = host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
        if host.is_empty() || !is_name {
            return Err(bad());
        }
        Ok(Self { host: host.into(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bootstrap: Bootstrap,
    }

    fn bootstrap(line: &str) -> Bootstrap {
        Line::parse_from(std::iter::once("x").chain(line.split_whitespace())).bootstrap
    }

    fn envoy(line: &str) -> Value {
        let text = bootstrap(line).envoy("prod");
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn envoy_finds_convoy_over_ads() {
        let read = envoy("--node web-1 --import cart --import users.prod --zone us-a");
        assert_eq!(
            read["node"],
            json!({
                "id": "web-1",
                "cluster": "web-1",
                "metadata": { "namespace": "prod", "outbound": "127.0.0.1:15001", "imports": ["cart", "users.prod"] },
                "locality": { "zone": "us-a" },
            })
        );
        assert_eq!(
            read["dynamic_resources"],
            json!({
                "ads_config": {
                    "api_type": "DELTA_GRPC",
                    "transport_api_version": "V3",
                    "set_node_on_first_message_only": true,
                    "grpc_services": [{ "envoy_grpc": {
                        "cluster_name": "convoy/xds",
                        "authority": "convoy",
                        "retry_policy": { "retry_back_off": { "base_interval": "0.2s", "max_interval": "2s" } },
                    } }],
                },
                "cds_config": { "ads": {}, "resource_api_version": "V3" },
                "lds_config": { "ads": {}, "resource_api_version": "V3" },
            })
        );
        let cluster = &read["static_resources"]["clusters"][0];
        assert_eq!(cluster["type"], "STATIC");
        let options = &cluster["typed_extension_protocol_options"];
        let options = &options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"]["explicit_http_config"];
        let keepalive = json!({ "interval": "10s", "timeout": "5s" });
        assert_eq!(options["http2_protocol_options"]["connection_keepalive"], keepalive);
        assert!(cluster["upstream_connection_options"]["tcp_keepalive"].is_object());
        let address = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
        assert_eq!(address["socket_address"], json!({ "address": "127.0.0.1", "port_value": 7080 }));
        assert_eq!(read["admin"]["address"]["socket_address"]["port_value"], 9901);
    }

    #[test]
    fn arguments_decide_dialect_and_discovery() {
        for (line, api_type, discovery, host, port) in [
            ("--node a --sotw", "GRPC", "STATIC", "127.0.0.1", 7080),
            ("--node a --delta --xds-address convoy.prod:1", "DELTA_GRPC", "STRICT_DNS", "convoy.prod", 1),
            ("--node a --xds-address [::1]:7080", "DELTA_GRPC", "STATIC", "::1", 7080),
            ("--node a --xds-address PORT:7080", "DELTA_GRPC", "STRICT_DNS", "PORT", 7080),
        ] {
            let read = envoy(line);
            assert_eq!(read["dynamic_resources"]["ads_config"]["api_type"], api_type, "{line}");
            let cluster = &read["static_resources"]["clusters"][0];
            assert_eq!(cluster["type"], discovery, "{line}");
            let address = &cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"];
            assert_eq!(address["socket_address"], json!({ "address": host, "port_value": port }), "{line}");
        }
    }

    #[test]
    fn all_replicas_are_named() {
        let line = "--node a --xds-address 10.0.0.1:7080,10.0.0.2:7081 --xds-address convoy-3:7080";
        let cluster = &envoy(line)["static_resources"]["clusters"][0];
        assert_eq!(cluster["type"], "STRICT_DNS", "one of them is a name");
        let endpoints = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].as_array().expect("a list");
        let address = |endpoint: &Value| endpoint["endpoint"]["address"]["socket_address"].clone();
        let expected = [("10.0.0.1", 7080), ("10.0.0.2", 7081), ("convoy-3", 7080)];
        let expected = expected.map(|(host, port)| json!({ "address": host, "port_value": port }));
        assert_eq!(endpoints.iter().map(address).collect::<Vec<_>>(), expected);
        let grpc = bootstrap(&format!("{line} --grpc")).grpc("default");
        let servers = grpc["xds_servers"].as_array().expect("a list");
        let uris: Vec<&Value> = servers.iter().map(|server| &server["server_uri"]).collect();
        assert_eq!(uris, ["10.0.0.1:7080", "10.0.0.2:7081", "convoy-3:7080"]);
    }

    #[test]
    fn names_cannot_break_out_of_the_text() {
        let mut bootstrap = bootstrap("--node a");
        bootstrap.node = "a\": {} # API_TYPE\n- 'b".into();
        let read: Value = serde_yaml::from_str(&bootstrap.envoy("HOST")).expect("YAML");
        assert_eq!(read["node"]["id"], bootstrap.node);
        assert_eq!(read["node"]["metadata"]["namespace"], "HOST");
    }

    #[test]
    fn grpc_clients_get_json() {
        let read = bootstrap("--node app-1 --cluster app --grpc --xds-address [::1]:7080").grpc("default");
        assert_eq!(read["xds_servers"][0]["server_uri"], "[::1]:7080");
        assert_eq!(read["xds_servers"][0]["server_features"], json!(["xds_v3"]));
        assert_eq!(read["node"], json!({ "id": "app-1", "cluster": "app", "metadata": { "namespace": "default" } }));
    }

    #[test]
    fn addresses_are_checked() {
        for (text, valid) in
            [("a:1", true), ("[::1]:1", true), ("a", false), ("a:0", false), ("a b:1", false), (":1", false)]
        {
            assert_eq!(text.parse::<HostPort>().is_ok(), valid, "{text}");
        }
    }
}
