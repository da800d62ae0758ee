//! `convoy get`: what there is.

use std::{io::Write, time::SystemTime};

use anyhow::Context;
use clap::{Args, Subcommand};
use convoy_client::{
    Client,
    proto::{
        GetInstanceRequest, GetServiceLoadRequest, GetServiceRequest, Instance, ListInstancesRequest,
        ListInstancesResponse, ListProxiesRequest, ListServicesRequest, WatchKind, WatchRequest,
    },
};

use super::{names::ServiceOrInstance, options::Options, output, proxy, tables};

const EXAMPLES: &str = "Examples:
  convoy get services
  convoy get instances reviews -o wide";

/// Print services, instances or proxies
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Get {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Clone, Subcommand)]
enum Kind {
    /// Services, and how many of their instances are healthy
    #[command(visible_aliases = ["svc", "service"], after_help = SERVICES)]
    Services {
        /// One service
        name: Option<String>,
    },
    /// Instances, and how they are
    #[command(visible_aliases = ["inst", "instance"], after_help = INSTANCES)]
    Instances {
        /// A service's instances, or one of them; all when not set
        #[arg(value_name = "SERVICE[/ID]")]
        name: Option<ServiceOrInstance>,
    },
    /// How much proxies send to a service and to each of its instances
    #[command(after_help = LOAD)]
    Load {
        /// The service
        service: String,
    },
    /// The xDS clients connected: Envoys and proxyless gRPC
    #[command(visible_aliases = ["px", "proxy"], after_help = PROXIES)]
    Proxies {
        /// Those of one node id
        node: Option<String>,
    },
}

const SERVICES: &str = "Examples:
  convoy get services -A
  convoy get service reviews -o yaml";
const INSTANCES: &str = "Examples:
  convoy get instances reviews
  convoy get instance reviews/reviews-1 -o json";
const LOAD: &str = "Examples:
  convoy get load reviews
  convoy get load reviews -o json";
const PROXIES: &str = "Examples:
  convoy get proxies
  convoy get proxies web-1 -o json";

pub(super) async fn run(get: Get, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let client = options.client()?;
    match get.kind {
        Kind::Services { name: None } => services(&client, options, out).await,
        Kind::Services { name: Some(name) } => service(&client, options, name, out).await,
        Kind::Instances { name: None } => {
            let answer = all_instances(&client, options, String::new()).await?;
            instances(&answer, options, &format!("No instances {}.", options.whereabouts()), out)
        }
        Kind::Instances { name: Some(ServiceOrInstance { service, id: None }) } => {
            let none = format!("{service} has no instances {}.", options.whereabouts());
            let answer = if options.all_namespaces {
                all_instances(&client, options, service).await?
            } else {
                client.list_instances(ListInstancesRequest { namespace: options.namespace(), service }).await?
            };
            instances(&answer, options, &none, out)
        }
        Kind::Instances { name: Some(ServiceOrInstance { service, id: Some(id) }) } => {
            let instance = client.get_instance(GetInstanceRequest { namespace: options.namespace(), service, id });
            one_instance(&instance.await?, options, out)
        }
        Kind::Load { service } => {
            let request = GetServiceLoadRequest { namespace: options.namespace(), service };
            let answer = client.get_service_load(request).await?;
            let names: Vec<String> = answer.instances.iter().map(|of| format!("{}/{}", of.service, of.id)).collect();
            let none = format!("{} has no instances {}.", answer.service, options.whereabouts());
            output::print(out, options, &answer, &names, &none, |_| tables::loads(&answer))
        }
        Kind::Proxies { node } => {
            let answer = client.list_proxies(ListProxiesRequest { namespace: options.namespace_if_set() }).await?;
            proxy::print(answer, node.as_deref(), options, out, proxy::overview)
        }
    }
}

async fn services(client: &Client, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let answer = client.list_services(ListServicesRequest { namespace: options.namespaces() }).await?;
    let names: Vec<String> = answer.services.iter().map(tables::service_name).collect();
    let none = format!("No services {}.", options.whereabouts());
    output::print(out, options, &answer, &names, &none, |width| {
        tables::services(&answer.services, width, options.all_namespaces)
    })
}

async fn service(client: &Client, options: &Options, name: String, out: &mut dyn Write) -> anyhow::Result<()> {
    let service = client.get_service(GetServiceRequest { namespace: options.namespace(), service: name }).await?;
    let names = [tables::service_name(&service)];
    output::print(out, options, &service, &names, "", |width| {
        tables::services(std::slice::from_ref(&service), width, false)
    })
}

fn instances(answer: &ListInstancesResponse, options: &Options, none: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let names: Vec<String> = answer.instances.iter().map(tables::instance_name).collect();
    output::print(out, options, answer, &names, none, |width| {
        tables::instances(&answer.instances, width, options.all_namespaces, SystemTime::now())
    })
}

fn one_instance(instance: &Instance, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let names = [tables::instance_name(instance)];
    output::print(out, options, instance, &names, "", |width| {
        tables::instances(std::slice::from_ref(instance), width, false, SystemTime::now())
    })
}

/// The instances of all services, or of one in all namespaces: the beginning of a watch, which is one call and one revision, where a list for each
/// service would be many of each.
async fn all_instances(client: &Client, options: &Options, service: String) -> anyhow::Result<ListInstancesResponse> {
    let request = WatchRequest { namespace: options.namespaces(), service, ..Default::default() };
    let mut watch = client.watch(request);
    let mut instances = Vec::new();
    loop {
        let event = tokio::time::timeout(options.timeout(), watch.next()).await;
        let event = event.map_err(|_| convoy_client::Error::Deadline(options.timeout()))??;
        match event.kind() {
            WatchKind::Added => instances.push(event.instance.context("the server added nothing")?),
            WatchKind::Synced => return Ok(ListInstancesResponse { instances, revision: event.revision }),
            // A first watch has neither changes nor resets before it is synced.
            _ => {}
        }
    }
}
