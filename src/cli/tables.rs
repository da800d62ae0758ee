//! The registry's things as rows of tables.

use std::time::SystemTime;

use convoy_client::proto::{Instance, Locality, Port, ReportedLoad, Service, ServiceLoad, Verdict};

use super::output::{Table, Width, age, pairs};

/// A service is named by its name.
pub(super) fn service_name(service: &Service) -> String {
    service.name.clone()
}

/// An instance is named as `drain` and `deregister` take it.
pub(super) fn instance_name(instance: &Instance) -> String {
    format!("{}/{}", instance.service, instance.id)
}

/// Services, with the namespace if there may be several.
pub(super) fn services(services: &[Service], width: Width, namespaces: bool) -> Table {
    let mut header = vec!["SERVICE", "HEALTHY", "PORTS"];
    if width == Width::Wide {
        header.extend(["DEFAULT PORT", "DRAIN TIME", "EXPORTED TO", "REVISION"]);
    }
    let row = |service: &Service| {
        let port = |port: &convoy_client::proto::ServicePort| Port {
            name: port.name.clone(),
            port: port.port,
            protocol: port.protocol,
        };
        let healthy = format!("{}/{}", service.healthy, service.instances);
        let mut row = vec![service.name.clone(), healthy, ports(&service.ports.iter().map(port).collect::<Vec<_>>())];
        if width == Width::Wide {
            let drain_time = service.drain_time.and_then(|time| std::time::Duration::try_from(time).ok());
            let drain_time = drain_time.map(convoy_client::json::format_duration).unwrap_or_default();
            let exports = service.export_to.as_ref().map(|to| to.namespaces.join(",")).unwrap_or_default();
            row.extend([service.default_port.clone(), drain_time, exports, service.revision.to_string()]);
        }
        row
    };
    let rows = services.iter().map(|service| (&service.namespace, row(service)));
    with_namespaces(header, rows, namespaces)
}

/// Instances, with the namespace if there may be several.
pub(super) fn instances(instances: &[Instance], width: Width, namespaces: bool, now: SystemTime) -> Table {
    let mut header = vec!["INSTANCE", "ADDRESS", "PORTS", "HEALTH", "WEIGHT", "AGE"];
    if width == Width::Wide {
        header.extend(["ZONE", "LABELS", "CAPABILITIES", "LOAD", "INCARNATION", "LEASE"]);
    }
    header.push("REASON");
    let row = |instance: &Instance| {
        let mut row = vec![
            instance_name(instance),
            instance.address.clone(),
            ports(&instance.ports),
            verdict(instance).to_string(),
            instance.weight.to_string(),
            age(instance.registered_at.as_ref(), now),
        ];
        if width == Width::Wide {
            row.extend(details(instance));
        }
        row.push(reason(instance));
        row
    };
    let rows = instances.iter().map(|instance| (&instance.namespace, row(instance)));
    with_namespaces(header, rows, namespaces)
}

fn with_namespaces<'a>(
    mut header: Vec<&'static str>,
    rows: impl Iterator<Item = (&'a String, Vec<String>)>,
    namespaces: bool,
) -> Table {
    let row = |(namespace, mut row): (&String, Vec<String>)| {
        if namespaces {
            row.insert(0, namespace.clone());
        }
        row
    };
    if namespaces {
        header.insert(0, "NAMESPACE");
    }
    Table { header, rows: rows.map(row).collect() }
}

pub(super) fn verdict(instance: &Instance) -> Verdict {
    instance.health.as_ref().map_or(Verdict::Unspecified, |health| health.verdict())
}

/// Why an instance is not healthy; a healthy one needs no reason.
fn reason(instance: &Instance) -> String {
    let health = instance.health.as_ref().filter(|health| health.verdict() != Verdict::Healthy);
    health.map(|health| health.reason.clone()).unwrap_or_default()
}

/// `http:8080,admin:9000/tcp`: the protocol is told where the name does not tell it.
pub(super) fn ports(ports: &[Port]) -> String {
    let port = |port: &Port| {
        let protocol = port.protocol().to_string();
        let tail = if port.name == protocol { String::new() } else { format!("/{protocol}") };
        format!("{}:{}{tail}", port.name, port.port)
    };
    ports.iter().map(port).collect::<Vec<_>>().join(",")
}

/// `us/us-a`
pub(super) fn zone(locality: &Locality) -> String {
    let parts = [&locality.region, &locality.zone, &locality.sub_zone];
    parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join("/")
}

fn details(instance: &Instance) -> [String; 6] {
    let zone = instance.locality.as_ref().map(zone);
    let capability = |capability: &convoy_client::Capability| {
        let tail = if capability.version.is_empty() { String::new() } else { format!("@{}", capability.version) };
        capability.name.clone() + &tail
    };
    [
        zone.unwrap_or_default(),
        pairs(&instance.labels),
        instance.capabilities.iter().map(capability).collect::<Vec<_>>().join(","),
        load(instance),
        instance.incarnation.to_string(),
        instance.lease.clone(),
    ]
}

fn load(instance: &Instance) -> String {
    let Some(load) = &instance.load else { return String::new() };
    let share = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {:.0}%", value * 100.0));
    let number = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {value}"));
    let parts = [
        share("cpu", load.cpu),
        share("memory", load.memory),
        number("queue", load.queue_depth),
        number("in flight", load.in_flight),
        number("rps", load.rps),
        share("errors", load.error_rate),
        share("application", load.application_utilization),
    ];
    let others = load.metrics.iter().map(|(name, value)| format!("{name} {value}"));
    parts.into_iter().flatten().chain(others).collect::<Vec<_>>().join(", ")
}

/// What proxies send to a service: a row for each instance, and one for all.
pub(super) fn loads(of: &ServiceLoad) -> Table {
    let row = |name: String, address: &str, load: Option<ReportedLoad>| {
        let load = load.unwrap_or_default();
        let rate = |rate: f64| format!("{rate:.1}");
        vec![name, address.to_owned(), rate(load.rps), rate(load.error_rps), load.in_progress.to_string()]
    };
    let instances = of.instances.iter();
    let mut rows: Vec<_> = instances
        .map(|instance| row(format!("{}/{}", instance.service, instance.id), &instance.address, instance.load))
        .collect();
    if !rows.is_empty() {
        rows.push(row(of.service.clone(), &format!("by {} proxies", of.proxies), of.total));
    }
    Table { header: vec!["INSTANCE", "ADDRESS", "RPS", "ERRORS/S", "IN PROGRESS"], rows }
}

#[cfg(test)]
mod tests {
    use convoy_client::{
        Load, Locality, Protocol,
        proto::{ExportTo, Health, ServicePort},
    };

    use super::*;

    fn instance(id: &str, verdict: Verdict, reason: &str) -> Instance {
        let port = |name: &str, port, protocol: Protocol| Port { name: name.into(), port, protocol: protocol.into() };
        Instance {
            namespace: "default".into(),
            service: "reviews".into(),
            id: id.into(),
            incarnation: 7,
            address: "10.0.0.7".into(),
            ports: [port("http", 8080, Protocol::Http), port("admin", 9000, Protocol::Tcp)].into(),
            weight: 100,
            health: Some(Health { verdict: verdict.into(), reason: reason.into(), ..Default::default() }),
            labels: [("language", "python"), ("owner", "a")].map(|(k, v)| (k.into(), v.into())).into(),
            locality: Some(Locality { region: "us".into(), zone: "us-a".into(), ..Default::default() }),
            lease: "l-1".into(),
            registered_at: Some(prost_types::Timestamp { seconds: 8, nanos: 0 }),
            load: Some(Load { cpu: Some(0.414), in_flight: Some(3.0), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn instances_tell_what_is_wrong_first() {
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(200);
        let all = [instance("a", Verdict::Healthy, "ready"), instance("bb", Verdict::Draining, "told to")];
        let text = "\
INSTANCE    ADDRESS   PORTS                     HEALTH    WEIGHT  AGE    REASON
reviews/a   10.0.0.7  http:8080,admin:9000/tcp  healthy   100     3m12s
reviews/bb  10.0.0.7  http:8080,admin:9000/tcp  draining  100     3m12s  told to
";
        assert_eq!(instances(&all, Width::Narrow, false, now).render(true), text);
        let wide = instances(&all[..1], Width::Wide, true, now);
        assert_eq!(wide.header.len(), wide.rows[0].len());
        assert_eq!(wide.rows[0][0], "default");
        assert_eq!(
            wide.rows[0][7..],
            ["us/us-a", "language=python,owner=a", "", "cpu 41%, in flight 3", "7", "l-1", ""]
        );
    }

    #[test]
    fn services_tell_how_many_are_healthy() {
        let service = Service {
            namespace: "prod".into(),
            name: "reviews".into(),
            default_port: "web".into(),
            ports: [ServicePort { name: "web".into(), port: 80, protocol: Protocol::Http.into() }].into(),
            drain_time: Some(convoy_client::duration(std::time::Duration::from_secs(15))),
            instances: 3,
            healthy: 2,
            revision: 17,
            export_to: Some(ExportTo { namespaces: vec!["shop".into(), "bank".into()] }),
            ..Service::default()
        };
        let text = "\
NAMESPACE  SERVICE  HEALTHY  PORTS        DEFAULT PORT  DRAIN TIME  EXPORTED TO  REVISION
prod       reviews  2/3      web:80/http  web           15s         shop,bank    17
";
        assert_eq!(services(&[service], Width::Wide, true).render(true), text);
    }
}
