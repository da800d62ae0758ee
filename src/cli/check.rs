//! A check as the command line writes it: `[NAME=]KIND[:WHAT][,OPTION=VALUE]…`.

use std::{fs, str::FromStr};

use convoy_client::{
    duration,
    json::parse_duration,
    proto::{Check, CheckKind, GrpcProbe, HttpProbe, TcpProbe, Threshold, TlsProbe},
};

/// What `--check` is given.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum CheckArgument {
    One(Box<Check>),
    /// No checks any more.
    None,
}

impl FromStr for CheckArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        let (probe, options) = text.split_once(',').map_or((text, ""), |(probe, options)| (probe, options));
        // A name has no `:` or `/`; a path may have `=`.
        let name_end = probe.find(['=', ':', '/']).filter(|&at| probe.as_bytes()[at] == b'=');
        let (name, probe) = name_end.map_or(("", probe), |at| (&probe[..at], &probe[at + 1..]));
        let mut check = Check { name: name.into(), ..Check::default() };
        set_probe(&mut check, probe)?;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            set_option(&mut check, name, value).map_err(|error| format!("{option:?}: {error}"))?;
        }
        Ok(Self::One(Box::new(check)))
    }
}

fn set_probe(check: &mut Check, probe: &str) -> Result<(), String> {
    let (kind, what) = probe.split_once(':').unwrap_or((probe, ""));
    let tls = || Some(TlsProbe::default());
    let http = |tls| Some(HttpProbe { path: what.into(), tls, ..HttpProbe::default() });
    let grpc = |tls| Some(GrpcProbe { service: what.into(), tls, ..GrpcProbe::default() });
    match kind {
        "http" => check.http = http(None),
        "https" => check.http = http(tls()),
        "grpc" => check.grpc = grpc(None),
        "grpcs" => check.grpc = grpc(tls()),
        "tcp" if what.is_empty() => check.tcp = Some(TcpProbe::default()),
        "tls" if what.is_empty() => check.tcp = Some(TcpProbe { tls: tls() }),
        _ => return Err("it is http:/PATH, https:/PATH, tcp, tls, grpc[:SERVICE] or grpcs[:SERVICE]".into()),
    }
    Ok(())
}

fn set_option(check: &mut Check, name: &str, value: &str) -> Result<(), String> {
    let time = || parse_duration(value).map(duration).map(Some);
    match name {
        "liveness" => check.kind = CheckKind::Liveness.into(),
        "readiness" => check.kind = CheckKind::Readiness.into(),
        "port" => check.port = value.into(),
        "interval" => check.interval = time()?,
        "timeout" => check.timeout = time()?,
        "grace" => check.grace = time()?,
        "deregister-after" => check.deregister_after = time()?,
        "jitter" => check.jitter_percent = Some(number(value.trim_end_matches('%'))?),
        "healthy" => check.healthy = Some(threshold(value)?),
        "unhealthy" => check.unhealthy = Some(threshold(value)?),
        "ca" => {
            let pem = fs::read_to_string(value).map_err(|error| error.to_string())?;
            tls_of(check)?.ca = pem;
        }
        "insecure" => tls_of(check)?.insecure = true,
        "server-name" => tls_of(check)?.server_name = value.into(),
        "host" => match (&mut check.http, &mut check.grpc) {
            (Some(http), _) => http.host = value.into(),
            (_, Some(grpc)) => grpc.authority = value.into(),
            _ => return Err("only HTTP and gRPC have a host".into()),
        },
        _ => return set_http(check, name, value),
    }
    Ok(())
}

fn set_http(check: &mut Check, name: &str, value: &str) -> Result<(), String> {
    let known = matches!(name, "method" | "status" | "degraded" | "body") || name.starts_with("header.");
    if !known {
        let options = "liveness, port, interval, timeout, grace, deregister-after, jitter, healthy, unhealthy, host, method, \
                       status, degraded, body, header.NAME, ca, insecure, server-name";
        return Err(format!("it is none of {options}"));
    }
    let http = check.http.as_mut().ok_or("only HTTP checks have it")?;
    let list = || value.split('+').map(str::to_owned).collect();
    match name {
        "method" => http.method = value.into(),
        "status" => http.statuses = list(),
        "degraded" => http.degraded_statuses = list(),
        "body" => http.body_contains = value.into(),
        _ => drop(http.headers.insert(name.trim_start_matches("header.").into(), value.into())),
    }
    Ok(())
}

fn tls_of(check: &mut Check) -> Result<&mut TlsProbe, String> {
    let http = check.http.as_mut().and_then(|http| http.tls.as_mut());
    let tcp = check.tcp.as_mut().and_then(|tcp| tcp.tls.as_mut());
    let grpc = check.grpc.as_mut().and_then(|grpc| grpc.tls.as_mut());
    http.or(tcp).or(grpc).ok_or_else(|| "only https, tls and grpcs have it".into())
}

fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is not a number"))
}

/// `3`, or `3/5`: three of five.
fn threshold(text: &str) -> Result<Threshold, String> {
    let (count, of) = text.split_once('/').map_or((text, None), |(count, of)| (count, Some(of)));
    Ok(Threshold { count: number(count)?, of: of.map_or(Ok(0), number)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::parse;
    use convoy_client::proto::Checks;

    fn one(text: &str) -> Check {
        match text.parse().expect(text) {
            CheckArgument::One(check) => *check,
            CheckArgument::None => panic!("{text}: none"),
        }
    }

    #[test]
    fn checks_are_written_as_text() {
        for (text, json) in [
            ("tcp", r#"{"tcp": {}}"#),
            ("http:/healthz", r#"{"http": {"path": "/healthz"}}"#),
            ("http:/a?b=c,interval=5s", r#"{"http": {"path": "/a?b=c"}, "interval": "5s"}"#),
            (
                "alive=https:/,liveness,deregister-after=5m,insecure,status=200+300-399,header.X-Key=v,unhealthy=3/5,jitter=0%",
                r#"{"name": "alive", "kind": "liveness", "deregister_after": "5m", "jitter_percent": 0,
                    "unhealthy": {"count": 3, "of": 5}, "http": {"path": "/", "tls": {"insecure": true},
                    "statuses": ["200", "300-399"], "headers": {"X-Key": "v"}}}"#,
            ),
            (
                "grpc:a.B,host=b.example,port=rpc",
                r#"{"grpc": {"service": "a.B", "authority": "b.example"}, "port": "rpc"}"#,
            ),
        ] {
            let check = one(text);
            assert_eq!(check, serde_json::from_str(json).expect(json), "{text}");
            parse::checks(&Checks { checks: vec![check] }, 1).expect(text);
        }
        assert_eq!("none".parse(), Ok(CheckArgument::None));
    }

    #[test]
    fn mistakes_are_told() {
        for (text, says) in [
            ("ping", "it is http:/PATH"),
            ("tcp:80", "it is http:/PATH"),
            ("tcp,intervall=5s", "it is none of liveness, port, interval"),
            ("tcp,interval=soon", "is not a duration"),
            ("tcp,body=x", "only HTTP"),
            ("http:/,insecure", "only https"),
            ("tls,ca=/none/such", "No such file"),
            ("tcp,healthy=x/3", "is not a number"),
        ] {
            let error = text.parse::<CheckArgument>().expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
