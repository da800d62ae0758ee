//! What is too much, and the error that says so.

use std::time::Duration;

use serde::Deserialize;

/// A value that breaks a rule: which field, what it was, and the rule in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {value:?} is not allowed: {rule}")]
pub struct Invalid {
    pub field: String,
    pub value: String,
    pub rule: String,
}

/// A value is quoted up to here.
const MAX_QUOTED_BYTES: usize = 128;

/// A text as it may be shown: what somebody wrote, in part if it is longer than `limit` bytes.
pub fn quoted(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}… ({} bytes)", &text[..end], text.len())
}

impl Invalid {
    pub fn new(field: impl Into<String>, value: impl ToString, rule: impl Into<String>) -> Self {
        Self { field: field.into(), value: quoted(&value.to_string(), MAX_QUOTED_BYTES), rule: rule.into() }
    }

    /// The same, seen from one level further out: `port` becomes `ports[2].port`.
    pub fn inside(mut self, outer: &str) -> Self {
        self.field = if self.field.is_empty() { outer.into() } else { format!("{outer}.{}", self.field) };
        self
    }
}

/// The limits that are settings (section `limits` of the configuration file). Names have fixed ones, see `ids`.
#[derive(Clone, Debug, PartialEq, Deserialize, serde::Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The shortest and the longest TTL, and that of a registration that names none, in seconds.
    pub min_ttl_seconds: u64,
    pub max_ttl_seconds: u64,
    pub default_ttl_seconds: u64,
    pub labels: usize,
    pub label_name_bytes: usize,
    pub label_value_bytes: usize,
    pub capabilities: usize,
    /// Labels, capabilities, locality and SLA of one instance, together.
    pub metadata_bytes: usize,
    /// An A2A agent card, as JSON without blanks.
    pub agent_card_bytes: usize,
    pub ports: usize,
    /// One HTTP body or gRPC message of the public API.
    pub request_bytes: usize,
    pub instances_per_service: usize,
    /// One call is one atomic write.
    pub instances_per_call: usize,
    pub instances_per_lease: usize,
    pub leases_per_heartbeat: usize,
    pub watchers: usize,
    /// Services whose members are found by a selector.
    pub virtual_services: usize,
    /// Resources that are written and not generated, of all types.
    pub raw_resources: usize,
    pub checks_per_service: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_ttl_seconds: 1,
            max_ttl_seconds: 24 * 60 * 60,
            default_ttl_seconds: 30,
            labels: 64,
            label_name_bytes: 63,
            label_value_bytes: 256,
            capabilities: 256,
            metadata_bytes: 32 * 1024,
            agent_card_bytes: 64 * 1024,
            ports: 16,
            request_bytes: 1024 * 1024,
            instances_per_service: 10_000,
            instances_per_call: 50,
            instances_per_lease: 1_000,
            leases_per_heartbeat: 1_000,
            watchers: 10_000,
            virtual_services: 1_000,
            raw_resources: 10_000,
            checks_per_service: 16,
        }
    }
}

impl Limits {
    pub fn default_ttl(&self) -> Duration {
        Duration::from_secs(self.default_ttl_seconds)
    }

    /// Whether the limits themselves make sense.
    pub fn check(&self) -> Result<(), Invalid> {
        let at_least_one = [
            ("min_ttl_seconds", self.min_ttl_seconds as usize),
            ("ports", self.ports),
            ("request_bytes", self.request_bytes),
            ("instances_per_service", self.instances_per_service),
            ("instances_per_call", self.instances_per_call),
            ("instances_per_lease", self.instances_per_lease),
            ("leases_per_heartbeat", self.leases_per_heartbeat),
        ];
        if let Some((name, value)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(Invalid::new(format!("limits.{name}"), value, "at least 1"));
        }
        if !(self.min_ttl_seconds..=self.max_ttl_seconds).contains(&self.default_ttl_seconds) {
            let rule = "min_ttl_seconds <= default_ttl_seconds <= max_ttl_seconds";
            return Err(Invalid::new("limits.default_ttl_seconds", self.default_ttl_seconds, rule));
        }
        Ok(())
    }

    pub fn check_ttl(&self, field: &str, ttl: Duration) -> Result<Duration, Invalid> {
        let (min, max) = (Duration::from_secs(self.min_ttl_seconds), Duration::from_secs(self.max_ttl_seconds));
        if (min..=max).contains(&ttl) {
            return Ok(ttl);
        }
        let text = convoy_client::json::format_duration;
        Err(Invalid::new(field, text(ttl), format!("from {} to {}", text(min), text(max))))
    }
}

/// At most `limit` of something.
pub fn at_most(field: &str, count: usize, limit: usize, what: &str) -> Result<(), Invalid> {
    if count <= limit {
        return Ok(());
    }
    Err(Invalid::new(field, count, format!("at most {limit} {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_quoted_in_part() {
        let invalid = Invalid::new("labels", "ä".repeat(1000), "short");
        assert!(invalid.value.len() < 160 && invalid.value.ends_with("(2000 bytes)"), "{}", invalid.value);
    }

    #[test]
    fn ttl_borders() {
        let limits = Limits::default();
        for (millis, good) in [(999, false), (1_000, true), (86_400_000, true), (86_400_001, false)] {
            assert_eq!(limits.check_ttl("ttl", Duration::from_millis(millis)).is_ok(), good, "{millis}");
        }
    }
}
