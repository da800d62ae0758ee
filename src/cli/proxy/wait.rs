//! `convoy proxy wait`: until all proxies have a revision.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::SystemTime,
};

use clap::Args;
use convoy_client::proto::{Convergence, Laggard, WaitForConvergenceRequest};

use super::{
    super::{
        IN_VAIN,
        options::Options,
        output::{self, Table, Width, age},
    },
    revision,
};

const EXAMPLES: &str = "Examples:
  convoy proxy wait
  convoy proxy wait --revision 17 --timeout 1m";

/// Wait until every proxy has ACKed everything up to a revision that concerns it
///
/// Ends with 4 if that has not happened in time, and prints who lags. An ACK means accepted, not applied.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Wait {
    /// The revision, as a write answers it; the registry's present one when not set
    #[arg(long, value_name = "NUMBER")]
    revision: Option<u64>,
}

pub(super) async fn run(wait: &Wait, options: &Options, out: &mut dyn Write) -> anyhow::Result<ExitCode> {
    let timeout = options.wait();
    let request = WaitForConvergenceRequest {
        revision: wait.revision,
        namespace: options.namespace_if_set(),
        timeout: Some(convoy_client::duration(timeout)),
    };
    let answer = options.waiting_client()?.wait_for_convergence(request).await?;
    let names: Vec<String> = answer.lagging.iter().map(|laggard| laggard.node.clone()).collect();
    let said = sentence(&answer);
    if options.for_people() && answer.complete {
        writeln!(out, "{said}")?;
    } else {
        output::print(out, options, &answer, &names, "", |width| table(&answer.lagging, width, SystemTime::now()))?;
        writeln!(io::stderr(), "{said}")?;
    }
    Ok(if answer.complete { ExitCode::SUCCESS } else { ExitCode::from(IN_VAIN) })
}

/// Who has the revision.
pub(super) fn sentence(of: &Convergence) -> String {
    let Convergence { revision, told, proxies, converged, .. } = of;
    match proxies {
        _ if !of.unknown_replicas.is_empty() => {
            let unknown = of.unknown_replicas.join(", ");
            format!(
                "Revision {revision}: {converged} of {proxies} proxies have it; {unknown} does not answer for its own."
            )
        }
        _ if told < revision => format!("Revision {revision}: it is still on its way; {told} has been told."),
        0 => format!("Revision {revision}: no proxies are connected that could lack it."),
        _ => format!("Revision {revision}: {converged} of {proxies} proxies have it."),
    }
}

/// One row for each type that lags.
fn table(lagging: &[Laggard], width: Width, now: SystemTime) -> Table {
    let mut header = vec!["PROXY", "TYPE", "SYNC", "REVISION", "LAST ACK"];
    if width == Width::Wide {
        header.extend(["NAMESPACE", "ADDRESS"]);
    }
    header.push("LAST NACK");
    let row = |(laggard, of): (&Laggard, &convoy_client::proto::ProxyType)| {
        let sync = of.sync().to_string().to_uppercase();
        let acked = age(of.acked_at.as_ref(), now);
        let mut row = vec![laggard.node.clone(), of.r#type.clone(), sync, revision(of.synced_revision), acked];
        if width == Width::Wide {
            row.extend([laggard.namespace.clone(), laggard.address.clone()]);
        }
        row.push(of.last_nack.as_ref().map(|nack| nack.message.clone()).unwrap_or_default());
        row
    };
    let rows = lagging.iter().flat_map(|laggard| laggard.types.iter().map(move |of| (laggard, of)));
    Table { header, rows: rows.map(row).collect() }
}

#[cfg(test)]
mod tests {
    use convoy_client::proto::{Nack, ProxyType, SyncState};

    use super::*;

    #[test]
    fn who_lags_is_told_with_what_and_why() {
        let of = |kind: &str, sync: SyncState, message: &str| ProxyType {
            r#type: kind.into(),
            sync: sync.into(),
            last_nack: (!message.is_empty()).then(|| Nack { message: message.into(), ..Default::default() }),
            ..Default::default()
        };
        let types = vec![of("endpoints", SyncState::Pending, ""), of("routes", SyncState::Rejected, "bad route")];
        let lagging = [Laggard { node: "web-1".into(), types, ..Default::default() }];
        let text = "\
PROXY  TYPE       SYNC      REVISION  LAST ACK  LAST NACK
web-1  endpoints  PENDING
web-1  routes     REJECTED                      bad route
";
        assert_eq!(table(&lagging, Width::Narrow, SystemTime::UNIX_EPOCH).render(true), text);
        let wide = table(&lagging, Width::Wide, SystemTime::UNIX_EPOCH);
        assert!(wide.rows.iter().all(|row| row.len() == wide.header.len()));
    }

    #[test]
    fn a_sentence_sums_it_up() {
        for (complete, told, proxies, converged, text) in [
            (true, 7, 0, 0, "Revision 7: no proxies are connected that could lack it."),
            (true, 7, 3, 3, "Revision 7: 3 of 3 proxies have it."),
            (false, 7, 3, 1, "Revision 7: 1 of 3 proxies have it."),
            (false, 6, 3, 0, "Revision 7: it is still on its way; 6 has been told."),
        ] {
            let of = Convergence { revision: 7, told, complete, proxies, converged, ..Default::default() };
            assert_eq!(sentence(&of), text);
            let of = Convergence { unknown_replicas: vec!["b (10.0.0.2:7071)".into()], ..of };
            assert!(sentence(&of).contains("b (10.0.0.2:7071) does not answer"));
        }
    }
}
