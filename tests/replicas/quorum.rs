//! Two of three members of etcd are killed: nobody can write, and nobody expires anything.

use std::time::{Duration, Instant};

use crate::{
    etcd::Cluster,
    journal::Journal,
    mesh::{Agents, Replica, TTL, has, mesh},
    support::{sample::instances, until},
};

/// Six TTLs, and more than it takes until the replicas' own keys would be gone.
const AWAY: Duration = Duration::from_secs(30);
const AGENTS: u32 = 12;
/// These fall silent while nothing can be written.
const SILENT: std::ops::Range<u32> = 10..12;
const AT_ONCE: Duration = Duration::from_secs(1);
/// Until a replica gives up a write that was under way, or begun before it knew.
const FOUND_OUT: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread")]
async fn nobody_expires_while_etcd_has_no_quorum() {
    let mut cluster = Cluster::start(3, &[]);
    let replicas = mesh::<2>(&cluster, "").await;
    let (agents, journal) = (Agents::new(), Journal::begin(replicas[0].api()).await);
    let mut leases = Vec::new();
    for number in 0..AGENTS {
        leases.push(agents.join("web", number, &replicas[number as usize % 2]).await);
    }
    for replica in &replicas {
        has(replica, "web", AGENTS as usize).await;
    }
    let (leader, _) = until("a leader", async || cluster.leader()).await;
    [leader, (leader + 1) % 3].into_iter().for_each(|at| cluster.kill(at));
    let killed = Instant::now();
    SILENT.for_each(|number| agents.fall_silent(number));
    // How long each refusal took, at each replica.
    let mut refused = [Vec::new(), Vec::new()];
    while killed.elapsed() < AWAY {
        for (replica, refused) in replicas.iter().zip(&mut refused) {
            let asked = Instant::now();
            match replica.api().register(instances("web", 100..101)).await {
                Err(answer) if answer.problem.code == "unavailable" => refused.push(asked.elapsed()),
                other => panic!("{other:?} after {:?}", killed.elapsed()),
            }
            assert_eq!(replica.api().ids("web").await.len(), AGENTS as usize, "after {:?}", killed.elapsed());
        }
        tokio::time::sleep(TTL / 6).await;
    }
    for refused in &refused {
        let (first, later) = refused.split_first().expect("some");
        let slowest = later.iter().max().expect("more than one");
        println!(
            "without a quorum the first write was refused after {first:?}, {} more within {slowest:?}",
            later.len()
        );
        // Only the first one had to find out.
        assert!(*first < FOUND_OUT && *slowest < AT_ONCE, "{refused:?}");
    }
    assert!(agents.all_kept());
    assert_eq!(journal.left(0), [], "nothing expires without etcd");

    [leader, (leader + 1) % 3].into_iter().for_each(|at| cluster.revive(at));
    let back = Instant::now();
    let live = |replica: &Replica| {
        let api = replica.api().clone();
        async move { api.http.get("/v1/services").await.stale.is_none() }
    };
    until("both are live", async || (live(&replicas[0]).await && live(&replicas[1]).await).then_some(())).await;
    println!("both replicas are live {:?} after the members were started", back.elapsed());
    // Who was silent all the time is gone now, and nobody else.
    for replica in &replicas {
        has(replica, "web", AGENTS as usize - SILENT.len()).await;
    }
    println!("who fell silent meanwhile is gone {:?} after the members were started", back.elapsed());
    assert!(agents.all_kept(), "under the leases that they had");
    let left: Vec<String> = journal.left(0).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(left, SILENT.map(|number| format!("web-{number}")).collect::<Vec<_>>());
    for number in 0..SILENT.start {
        let path = format!("/v1/namespaces/default/services/web/instances/web-{number}");
        let shown = replicas[1].api().http.get(&path).await.ok();
        assert_eq!(shown["incarnation"], 1, "{shown}");
        assert_eq!(shown["lease"], leases[number as usize].as_str(), "{shown}");
    }
}
