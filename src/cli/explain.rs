//! `convoy explain`: why an instance is, or is not, in a proxy's endpoints.

use std::{io::Write, time::SystemTime};

use clap::Args;
use convoy_client::proto::{ClusterExplanation, ExplainInstanceRequest, ExplainedEndpoint, Explanation};

use super::{
    names::InstanceName,
    options::{Format, Options},
    output::{self, Table, Width, age, one_line},
    proxy::short_version,
};

const EXAMPLES: &str = "Examples:
  convoy explain reviews/reviews-1
  convoy explain reviews/reviews-1 --proxy web-1";

/// Why an instance is, or is not, in a proxy's endpoints
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Explain {
    /// The instance
    #[arg(value_name = "SERVICE/ID")]
    instance: InstanceName,
    /// A proxy's node id; without, only what the registry says
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NODE")]
    proxy: String,
}

pub(super) async fn run(command: Explain, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let InstanceName { service, id } = command.instance;
    let request = ExplainInstanceRequest { namespace: options.namespace(), service, id, proxy: command.proxy };
    let answer = options.client()?.explain_instance(request).await?;
    match options.output {
        Format::Table | Format::Wide => people(&answer, options, out),
        _ => output::print(out, options, &answer, &[], "", |_| Table::default()),
    }
}

fn people(answer: &Explanation, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let now = SystemTime::now();
    writeln!(out, "{}\n", one_line(&answer.summary))?;
    let mut rows = Vec::new();
    let proxies = answer.proxies.iter().flat_map(|proxy| &proxy.steps);
    for step in answer.steps.iter().chain(proxies) {
        let since = age(step.since.as_ref(), now);
        rows.push(vec![step.step.clone(), step.outcome().to_string(), step.detail.clone(), since]);
    }
    let table = Table { header: vec!["STEP", "OUTCOME", "DETAIL", "SINCE"], rows };
    out.write_all(table.render(!options.no_headers).as_bytes())?;
    let clusters: Vec<Vec<String>> =
        answer.proxies.iter().flat_map(|proxy| proxy.clusters.iter().map(|of| cluster(&proxy.node, of))).collect();
    if !clusters.is_empty() {
        let header = vec!["PROXY", "CLUSTER", "NOW", "ACCEPTED", "SYNC", "ACKED", "LAST NACK"];
        writeln!(out)?;
        out.write_all(Table { header, rows: clusters }.render(!options.no_headers).as_bytes())?;
    }
    Ok(())
}

fn cluster(node: &str, of: &ClusterExplanation) -> Vec<String> {
    let endpoint = |endpoint: &Option<ExplainedEndpoint>| match endpoint {
        Some(at) => format!("{} weight {} priority {}", at.health_status, at.weight, at.priority),
        None => "-".into(),
    };
    let nack = of.last_nack.as_ref().map(|nack| nack.message.clone()).unwrap_or_default();
    let sync = if of.subscribed { of.sync().to_string().to_uppercase() } else { "NOT ASKED FOR".into() };
    let acked = short_version(&of.version_acked, Width::Narrow);
    vec![node.into(), of.cluster.clone(), endpoint(&of.now), endpoint(&of.accepted), sync, acked, nack]
}
