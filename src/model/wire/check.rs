//! Checks, as `parse` reads them.

use convoy_client::proto;

use super::duration;
use crate::model::{Check, CheckKind, HttpProbe, Probe, Threshold, Tls, TlsTrust};

pub fn check(from: &Check) -> proto::Check {
    let kind = match from.kind {
        CheckKind::Readiness => proto::CheckKind::Readiness,
        CheckKind::Liveness => proto::CheckKind::Liveness,
    };
    let mut check = proto::Check {
        name: from.name.to_string(),
        kind: kind.into(),
        port: from.port.as_ref().map(ToString::to_string).unwrap_or_default(),
        interval: Some(duration(from.interval)),
        timeout: Some(duration(from.timeout)),
        jitter_percent: Some(from.jitter_percent.into()),
        healthy: Some(threshold(from.healthy)),
        unhealthy: Some(threshold(from.unhealthy)),
        grace: Some(duration(from.grace)),
        deregister_after: from.deregister_after.map(duration),
        ..Default::default()
    };
    match &from.probe {
        Probe::Http(probe) => check.http = Some(http(probe)),
        Probe::Tcp { tls: with } => check.tcp = Some(proto::TcpProbe { tls: with.as_ref().map(tls) }),
        Probe::Grpc { service, authority, tls: with } => {
            check.grpc = Some(proto::GrpcProbe {
                service: service.clone(),
                authority: authority.clone().unwrap_or_default(),
                tls: with.as_ref().map(tls),
            });
        }
    }
    check
}

fn threshold(from: Threshold) -> proto::Threshold {
    proto::Threshold { count: from.count.into(), of: from.of.into() }
}

fn http(from: &HttpProbe) -> proto::HttpProbe {
    proto::HttpProbe {
        method: from.method.clone(),
        path: from.path.clone(),
        host: from.host.clone().unwrap_or_default(),
        headers: from.headers.iter().cloned().collect(),
        statuses: from.statuses.iter().map(ToString::to_string).collect(),
        degraded_statuses: from.degraded_statuses.iter().map(ToString::to_string).collect(),
        body_contains: from.body_contains.clone().unwrap_or_default(),
        tls: from.tls.as_ref().map(tls),
    }
}

fn tls(from: &Tls) -> proto::TlsProbe {
    let (ca, insecure) = match &from.trust {
        TlsTrust::Authorities(pem) => (pem.to_string(), false),
        TlsTrust::Anybody => (String::new(), true),
    };
    proto::TlsProbe { ca, insecure, server_name: from.server_name.clone().unwrap_or_default() }
}
