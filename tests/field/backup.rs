//! A backup of a running Convoy, and a Convoy that begins with it again. What had happened since is known to agents,
//! watchers and proxies, and none of it is taken for something else.

use std::{collections::BTreeMap, fs, path::Path, process::Output};

use convoy_client::proto::{
    HeartbeatRequest, LeaseHeartbeat, LeaseOutcome, PutServiceRequest, RegisterRequest, WatchKind, WatchRequest,
};
use tokio::process::Command;

use crate::{
    fleet::SERVICE,
    support::{
        ads::{self, CLUSTER, Dialect, ENDPOINT, Incremental, Stream},
        api::{Api, Face},
        child::{Child, Home},
        sample::{instance, instances, seconds},
        watch::Watch,
        within,
    },
};

async fn convoy(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.env_clear().args(arguments).kill_on_drop(true);
    within("a command", command.output()).await.expect("it starts")
}

async fn back_up(child: &Child, to: &Path) -> Output {
    convoy(&["--server", &format!("http://{}", child.addresses.grpc), "backup", to.to_str().expect("text")]).await
}

async fn restore(home: &Home, from: &Path, more: &[&str]) -> Output {
    let data = home.data();
    let arguments = ["restore", from.to_str().expect("text"), "--data-dir", data.to_str().expect("text")];
    convoy(&[&arguments[..], more].concat()).await
}

fn refused(output: &Output, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

fn long(request: RegisterRequest) -> RegisterRequest {
    RegisterRequest { ttl: seconds(86_400), ..request }
}

/// The instances of the service, as they are told, but for what a restart may change.
async fn told(api: &Api) -> BTreeMap<String, serde_json::Value> {
    let listed = api.http.get(&format!("/v1/namespaces/default/services/{SERVICE}/instances")).await.ok();
    let instances = listed["instances"].as_array().cloned().unwrap_or_default();
    instances.into_iter().map(|of| (of["id"].as_str().expect("an id").to_owned(), of)).collect()
}

#[tokio::test]
async fn what_was_saved_comes_back_and_what_came_later_is_not_taken_for_it() {
    for storage in ["redb", "memory"] {
        round_trip(storage).await;
    }
}

async fn round_trip(storage: &str) {
    let home = Home::new(&format!("storage: {storage}\nsettle: 3s\n"));
    let mut child = Child::start(&home).await;
    let mut leases = Vec::new();
    for number in 1..4 {
        let answer = child.api.register(long(instances(SERVICE, number..number + 1))).await.expect("registered");
        leases.push((answer.lease.expect("a lease").id, answer.digest));
    }
    let drain_time = seconds(77);
    let request = PutServiceRequest { service: SERVICE.into(), drain_time, ..Default::default() };
    child.api.registry.clone().put_service(request).await.expect("written");
    child.api.http.delete(&format!("/v1/namespaces/default/services/{SERVICE}/instances/{SERVICE}-3")).await.ok();
    let saved = told(&child.api).await;
    let backup = home.data().with_file_name("convoy.backup");
    let output = back_up(&child, &backup).await;
    assert!(output.status.success(), "{output:?}");
    let over_http = child.api.http.get("/v1/backup").await;
    assert_eq!((over_http.status, over_http.content_type.as_str()), (200, "application/octet-stream"));
    assert!(over_http.text.starts_with("convoy-backup-1\n"));

    // What comes after it is lost, but for those who remember it.
    let mut changed = instance(SERVICE, 1);
    changed.labels.insert("since".into(), "the backup".into());
    let request = RegisterRequest {
        lease: leases[0].0.clone(),
        incarnation: Some(1),
        instances: vec![changed],
        ..Default::default()
    };
    let later = child.api.register(request).await.expect("changed");
    let new = child.api.register(long(instances(SERVICE, 4..5))).await.expect("registered");
    let token = Watch::all(&child.api, Face::Grpc).await.synced().await.pop().expect("synced").token;
    let mut proxy: Stream<Incremental> = Stream::open(child.addresses.xds, Incremental::AGGREGATED).await;
    let clusters = proxy.ask(Stream::<Incremental>::subscribe(CLUSTER, &[])).await;
    proxy.ack(&clusters).await;
    let endpoints = proxy.ask(Stream::<Incremental>::subscribe(ENDPOINT, &[SERVICE])).await;
    let held: BTreeMap<_, _> =
        endpoints.resources.iter().map(|resource| (resource.name.clone(), resource.version.clone())).collect();
    assert_eq!(ads::endpoints(&ads::assignment(&endpoints.resources[0])).len(), 3);
    if storage == "redb" {
        refused(&restore(&home, &backup, &["--force"]).await, &["a running Convoy has", "convoy.redb"]);
    }
    child.kill().await;

    if storage == "redb" {
        refused(&restore(&home, &backup, &[]).await, &["there is a store in", "--force"]);
    }
    let output = restore(&home, &backup, &["--force"]).await;
    assert!(output.status.success(), "{output:?}");
    let home = Restored(home);
    let child = home.start().await;
    assert_eq!(told(&child.api).await, saved, "{storage}");
    let service = child.api.http.get(&format!("/v1/namespaces/default/services/{SERVICE}")).await.ok();
    assert_eq!(service["drain_time"], "77s");
    // The fence stands.
    let again = child.api.register(long(instances(SERVICE, 3..4))).await.expect_err("it was deregistered");
    assert_eq!(again.problem.code, "incarnation_fenced");
    // A proxy that has more than was restored keeps it: nobody knows yet who is still there.
    let mut returning: Stream<Incremental> = Stream::open(child.addresses.xds, Incremental::AGGREGATED).await;
    let mut subscription = Stream::<Incremental>::subscribe(ENDPOINT, &[SERVICE]);
    subscription.initial_resource_versions = held.into_iter().collect();
    returning.say(subscription).await;
    // Agents are told to say again what was lost.
    let beat = |lease: &str, digest: &str, revision| LeaseHeartbeat {
        lease: lease.into(),
        digest: digest.into(),
        revision,
        ..Default::default()
    };
    let request = HeartbeatRequest {
        leases: vec![
            beat(&leases[0].0, &later.digest, later.revision),
            beat(&leases[1].0, &leases[1].1, later.revision),
            beat(&new.lease.expect("a lease").id, &new.digest, new.revision),
        ],
    };
    let answered = child.api.registry.clone().heartbeat(request).await.expect("an answer").into_inner();
    let outcomes: Vec<_> = answered.leases.iter().map(|of| of.outcome()).collect();
    assert_eq!(
        outcomes,
        [LeaseOutcome::RegisterAgain, LeaseOutcome::Kept, LeaseOutcome::RegisterAgain],
        "{storage}: it was changed since, it was not, it came since"
    );
    // A watcher that was further is told all anew, and no revision comes again.
    let resume = WatchRequest { resume: token.clone(), ..Default::default() };
    let mut watch = Watch::open(&child.api, Face::Grpc, resume).await.expect("a watch");
    assert_eq!(watch.next().await.kind(), WatchKind::Reset);
    let mut ids = Vec::new();
    let synced = loop {
        let event = watch.next().await;
        if event.kind() == WatchKind::Synced {
            break event;
        }
        assert_eq!(event.kind(), WatchKind::Added);
        ids.push(event.instance.expect("an instance").id);
    };
    assert_eq!(ids, [format!("{SERVICE}-1"), format!("{SERVICE}-2")]);
    assert!(synced.revision > new.revision, "{} after {}", synced.revision, new.revision);
    let written = child.api.register(long(instances(SERVICE, 4..5))).await.expect("registered");
    assert!(written.revision > synced.revision);
    assert_eq!(watch.told().await, (WatchKind::Added, format!("{SERVICE}-4")));
    // The first that the proxy is told is what there is when all had time to return: it has lost nobody on the way.
    child.api.register(long(instances(SERVICE, 5..6))).await.expect("registered");
    let response = returning.next().await;
    let endpoints = ads::endpoints(&ads::assignment(&response.resources[0]));
    assert_eq!(endpoints.len(), 4, "{storage}: {endpoints:?}");
}

/// After a restore the store is redb's, whatever it was before.
struct Restored(Home);

impl Restored {
    async fn start(&self) -> Child {
        let config = self.0.config();
        let text = fs::read_to_string(&config).expect("a file").replace("storage: memory", "storage: redb");
        fs::write(&config, text).expect("written");
        Child::start(&self.0).await
    }
}

#[tokio::test]
async fn a_bad_backup_is_refused_and_the_store_stays() {
    let home = Home::new("storage: redb\n");
    let mut child = Child::start(&home).await;
    child.api.register(long(instances(SERVICE, 1..30))).await.expect("registered");
    let backup = home.data().with_file_name("convoy.backup");
    assert!(back_up(&child, &backup).await.status.success());
    child.kill().await;
    let whole = fs::read(&backup).expect("a file");
    let bad = home.data().with_file_name("bad.backup");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for (bytes, why) in [
        (&whole[..whole.len() - 1], "it was cut off after"),
        (&whole[..whole.len() / 2], "it was cut off after"),
        (&flipped[..], "it is damaged"),
        (&b"a letter to a friend"[..], "no backup of Convoy"),
        (&b""[..], "no backup of Convoy"),
        (&[b"convoy-backup-7\n", &whole[16..]].concat()[..], "newer Convoy (format 7)"),
    ] {
        fs::write(&bad, bytes).expect("written");
        refused(&restore(&home, &bad, &["--force"]).await, &["bad.backup", "nothing was restored", why]);
    }
    refused(&restore(&home, &home.data().with_file_name("none"), &["--force"]).await, &["No such file"]);
    refused(&restore(&home, &backup, &["--storage", "etcd"]).await, &["etcdctl snapshot restore"]);
    assert_eq!(fs::read_dir(home.data()).expect("a directory").count(), 1, "nothing was left");
    assert_eq!(Child::start(&home).await.api.ids(SERVICE).await.len(), 29);
}

#[tokio::test]
async fn a_backup_that_fails_leaves_the_last_one() {
    let home = Home::new("storage: memory\n");
    let mut child = Child::start(&home).await;
    child.api.register(long(instances(SERVICE, 1..3))).await.expect("registered");
    let backup = home.data().with_file_name("convoy.backup");
    assert!(back_up(&child, &backup).await.status.success());
    let before = fs::read(&backup).expect("a file");
    child.kill().await;
    refused(&back_up(&child, &backup).await, &["no answer from Convoy"]);
    assert!(before == fs::read(&backup).expect("a file"));
    assert!(!backup.with_extension("backup.partial").exists());
}
