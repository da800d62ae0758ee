use super::*;
use crate::storage::Change;

#[test]
fn the_first_registration_makes_the_service() {
    let mut book = Book::default();
    let lease = book.register(&[("web/1", spec(1))]).expect("registered");
    let state = &book.snapshot().services[&service("web")];
    assert_eq!(state.service.value.default_port.as_str(), "http");
    assert_eq!(book.get("web/1").map(|instance| instance.lease), Some(lease));
    assert_eq!(book.events(), [("1".to_owned(), EventKind::Added)]);
    let set = book.effects.leases_set.first().expect("it was written");
    assert_eq!((set.id, set.lease.ttl, set.was), (lease, Duration::from_secs(30), None));
}

#[test]
fn said_twice_is_said_once() {
    let mut book = Book::default();
    let lease = book.register(&[("web/1", spec(1))]).expect("registered");
    let revision = book.snapshot().revision;
    assert_eq!(book.register(&[("web/1", spec(1))]), Ok(lease));
    assert_eq!((book.snapshot().revision, book.events()), (revision, vec![]));
}

#[test]
fn other_content_changes_the_instance() {
    let mut book = Book::default();
    let lease = book.register(&[("web/1", spec(1))]).expect("registered");
    assert_eq!(book.register(&[("web/1", InstanceSpec { weight: 7, ..spec(1) })]), Ok(lease));
    assert_eq!(book.events(), [("1".to_owned(), EventKind::Changed)]);
    assert_eq!(book.get("web/1").map(|instance| instance.spec.weight), Some(7));
}

#[test]
fn readiness_and_its_since() {
    let mut book = Book::default();
    let verdict = |book: &Book| book.get("web/1").map(|instance| instance.health().verdict.as_str());
    let since = |book: &Book| book.get("web/1").map(|instance| instance.health_since.0);
    for (at, ready, expected, expected_since) in [
        (1, false, "starting", 1),
        (2, false, "starting", 1),
        (3, true, "healthy", 3),
        (4, true, "healthy", 3),
        (5, false, "unhealthy", 5),
        (6, true, "healthy", 6),
    ] {
        book.now = UnixMillis(at);
        let weight = at as u16;
        book.register(&[("web/1", InstanceSpec { ready, weight, ..spec(1) })]).expect("registered");
        assert_eq!((verdict(&book), since(&book)), (Some(expected), Some(expected_since)), "{at}");
    }
}

#[test]
fn a_lease_holds_many_instances_and_ends_with_the_last() {
    let mut book = Book::default();
    let lease = book.register(&[("web/1", spec(1)), ("web/2", spec(2))]).expect("registered");
    assert_eq!(book.register_as(Some(lease), None, &[("api/1", spec(1))]), Ok(lease));
    book.deregister("web/1", None).expect("deregistered");
    book.deregister("web/2", None).expect("deregistered");
    assert!(book.effects.leases_gone.is_empty());
    book.deregister("api/1", None).expect("deregistered");
    assert_eq!(book.effects.leases_gone, [lease]);
}

/// With several writers: one takes the lease for empty, and another's instance has just joined it.
#[test]
fn a_lease_that_is_deleted_though_it_has_members_goes_on_and_is_put_back() {
    let mut book = Book::default();
    let lease = book.register(&[("web/1", spec(1))]).expect("registered");
    let change = Change { key: crate::storage::Key::Lease(lease), record: None };
    let revision = Revision(book.snapshot().revision.0 + 1);
    book.effects = book.state.apply(Commit::new(revision, vec![change]), book.now);
    assert_eq!((&book.effects.leases_gone[..], &book.effects.leases_missed[..]), (&[][..], &[lease][..]));
    // It is expected as the store has it.
    let plan = book.state.plan(&Command::MendLease(lease), book.now, &book.limits).expect("planned");
    assert_eq!(plan.transaction.expect, [(crate::storage::Key::Lease(lease), Revision(0))]);
    book.effects = book.state.apply(Commit::new(Revision(revision.0 + 1), plan.transaction.changes), book.now);
    let again = book.state.plan(&Command::MendLease(lease), book.now, &book.limits).expect("planned");
    assert!(again.transaction.changes.is_empty(), "each replica would");
    book.expire(lease);
    assert_eq!((book.get("web/1"), &book.effects.leases_gone[..]), (None, &[lease][..]));
}

#[test]
fn an_instance_that_moves_to_another_lease_leaves_the_one_it_had() {
    let mut book = Book::default();
    let first = book.register(&[("web/1", spec(1))]).expect("registered");
    let second = book.register(&[("web/2", spec(2))]).expect("registered");
    assert_eq!(book.register_as(Some(second), None, &[("web/1", spec(1))]), Ok(second));
    assert_eq!(book.effects.leases_gone, [first]);
    book.expire(second);
    assert_eq!((book.get("web/1"), book.get("web/2")), (None, None));
}

#[test]
fn an_expiry_removes_all_of_a_lease_a_write_at_a_time() {
    let mut book = Book::default();
    let names: Vec<String> = (0..120).map(|number| format!("web/{number}")).collect();
    let mut lease = None;
    for (number, name) in names.iter().enumerate() {
        lease = book.register_as(lease, None, &[(name, spec(number as u8))]).ok();
    }
    let lease = lease.expect("registered");
    for left in [70, 20, 0] {
        book.expire(lease);
        assert_eq!(book.snapshot().services[&service("web")].instances.len(), left);
        assert_eq!(book.effects.leases_gone.is_empty(), left > 0);
    }
    assert_eq!(book.events()[0].1, EventKind::Removed(RemovalCause::Expired));
}

#[test]
fn the_newest_registration_has_the_address() {
    let mut book = Book::default();
    let first = book.register(&[("web/1", spec(1))]).expect("registered");
    book.register(&[("web/2", spec(1))]).expect("registered");
    let replaced = ("1".to_owned(), EventKind::Removed(RemovalCause::Replaced));
    let mut events = book.events();
    events.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(events, [replaced, ("2".to_owned(), EventKind::Added)]);
    assert_eq!(book.effects.leases_gone, [first]);
    // Another service may have the same address.
    book.register(&[("api/1", spec(1))]).expect("registered");
    assert!(book.get("web/2").is_some());
    // It may move away, and another may come in its place.
    book.register(&[("web/2", spec(9))]).expect("registered");
    book.register(&[("web/3", spec(1))]).expect("registered");
    assert!(book.get("web/2").is_some() && book.get("web/3").is_some());
}

#[test]
fn addresses_may_change_hands_in_one_call() {
    for order in [[0, 1], [1, 0]] {
        let mut book = Book::default();
        book.register(&[("web/1", spec(1))]).expect("registered");
        let instances = [("web/1", spec(2)), ("web/2", spec(1))];
        let instances: Vec<_> = order.iter().map(|index: &usize| instances[*index].clone()).collect();
        book.register(&instances).expect("registered");
        let mut events = book.events();
        events.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(events, [("1".to_owned(), EventKind::Changed), ("2".to_owned(), EventKind::Added)]);
    }
}

#[test]
fn a_port_speaks_one_protocol_in_a_service() {
    let mut book = Book::default();
    book.register(&[("web/1", spec(1))]).expect("registered");
    let grpc = InstanceSpec { ports: [port("http", 8080, Protocol::Grpc)].into(), ..spec(2) };
    let error = book.register(&[("web/2", grpc)]).expect_err("refused");
    assert!(matches!(&error, Error::ProtocolConflict { fixed: Protocol::Http, given: Protocol::Grpc, .. }), "{error}");
    assert!(book.get("web/2").is_none());
    let more = vec![port("http", 80, Protocol::Http), port("admin", 9090, Protocol::Tcp)];
    book.register(&[("web/2", InstanceSpec { ports: more.into(), ..spec(2) })]).expect("registered");
    let ports = &book.snapshot().services[&service("web")].service.value.ports;
    let numbers: Vec<_> = ports.iter().map(|(name, port)| (name.as_str(), port.number)).collect();
    assert_eq!(numbers, [("admin", 9090), ("http", 8080)]);
}

#[test]
fn limits_are_refused_whole() {
    let limits = Limits { instances_per_service: 2, instances_per_lease: 3, ..Limits::default() };
    let mut book = Book { limits, ..Book::default() };
    let lease = book.register(&[("web/1", spec(1)), ("web/2", spec(2))]).expect("registered");
    let error = book.register(&[("web/3", spec(3))]).expect_err("refused");
    assert!(matches!(error, Error::LimitReached { limit: 2, .. }), "{error}");
    book.register(&[("web/2", InstanceSpec { weight: 1, ..spec(2) })]).expect("a change is no newcomer");
    book.register_as(None, None, &[("web/3", spec(1))]).expect("who takes another's place finds room");
    book.register_as(Some(lease), Some(1), &[("cache/1", spec(1))]).expect("registered");
    book.register_as(Some(lease), None, &[("api/1", spec(1))]).expect("registered");
    let error = book.register_as(Some(lease), None, &[("db/1", spec(1))]).expect_err("refused");
    assert!(matches!(error, Error::LimitReached { limit: 3, .. }), "{error}");
    assert!(!book.snapshot().services.contains_key(&service("db")));
}

#[test]
fn a_call_names_each_instance_and_address_once() {
    let mut book = Book::default();
    for (instances, field) in [
        (vec![("web/1", spec(1)), ("web/1", spec(2))], "instances[1].id"),
        (vec![("web/1", spec(1)), ("web/2", spec(1))], "instances[1].address"),
        (vec![], "instances"),
    ] {
        match book.register(&instances) {
            Err(Error::Invalid(invalid)) => assert_eq!(invalid.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn a_service_outlives_its_instances_and_is_deleted_only_empty() {
    let mut book = Book::default();
    let lease = book.register(&[("web/1", spec(1))]).expect("registered");
    let delete = Command::DeleteService { key: service("web") };
    assert!(matches!(book.run(&delete), Err(Error::NotEmpty { instances: 1, .. })));
    book.now = UnixMillis(5_000);
    book.expire(lease);
    assert!(book.snapshot().services.contains_key(&service("web")));
    assert_eq!(book.state.services_abandoned(UnixMillis(5_000)), []);
    assert_eq!(book.state.services_abandoned(UnixMillis(5_001)), [service("web")]);
    book.run(&delete).expect("deleted");
    assert!(book.snapshot().services.is_empty());
    assert!(matches!(book.run(&delete), Err(Error::NotFound { .. })));
}
