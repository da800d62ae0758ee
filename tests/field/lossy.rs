//! A wire that loses packets at random, each way. They vanish where they arrive, so that who sends them is told nothing; on
//! the way out the kernel would tell the sender, who would try again at once.

use std::process::Command;

use crate::network::Network;

const FILTER: &str = "iptables";

/// The wire loses packets until this is dropped.
#[derive(Debug)]
pub struct Loss<'a>(&'a Network, u8);

impl<'a> Loss<'a> {
    /// Whether packets can be lost here, or why not.
    pub fn possible() -> Result<(), String> {
        Network::possible()?;
        let network = Network::new();
        // Takes back what could be done.
        let _loss = Loss(&network, 1);
        rules(&network, 1).iter().try_for_each(|rule| change(&network, "-I", rule))
    }

    /// From now on so many of a hundred packets are lost in each direction.
    pub fn of(network: &'a Network, percent: u8) -> Self {
        for rule in rules(network, percent) {
            change(network, "-I", &rule).unwrap_or_else(|why| panic!("{why}"));
        }
        Self(network, percent)
    }

    /// How many packets have been lost, on the way to Convoy and to the agents.
    pub fn lost(&self) -> [u64; 2] {
        rules(self.0, self.1).map(|rule| {
            let listed = run(self.0, &rule, &["-L", "INPUT", "-v", "-x", "-n"]).unwrap_or_else(|why| panic!("{why}"));
            let line = listed.lines().find(|line| line.contains(&rule.end)).expect("the rule");
            line.split_whitespace().next().and_then(|count| count.parse().ok()).expect("a count of packets")
        })
    }
}

impl Drop for Loss<'_> {
    fn drop(&mut self) {
        for rule in rules(self.0, self.1) {
            // What is left of it goes with the namespace, or concerns a wire that is gone.
            let _ = change(self.0, "-D", &rule);
        }
    }
}

struct Rule {
    /// Where packets arrive.
    end: String,
    inside: bool,
    share: String,
}

fn rules(network: &Network, percent: u8) -> [Rule; 2] {
    let (here, there) = network.ends();
    let share = format!("{}", f64::from(percent) / 100.0);
    [Rule { end: here, inside: false, share: share.clone() }, Rule { end: there, inside: true, share }]
}

fn change(network: &Network, how: &str, rule: &Rule) -> Result<(), String> {
    let statistic = ["-m", "statistic", "--mode", "random", "--probability", &rule.share, "-j", "DROP"];
    run(network, rule, &[&[how, "INPUT", "-i", &rule.end], &statistic[..]].concat()).map(drop)
}

/// Runs the filter where the packets of a rule arrive; what it says.
fn run(network: &Network, rule: &Rule, arguments: &[&str]) -> Result<String, String> {
    let mut command = if rule.inside {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &network.namespace, FILTER]);
        command
    } else {
        Command::new(FILTER)
    };
    // Others may be changing rules, too.
    let output = command.arg("-w").args(arguments).output();
    let output = output.map_err(|error| format!("the command `{FILTER}` cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("{FILTER} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
