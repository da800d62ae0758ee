//! Wires that are cut in one direction or both: between a replica and etcd, and between two replicas, which then cannot
//! pass on what they hear. Whoever heartbeats somewhere stays.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use crate::{
    etcd::Cluster,
    journal::Journal,
    mesh::{Agents, Replica, TTL, has},
    network::{Cut, Network},
    support::until,
};

/// Set where the tests must not be left out.
const REQUIRED: &str = "CONVOY_TEST_NAMESPACES_REQUIRED";
const AGENTS: u32 = 9;
/// Longer than a replica's key lives, and than its leases go on then.
const ETCD_CUT: Duration = Duration::from_secs(30);
const PEERS_CUT: Duration = Duration::from_secs(15);

/// A replica here and one in a network namespace, with a wire of its own to etcd, to the other replica and to callers.
struct Apart {
    cluster: Cluster,
    here: Replica,
    there: Replica,
    etcd: Network,
    peers: Network,
    // The callers' wire is never cut.
    _callers: Network,
}

impl Apart {
    async fn start() -> Self {
        let etcd = Network::new();
        let (peers, callers) = (etcd.beside(), etcd.beside());
        let cluster = Cluster::start_at(etcd.convoy);
        let here = Replica::start(&cluster.endpoints(), &format!("grpc_address: {}:0\n", peers.convoy)).await;
        let endpoint = &cluster.endpoints()[0];
        let settings = format!("etcd: {{endpoints: [{endpoint}], advertise_address: '{}:7071'}}\n", peers.agents);
        let there = Replica::start_in(&etcd.namespace, callers.agents, &settings).await;
        Self { cluster, here, there, etcd, peers, _callers: callers }
    }

    /// Both have all of them.
    async fn has_all(&self) {
        for replica in [&self.here, &self.there] {
            has(replica, "web", AGENTS as usize).await;
        }
    }
}

/// Whether namespaces can be made; where they cannot, everybody is to know that these tests did not run.
fn possible() -> bool {
    let Err(why) = Network::possible() else { return true };
    assert!(std::env::var_os(REQUIRED).is_none(), "{REQUIRED} is set, and {why}");
    writeln!(std::io::stderr(), "LEFT OUT: cuts between replicas, since {why}").expect("standard error is there");
    false
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_stay_when_their_replica_is_cut_off_from_etcd_in_either_direction() {
    if possible() {
        tokio::join!(cut_from_etcd(Cut::ToConvoy), cut_from_etcd(Cut::ToAgents), cut_from_etcd(Cut::Both));
    }
}

async fn cut_from_etcd(cut: Cut) {
    let apart = Apart::start().await;
    let (agents, journal) = (Agents::new(), Journal::begin(apart.here.api()).await);
    for number in 0..AGENTS {
        agents.join("web", number, &apart.there).await;
    }
    apart.has_all().await;
    apart.etcd.cut(cut);
    let begun = Instant::now();
    let mut last_sent = None;
    until("the cut's time", async || {
        // As agents do that know several replicas.
        for number in agents.sent_elsewhere() {
            last_sent = Some(begun.elapsed());
            agents.go_to(number, &apart.here);
        }
        (begun.elapsed() > ETCD_CUT).then_some(())
    })
    .await;
    assert!(last_sent.is_some(), "{cut:?}: nobody was sent elsewhere");
    assert_eq!(journal.left(0), [], "{cut:?}");
    assert!(agents.all_kept(), "{cut:?}");
    assert_eq!(apart.there.api().ids("web").await.len(), AGENTS as usize, "{cut:?}: it serves what it knew");
    apart.etcd.heal();
    let healed = Instant::now();
    agents.join("web", AGENTS, &apart.here).await;
    has(&apart.there, "web", AGENTS as usize + 1).await;
    let caught_up = healed.elapsed();
    // It is one of them again: what it hears counts.
    (0..=AGENTS).for_each(|number| agents.go_to(number, &apart.there));
    let returned = Instant::now();
    until("a while at the one that was cut off", async || (returned.elapsed() > TTL * 3).then_some(())).await;
    assert_eq!(journal.left(0), [], "{cut:?}");
    assert!(agents.all_kept() && agents.sent_elsewhere().is_empty(), "{cut:?}");
    println!(
        "from etcd, {cut:?}: the last agent sent elsewhere after {last_sent:?}; up to date {caught_up:?} after the cut"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_stay_when_replicas_cannot_tell_each_other_in_either_direction() {
    if possible() {
        tokio::join!(
            cut_from_each_other(Cut::ToConvoy),
            cut_from_each_other(Cut::ToAgents),
            cut_from_each_other(Cut::Both)
        );
    }
}

async fn cut_from_each_other(cut: Cut) {
    let apart = Apart::start().await;
    let (agents, journal) = (Agents::new(), Journal::begin(apart.here.api()).await);
    let replicas = [&apart.here, &apart.there];
    for number in 0..AGENTS {
        agents.join("web", number, replicas[number as usize % 2]).await;
    }
    apart.has_all().await;
    apart.peers.cut(cut);
    // A third goes on at the other replica, a third goes round, as behind a balancer, and a third stays.
    (0..AGENTS / 3).for_each(|number| agents.go_to(number, replicas[(number as usize + 1) % 2]));
    let begun = Instant::now();
    let mut turn = 0;
    until("the cut's time", async || {
        if begun.elapsed() > TTL / 3 * turn {
            turn += 1;
            (AGENTS / 3..AGENTS / 3 * 2)
                .for_each(|number| agents.go_to(number, replicas[(number + turn) as usize % 2]));
        }
        (begun.elapsed() > PEERS_CUT).then_some(())
    })
    .await;
    assert_eq!(journal.left(0), [], "{cut:?}");
    assert!(agents.all_kept(), "{cut:?}");
    apart.has_all().await;
    // Those that fall silent are found out all the same, by whoever has their lease, and each once.
    (0..AGENTS).step_by(3).for_each(|number| agents.fall_silent(number));
    let silent = Instant::now();
    for replica in replicas {
        has(replica, "web", AGENTS as usize - 3).await;
    }
    let gone = silent.elapsed();
    apart.peers.heal();
    let healed = Instant::now();
    until("a while after the cut", async || (healed.elapsed() > TTL * 3).then_some(())).await;
    let left: Vec<String> = journal.left(0).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(left, ["web-0", "web-3", "web-6"], "{cut:?}");
    assert!(agents.all_kept(), "{cut:?}");
    println!("from each other, {cut:?}: who fell silent was gone after {gone:?}");
    drop(apart.cluster);
}
