//! All agents are cut off from Convoy: none of them leaves. They are suspects, stay in the endpoints as they were, since
//! it is Convoy that hears nobody, and are healthy again once the network is, as who they were.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use convoy_client::proto::{BrakeScope, Verdict};
use envoy_types::pb::envoy::config::core::v3::HealthStatus;

use crate::{
    field::{Field, braked_by, verdict},
    fleet::{Orders, id},
    network::{Cut, Network},
};

const TTL: Duration = Duration::from_secs(2);
const AGENTS: u32 = 6;
/// How long after the cut nobody is heard any more: a TTL, and what was under way.
const UNHEARD: Duration = Duration::from_secs(5);
/// How long it goes on then: any of them would have left twice.
const HELD: Duration = Duration::from_secs(4);
/// How long after the network is well all are healthy: as long as TCP and the client take to try again.
const HEALED: Duration = Duration::from_secs(15);

/// Set where the test must not be left out.
const REQUIRED: &str = "CONVOY_TEST_NAMESPACES_REQUIRED";

#[tokio::test]
async fn nobody_leaves_in_a_partition_in_either_direction() {
    if let Err(why) = Network::possible() {
        assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and {why}");
        // Straight to where the runner does not hold it back: nobody is to think that it ran.
        let told = writeln!(std::io::stderr(), "LEFT OUT: partitions by network namespaces, since {why}");
        return told.expect("standard error is there");
    }
    tokio::join!(partition(Cut::ToConvoy), partition(Cut::ToAgents), partition(Cut::Both));
}

async fn partition(cut: Cut) {
    let network = Network::new();
    let settings = format!("brake: {{longest: 60s}}\ngrpc_address: {}:0\n", network.convoy);
    let orders = Orders { namespace: Some(network.namespace.clone()), ..Orders::ttl(TTL) };
    let field = Field::start(&settings, orders, 1..AGENTS + 1).await;
    let (mark, begun) = (field.journal.mark(), Instant::now());
    network.cut(cut);
    let suspects = field.all_are(Verdict::Suspect, AGENTS as usize).await;
    assert!(suspects < UNHEARD, "{cut:?}: suspects {suspects:?} after the cut");
    field
        .holds(HELD, async || {
            for instance in field.instances().await {
                let seen = (verdict(&instance), braked_by(&instance));
                assert_eq!(seen, (Verdict::Suspect, Some(BrakeScope::Blind)), "{cut:?}: {}", instance.id);
            }
            assert_eq!(field.proxy.count(HealthStatus::Healthy), AGENTS as usize, "{cut:?}");
        })
        .await;
    let brakes = field.brakes().await;
    assert_eq!((&brakes[0]["scope"], &brakes[0]["kept"]), (&"intake".into(), &AGENTS.into()), "{cut:?}");
    let explained = field.explain(1).await;
    explained.step("lease", "note", "it lapsed, and the brake keeps it: too many fell silent (blind)");
    explained.step("verdict", "note", "suspect").endpoint("HEALTHY", "HEALTHY");
    explained.says(&format!("sidecar has default/web/{} in web as HEALTHY, weight 100", id(1)));

    network.heal();
    let healed = field.all_are(Verdict::Healthy, AGENTS as usize).await;
    println!("partition {cut:?}: all suspects after {suspects:.1?}, all healthy {healed:.1?} after the cut's end");
    assert!(healed < HEALED, "{cut:?}: healthy {healed:?} after the cut's end");
    assert_eq!(field.identities().await, field.identities, "{cut:?}: nobody had to register again");
    assert_eq!(field.journal.left(mark), [], "{cut:?}");
    assert_eq!(field.proxy.fewest_since(begun), AGENTS as usize, "{cut:?}");
    assert!(field.brakes().await.is_empty(), "{cut:?}");
    field.explain(1).await.step("lease", "passes", "it is held").step("verdict", "passes", "healthy");
}
