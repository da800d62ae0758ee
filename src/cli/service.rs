//! `convoy service`: what a service fixes for all its instances.

use std::{io::Write, time::Duration};

use clap::{Args, Subcommand};
use convoy_client::{
    json::parse_duration,
    proto::{
        BrakePolicy, Checks, DeleteServiceRequest, ExportTo, Failover, LoadPolicy, PutServiceRequest, ServicePort,
    },
};

use super::{
    check::CheckArgument,
    options::{Format, Options},
    output::{self, Table},
    registration::PortArgument,
    tables,
};

const EXAMPLES: &str = "Examples:
  convoy service put reviews --export-to shop,bank
  convoy service delete reviews";

/// Make, change and delete services
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServiceCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Make a service before its first instance, or change it; what is left out stays as it is
    #[command(after_help = PUT)]
    Put(Put),
    /// Delete a service that has no instances
    #[command(after_help = DELETE)]
    Delete {
        /// The service
        name: String,
    },
}

#[derive(Debug, Clone, Args)]
struct Put {
    /// The service
    name: String,
    /// Namespaces whose proxies may see it, beside its own; `*` for all, an empty text for none
    #[arg(long, value_name = "NAMESPACES", value_delimiter = ',')]
    export_to: Option<Vec<String>>,
    /// How long its instances drain, unless a drain says otherwise
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    drain_time: Option<Duration>,
    /// A port, as NUMBER, NAME:NUMBER or NAME:NUMBER/PROTOCOL (http, http2, grpc, tcp); it is never taken away again
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<PortArgument>,
    /// Whether a proxy goes to its own zone first, then to its region; on, off, or on with an overprovisioning factor in
    /// percent
    #[arg(long, value_name = "on|off|PERCENT", value_parser = failover)]
    failover: Option<Failover>,
    /// Makes it a virtual service: its members are the instances, of any service, that match this condition (CEL)
    #[arg(long, value_name = "CONDITION", default_value = "", hide_default_value = true)]
    selector: String,
    /// Whether those that fall silent together are kept for a while, as suspects
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    brake: Option<bool>,
    /// Whether the load that its instances report becomes weight
    #[arg(long, value_name = "on|off", value_parser = on_or_off)]
    load_weighting: Option<bool>,
    /// How long the weight of a newcomer grows; turns load weighting on, with the defaults for what is not given
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    slow_start: Option<Duration>,
    /// What load leaves of a weight at least, in percent (1 to 100)
    #[arg(long, value_name = "PERCENT")]
    min_share: Option<u32>,
    /// Weights change once in this time at most
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    load_interval: Option<Duration>,
    /// A check of every instance, as [NAME=]KIND[:WHAT][,OPTION=VALUE]…; those given are all; `none` for none any more
    #[arg(long = "check", value_name = "CHECK")]
    checks: Vec<CheckArgument>,
    /// The port that the plain service name means
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    default_port: String,
}

const PUT: &str = "Examples:
  convoy service put reviews --port http:8080 --port admin:9000/tcp
  convoy service put reviews --export-to * --drain-time 30s
  convoy service put readers --port http:80/http --selector instance.has_capability('ocr')
  convoy service put reviews --check http:/healthz,interval=5s,unhealthy=3/5
  convoy service put reviews --check alive=tcp,liveness,deregister-after=5m --check grpcs:reviews.v1,insecure
Kinds of checks: http:/PATH, https:/PATH, tcp, tls, grpc[:SERVICE], grpcs[:SERVICE]
Options: liveness, port, interval, timeout, grace, deregister-after, jitter (percent), healthy and unhealthy (3, or 3/5),
  host, method, status and degraded (200-299+404), body, header.NAME; of TLS ca (a file) or insecure, and server-name";
const DELETE: &str = "Examples:
  convoy service delete reviews
  convoy service delete -n prod reviews -o json";

pub(super) async fn run(command: ServiceCommand, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    match command.verb {
        Verb::Put(put) => {
            let answer = options.client()?.put_service(request(put, options)).await?;
            let names: Vec<String> = answer.service.iter().map(tables::service_name).collect();
            output::print(out, options, &answer, &names, "", |width| {
                tables::services(answer.service.as_slice(), width, false)
            })
        }
        Verb::Delete { name } => {
            let request = DeleteServiceRequest { namespace: options.namespace(), service: name.clone() };
            let answer = options.client()?.delete_service(request).await?;
            match options.output {
                Format::Table | Format::Wide => Ok(writeln!(out, "{name} is deleted, revision {}", answer.revision)?),
                _ => output::print(out, options, &answer, &[name], "", |_| Table::default()),
            }
        }
    }
}

fn failover(text: &str) -> Result<Failover, String> {
    match (text, text.parse()) {
        ("on", _) => Ok(Failover { by_locality: true, ..Failover::default() }),
        ("off", _) => Ok(Failover::default()),
        (_, Ok(overprovisioning_factor)) => Ok(Failover { by_locality: true, overprovisioning_factor }),
        _ => Err("it is on, off, or a number of percent".into()),
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".into()),
    }
}

/// Not given, they stay as they are.
fn checks(given: Vec<CheckArgument>) -> Option<Checks> {
    let one = |argument| match argument {
        CheckArgument::One(check) => Some(*check),
        CheckArgument::None => None,
    };
    (!given.is_empty()).then(|| Checks { checks: given.into_iter().filter_map(one).collect() })
}

fn request(put: Put, options: &Options) -> PutServiceRequest {
    let exports =
        |names: Vec<String>| ExportTo { namespaces: names.into_iter().filter(|name| !name.is_empty()).collect() };
    let port = |PortArgument { name, number, protocol }| ServicePort {
        name,
        protocol: i32::from(protocol),
        port: u32::from(number),
    };
    let said = put.load_weighting.is_some() || put.min_share.is_some();
    let said = said || put.slow_start.is_some() || put.load_interval.is_some();
    let load = said.then(|| LoadPolicy {
        off: put.load_weighting == Some(false),
        min_share: put.min_share.unwrap_or_default(),
        slow_start: put.slow_start.map(convoy_client::duration),
        interval: put.load_interval.map(convoy_client::duration),
    });
    PutServiceRequest {
        namespace: options.namespace(),
        service: put.name,
        default_port: put.default_port,
        ports: put.ports.into_iter().map(port).collect(),
        drain_time: put.drain_time.map(convoy_client::duration),
        export_to: put.export_to.map(exports),
        brake: put.brake.map(|on| BrakePolicy { off: !on }),
        load,
        checks: checks(put.checks),
        failover: put.failover,
        selector: put.selector,
    }
}
