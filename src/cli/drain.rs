//! `convoy drain`: an instance leaves traffic, then goes.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Args;
use convoy_client::{
    Client, Drained,
    json::{format_duration, parse_duration},
    proto::{Barrier, BarrierOutcome, DrainRequest, DrainResponse, GetInstanceRequest, MissingProxy},
};
use tokio::time::Instant;

use super::{
    FOUND,
    names::InstanceName,
    options::Options,
    output::{self, Table, age},
};

/// With `--wait-gone`, how long after the drain time the instance may still be there: its removal takes a write and our
/// next look.
const GRACE: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "Examples:
  convoy drain reviews/reviews-1
  convoy drain reviews/reviews-1 --for 30s --wait --timeout 10s";

/// Take an instance out of traffic, and remove it after a while
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Drain {
    /// The instance
    #[arg(value_name = "SERVICE/ID")]
    instance: InstanceName,
    /// How long until it is removed, up to 24h; the service's drain time when not set
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    drain_time: Option<Duration>,
    /// Wait until no proxy picks it any more: all that follow the service have ACKed that it is draining
    ///
    /// Prints `complete`, or after --timeout `incomplete` with who is missing and why, and ends with 3. An ACK means
    /// accepted, not applied; 250ms are given for that. Requests under way go on until the instance is removed.
    #[arg(long)]
    wait: bool,
    /// Wait until it is removed
    #[arg(long)]
    wait_gone: bool,
}

pub(super) async fn run(drain: &Drain, options: &Options, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let InstanceName { service, id } = drain.instance.clone();
    let (namespace, name) = (options.namespace(), format!("{service}/{id}"));
    let started = Instant::now();
    let wait = drain.wait.then(|| options.wait());
    let client = if drain.wait { options.waiting_client()? } else { options.client()? };
    let answer = client
        .drain(DrainRequest {
            namespace: namespace.clone(),
            service: service.clone(),
            id: id.clone(),
            incarnation: None,
            drain_time: drain.drain_time.map(convoy_client::duration),
            wait: wait.map(convoy_client::duration),
        })
        .await?;
    if options.for_people() {
        let drain_time = format_duration(drain_time(&answer));
        writeln!(out, "{name} is draining; it is removed {drain_time} after it began to")?;
        if let Some(barrier) = &answer.barrier {
            print_barrier(barrier, options, out)?;
        }
        out.flush()?;
    }
    if drain.wait_gone {
        let instance = GetInstanceRequest { namespace, service, id };
        wait_until_gone(&client, instance, &answer, started).await?;
        if options.for_people() {
            writeln!(out, "{name} is gone")?;
        }
    }
    if !options.for_people() {
        output::print(out, options, &answer, &[name], "", |_| Table::default())?;
    }
    let incomplete = answer.barrier.is_some_and(|barrier| barrier.outcome() != BarrierOutcome::Complete);
    Ok(if incomplete { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

fn drain_time(answer: &DrainResponse) -> Duration {
    answer.drain_time.and_then(|time| Duration::try_from(time).ok()).unwrap_or_default()
}

async fn wait_until_gone(
    client: &Client,
    instance: GetInstanceRequest,
    answer: &DrainResponse,
    started: Instant,
) -> anyhow::Result<()> {
    let incarnation = answer.instance.as_ref().map(|instance| instance.incarnation);
    let name = format!("{}/{}", instance.service, instance.id);
    match client.wait_until_gone(instance, incarnation, started + drain_time(answer) + GRACE).await? {
        Drained::Gone => Ok(()),
        Drained::TimeOver => anyhow::bail!(
            "{name} is still there, or Convoy does not answer, {} after its drain time",
            format_duration(GRACE)
        ),
    }
}

fn print_barrier(barrier: &Barrier, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    writeln!(out, "{}", sentence(barrier))?;
    if !barrier.missing.is_empty() {
        let table = table(&barrier.missing, SystemTime::now());
        out.write_all(table.render(!options.no_headers).as_bytes())?;
        let missing = barrier.proxies.saturating_sub(barrier.acked) as usize;
        let unnamed = missing.saturating_sub(barrier.missing.len());
        if unnamed > 0 {
            writeln!(io::stderr(), "and {unnamed} more")?;
        }
    }
    Ok(())
}

fn sentence(barrier: &Barrier) -> String {
    let waited = barrier.waited.and_then(|waited| Duration::try_from(waited).ok()).unwrap_or_default();
    let waited = format_duration(Duration::from_millis(waited.as_millis().try_into().unwrap_or(u64::MAX)));
    let (proxies, missing) = (barrier.proxies, barrier.proxies.saturating_sub(barrier.acked));
    match (barrier.outcome(), proxies) {
        _ if !barrier.unknown_replicas.is_empty() => {
            let unknown = barrier.unknown_replicas.join(", ");
            format!(
                "incomplete: {missing} of {proxies} proxies may still send it requests, and those of {unknown}, which does not answer"
            )
        }
        (BarrierOutcome::Complete, 0) => "complete: no proxy follows its service".into(),
        (BarrierOutcome::Complete, _) => {
            format!("complete: {proxies} of {proxies} proxies have accepted it, after {waited}")
        }
        _ => format!("incomplete: {missing} of {proxies} proxies may still send it requests, after {waited}"),
    }
}

fn table(missing: &[MissingProxy], now: SystemTime) -> Table {
    let row = |proxy: &MissingProxy| {
        vec![
            proxy.node.clone(),
            proxy.namespace.clone(),
            proxy.address.clone(),
            proxy.reason().to_string().to_uppercase(),
            age(proxy.left_at.as_ref(), now),
            proxy.message.clone(),
        ]
    };
    let header = vec!["PROXY", "NAMESPACE", "ADDRESS", "MISSING", "LEFT AGO", "REFUSAL"];
    Table { header, rows: missing.iter().map(row).collect() }
}

#[cfg(test)]
mod tests {
    use convoy_client::proto::MissingReason;

    use super::*;

    fn barrier(outcome: BarrierOutcome, proxies: u32, acked: u32) -> Barrier {
        let waited = Some(convoy_client::duration(Duration::from_millis(312)));
        Barrier { outcome: outcome.into(), waited, proxies, acked, missing: Vec::new(), unknown_replicas: Vec::new() }
    }

    #[test]
    fn the_outcome_is_the_first_word() {
        use BarrierOutcome::{Complete, Incomplete};
        for (of, text) in [
            (barrier(Complete, 0, 0), "complete: no proxy follows its service"),
            (barrier(Complete, 3, 3), "complete: 3 of 3 proxies have accepted it, after 312ms"),
            (barrier(Incomplete, 3, 1), "incomplete: 2 of 3 proxies may still send it requests, after 312ms"),
        ] {
            assert_eq!(sentence(&of), text);
        }
    }

    #[test]
    fn who_is_missing_is_told_with_the_reason() {
        let missing = |node: &str, reason: MissingReason| MissingProxy {
            node: node.into(),
            namespace: "default".into(),
            address: "10.0.0.1:80".into(),
            reason: reason.into(),
            ..Default::default()
        };
        let left_at = Some(prost_types::Timestamp { seconds: 90, nanos: 0 });
        let all = [
            MissingProxy { left_at, ..missing("a", MissingReason::Disconnected) },
            MissingProxy { message: "bad".into(), ..missing("b", MissingReason::Rejected) },
        ];
        let text = "\
PROXY  NAMESPACE  ADDRESS      MISSING       LEFT AGO  REFUSAL
a      default    10.0.0.1:80  DISCONNECTED  10s
b      default    10.0.0.1:80  REJECTED                bad
";
        assert_eq!(table(&all, SystemTime::UNIX_EPOCH + Duration::from_secs(100)).render(true), text);
    }
}
