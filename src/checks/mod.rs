//! Active checks: Convoy's own probes of instances. `schedule` (pure) says when to probe what and what the results mean,
//! `policy` (pure) which addresses may be probed, `probe` asks, and `task` joins them with the registry.

pub mod policy;
pub mod probe;
pub mod schedule;
mod task;

pub use task::run;

use serde::Deserialize;

use self::policy::{Network, Policy};
use crate::model::Invalid;

/// How Convoy probes (section `checks` of the configuration file).
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckConfig {
    /// Without, services may have checks, and nobody makes them: they count for nothing.
    pub enabled: bool,
    /// Probes under way at the same time; each takes a file descriptor. More wait.
    pub concurrency: usize,
    /// Networks that may be probed though a wider one, or the default, closes them.
    pub allow: Vec<Network>,
    /// Networks that may not be probed.
    pub deny: Vec<Network>,
    /// Whether loopback addresses may be probed.
    pub loopback: bool,
}

impl Default for CheckConfig {
    fn default() -> Self {
        Self { enabled: true, concurrency: 512, allow: Vec::new(), deny: Vec::new(), loopback: true }
    }
}

impl CheckConfig {
    pub fn check(&self) -> Result<(), Invalid> {
        match self.concurrency {
            0 => Err(Invalid::new("checks.concurrency", 0, "at least 1")),
            _ => Ok(()),
        }
    }

    fn policy(&self) -> Policy {
        Policy::new(&self.allow, &self.deny, !self.loopback)
    }
}
