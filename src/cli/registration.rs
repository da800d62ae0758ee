//! What `agent` and `register` say of an instance.

use std::{net::IpAddr, str::FromStr, time::Duration};

use clap::Args;
use convoy_client::{Agent, AgentBuilder, Protocol, json::parse_duration};

use super::options::Options;

/// One instance, as the command line describes it.
#[derive(Debug, Clone, Args)]
pub(super) struct Registration {
    /// The service, a DNS label
    #[arg(long, value_name = "NAME")]
    pub(super) service: String,
    /// A port, as NUMBER, NAME:NUMBER or NAME:NUMBER/PROTOCOL (http, http2, grpc, tcp); the first is the service's default
    #[arg(long = "port", value_name = "PORT", required = true)]
    pub(super) ports: Vec<PortArgument>,
    /// The instance's id; made of service, host name and process id when not set
    #[arg(long)]
    id: Option<String>,
    /// The IP address to reach it at; when not set, the one that the server sees the call come from
    #[arg(long, value_name = "IP")]
    pub(super) address: Option<IpAddr>,
    /// A label
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<Label>,
    /// Something that it can do
    #[arg(long = "capability", value_name = "NAME[@VERSION]")]
    capabilities: Vec<String>,
    /// Its share of traffic, against the 100 of others; 0 takes it out
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=65_535))]
    weight: Option<u32>,
    /// How long it stays registered without a heartbeat; 30s when not set
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    ttl: Option<Duration>,
    /// Where it runs
    #[arg(long, default_value = "", hide_default_value = true)]
    region: String,
    /// Where in the region it runs
    #[arg(long, default_value = "", hide_default_value = true)]
    zone: String,
    /// Where in the zone it runs
    #[arg(long, default_value = "", hide_default_value = true)]
    sub_zone: String,
}

impl Registration {
    pub(super) fn builder(&self, options: &Options) -> AgentBuilder {
        let mut builder = Agent::builder(&options.server, &self.service).namespace(options.namespace());
        for PortArgument { name, number, protocol } in &self.ports {
            builder = builder.port(name, *number, *protocol);
        }
        for Label { name, value } in &self.labels {
            builder = builder.label(name, value);
        }
        for capability in &self.capabilities {
            let (name, version) = capability.split_once('@').unwrap_or((capability, ""));
            builder = builder.capability(name, version);
        }
        if let Some(id) = &self.id {
            builder = builder.id(id);
        }
        if let Some(address) = self.address {
            builder = builder.address(address.to_string());
        }
        if let Some(weight) = self.weight {
            builder = builder.weight(weight);
        }
        if let Some(ttl) = self.ttl {
            builder = builder.ttl(ttl);
        }
        if [&self.region, &self.zone, &self.sub_zone].iter().any(|part| !part.is_empty()) {
            builder = builder.locality(&self.region, &self.zone, &self.sub_zone);
        }
        builder
    }
}

/// `NUMBER[/PROTOCOL]` or `NAME:NUMBER[/PROTOCOL]`. Without a protocol it is the name, if that is one, else http;
/// without a name, that is the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PortArgument {
    pub(super) name: String,
    pub(super) number: u16,
    pub(super) protocol: Protocol,
}

impl FromStr for PortArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, protocol) = match text.split_once('/') {
            Some((rest, protocol)) => (rest, Some(protocol.parse::<Protocol>()?)),
            None => (text, None),
        };
        let (name, number) = match rest.split_once(':') {
            Some((name, number)) => (Some(name), number),
            None => (None, rest),
        };
        let number = number.parse().ok().filter(|number| *number != 0);
        let number = number.ok_or_else(|| format!("{rest:?} has no port number from 1 to 65535"))?;
        let named = name.and_then(|name| name.parse().ok());
        let protocol = protocol.or(named).unwrap_or(Protocol::Http);
        Ok(Self { name: name.map_or_else(|| protocol.to_string(), str::to_owned), number, protocol })
    }
}

/// `NAME=VALUE`
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    name: String,
    value: String,
}

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("it is written NAME=VALUE")?;
        Ok(Self { name: name.into(), value: value.into() })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        registration: Registration,
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn ports_are_read_as_people_write_them() {
        for (text, expected) in [
            ("8080", Some(("http", 8080, Protocol::Http))),
            ("9090/grpc", Some(("grpc", 9090, Protocol::Grpc))),
            ("grpc:9090", Some(("grpc", 9090, Protocol::Grpc))),
            ("web:8080", Some(("web", 8080, Protocol::Http))),
            ("admin:9000/tcp", Some(("admin", 9000, Protocol::Tcp))),
            ("0", None),
            ("65536", None),
            ("web", None),
            ("web:", None),
            ("8080/udp", None),
            ("8080/", None),
            ("a:b:1", None),
        ] {
            let parsed = text.parse::<PortArgument>().ok();
            let parsed = parsed.as_ref().map(|port| (port.name.as_str(), port.number, port.protocol));
            assert_eq!(parsed, expected, "{text}");
        }
    }

    #[test]
    fn all_that_is_said_is_registered() {
        let line = "x --service reviews --port 8080 --id reviews-1 --address 10.0.0.7 --label a=b=c --capability ocr \
                    --capability image@2.1 --weight 7 --ttl 5s --zone z -n prod";
        let line = Line::parse_from(line.split_whitespace());
        let request = line.registration.builder(&line.options).into_request();
        let [instance] = request.instances.as_slice() else { panic!("one instance") };
        assert_eq!(request.ttl.map(|ttl| ttl.seconds), Some(5));
        assert_eq!((instance.namespace.as_str(), instance.service.as_str()), ("prod", "reviews"));
        assert_eq!((instance.id.as_str(), instance.address.as_str()), ("reviews-1", "10.0.0.7"));
        assert_eq!(instance.labels.get("a").map(String::as_str), Some("b=c"));
        assert_eq!((instance.capabilities[0].version.as_str(), instance.capabilities[1].version.as_str()), ("", "2.1"));
        assert_eq!((instance.weight, instance.ready), (Some(7), None));
        assert_eq!(instance.locality.as_ref().map(|locality| locality.zone.as_str()), Some("z"));
    }
}
