//! Configuration: defaults, then one YAML file, then the environment (`CONVOY_*`), then flags; each over the one before.

use std::{net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use anyhow::Context;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{checks::CheckConfig, model::Limits, registry::brake::BrakeConfig, storage::etcd::config::EtcdConfig};

/// What keeps the registrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// Nothing survives a restart; agents register again.
    Memory,
    /// One file under the data directory.
    #[default]
    Redb,
    /// Several Convoys, one truth.
    Etcd,
}

/// Everything that can be set. Unknown keys are errors.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// HTTP/JSON API, metrics, health.
    pub http_address: SocketAddr,
    /// The same API over gRPC.
    pub grpc_address: SocketAddr,
    /// Envoy and proxyless gRPC clients.
    pub xds_address: SocketAddr,
    pub storage: StorageKind,
    pub data_dir: PathBuf,
    /// For `storage: etcd`.
    pub etcd: EtcdConfig,
    /// After a start without stored state: how long returning proxies keep what they have. 1.5 × the longest heartbeat
    /// interval.
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    /// How many xDS clients that begin from nothing are sent everything at the same time; the others wait.
    pub cold_starts: usize,
    /// After this, give or take a tenth, an xDS stream ends and its client connects again, so that several Convoys
    /// share them evenly. Never when not set.
    #[serde(deserialize_with = "optional_duration")]
    pub max_stream_age: Option<Duration>,
    /// As in `info,convoy=debug`.
    pub log: String,
    /// Logs as JSON objects, one a line.
    pub log_json: bool,
    pub brake: BrakeConfig,
    pub checks: CheckConfig,
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            http_address: local(7070),
            grpc_address: local(7071),
            xds_address: local(7080),
            storage: StorageKind::default(),
            data_dir: "convoy-data".into(),
            etcd: EtcdConfig::default(),
            settle: Duration::from_secs(15),
            cold_starts: 256,
            max_stream_age: None,
            log: "info".into(),
            log_json: false,
            brake: BrakeConfig::default(),
            checks: CheckConfig::default(),
            limits: Limits::default(),
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    convoy_client::json::parse_duration(&text).map_err(D::Error::custom)
}

fn optional_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// What the environment and the flags say.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub http_address: Option<SocketAddr>,
    pub grpc_address: Option<SocketAddr>,
    pub xds_address: Option<SocketAddr>,
    pub storage: Option<StorageKind>,
    pub data_dir: Option<PathBuf>,
    pub log: Option<String>,
}

impl Config {
    /// Reads the file, if any, and lays the overrides over it.
    pub fn load(file: Option<&Path>, overrides: Overrides) -> anyhow::Result<Self> {
        let mut config = match file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("the configuration {} cannot be read", path.display()))?;
                Self::parse(&text).with_context(|| format!("the configuration {} is not valid", path.display()))?
            }
            None => Self::default(),
        };
        let Overrides { http_address, grpc_address, xds_address, storage, data_dir, log } = overrides;
        config.http_address = http_address.unwrap_or(config.http_address);
        config.grpc_address = grpc_address.unwrap_or(config.grpc_address);
        config.xds_address = xds_address.unwrap_or(config.xds_address);
        config.storage = storage.unwrap_or(config.storage);
        config.data_dir = data_dir.unwrap_or(config.data_dir);
        config.log = log.unwrap_or(config.log);
        config.limits.check()?;
        config.brake.check()?;
        config.checks.check()?;
        if config.storage == StorageKind::Etcd {
            config.etcd.check(config.limits.instances_per_call)?;
        }
        Ok(config)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // A file without a value is a file of defaults.
        let blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if blank { Ok(Self::default()) } else { Ok(serde_yaml::from_str(text)?) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_defaults() {
        for text in ["", "# nothing\n", "storage: memory\nsettle: 1m30s\nlimits:\n  ports: 3\n"] {
            Config::parse(text).expect(text);
        }
        let config = Config::parse("storage: memory\nsettle: 1m30s\nlimits:\n  ports: 3\n").expect("valid");
        assert_eq!((config.storage, config.settle), (StorageKind::Memory, Duration::from_secs(90)));
        assert_eq!(config.limits, Limits { ports: 3, ..Limits::default() });
        assert_eq!(config.grpc_address, Config::default().grpc_address);
    }

    #[test]
    fn mistakes_are_errors_that_say_where() {
        for (text, says) in [
            ("storge: memory", "storge"),
            ("limits:\n  prots: 3", "prots"),
            ("storage: disk", "disk"),
            ("http_address: here", "http_address"),
            ("settle: soon", "soon"),
            ("storage: memory\nstorage: redb", "storage"),
        ] {
            let error = format!("{:#}", Config::parse(text).expect_err(text));
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn overrides_win_over_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("convoy.yaml");
        std::fs::write(&file, "http_address: 127.0.0.1:1\nstorage: memory\n").expect("written");
        let overrides = Overrides { http_address: "127.0.0.1:2".parse().ok(), ..Overrides::default() };
        let config = Config::load(Some(&file), overrides).expect("valid");
        assert_eq!((config.http_address.port(), config.storage), (2, StorageKind::Memory));
        for limits in ["instances_per_call: 0", "default_ttl_seconds: 0", "max_ttl_seconds: 10"] {
            std::fs::write(&file, format!("limits:\n  {limits}\n")).expect("written");
            let error = format!("{:#}", Config::load(Some(&file), Overrides::default()).expect_err(limits));
            assert!(error.contains("limits."), "{limits}: {error}");
        }
        let missing = Config::load(Some(&directory.path().join("none")), Overrides::default());
        assert!(format!("{:#}", missing.expect_err("missing")).contains("none"));
    }
}
