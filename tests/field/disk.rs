//! What the disk and the store's file do to a running Convoy, and to one that starts. While nothing can be written,
//! everything that is known goes on being served.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
};

use convoy_client::proto::LeaseOutcome;
use envoy_types::pb::envoy::config::core::v3::HealthStatus;

use crate::{
    fleet::SERVICE,
    mounted::Disk,
    proxy::Proxy,
    support::{
        child::{Child, Home},
        sample::{instances, seconds},
        until,
    },
};

const FILE: &str = "convoy.redb";
/// More than enough to use up what is left in the file.
const MANY: u32 = 5_000;

#[tokio::test]
async fn a_full_disk_keeps_writes_out_and_nothing_else() {
    let home = Home::new("storage: redb\nsettle: 0s\n");
    let Some(disk) = Disk::mount(&home.data(), 8) else { return };
    let mut convoy = Child::start(&home).await;
    let request = |number| {
        let mut request = instances(SERVICE, number..number + 1);
        request.ttl = seconds(86_400);
        request
    };
    let first = convoy.api.register(request(1)).await.expect("registered");
    let lease = first.lease.expect("a lease").id;
    let proxy = Proxy::connect(convoy.addresses).await;
    until("the endpoint", async || (proxy.count(HealthStatus::Healthy) == 1).then_some(())).await;

    disk.fill();
    let (mut last, mut refused) = (1, None);
    for number in 2..MANY {
        match convoy.api.register(request(number)).await {
            Ok(_) => last = number,
            Err(refusal) => {
                refused = Some(refusal.problem);
                break;
            }
        }
    }
    let refused = refused.expect("nothing can be written");
    println!("full after {last} registrations: {}", refused.message);
    assert_eq!(refused.code, "unavailable");
    for part in [FILE, "disk is full", "No space left"] {
        assert!(refused.message.contains(part), "{part}: {}", refused.message);
    }
    let ready = convoy.api.http.get("/readyz").await;
    assert_eq!((ready.status, convoy.api.http.get("/livez").await.status), (503, 200));
    assert!(ready.text.contains("unavailable"), "{}", ready.text);
    // All that is known goes on.
    assert_eq!(convoy.api.heartbeat(&lease).await.outcome(), LeaseOutcome::Kept);
    assert_eq!(convoy.api.ids(SERVICE).await.len(), last as usize);
    let count = async || (proxy.count(HealthStatus::Healthy) == last as usize).then_some(());
    until("all endpoints", count).await;
    let late = Proxy::connect(convoy.addresses).await;
    until("the endpoints of a new proxy", async || (late.endpoints().len() == last as usize).then_some(())).await;
    let again = convoy.api.register(request(MANY)).await.expect_err("still full");
    assert!(again.problem.message.contains("disk is full"), "{}", again.problem.message);

    disk.make_room();
    convoy.api.register(request(MANY)).await.expect("there is room");
    assert_eq!(convoy.api.http.get("/readyz").await.status, 200);
    until("the new endpoint", async || (proxy.endpoints().len() == last as usize + 1).then_some(())).await;
    let before = convoy.api.ids(SERVICE).await;
    convoy.kill().await;
    let convoy = Child::start(&home).await;
    assert_eq!(convoy.api.ids(SERVICE).await, before, "what was acknowledged, and nothing that was not");
}

#[tokio::test]
async fn a_read_only_disk_is_said_at_the_start() {
    let home = Home::new("storage: redb\n");
    let Some(disk) = Disk::mount(&home.data(), 8) else { return };
    disk.set("ro");
    let said = home.refuses().await;
    assert!(said.contains("cannot be written to (Read-only file system"), "no new one: {said}");
    disk.set("rw");
    let mut convoy = Child::start(&home).await;
    convoy.api.register(instances(SERVICE, 1..3)).await.expect("registered");
    convoy.kill().await;
    disk.set("ro");
    let said = home.refuses().await;
    for part in [FILE, "cannot be written to (Read-only file system", "mount its disk writable"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    disk.set("rw");
    assert_eq!(Child::start(&home).await.api.ids(SERVICE).await.len(), 2);
}

#[tokio::test]
async fn a_disk_without_room_for_a_store_is_said_at_the_start() {
    let home = Home::new("storage: redb\n");
    let Some(disk) = Disk::mount(&home.data(), 1) else { return };
    disk.fill();
    let said = home.refuses().await;
    assert!(said.contains(FILE) && said.contains("disk is full"), "{said}");
    disk.make_room();
    disk.set("size=8m");
    Child::start(&home).await.api.register(instances(SERVICE, 1..2)).await.expect("registered");
}

#[tokio::test]
async fn a_damaged_file_and_a_second_process_are_refused_by_name() {
    let home = Home::new("storage: redb\n");
    let path = home.data().join(FILE);
    let mut convoy = Child::start(&home).await;
    convoy.api.register(instances(SERVICE, 1..40)).await.expect("registered");
    let said = home.refuses().await;
    assert!(said.contains(FILE) && said.contains("another process has it open"), "{said}");
    convoy.assert_running();
    convoy.kill().await;

    let whole = fs::read(&path).expect("a file");
    let file = OpenOptions::new().write(true).open(&path).expect("a file");
    let damage: [(&str, &dyn Fn()); 4] = [
        ("nothing is left of it", &|| file.set_len(0).expect("cut off")),
        ("half of it", &|| file.set_len(whole.len() as u64 / 2).expect("cut off")),
        ("its head is another", &|| file.write_all_at(b"something", 0).expect("written")),
        ("its inside is another", &|| {
            // In all places where there is something.
            for at in (4096..whole.len()).filter(|at| whole[*at] != 0) {
                file.write_all_at(&[!whole[at]], at as u64).expect("written");
            }
        }),
    ];
    for (what, damage) in damage {
        damage();
        let said = home.refuses().await;
        for part in [FILE, "damaged", "convoy restore --force"] {
            assert!(said.contains(part), "{what}: {part}: {said}");
        }
        file.set_len(whole.len() as u64).expect("as it was");
        file.write_all_at(&whole, 0).expect("as it was");
    }
    assert_eq!(Child::start(&home).await.api.ids(SERVICE).await.len(), 39);
}
