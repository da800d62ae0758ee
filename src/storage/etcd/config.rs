//! Where etcd is, and as whom Convoy speaks to it.

use std::{
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// What one write of a transaction may be in etcd by default (`--max-txn-ops`), which a call's instances have to fit in
/// twice: each with one that it replaces.
const MAX_INSTANCES_PER_CALL: usize = 50;

/// Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`, of several members.
    pub endpoints: Vec<String>,
    /// What all keys begin with; between slashes. Convoys of one mesh share it, others in the same etcd have another.
    pub prefix: String,
    pub tls: Option<EtcdTls>,
    pub user: Option<String>,
    pub password: Option<Password>,
    /// A file with the password, read again for each new token.
    pub password_file: Option<PathBuf>,
    /// Where other replicas reach this one's gRPC API, as `ip:port`. When absent, `grpc_address`; if that is unspecified
    /// (`0.0.0.0`), the address from which etcd is reached.
    pub advertise_address: Option<SocketAddr>,
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdTls {
    /// The authority that signed the members' certificates.
    pub ca: PathBuf,
    /// Convoy's own certificate and key, where etcd asks for one.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Not shown in logs.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(a password)")
    }
}

impl Default for EtcdConfig {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            prefix: "/convoy/".into(),
            tls: None,
            user: None,
            password: None,
            password_file: None,
            advertise_address: None,
        }
    }
}

impl EtcdConfig {
    /// Where the others reach a replica that listens there.
    pub fn advertised(&self, listening: SocketAddr) -> anyhow::Result<SocketAddr> {
        if let Some(address) = self.advertise_address {
            return Ok(address);
        }
        if !listening.ip().is_unspecified() {
            return Ok(listening);
        }
        let from = |endpoint: &String| -> io::Result<SocketAddr> {
            let (_, peer) = endpoint.split_once("://").unwrap_or_default();
            let any = if listening.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            // Nothing is sent: it is only looked which way it would go.
            let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
            socket.connect(peer.trim_end_matches('/'))?;
            Ok(SocketAddr::new(socket.local_addr()?.ip(), listening.port()))
        };
        let found = self.endpoints.iter().find_map(|endpoint| from(endpoint).ok());
        found
            .context("etcd.advertise_address: set it, since it cannot be found out where other replicas reach this one")
    }

    /// Names the setting that does not go with the others.
    pub fn check(&self, instances_per_call: usize) -> anyhow::Result<()> {
        ensure!(!self.endpoints.is_empty(), "etcd.endpoints: at least one, as in http://127.0.0.1:2379");
        for endpoint in &self.endpoints {
            self.check_endpoint(endpoint).with_context(|| format!("etcd.endpoints: {endpoint:?}"))?;
        }
        let prefix = &self.prefix;
        let framed = prefix.len() > 1 && prefix.starts_with('/') && prefix.ends_with('/');
        ensure!(framed, "etcd.prefix: {prefix:?} has to be between slashes, as /convoy/");
        if let Some(tls) = &self.tls {
            ensure!(tls.cert.is_some() == tls.key.is_some(), "etcd.tls: cert and key go together");
        }
        match (&self.user, &self.password, &self.password_file) {
            (None, None, None) => {}
            (None, ..) => anyhow::bail!("etcd.user: a password is given, and nobody whose it is"),
            (Some(_), None, None) => anyhow::bail!("etcd.password: {:?} needs one, or etcd.password_file", self.user),
            (Some(_), Some(_), Some(_)) => anyhow::bail!("etcd.password_file: etcd.password is given as well"),
            (Some(_), ..) => {}
        }
        ensure!(
            instances_per_call <= MAX_INSTANCES_PER_CALL,
            "limits.instances_per_call: {instances_per_call} is over {MAX_INSTANCES_PER_CALL}, what one write to etcd holds"
        );
        Ok(())
    }

    fn check_endpoint(&self, endpoint: &str) -> anyhow::Result<()> {
        let uri: hyper::http::Uri = endpoint.parse()?;
        ensure!(uri.host().is_some() && uri.port().is_some(), "host and port, as in http://127.0.0.1:2379");
        ensure!(uri.path() == "/" && uri.query().is_none(), "nothing follows the port");
        match (uri.scheme_str(), &self.tls) {
            (Some("http"), None) | (Some("https"), Some(_)) => Ok(()),
            (Some("http"), Some(_)) => anyhow::bail!("https, since etcd.tls is set"),
            (Some("https"), None) => anyhow::bail!("etcd.tls.ca is missing: whose certificates to believe"),
            _ => anyhow::bail!("http or https"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_their_setting() {
        for (text, says) in [
            ("endpoints: []", "etcd.endpoints"),
            ("endpoints: [\"127.0.0.1:2379\"]", "etcd.endpoints"),
            ("endpoints: [\"http://127.0.0.1\"]", "etcd.endpoints"),
            ("endpoints: [\"http://a:1/b\"]", "etcd.endpoints"),
            ("endpoints: [\"https://a:1\"]", "etcd.tls.ca"),
            ("endpoints: [\"http://a:1\"]\ntls: {ca: a.pem}", "etcd.tls"),
            ("endpoints: [\"https://a:1\"]\ntls: {ca: a.pem, cert: b.pem}", "etcd.tls"),
            ("prefix: convoy", "etcd.prefix"),
            ("prefix: /", "etcd.prefix"),
            ("user: convoy", "etcd.password"),
            ("password: secret", "etcd.user"),
            ("{user: a, password: b, password_file: c}", "etcd.password_file"),
        ] {
            let config: EtcdConfig = serde_yaml::from_str(text).expect(text);
            let error = format!("{:#}", config.check(50).expect_err(text));
            assert!(error.contains(says), "{text}: {error}");
        }
        let error = EtcdConfig::default().check(51).expect_err("too many").to_string();
        assert!(error.contains("limits.instances_per_call"), "{error}");
    }

    #[test]
    fn what_goes_together_is_taken() {
        for text in [
            "{}",
            "endpoints: [\"http://a:1\", \"http://[::1]:2\"]",
            "endpoints: [\"https://a:1\"]\ntls: {ca: a.pem, cert: b.pem, key: c.pem}",
            "{user: a, password: b}",
        ] {
            let config: EtcdConfig = serde_yaml::from_str(text).expect(text);
            config.check(50).expect(text);
        }
        let config: EtcdConfig = serde_yaml::from_str("{user: a, password: hidden}").expect("valid");
        assert!(!format!("{config:?}").contains("hidden"));
    }
}
