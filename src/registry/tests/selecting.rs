//! Virtual services: their members are always those that match, whatever happens.

use proptest::prelude::*;

use std::collections::BTreeSet;

use super::*;
use crate::model::{Exports, ServicePatch, ServicePort, selector::InstanceSelector};

const SELECTORS: [&str; 5] = [
    "instance.labels.language == 'python'",
    "instance.labels.language in ['python', 'rust'] && instance.service == 'web'",
    "instance.health == 'healthy' && instance.has_capability('ocr')",
    "instance.weight > 5",
    "instance.namespace == 'shop' || instance.locality.zone == 'a'",
];

#[derive(Clone, Debug)]
enum Step {
    Register { place: usize, id: u8, language: usize, has_ocr: bool, weight: u16, ready: bool },
    Deregister { place: usize, id: u8 },
    Drain { place: usize, id: u8 },
    Select { place: usize, selector: usize },
    DeleteVirtual { place: usize },
    Export { place: usize, all: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let place = || 0usize..4;
    prop_oneof![
        6 => (place(), 0u8..3, 0usize..3, any::<bool>(), 1u16..10, any::<bool>()).prop_map(
            |(place, id, language, has_ocr, weight, ready)| Step::Register { place, id, language, has_ocr, weight, ready }
        ),
        2 => (place(), 0u8..3).prop_map(|(place, id)| Step::Deregister { place, id }),
        1 => (place(), 0u8..3).prop_map(|(place, id)| Step::Drain { place, id }),
        3 => (0usize..4, 0..SELECTORS.len()).prop_map(|(place, selector)| Step::Select { place, selector }),
        1 => (0usize..4).prop_map(|place| Step::DeleteVirtual { place }),
        2 => (place(), any::<bool>()).prop_map(|(place, all)| Step::Export { place, all }),
    ]
}

/// Two services in each of two namespaces.
fn of(place: usize) -> ServiceKey {
    let namespace = ["default", "shop"][place % 2];
    parse::service_key(namespace, ["web", "api"][place / 2]).expect("a key")
}

fn virtual_of(place: usize) -> ServiceKey {
    parse::service_key(["default", "shop"][place % 2], ["v1", "v2"][place / 2]).expect("a key")
}

fn ports() -> Vec<(PortName, ServicePort)> {
    vec![(PortName::parse("", "http").expect("a label"), ServicePort { protocol: Protocol::Http, number: 80 })]
}

fn run(book: &mut Book, step: &Step) {
    let instance = |place: usize, id: u8| InstanceKey {
        service: of(place),
        id: crate::model::InstanceId::parse("", &id.to_string()).expect("an id"),
    };
    let command = match step {
        Step::Register { place, id, language, has_ocr, weight, ready } => {
            let labels = [("language", ["python", "rust", "go"][*language])].into();
            let ocr = crate::model::Capability {
                name: "ocr".into(),
                version: "".into(),
                description: "".into(),
                attributes: Default::default(),
            };
            let capabilities = if *has_ocr { vec![ocr] } else { Vec::new() };
            let spec =
                InstanceSpec { weight: *weight, ready: *ready, labels, capabilities: capabilities.into(), ..spec(*id) };
            let new_lease = LeaseId(book.next_lease);
            book.next_lease += 1;
            let instances = vec![(instance(*place, *id), Arc::new(spec))];
            Command::Register(Register { lease: None, ttl: None, incarnation: None, instances, new_lease })
        }
        Step::Deregister { place, id } => Command::Deregister { key: instance(*place, *id), incarnation: None },
        Step::Drain { place, id } => Command::Drain { key: instance(*place, *id), incarnation: None, time: None },
        Step::Select { place, selector } => {
            let selector = parse::selector("selector", SELECTORS[*selector]).expect("a selector");
            let patch = ServicePatch { selector, ports: ports(), ..ServicePatch::default() };
            Command::PutService { key: virtual_of(*place), patch }
        }
        Step::DeleteVirtual { place } => Command::DeleteService { key: virtual_of(*place) },
        Step::Export { place, all } => {
            let exports = Some(Exports { all: *all, ..Exports::default() });
            let patch = ServicePatch { exports, ports: ports(), ..ServicePatch::default() };
            Command::PutService { key: of(*place), patch }
        }
    };
    // A refusal changes nothing.
    let _ = book.run(&command);
}

/// Each virtual service against the plain rule.
fn check(book: &Book) {
    for state in book.snapshot().services.values() {
        let Some(selector) = &state.service.value.selector else {
            assert!(state.members.is_empty());
            continue;
        };
        let expected = expected(book, &state.key, selector);
        let members: Vec<String> = state.members.keys().map(ToString::to_string).collect();
        assert_eq!(members, expected, "{} {}", state.key, selector.as_str());
        for (key, member) in &state.members {
            assert_eq!(Some(member), book.snapshot().instance(key), "{key} is as it is in its own service");
        }
    }
}

fn expected(book: &Book, place: &ServiceKey, selector: &InstanceSelector) -> Vec<String> {
    let sees = |of: &crate::registry::state::ServiceState| {
        of.key.namespace == place.namespace || of.service.value.exports.include(&place.namespace)
    };
    let services = book.snapshot().services.values().filter(|of| sees(of));
    let all = services.flat_map(|of| of.instances.values());
    all.filter(|of| selector.matches(&of.value, None)).map(|of| of.value.key.to_string()).collect()
}

proptest! {
    #[test]
    fn members_are_those_that_match(steps in prop::collection::vec(step(), 1..80)) {
        let mut book = Book::default();
        for step in &steps {
            run(&mut book, step);
            check(&book);
        }
    }
}

#[test]
fn who_registers_into_a_virtual_service_is_told_so() {
    let mut book = Book::default();
    run(&mut book, &Step::Select { place: 0, selector: 0 });
    let error = book.register(&[("v1/1", spec(1))]).expect_err("refused");
    assert!(error.to_string().contains("virtual"), "{error}");
    book.register(&[("web/1", spec(1))]).expect("registered");
    let selector = parse::selector("selector", SELECTORS[0]).expect("a selector");
    let patch = ServicePatch { selector, ..ServicePatch::default() };
    let error = book.run(&Command::PutService { key: service("web"), patch }).expect_err("refused");
    assert!(error.to_string().contains("selector"), "{error}");
}

/// A change costs only those whose terms hold: the others are not even looked at.
#[test]
fn a_change_marks_only_the_virtual_services_it_concerns() {
    let mut book = Book::default();
    for (name, language) in [("v1", "python"), ("v2", "rust")] {
        let selector = parse::selector("selector", &format!("instance.labels.language == '{language}'")).expect("one");
        let patch = ServicePatch { selector, ports: ports(), ..ServicePatch::default() };
        book.run(&Command::PutService { key: service(name), patch }).expect("put");
    }
    let labels = |language: &str| [("language", language)].into();
    book.register(&[("web/1", InstanceSpec { labels: labels("python"), ..spec(1) })]).expect("registered");
    let dirty = |book: &Book| -> Vec<String> {
        let name = |dirty: &crate::registry::state::Dirty| match dirty {
            crate::registry::state::Dirty::Service(key) => key.name.to_string(),
            crate::registry::state::Dirty::Raw(key) => key.to_string(),
        };
        let names: BTreeSet<String> = book.effects.dirty.iter().map(name).collect();
        names.into_iter().collect()
    };
    assert_eq!(dirty(&book), ["v1", "web"]);
    book.register(&[("web/1", InstanceSpec { labels: labels("rust"), ..spec(1) })]).expect("registered");
    assert_eq!(dirty(&book), ["v1", "v2", "web"]);
    book.deregister("web/1", None).expect("deregistered");
    assert_eq!(dirty(&book), ["v2", "web"]);
}
