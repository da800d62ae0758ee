//! A network of two: Convoy's side here, the agents' side in a network namespace of its own, and between them a wire
//! that can be cut in each direction apart.
//!
//! A direction is cut by telling the sending side a wrong hardware address of the other: its packets go out and nobody
//! takes them. No error reaches either side, as with a real partition, and no firewall is needed.

use std::{net::Ipv4Addr, process::Command};

/// Of the network that is set aside for tests of networks (198.18.0.0/15), so that nobody lives there.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const NETWORKS: u32 = 1 << 15;
/// Nobody's hardware address.
const NOBODY: &str = "02:00:00:00:00:ff";
const SIDES: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/// What does not come through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// What agents send.
    ToConvoy,
    /// What Convoy sends.
    ToAgents,
    Both,
}

/// Dropping it removes both sides.
#[derive(Debug)]
pub struct Network {
    /// The name of the agents' namespace.
    pub namespace: String,
    /// The stem of the names of the wire's ends; the namespace's, if it was made with it.
    wire: String,
    /// The address of Convoy.
    pub convoy: Ipv4Addr,
    pub agents: Ipv4Addr,
}

impl Network {
    /// Whether networks can be made here, or why not.
    pub fn possible() -> Result<(), String> {
        let network = Self::unmade();
        let (here, there) = network.ends();
        for arguments in [
            format!("netns add {}", network.namespace),
            format!("link add {here} type veth peer name {there} netns {}", network.namespace),
        ] {
            let output = Command::new("ip").args(arguments.split(' ')).output();
            let output = output.map_err(|error| format!("the command `ip` (iproute2) cannot be run: {error}"))?;
            if !output.status.success() {
                return Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()));
            }
        }
        Ok(())
    }

    fn unmade() -> Self {
        let number = rand::random_range(0..NETWORKS);
        let address = |host| Ipv4Addr::from(FIRST + number * 4 + host);
        let wire = format!("convoy{number}");
        Self { namespace: wire.clone(), wire, convoy: address(1), agents: address(2) }
    }

    pub fn new() -> Self {
        let network = Self::unmade();
        ip(&format!("netns add {}", network.namespace));
        network.connected()
    }

    /// Another wire to the same namespace, with addresses of its own, that is cut by itself.
    #[allow(dead_code, reason = "for the tests of replicas")]
    pub fn beside(&self) -> Self {
        let mut network = Self::unmade();
        network.namespace.clone_from(&self.namespace);
        network.connected()
    }

    fn connected(self) -> Self {
        let (here, there) = self.ends();
        let [mac_here, mac_there] = SIDES;
        ip(&format!("link add {here} address {mac_here} type veth peer name {there} address {mac_there}"));
        ip(&format!("link set {there} netns {}", self.namespace));
        ip(&format!("addr add {}/30 dev {here}", self.convoy));
        ip(&format!("link set {here} up"));
        let inside = format!("-n {}", self.namespace);
        ip(&format!("{inside} addr add {}/30 dev {there}", self.agents));
        ip(&format!("{inside} link set {there} up"));
        ip(&format!("{inside} link set lo up"));
        self.heal();
        self
    }

    pub fn cut(&self, cut: Cut) {
        if cut != Cut::ToAgents {
            self.to_convoy(NOBODY);
        }
        if cut != Cut::ToConvoy {
            self.to_agents(NOBODY);
        }
    }

    pub fn heal(&self) {
        self.to_convoy(SIDES[0]);
        self.to_agents(SIDES[1]);
    }

    fn to_convoy(&self, mac: &str) {
        let (namespace, convoy) = (&self.namespace, self.convoy);
        ip(&format!("-n {namespace} neigh replace {convoy} lladdr {mac} nud permanent dev {}", self.ends().1));
    }

    fn to_agents(&self, mac: &str) {
        ip(&format!("neigh replace {} lladdr {mac} nud permanent dev {}", self.agents, self.ends().0));
    }

    /// The names of the wire's ends, here and in the namespace.
    pub fn ends(&self) -> (String, String) {
        (format!("{}a", self.wire), format!("{}b", self.wire))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was not made cannot be removed. With one end of the wire the other goes.
        for arguments in [format!("link del {}", self.ends().0), format!("netns del {}", self.wire)] {
            let _ = Command::new("ip").args(arguments.split(' ')).output();
        }
    }
}

#[track_caller]
fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("the command `ip`, of iproute2");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {said} (network namespaces need root and iproute2)");
}
