//! What an agent says of itself, before it starts.

use std::time::{Duration, SystemTime};

use crate::{
    Agent, Client, Error,
    proto::{Capability, Locality, Port, Protocol, RegisterRequest, Registration, Sla},
};

/// How long `start` waits for a server that is away.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest id that a server takes.
const ID_BYTES: usize = 253;

/// Builds an [`Agent`]. Values are checked by the server, whose error names the field, the value and the rule.
#[derive(Debug, Clone)]
#[must_use]
pub struct AgentBuilder {
    server: String,
    client: Option<Client>,
    registration: Registration,
    incarnation: Option<u64>,
    ttl: Option<Duration>,
    start_timeout: Duration,
}

impl AgentBuilder {
    pub(crate) fn new(server: String, service: String) -> Self {
        let registration = Registration { namespace: "default".into(), service, ..Default::default() };
        Self { server, client: None, registration, incarnation: None, ttl: None, start_timeout: START_TIMEOUT }
    }

    /// Uses a client that there is, instead of a connection of its own.
    pub fn client(mut self, client: Client) -> Self {
        self.client = Some(client);
        self
    }

    /// The namespace, a DNS label. `default` when not set.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.registration.namespace = namespace.into();
        self
    }

    /// The instance's id, unique in its service. When not set, made of service, host name and process id.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.registration.id = id.into();
        self
    }

    /// A number that only grows from one start of the agent to the next. When not set, now in Unix milliseconds.
    pub fn incarnation(mut self, incarnation: u64) -> Self {
        self.incarnation = Some(incarnation);
        self
    }

    /// An IP literal. When not set, the address that the server sees the agent come from.
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.registration.address = address.into();
        self
    }

    /// Adds a port; at least one is needed. The first is the service's default port.
    pub fn port(mut self, name: impl Into<String>, port: u16, protocol: Protocol) -> Self {
        self.registration.ports.push(Port { name: name.into(), port: port.into(), protocol: protocol.into() });
        self
    }

    /// Adds a label.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.registration.labels.insert(name.into(), value.into());
        self
    }

    /// Adds something that the instance can do. The version may be empty.
    pub fn capability(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        let (name, version) = (name.into(), version.into());
        self.registration.capabilities.push(Capability { name, version, ..Default::default() });
        self
    }

    /// The load-balancing weight, 0 to 65 535; 0 takes the instance out of traffic. 100 when not set.
    pub fn weight(mut self, weight: u32) -> Self {
        self.registration.weight = Some(weight);
        self
    }

    /// Whether the instance can take traffic from the start. True when not set; see [`Agent::set_ready`].
    pub fn ready(mut self, ready: bool) -> Self {
        self.registration.ready = Some(ready);
        self
    }

    /// Where the instance runs. Parts may be empty.
    pub fn locality(mut self, region: impl Into<String>, zone: impl Into<String>, sub_zone: impl Into<String>) -> Self {
        let (region, zone, sub_zone) = (region.into(), zone.into(), sub_zone.into());
        self.registration.locality = Some(Locality { region, zone, sub_zone });
        self
    }

    /// What the instance promises of itself.
    pub fn sla(mut self, sla: Sla) -> Self {
        self.registration.sla = Some(sla);
        self
    }

    /// How long the registration holds without a heartbeat: 1 s to 24 h, 30 s when not set.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// How long `start` waits for a server that is away. 30 s when not set.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.start_timeout = timeout;
        self
    }

    /// Registers, and keeps the registration alive until the agent is dropped. Needs a Tokio runtime.
    ///
    /// # Errors
    /// If the server refuses the registration (at once), or is not reached within the start timeout.
    pub async fn start(self) -> Result<Agent, Error> {
        let timeout = self.start_timeout;
        let agent = self.spawn()?;
        agent.registered(timeout).await?;
        Ok(agent)
    }

    /// As `start`, without waiting for the registration: for who has something else to do while the server is away.
    ///
    /// # Errors
    /// If the server's address cannot be used.
    pub fn spawn(self) -> Result<Agent, Error> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => Client::new(&self.server)?,
        };
        Ok(Agent::spawn(client, self.into_request()))
    }

    /// The request that `start` sends, for who wants to register without keeping alive.
    pub fn into_request(self) -> RegisterRequest {
        let Self { mut registration, incarnation, ttl, .. } = self;
        if registration.id.is_empty() {
            let host = gethostname::gethostname();
            registration.id = instance_id(&registration.service, &host.to_string_lossy(), std::process::id());
        }
        RegisterRequest {
            ttl: ttl.map(crate::duration),
            incarnation: Some(incarnation.unwrap_or_else(now_in_milliseconds)),
            instances: vec![registration],
            ..Default::default()
        }
    }
}

/// An id that another process, here or elsewhere, does not have: what is not allowed in it becomes `-`, and a long
/// host name loses its end.
fn instance_id(service: &str, host: &str, process: u32) -> String {
    let tail = format!("-{process}");
    let mut id: String = format!("{service}-{host}")
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
        .collect();
    id.truncate(ID_BYTES - tail.len());
    id + &tail
}

/// A clock before 1970 gives 0, which every later start exceeds.
fn now_in_milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_valid_whatever_the_host_is_called() {
        for (service, host, id) in [
            ("reviews", "web-1.example.com", "reviews-web-1.example.com-42"),
            ("reviews", "Jörg's Laptop", "reviews-J-rg-s-Laptop-42"),
            ("reviews", "", "reviews--42"),
        ] {
            assert_eq!(instance_id(service, host, 42), id);
        }
        let long = instance_id("reviews", &"h".repeat(400), u32::MAX);
        assert_eq!(long.len(), ID_BYTES);
        assert!(long.ends_with("h-4294967295"));
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let request = Agent::builder("http://127.0.0.1:1", "reviews").into_request();
        assert!(request.incarnation.is_some_and(|incarnation| incarnation > 1_700_000_000_000));
        assert_eq!(request.ttl, None);
        let [registration] = request.instances.as_slice() else { panic!("one instance") };
        assert_eq!(registration.namespace, "default");
        assert!(registration.id.starts_with("reviews-"));
        assert_eq!((registration.weight, registration.ready), (None, None));
    }
}
