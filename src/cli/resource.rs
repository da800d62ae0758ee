//! `convoy resource`: xDS resources that somebody wrote.

use std::{io::Write, path::PathBuf};

use clap::{Args, Subcommand};
use convoy_client::{
    Client,
    json::format_duration,
    proto::{DeleteResourceRequest, GetResourceRequest, ListResourcesRequest, Resource},
};
use serde_json::{Value, json};

use super::{
    documents,
    options::{Format, Options},
    output::{self, Table, Width},
};
use crate::envoy_json;

const EXAMPLES: &str = "Examples:
  convoy resource put -f edge.yaml
  convoy resource get listeners edge -o yaml";

/// Put, print and delete xDS resources of your own
///
/// Such a resource stands in place of the generated one of its name, or beside them: for all proxies, or for those that a
/// selector over the node matches.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ResourceCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    /// Put the resources of some files
    ///
    /// A file has one document or several, YAML or JSON: `type`, `resource`, and if need be `name`, `variant`, `selector`
    /// and `ttl`; or a resource of Envoy's with its `@type`. All are read before the first is put.
    #[command(after_help = PUT)]
    Put {
        /// A file; `-` is standard input
        #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
        files: Vec<PathBuf>,
    },
    /// Print resources
    #[command(after_help = GET)]
    Get {
        /// Those of one type: clusters, endpoints, listeners, routes …, or a type URL
        #[arg(value_name = "TYPE")]
        kind: Option<String>,
        /// Those of one name
        name: Option<String>,
    },
    /// Delete a resource: a generated one of its name stands again
    #[command(after_help = DELETE)]
    Delete {
        #[arg(value_name = "TYPE")]
        kind: String,
        name: String,
        /// The variant; the plain one when not set
        #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
        variant: String,
    },
}

const PUT: &str = "Examples:
  convoy resource put -f edge.yaml
  convoy resource put -f clusters.json routes.yaml -o name";
const GET: &str = "Examples:
  convoy resource get clusters
  convoy resource get routes convoy/outbound -o yaml";
const DELETE: &str = "Examples:
  convoy resource delete clusters legacy
  convoy resource delete routes convoy/outbound --variant edge";

pub(super) async fn run(command: ResourceCommand, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let client = options.client()?;
    match command.verb {
        Verb::Put { files } => put(&client, options, &files, out).await,
        Verb::Get { kind, name } => get(&client, options, kind, name, out).await,
        Verb::Delete { kind, name, variant } => {
            let request = DeleteResourceRequest { r#type: kind.clone(), name: name.clone(), variant };
            let answer = client.delete_resource(request).await?;
            match options.output {
                Format::Table | Format::Wide => {
                    Ok(writeln!(out, "{kind} {name} is deleted, revision {}", answer.revision)?)
                }
                _ => output::print(out, options, &answer, &[format!("{kind} {name}")], "", |_| Table::default()),
            }
        }
    }
}

async fn put(client: &Client, options: &Options, files: &[PathBuf], out: &mut dyn Write) -> anyhow::Result<()> {
    let mut resources = Vec::new();
    for request in documents::read(files)? {
        resources.push(client.put_resource(request).await?);
    }
    print(&resources, options, "There is nothing in the files.", out)
}

async fn get(
    client: &Client,
    options: &Options,
    kind: Option<String>,
    name: Option<String>,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let request = ListResourcesRequest { r#type: kind.unwrap_or_default(), name: name.unwrap_or_default() };
    let none = match (&*request.r#type, &*request.name) {
        ("", "") => "There are no resources of your own.".to_owned(),
        (kind, "") => format!("There are no {kind} of your own."),
        (kind, name) => format!("There are no {kind} of your own with the name {name}."),
    };
    let mut resources = client.list_resources(request).await?.resources;
    if matches!(options.output, Format::Json | Format::Yaml) {
        // A list has no bodies.
        for resource in &mut resources {
            let Resource { r#type, name, variant, .. } = resource.clone();
            *resource = client.get_resource(GetResourceRequest { r#type, name, variant }).await?;
        }
    }
    print(&resources, options, &none, out)
}

/// One document for one resource, a list for several; `put` takes both.
fn print(resources: &[Resource], options: &Options, none: &str, out: &mut dyn Write) -> anyhow::Result<()> {
    let names: Vec<String> = resources.iter().map(|of| format!("{} {}", of.r#type, of.name)).collect();
    let document = match resources {
        [one] => document(one),
        all => json!({"resources": all.iter().map(document).collect::<Vec<_>>()}),
    };
    output::print(out, options, &document, &names, none, |width| table(resources, width))
}

/// A resource as the HTTP API shows it.
fn document(resource: &Resource) -> Value {
    let mut document = json!(resource);
    document["resource"] = resource.body.as_ref().map(envoy_json::show).unwrap_or_default();
    document
}

fn table(resources: &[Resource], width: Width) -> Table {
    let mut header = vec!["TYPE", "NAME", "VARIANT", "SELECTOR", "REVISION"];
    if width == Width::Wide {
        header.extend(["TTL", "VERSION"]);
    }
    let row = |of: &Resource| {
        let text = [&of.r#type, &of.name, &of.variant, &of.selector].map(String::clone);
        let mut row = [&text[..], &[of.revision.to_string()]].concat();
        if width == Width::Wide {
            let ttl = of.ttl.and_then(|ttl| std::time::Duration::try_from(ttl).ok()).map(format_duration);
            row.extend([ttl.unwrap_or_default(), of.version.clone()]);
        }
        row
    };
    Table { header, rows: resources.iter().map(row).collect() }
}
