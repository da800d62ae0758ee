//! `convoy watch`: every change, as it happens.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use clap::Args;
use convoy_client::proto::{RemovalCause, WatchEvent, WatchKind, WatchRequest};

use super::{
    options::{Format, Options},
    output::{one_line, yaml},
    tables,
};

const EXAMPLES: &str = "Examples:
  convoy watch
  convoy watch --selector 'instance.labels.language == \"python\"'
  convoy watch reviews -o json | jq -r .instance.id";

/// Print what there is, then every change
///
/// Goes on by itself, where it was, when the server is away for a while. With -o json each line is an object.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Watch {
    /// One service; all when not set
    service: Option<String>,
    /// Only instances of which this holds, a condition in CEL on `instance`
    #[arg(long, value_name = "CEL", default_value = "", hide_default_value = true)]
    selector: String,
    /// Go on after the event with this token
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    resume: String,
}

pub(super) async fn run(watch: Watch, options: &Options, out: &mut dyn Write) -> anyhow::Result<()> {
    let Watch { service, selector, resume } = watch;
    let service = service.unwrap_or_default();
    let request = WatchRequest { namespace: options.namespaces(), service, resume, selector };
    let mut events = options.client()?.watch(request);
    let mut heard = false;
    loop {
        match events.next().await {
            Ok(event) => {
                heard = true;
                write_event(out, &event, options, SystemTime::now())?;
                out.flush()?;
            }
            // A server that never answered is more likely a wrong address than a restart.
            Err(error) if error.is_temporary() && heard => writeln!(io::stderr(), "# {error}; trying again")?,
            Err(error) => return Err(error.into()),
        }
    }
}

fn write_event(out: &mut dyn Write, event: &WatchEvent, options: &Options, now: SystemTime) -> anyhow::Result<()> {
    match options.output {
        Format::Json => writeln!(out, "{}", serde_json::to_string(event)?)?,
        Format::Yaml => write!(out, "---\n{}", yaml(event)?)?,
        Format::Name => {
            if let Some(instance) = &event.instance {
                writeln!(out, "{}", tables::instance_name(instance))?;
            }
        }
        // It says nothing to people.
        Format::Table | Format::Wide if event.kind() == WatchKind::Bookmark => {}
        Format::Table | Format::Wide => writeln!(out, "{}", line(event, options.all_namespaces, now))?,
    }
    Ok(())
}

/// One line, in columns wide enough for most names: what comes later cannot widen what is printed already.
fn line(event: &WatchEvent, namespaces: bool, now: SystemTime) -> String {
    let kind = event.kind();
    let head = format!("{}  {kind:<8}", clock(now));
    let line = match (&event.instance, kind) {
        (Some(instance), _) => {
            let mut name = tables::instance_name(instance);
            if namespaces {
                name = format!("{}/{name}", instance.namespace);
            }
            let why = match event.cause() {
                RemovalCause::Unspecified => tables::verdict(instance).to_string(),
                cause => cause.to_string(),
            };
            let address = format!("{} {}", instance.address, tables::ports(&instance.ports));
            let changes: Vec<String> = event.changes().map(|change| change.to_string()).collect();
            let changes = if changes.is_empty() { String::new() } else { format!("  ({})", changes.join(", ")) };
            format!("{head}  {name:<28}  {address:<28}  {why:<12}  weight {}{changes}", instance.weight)
        }
        (None, WatchKind::Reset) => format!("{head}  what was told is too old: all that there is follows"),
        (None, _) => head,
    };
    one_line(&format!("{line}  revision {}", event.revision))
}

/// `14:03:22`, in UTC.
fn clock(now: SystemTime) -> String {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use convoy_client::{
        Port, Protocol,
        proto::{Health, Instance, Verdict, WatchChange},
    };

    use super::*;

    #[test]
    fn events_are_lines() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 + 3_661);
        let instance = Instance {
            namespace: "prod".into(),
            service: "reviews".into(),
            id: "reviews-1".into(),
            address: "10.0.0.7".into(),
            ports: [Port { name: "http".into(), port: 8080, protocol: Protocol::Http.into() }].into(),
            weight: 100,
            health: Some(Health { verdict: Verdict::Healthy.into(), ..Default::default() }),
            ..Default::default()
        };
        let event = |kind: WatchKind, instance: Option<&Instance>, cause: RemovalCause| WatchEvent {
            kind: kind.into(),
            instance: instance.cloned(),
            cause: cause.into(),
            revision: 17,
            token: "t".into(),
            changes: match kind {
                WatchKind::Changed => vec![WatchChange::Health.into(), WatchChange::Weight.into()],
                _ => Vec::new(),
            },
        };
        for (event, namespaces, text) in [
            (
                event(WatchKind::Added, Some(&instance), RemovalCause::Unspecified),
                false,
                "01:01:01  added     reviews/reviews-1             10.0.0.7 http:8080            healthy       weight 100  revision 17",
            ),
            (
                event(WatchKind::Removed, Some(&instance), RemovalCause::Expired),
                true,
                "01:01:01  removed   prod/reviews/reviews-1        10.0.0.7 http:8080            expired       weight 100  revision 17",
            ),
            (
                event(WatchKind::Changed, Some(&instance), RemovalCause::Unspecified),
                false,
                "01:01:01  changed   reviews/reviews-1             10.0.0.7 http:8080            healthy       weight 100  (health, weight)  revision 17",
            ),
            (event(WatchKind::Synced, None, RemovalCause::Unspecified), false, "01:01:01  synced    revision 17"),
        ] {
            assert_eq!(line(&event, namespaces, now), text);
        }
    }
}
