//! j: a change that is made by way of one replica, until it is read from a stream of another, beside a bare put to one
//! member of the same etcd until it is read from a watch of another. k: a replica is killed, and its streams go on at the
//! others, with what they have.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use tonic::{Streaming, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use super::{
    connect::returning,
    registry,
    subject::{everything, follower, record},
};
use crate::{
    bare_put::put,
    change::Change,
    etcd::Cluster,
    fleet::Fleet,
    messages::Keep,
    options::Options,
    report::{Report, Row, Target, Unit, milliseconds, percentile},
    server::{Server, Store},
    stream::Move,
    tape,
    wire::{CLUSTER, ENDPOINT},
};

const MEMBERS: usize = 3;
const ENDPOINTS: usize = 10;
/// Services while a replica is killed.
const SERVICES: usize = 1_000;
const LATER: Target = Target::RatioAnd(1.3, 2.0);
const BACK: Target = Target::AtMost(5_000.0);
/// A killed replica's key is gone after 10 s, its leases are others' 2 s later; what that writes is told to nobody.
const ADOPTED: Duration = Duration::from_secs(15);

pub async fn run(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let cluster = Cluster::start(MEMBERS, &["--quota-backend-bytes", "8589934592"]);
    changes(&cluster, options, report).await.context("changes")?;
    lost(&cluster, options, report).await.context("a lost replica")
}

/// Each replica has a member of its own, as the puts and the watch do.
async fn changes(cluster: &Cluster, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let members = cluster.endpoints();
    let near = Server::convoy(Store::Etcd(&members[..1])).await?;
    let far = Server::convoy(Store::Etcd(&members[1..2])).await?;
    registry::fill(&near.client, 1, ENDPOINTS).await?;
    let fleet = Fleet::open(far.xds, vec![follower(0..1, Keep::Resources)], 1).await?;
    let mut bare = Bare::open(&members).await?;
    // Until it is read there, and until the call is answered here.
    let (mut puts, mut replicas) = (Vec::new(), Vec::new());
    let (mut put_answers, mut answers) = (Vec::new(), Vec::new());
    let mut number = 0;
    for round in 0..=options.rounds(5) {
        let (mut put, mut changed, mut put_answered, mut answered) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..options.size(200, 20) {
            number += 1;
            let (told, answer) = bare.put().await?;
            put.push(told);
            put_answered.push(answer);
            // Neither waits for what the one before left to be done.
            near.quiet().await?;
            far.quiet().await?;
            let change = Change { service: 0, number };
            let request = change.request();
            let begun = Instant::now();
            fleet.sending(change, begun, 1);
            near.client.register(request).await?;
            answered.push(begun.elapsed());
            fleet.complete().await?;
            changed.extend(fleet.take_arrivals());
            near.quiet().await?;
            far.quiet().await?;
        }
        // The first is for caches and allocators.
        if round > 0 {
            puts.push(put);
            replicas.push(changed);
            put_answers.push(put_answered);
            answers.push(answered);
        }
    }
    let mut row = |what: &str, target, share, of: [&[Vec<Duration>]; 2]| {
        let [floor, convoy] = of.map(|rounds| rounds.iter().map(|round| percentile(round, share)).collect());
        let what = format!("change at one replica, {MEMBERS} members: {what}");
        report.add(Row { scenario: 'j', what, unit: Unit::Milliseconds, floor, convoy, target });
    };
    row("in a stream of another, p50", LATER, 0.5, [&puts, &replicas]);
    row("in a stream of another, p99", LATER, 0.99, [&puts, &replicas]);
    row("the call's answer, p50", Target::None, 0.5, [&put_answers, &answers]);
    row("the call's answer, p99", Target::None, 0.99, [&put_answers, &answers]);
    Ok(())
}

async fn lost(cluster: &Cluster, options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let members = cluster.endpoints();
    let streams = options.size(1_000, 100);
    let mut replicas = Vec::new();
    for _ in 0..3 {
        replicas.push(Server::convoy(Store::Etcd(&members)).await?);
    }
    registry::fill(&replicas[0].client, SERVICES, ENDPOINTS).await?;
    let (mut back, mut sent, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds(3) {
        let recorded = record(&replicas[0], everything(SERVICES, Keep::Everything)).await?;
        let there = returning(&tape::versions(&recorded, CLUSTER)?, &tape::versions(&recorded, ENDPOINT)?);
        let to = |server: SocketAddr| Some(Arc::new(Move { server, plan: there.clone() }));
        let to = [to(replicas[1].xds), to(replicas[2].xds)];
        let plan = |at: usize| crate::stream::Plan { moves: to[at % 2].clone(), ..everything(SERVICES, Keep::Heads) };
        let fleet = Fleet::open(replicas[0].xds, (0..streams).map(plan).collect(), 32).await?;
        fleet.take_ready();
        for replica in &replicas {
            replica.quiet().await?;
        }
        let before = fleet.totals().resources;
        fleet.expect(streams);
        let killed = Instant::now();
        drop(replicas.remove(0));
        fleet.complete().await?;
        back.extend(fleet.take_ready().iter().max().map(|last| milliseconds(*last - killed)));
        tokio::time::sleep(ADOPTED).await;
        sent.push((fleet.totals().resources - before) as f64);
        // They hear what comes later.
        let (heard, number) = (fleet.totals().resources, 1 + round as u16);
        let begun = Instant::now();
        // No earlier number is one of this change: the changes before have made some.
        let change = Change { service: 1, number };
        replicas[0].client.register(change.request()).await?;
        while fleet.totals().resources < heard + streams {
            anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "a later change does not reach all");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        changed.push(milliseconds(begun.elapsed()));
        drop(fleet);
        replicas.push(Server::convoy(Store::Etcd(&members)).await?);
    }
    let mut row = |what: &str, unit, convoy, target| {
        let what = format!("replica with {streams} streams killed: {what}");
        report.add(Row { scenario: 'k', what, unit, floor: Vec::new(), convoy, target });
    };
    row("the last is in sync elsewhere", Unit::Milliseconds, back, BACK);
    row("resources sent", Unit::Count, sent, Target::AtMost(0.0));
    row("a later change is with all", Unit::Milliseconds, changed, Target::None);
    Ok(())
}

/// A client that puts by way of the first member, and watches by way of the second.
struct Bare {
    puts: Channel,
    watch: Streaming<WatchResponse>,
    // Its end would end the watch.
    _requests: tokio::sync::mpsc::Sender<WatchRequest>,
}

const KEY: &[u8] = b"/bare/watched";

// Of etcd's messages as much as is needed.
#[derive(Clone, PartialEq, prost::Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchResponse {
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<()>,
}

impl Bare {
    async fn open(members: &[String]) -> anyhow::Result<Self> {
        let channel = async |member: &String| {
            anyhow::Ok(Channel::from_shared(member.clone())?.tcp_nodelay(true).connect().await?)
        };
        let (requests, receiver) = tokio::sync::mpsc::channel(1);
        requests.send(WatchRequest { create: Some(WatchCreate { key: KEY.into() }) }).await?;
        let mut client = Grpc::new(channel(&members[1]).await?);
        client.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec: ProstCodec<WatchRequest, WatchResponse> = ProstCodec::default();
        let request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let mut watch = client.streaming(request, path, codec).await?.into_inner();
        let first = watch.message().await?.context("the watch has ended")?;
        anyhow::ensure!(first.created, "{first:?}");
        Ok(Self { puts: channel(&members[0]).await?, watch, _requests: requests })
    }

    /// Puts, and waits until the watch has told; how long that took, and the answer.
    async fn put(&mut self) -> anyhow::Result<(Duration, Duration)> {
        let told = async {
            while self.watch.message().await?.context("the watch has ended")?.events.is_empty() {}
            Ok(Instant::now())
        };
        let begun = Instant::now();
        let put = async {
            put(self.puts.clone(), KEY.into()).await?;
            anyhow::Ok(Instant::now())
        };
        let (answered, told) = tokio::try_join!(put, told)?;
        Ok((told - begun, answered - begun))
    }
}
