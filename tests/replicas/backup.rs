//! What a replica saves is a mesh of its own elsewhere: whoever outgrew one machine, and finds that one was enough, goes back.

use std::time::Duration;

use tokio::process::Command;

use crate::{
    etcd::Cluster,
    mesh::{Agents, mesh},
    support::{
        child::{Child, Home},
        until, within,
    },
};

async fn convoy(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_convoy"));
    command.env_clear().args(arguments).kill_on_drop(true);
    let output = within("a command", command.output()).await.expect("it starts");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mesh_goes_on_from_a_replicas_backup_on_one_machine() {
    let cluster = Cluster::start(1, &[]);
    let [first, _second] = mesh::<2>(&cluster, "").await;
    let agents = Agents::new();
    let lease = agents.join("web", 1, &first).await;
    agents.join("web", 2, &first).await;
    let home = Home::new("storage: redb\nsettle: 0s\nbrake: {enabled: false}\n");
    let (data, backup) = (home.data(), home.data().with_file_name("convoy.backup"));
    let (data, backup) = (data.to_str().expect("text"), backup.to_str().expect("text"));
    convoy(&["--server", &format!("http://{}", first.child.addresses.grpc), "backup", backup]).await;
    convoy(&["restore", backup, "--data-dir", data]).await;
    let alone = Child::start(&home).await;
    assert_eq!(alone.api.ids("web").await, ["web-1", "web-2"]);
    // Nobody else is there any more to have its lease: who heartbeats stays, who does not goes.
    let mut heartbeats = tokio::time::interval(Duration::from_secs(1));
    until("the silent one to go", async || {
        heartbeats.tick().await;
        let heard = alone.api.heartbeat(&lease).await;
        assert_eq!(heard.outcome(), convoy_client::proto::LeaseOutcome::Kept, "{heard:?}");
        (alone.api.ids("web").await == ["web-1"]).then_some(())
    })
    .await;
}
