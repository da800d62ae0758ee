//! Checks as somebody puts them, or as a store has them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use convoy_client::{json::format_duration, proto};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};

use super::{duration, text};
use crate::model::{
    Check, CheckKind, HttpProbe, Invalid, PortName, Probe, Statuses, Threshold, Tls, TlsTrust,
    check::{
        DEFAULT_INTERVAL, DEFAULT_JITTER_PERCENT, DEFAULT_TIMEOUT, MAX_INTERVAL, MAX_JITTER_PERCENT, MAX_THRESHOLD,
        MIN_INTERVAL, MIN_TIMEOUT,
    },
    ids::is_label,
    limits::at_most,
};

const MAX_GRACE: Duration = Duration::from_secs(60 * 60);
const MIN_DEREGISTER_AFTER: Duration = Duration::from_secs(1);
const MAX_DEREGISTER_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_PATH_BYTES: usize = 1024;
const MAX_HOST_BYTES: usize = 256;
const MAX_HEADERS: usize = 16;
const MAX_HEADER_BYTES: usize = 1024;
const MAX_STATUSES: usize = 16;
const MAX_BODY_MATCH_BYTES: usize = 1024;
const MAX_CA_BYTES: usize = 64 * 1024;
/// The probe writes these itself.
const OWN_HEADERS: [&str; 5] = ["host", "connection", "content-length", "transfer-encoding", "upgrade"];

/// All checks of a service, by name.
pub fn checks(from: &proto::Checks, limit: usize) -> Result<Arc<[Check]>, Invalid> {
    at_most("checks", from.checks.len(), limit, "checks of one service")?;
    let mut parsed: Vec<Check> = Vec::with_capacity(from.checks.len());
    for (index, from) in from.checks.iter().enumerate() {
        let outer = format!("checks.checks[{index}]");
        let check = check(from).map_err(|invalid| invalid.inside(&outer))?;
        if parsed.iter().any(|other| other.name == check.name) {
            return Err(Invalid::new(format!("{outer}.name"), check.name, "unique among the checks"));
        }
        parsed.push(check);
    }
    parsed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(parsed.into())
}

fn check(from: &proto::Check) -> Result<Check, Invalid> {
    let probe = probe(from)?;
    let kind = kind(from.kind)?;
    let interval = within("interval", from.interval, MIN_INTERVAL, MAX_INTERVAL)?.unwrap_or(DEFAULT_INTERVAL);
    let timeout = within("timeout", from.timeout, MIN_TIMEOUT, interval)?;
    let deregister_after =
        within("deregister_after", from.deregister_after, MIN_DEREGISTER_AFTER, MAX_DEREGISTER_AFTER)?;
    if let Some(after) = deregister_after.filter(|_| kind == CheckKind::Readiness) {
        return Err(Invalid::new("deregister_after", format_duration(after), "set for liveness checks only"));
    }
    let jitter = from.jitter_percent.unwrap_or(DEFAULT_JITTER_PERCENT.into());
    let jitter_percent = u8::try_from(jitter).ok().filter(|jitter| *jitter <= MAX_JITTER_PERCENT);
    let jitter_rule = || Invalid::new("jitter_percent", jitter, format!("from 0 to {MAX_JITTER_PERCENT}"));
    let name = if from.name.is_empty() { probe.as_str() } else { &from.name };
    if !is_label(name) {
        return Err(Invalid::new("name", name, "a DNS label"));
    }
    Ok(Check {
        name: name.into(),
        kind,
        port: (!from.port.is_empty()).then(|| PortName::parse("port", &from.port)).transpose()?,
        interval,
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT.min(interval)),
        jitter_percent: jitter_percent.ok_or_else(jitter_rule)?,
        healthy: threshold("healthy", from.healthy, 1)?,
        unhealthy: threshold("unhealthy", from.unhealthy, 3)?,
        grace: within("grace", from.grace, Duration::ZERO, MAX_GRACE)?.unwrap_or_default(),
        deregister_after,
        probe,
    })
}

fn kind(from: i32) -> Result<CheckKind, Invalid> {
    match proto::CheckKind::try_from(from) {
        Ok(proto::CheckKind::Unspecified | proto::CheckKind::Readiness) => Ok(CheckKind::Readiness),
        Ok(proto::CheckKind::Liveness) => Ok(CheckKind::Liveness),
        Err(_) => Err(Invalid::new("kind", from, "one of readiness, liveness")),
    }
}

fn within(
    field: &str,
    value: Option<prost_types::Duration>,
    min: Duration,
    max: Duration,
) -> Result<Option<Duration>, Invalid> {
    let Some(value) = value.map(|value| duration(field, value)).transpose()? else { return Ok(None) };
    if (min..=max).contains(&value) {
        return Ok(Some(value));
    }
    let rule = format!("from {} to {}", format_duration(min), format_duration(max));
    Err(Invalid::new(field, format_duration(value), rule))
}

fn threshold(field: &str, from: Option<proto::Threshold>, default: u8) -> Result<Threshold, Invalid> {
    let Some(proto::Threshold { count, of }) = from else { return Ok(Threshold::in_a_row(default)) };
    let of = if of == 0 { count } else { of };
    if count == 0 || count > of || of > MAX_THRESHOLD.into() {
        let rule = format!("1 <= count <= of <= {MAX_THRESHOLD}");
        return Err(Invalid::new(field, format!("{count} of {of}"), rule));
    }
    Ok(Threshold { count: count as u8, of: of as u8 })
}

fn probe(from: &proto::Check) -> Result<Probe, Invalid> {
    match (&from.http, &from.tcp, &from.grpc) {
        (Some(http), None, None) => Ok(Probe::Http(self::http(http).map_err(|invalid| invalid.inside("http"))?)),
        (None, Some(tcp), None) => {
            Ok(Probe::Tcp { tls: tls(tcp.tls.as_ref()).map_err(|invalid| invalid.inside("tcp"))? })
        }
        (None, None, Some(grpc)) => self::grpc(grpc).map_err(|invalid| invalid.inside("grpc")),
        _ => Err(Invalid::new("probe", "", "exactly one of http, tcp and grpc")),
    }
}

fn grpc(from: &proto::GrpcProbe) -> Result<Probe, Invalid> {
    Ok(Probe::Grpc {
        service: text("service", from.service.clone(), MAX_HOST_BYTES)?,
        authority: host("authority", &from.authority)?,
        tls: tls(from.tls.as_ref())?,
    })
}

fn http(from: &proto::HttpProbe) -> Result<HttpProbe, Invalid> {
    let method = if from.method.is_empty() { "GET" } else { &from.method };
    let token = |text: &str| hyper::Method::from_bytes(text.as_bytes()).is_ok() && text.len() <= 32;
    if !token(method) || method == "CONNECT" {
        return Err(Invalid::new("method", method, "a method of HTTP, and not CONNECT"));
    }
    let path = if from.path.is_empty() { "/" } else { &from.path };
    let readable = path.starts_with('/') && path.len() <= MAX_PATH_BYTES;
    if !readable || path.parse::<hyper::http::uri::PathAndQuery>().is_err() || path.contains('#') {
        let rule = format!("begins with `/`, as in a URL, and has at most {MAX_PATH_BYTES} bytes");
        return Err(Invalid::new("path", path, rule));
    }
    let statuses_expected = statuses("statuses", &from.statuses)?;
    Ok(HttpProbe {
        method: method.into(),
        path: path.into(),
        host: host("host", &from.host)?,
        headers: headers(&from.headers)?,
        statuses: if statuses_expected.is_empty() { vec![Statuses::SUCCESS] } else { statuses_expected },
        degraded_statuses: statuses("degraded_statuses", &from.degraded_statuses)?,
        body_contains: (!from.body_contains.is_empty())
            .then(|| text("body_contains", from.body_contains.clone(), MAX_BODY_MATCH_BYTES))
            .transpose()?,
        tls: tls(from.tls.as_ref())?,
    })
}

fn host(field: &str, from: &str) -> Result<Option<String>, Invalid> {
    if from.is_empty() {
        return Ok(None);
    }
    match from.parse::<hyper::http::uri::Authority>() {
        Ok(_) if !from.contains('@') && from.len() <= MAX_HOST_BYTES => Ok(Some(from.into())),
        _ => Err(Invalid::new(field, from, "a host name or address, with or without a port")),
    }
}

fn headers(from: &BTreeMap<String, String>) -> Result<Vec<(String, String)>, Invalid> {
    at_most("headers", from.len(), MAX_HEADERS, "headers")?;
    let header = |(name, value): (&String, &String)| {
        let lower = name.to_ascii_lowercase();
        let known = hyper::header::HeaderName::from_bytes(lower.as_bytes()).is_ok();
        if !known || OWN_HEADERS.contains(&lower.as_str()) {
            let rule = format!("the name of a header, and none of {}", OWN_HEADERS.join(", "));
            return Err(Invalid::new("headers", name, rule));
        }
        if value.len() > MAX_HEADER_BYTES || hyper::header::HeaderValue::from_str(value).is_err() {
            let rule = format!("at most {MAX_HEADER_BYTES} bytes on one line");
            return Err(Invalid::new(format!("headers.{name}"), value, rule));
        }
        Ok((lower, value.clone()))
    };
    from.iter().map(header).collect()
}

fn statuses(field: &str, from: &[String]) -> Result<Vec<Statuses>, Invalid> {
    at_most(field, from.len(), MAX_STATUSES, "statuses")?;
    let one = |(index, text): (usize, &String)| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse(), last.parse()) {
            (Ok(first), Ok(last)) if (100..=last).contains(&first) && last <= 599 => Ok(Statuses { first, last }),
            _ => Err(Invalid::new(format!("{field}[{index}]"), text, "a status, or two with `-` between; 100 to 599")),
        }
    };
    from.iter().enumerate().map(one).collect()
}

fn tls(from: Option<&proto::TlsProbe>) -> Result<Option<Tls>, Invalid> {
    let Some(from) = from else { return Ok(None) };
    let trust = match (from.ca.is_empty(), from.insecure) {
        (true, true) => TlsTrust::Anybody,
        (false, false) => TlsTrust::Authorities(authorities(&from.ca)?),
        _ => return Err(Invalid::new("tls", "", "either ca or insecure")),
    };
    let server_name = match from.server_name.as_str() {
        "" => None,
        name if ServerName::try_from(name).is_ok() => Some(name.to_owned()),
        name => return Err(Invalid::new("tls.server_name", name, "a host name or an address")),
    };
    Ok(Some(Tls { trust, server_name }))
}

/// Certificates that can be read, and that rustls takes for authorities.
fn authorities(pem: &str) -> Result<Arc<str>, Invalid> {
    at_most("tls.ca", pem.len(), MAX_CA_BYTES, "bytes")?;
    let mut roots = rustls::RootCertStore::empty();
    let read = CertificateDer::pem_slice_iter(pem.as_bytes())
        .try_for_each(|certificate| certificate.map_err(|_| ()).and_then(|read| roots.add(read).map_err(|_| ())));
    match read {
        Ok(()) if !roots.is_empty() => Ok(pem.into()),
        _ => Err(Invalid::new("tls.ca", pem, "one or more certificates in PEM")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::wire;

    fn parse(json: &str) -> Result<Arc<[Check]>, Invalid> {
        let from: proto::Checks = serde_json::from_str(&format!(r#"{{"checks": [{json}]}}"#)).expect(json);
        checks(&from, 16)
    }

    #[test]
    fn what_is_left_out_has_defaults() {
        let checks = parse(r#"{"http": {}}, {"tcp": {}}, {"grpc": {}, "interval": "1s"}"#).expect("valid");
        let names: Vec<_> = checks.iter().map(|check| &*check.name).collect();
        assert_eq!(names, ["grpc", "http", "tcp"]);
        let http = &checks[1];
        assert_eq!((http.kind, http.interval, http.timeout), (CheckKind::Readiness, DEFAULT_INTERVAL, DEFAULT_TIMEOUT));
        assert_eq!((http.healthy, http.unhealthy), (Threshold::in_a_row(1), Threshold::in_a_row(3)));
        let Probe::Http(probe) = &http.probe else { panic!("{http:?}") };
        assert_eq!((&*probe.method, &*probe.path, &*probe.statuses), ("GET", "/", &[Statuses::SUCCESS][..]));
    }

    #[test]
    fn checks_survive_the_way_out_and_in() {
        let checks = parse(
            r#"{"name": "alive", "kind": "liveness", "interval": "5s", "timeout": "500ms", "jitter_percent": 0,
                "healthy": {"count": 2, "of": 3}, "unhealthy": {"count": 3}, "grace": "30s", "deregister_after": "5m",
                "port": "admin", "http": {"method": "POST", "path": "/a?b=c", "host": "a.example:80",
                "headers": {"X-Key": "v"}, "statuses": ["200", "300-399"], "degraded_statuses": ["429"],
                "body_contains": "ok", "tls": {"insecure": true, "server_name": "a.example"}}},
               {"tcp": {"tls": {"insecure": true}}}, {"grpc": {"service": "a.B", "authority": "a.example"}}"#,
        );
        let checks = checks.expect("valid");
        let again = proto::Checks { checks: checks.iter().map(wire::check).collect() };
        assert_eq!(super::checks(&again, 3).expect("valid"), checks);
    }

    #[test]
    fn every_rule_names_its_field() {
        for (json, field) in [
            ("{}", "probe"),
            (r#"{"http": {}, "tcp": {}}"#, "probe"),
            (r#"{"tcp": {}, "name": "No"}"#, "name"),
            (r#"{"tcp": {}, "port": "No"}"#, "port"),
            (r#"{"tcp": {}, "interval": "999ms"}"#, "interval"),
            (r#"{"tcp": {}, "interval": "61m"}"#, "interval"),
            (r#"{"tcp": {}, "interval": "2s", "timeout": "3s"}"#, "timeout"),
            (r#"{"tcp": {}, "timeout": "9ms"}"#, "timeout"),
            (r#"{"tcp": {}, "jitter_percent": 51}"#, "jitter_percent"),
            (r#"{"tcp": {}, "healthy": {"count": 0}}"#, "healthy"),
            (r#"{"tcp": {}, "unhealthy": {"count": 3, "of": 2}}"#, "unhealthy"),
            (r#"{"tcp": {}, "unhealthy": {"count": 3, "of": 33}}"#, "unhealthy"),
            (r#"{"tcp": {}, "grace": "61m"}"#, "grace"),
            (r#"{"tcp": {}, "deregister_after": "1m"}"#, "deregister_after"),
            (r#"{"tcp": {}, "kind": "liveness", "deregister_after": "999ms"}"#, "deregister_after"),
            (r#"{"http": {"method": "G T"}}"#, "http.method"),
            (r#"{"http": {"path": "http://elsewhere/"}}"#, "http.path"),
            (r#"{"http": {"path": "/a b"}}"#, "http.path"),
            (r#"{"http": {"path": "/a\r\nHost: b"}}"#, "http.path"),
            (r#"{"http": {"host": "a b"}}"#, "http.host"),
            (r#"{"http": {"headers": {"a b": ""}}}"#, "http.headers"),
            (r#"{"http": {"headers": {"Host": "a"}}}"#, "http.headers"),
            (r#"{"http": {"headers": {"x": "a\r\nb: c"}}}"#, "http.headers.x"),
            (r#"{"http": {"statuses": ["99"]}}"#, "http.statuses[0]"),
            (r#"{"http": {"statuses": ["200", "300-299"]}}"#, "http.statuses[1]"),
            (r#"{"http": {"degraded_statuses": ["ok"]}}"#, "http.degraded_statuses[0]"),
            (r#"{"http": {"tls": {}}}"#, "http.tls"),
            (r#"{"tcp": {"tls": {"ca": "no certificate"}}}"#, "tcp.tls.ca"),
            (r#"{"grpc": {"tls": {"insecure": true, "server_name": "a b"}}}"#, "grpc.tls.server_name"),
            (r#"{"grpc": {"authority": "a/b"}}"#, "grpc.authority"),
        ] {
            assert_eq!(parse(json).expect_err(json).field, format!("checks.checks[0].{field}"), "{json}");
        }
        assert_eq!(parse(r#"{"tcp": {}}, {"tcp": {}}"#).expect_err("twice").field, "checks.checks[1].name");
        let many = proto::Checks { checks: vec![proto::Check::default(); 17] };
        assert_eq!(checks(&many, 16).expect_err("too many").field, "checks");
    }
}
