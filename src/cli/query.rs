//! `convoy query`: who matches a condition, or can do what some words say.

use std::{io::Write, time::SystemTime};

use clap::{Args, ValueEnum};
use convoy_client::{
    duration,
    json::parse_duration,
    proto::{Facet, Locality, QueryOrder, QueryRequest, QueryResponse},
};

use super::{
    options::{Format, Options},
    output::{self, Table, Width},
    tables,
};

const EXAMPLES: &str = "Examples:
  convoy query instance.ready -A --order-by load
  convoy query --text legal --facet health --limit 10

Shells take quotes away: put a condition with quotes or spaces in single quotes.

    convoy query 'instance.has_capability(\"image-processing\", \">=2\") && instance.load.cpu < 0.8' --order-by load
    convoy query --text 'summarise legal documents' 'instance.health == \"healthy\"'

What a condition may look at: the fields `convoy get instances -o json` shows, and `instance.load`. See docs/api.md.";

/// Print the instances that match a condition, or fit some words
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Query {
    /// A condition on `instance`, in CEL; all when not set
    #[arg(value_name = "CONDITION", default_value = "", hide_default_value = true)]
    filter: String,
    /// Words that say what is needed: those that fit best come first
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    text: String,
    /// The order
    #[arg(long, value_enum, value_name = "ORDER")]
    order_by: Option<Order>,
    /// The place to be near to, which is then the order
    #[arg(long, value_name = "REGION[/ZONE[/SUB-ZONE]]", conflicts_with = "order_by")]
    near: Option<String>,
    /// How many, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Go on after the page that ended with this token
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    page: String,
    /// Count by a field: namespace, service, health, region, zone, sub_zone, capability, label:NAME; may be repeated
    #[arg(long = "facet", value_name = "FIELD")]
    facets: Vec<String>,
    /// Fields to print in json and yaml; all when not set
    #[arg(long, value_name = "FIELD,…", value_delimiter = ',')]
    fields: Vec<String>,
    /// How long the server may look: 1s when not set, up to 10s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    within: Option<std::time::Duration>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    Name,
    Load,
    Relevance,
}

fn request(query: Query, options: &Options) -> QueryRequest {
    let near = query.near.map(|place| {
        let mut parts = place.splitn(3, '/').map(str::to_owned);
        let mut part = || parts.next().unwrap_or_default();
        Locality { region: part(), zone: part(), sub_zone: part() }
    });
    let order_by = match query.order_by {
        _ if near.is_some() => QueryOrder::Nearest,
        None => QueryOrder::Unspecified,
        Some(Order::Name) => QueryOrder::Name,
        Some(Order::Load) => QueryOrder::Load,
        Some(Order::Relevance) => QueryOrder::Relevance,
    };
    // A table shows what it shows.
    let fields = if options.for_people() || options.output == Format::Name { Vec::new() } else { query.fields };
    QueryRequest {
        filter: query.filter,
        namespace: options.namespaces(),
        text: query.text,
        order_by: order_by.into(),
        near,
        page_size: query.limit,
        page_token: query.page,
        fields,
        facets: query.facets,
        count: options.for_people(),
        timeout: query.within.map(duration),
    }
}

pub(super) async fn run(query: Query, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let answer = options.client()?.query(request(query, options)).await?;
    let names: Vec<String> = answer.instances.iter().map(tables::instance_name).collect();
    let none = format!("No instance matches {}.", options.whereabouts());
    output::print(out, options, &answer, &names, &none, |width: Width| {
        tables::instances(&answer.instances, width, options.all_namespaces, SystemTime::now())
    })?;
    if options.for_people() {
        for facet in &answer.facets {
            write!(out, "\n{}", counts(facet).render(!options.no_headers))?;
        }
        if let Some(more) = more(&answer) {
            writeln!(std::io::stderr(), "{more}")?;
        }
    }
    Ok(())
}

fn counts(facet: &Facet) -> Table {
    let mut rows: Vec<Vec<String>> =
        facet.values.iter().map(|value| vec![value.value.clone(), value.count.to_string()]).collect();
    for (name, count) in [("(others)", facet.other), ("(none)", facet.without)] {
        if count > 0 {
            rows.push(vec![name.into(), count.to_string()]);
        }
    }
    let header = match facet.field.as_str() {
        "namespace" => "NAMESPACE",
        "service" => "SERVICE",
        "health" => "HEALTH",
        "region" => "REGION",
        "zone" => "ZONE",
        "sub_zone" => "SUB-ZONE",
        "capability" => "CAPABILITY",
        _ => "LABEL",
    };
    Table { header: vec![header, "COUNT"], rows }
}

fn more(answer: &QueryResponse) -> Option<String> {
    let next = &answer.next_page_token;
    let of = answer.total.map(|total| format!(" of {total}")).unwrap_or_default();
    (!next.is_empty()).then(|| format!("These are {}{of}; the next: --page {next}", answer.instances.len()))
}
