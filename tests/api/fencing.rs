//! Fencing: a late message of an older incarnation changes and removes nothing, and what somebody decided is not undone
//! by the agent that was not told.

use convoy_client::proto::{DeregisterRequest, DrainRequest, GetInstanceRequest, RegisterRequest, WatchKind};

use crate::support::{
    api::{Api, Call, FACES, Face},
    sample::{call, instance, instances, seconds},
    server::Convoy,
    watch::Watch,
};

fn register(incarnation: u64) -> Call {
    Call::Register(of_incarnation(incarnation))
}

fn of_incarnation(incarnation: u64) -> RegisterRequest {
    RegisterRequest { incarnation: Some(incarnation), ..instances("web", 1..2) }
}

fn deregister(incarnation: Option<u64>) -> Call {
    Call::Deregister(DeregisterRequest { service: "web".into(), id: "web-1".into(), incarnation, ..Default::default() })
}

fn drain(incarnation: Option<u64>, time: i64) -> Call {
    let (service, id, drain_time) = ("web".into(), "web-1".into(), seconds(time));
    Call::Drain(DrainRequest { service, id, incarnation, drain_time, ..Default::default() })
}

async fn incarnation(api: &Api) -> Option<u64> {
    let key = GetInstanceRequest { service: "web".into(), id: "web-1".into(), ..Default::default() };
    let got = api.ask(Face::Grpc, Call::GetInstance(key)).await.ok()?;
    got["incarnation"].as_u64()
}

async fn code(api: &Api, face: Face, call: Call) -> String {
    let refused = api.ask(face, call).await.expect_err("it is refused");
    assert_eq!(refused.problem.field, "incarnation");
    refused.problem.code
}

#[tokio::test]
async fn an_older_incarnation_registers_deregisters_and_drains_nothing() {
    for face in FACES {
        let convoy = Convoy::start().await;
        convoy.api.ask(face, register(7)).await.expect("registered");
        for late in [register(6), deregister(Some(6)), drain(Some(6), 0)] {
            assert_eq!(code(&convoy.api, face, late.clone()).await, "older_incarnation", "{late:?}");
        }
        let of_web = Call::ListInstances(convoy_client::proto::ListInstancesRequest {
            service: "web".into(),
            ..Default::default()
        });
        let listed = convoy.api.ask(face, of_web).await.expect("a list");
        assert_eq!((&listed["revision"], &listed["instances"][0]["incarnation"]), (&1.into(), &7.into()));
        convoy.api.ask(face, register(8)).await.expect("a newer one may");
        assert_eq!(incarnation(&convoy.api).await, Some(8));
        // And of what has gone, too.
        convoy.api.ask(face, deregister(Some(8))).await.expect("deregistered");
        assert_eq!(code(&convoy.api, face, register(7)).await, "older_incarnation");
    }
}

#[tokio::test]
async fn the_same_incarnation_does_not_return_after_a_deregistration() {
    for face in FACES {
        for said in [Some(1), None] {
            let convoy = Convoy::start().await;
            convoy.api.ask(face, register(1)).await.expect("registered");
            convoy.api.ask(face, deregister(said)).await.expect("deregistered");
            assert_eq!(code(&convoy.api, face, register(1)).await, "incarnation_fenced");
            // Said twice is said once.
            convoy.api.ask(face, deregister(said)).await.expect("it is gone already");
            convoy.api.ask(face, register(2)).await.expect("a newer one may");
        }
    }
}

#[tokio::test]
async fn the_same_incarnation_does_not_return_after_a_finished_drain() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let mut watch = Watch::all(&convoy.api, face).await;
        watch.synced().await;
        convoy.api.ask(face, register(1)).await.expect("registered");
        convoy.api.ask(face, drain(Some(1), 0)).await.expect("draining");
        for kind in [WatchKind::Added, WatchKind::Changed, WatchKind::Removed] {
            assert_eq!(watch.told().await.0, kind);
        }
        assert_eq!(code(&convoy.api, face, register(1)).await, "incarnation_fenced");
        convoy.api.ask(face, register(2)).await.expect("a newer one may");
        let key = GetInstanceRequest { service: "web".into(), id: "web-1".into(), ..Default::default() };
        let back = convoy.api.ask(face, Call::GetInstance(key)).await.expect("it is back");
        assert_eq!(back["health"]["verdict"], "healthy", "a new incarnation does not drain");
    }
}

#[tokio::test]
async fn the_same_incarnation_returns_after_an_expiry() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let mut watch = Watch::all(&convoy.api, face).await;
        watch.synced().await;
        let request = RegisterRequest { ttl: seconds(1), ..of_incarnation(1) };
        let lease = convoy.api.register(request).await.expect("registered").lease.expect("a lease").id;
        assert_eq!(watch.told().await.0, WatchKind::Added);
        assert_eq!(watch.told().await.0, WatchKind::Removed);
        let outcome = convoy.api.heartbeat(&lease).await.outcome();
        assert_eq!(outcome.to_string(), "register_again", "a heartbeat brings nobody back");
        assert_eq!(incarnation(&convoy.api).await, None);
        convoy.api.ask(face, register(1)).await.expect("registering does");
        assert_eq!(incarnation(&convoy.api).await, Some(1));
    }
}

/// A lease is of one incarnation: whoever shares it without saying its own has that one, and is fenced by it.
#[tokio::test]
async fn a_shared_lease_is_no_way_around_the_fence() {
    for face in FACES {
        let convoy = Convoy::start().await;
        let other = convoy.api.register(call([instance("other", 1)])).await.expect("registered");
        let lease = other.lease.expect("a lease").id;
        let sharing = || {
            let shared = RegisterRequest { lease: lease.clone(), incarnation: None, ..instances("web", 1..2) };
            Call::Register(shared)
        };
        convoy.api.ask(face, register(7)).await.expect("registered");
        assert_eq!(code(&convoy.api, face, sharing()).await, "older_incarnation");
        assert_eq!(incarnation(&convoy.api).await, Some(7));
        convoy.api.ask(face, deregister(None)).await.expect("deregistered");
        assert_eq!(code(&convoy.api, face, sharing()).await, "older_incarnation");

        let own = |incarnation| RegisterRequest { lease: lease.clone(), incarnation, ..call([instance("own", 1)]) };
        convoy.api.register(own(None)).await.expect("registered");
        let gone = DeregisterRequest { service: "own".into(), id: "own-1".into(), ..Default::default() };
        convoy.api.ask(face, Call::Deregister(gone)).await.expect("deregistered");
        for said in [Some(1), None] {
            assert_eq!(code(&convoy.api, face, Call::Register(own(said))).await, "incarnation_fenced");
        }
    }
}
