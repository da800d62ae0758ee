//! Where a URL leads, without asking anybody.

use std::net::{IpAddr, Ipv6Addr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// None if the host is a name.
    pub(super) address: Option<IpAddr>,
    /// That of the scheme when the URL names none.
    pub(super) port: Option<u16>,
    pub(super) tls: bool,
}

impl Place {
    /// Of an absolute URL; an error is the rule that it breaks.
    pub(super) fn of(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("an absolute URL")?;
        let (port, tls) = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => (Some(80), false),
            "https" | "wss" => (Some(443), true),
            "grpcs" => (None, true),
            _ => (None, false),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return Err("a URL without a user".into());
        }
        let (host, number) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or("an absolute URL")?;
                host.parse::<Ipv6Addr>().map_err(|_| "a URL with an IPv6 address between the brackets")?;
                let number = rest.strip_prefix(':');
                if number.is_none() && !rest.is_empty() {
                    return Err("an absolute URL".into());
                }
                (host, number)
            }
            None => match authority.split_once(':') {
                Some((host, number)) => (host, Some(number)),
                None => (authority, None),
            },
        };
        if host.is_empty() {
            return Err("an absolute URL, with a host".into());
        }
        let number = number.filter(|number| !number.is_empty());
        let read = |number: &str| number.parse::<u16>().ok().filter(|number| *number != 0);
        let number = number.map(|number| read(number).ok_or("a URL whose port is from 1 to 65535")).transpose()?;
        Ok(Self { address: host.parse().ok(), port: number.or(port), tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_somewhere() {
        let ip = |text: &str| text.parse::<IpAddr>().ok();
        for (url, address, port, tls) in [
            ("http://10.0.0.7:8080/a2a", ip("10.0.0.7"), Some(8080), false),
            ("HTTPS://10.0.0.7?x=1", ip("10.0.0.7"), Some(443), true),
            ("http://[fd00::7]:9000", ip("fd00::7"), Some(9000), false),
            ("https://[fd00::7]#there", ip("fd00::7"), Some(443), true),
            ("https://agents.example.com/a2a", None, Some(443), true),
            ("http://10.0.0.7:", ip("10.0.0.7"), Some(80), false),
            ("grpc://10.0.0.7", ip("10.0.0.7"), None, false),
        ] {
            assert_eq!(Place::of(url), Ok(Place { address, port, tls }), "{url}");
        }
        for url in [
            "",
            "10.0.0.7:80",
            "http://",
            "http:///a2a",
            "http://user@10.0.0.7/",
            "http://10.0.0.7:0",
            "http://10.0.0.7:65536",
            "http://a:b:c",
            "http://[fd00::7",
            "http://[fd00::7]8080",
            "http://[agent]:80",
        ] {
            assert!(Place::of(url).is_err(), "{url}");
        }
    }
}
