//! Services and resources that somebody puts.

use super::*;
use crate::model::{Exports, Namespace, Protocol, RawKey, RawResource, ServiceChange, ServicePort};

fn port(name: &str, number: u16) -> (PortName, ServicePort) {
    (PortName::parse("", name).expect("a label"), ServicePort { protocol: Protocol::Http, number })
}

fn put(book: &mut Book, change: ServiceChange) -> Result<(), Error> {
    let key = parse::service_key("", "web").expect("a key");
    book.run(&Command::PutService { key, change }).map(drop)
}

fn web(book: &Book) -> crate::model::Service {
    let key = parse::service_key("", "web").expect("a key");
    crate::model::Service::clone(&book.state.snapshot().services[&key].service.value)
}

#[test]
fn what_is_left_out_of_a_service_stays() {
    let mut book = Book::default();
    let field = |error: Error| match error {
        Error::Invalid(invalid) => invalid.field,
        other => panic!("{other}"),
    };
    assert_eq!(field(put(&mut book, ServiceChange::default()).expect_err("no ports")), "ports");
    put(&mut book, ServiceChange { ports: vec![port("http", 80), port("admin", 81)], ..Default::default() })
        .expect("made");
    assert_eq!(web(&book).default_port.as_str(), "http", "the first");
    let other = PortName::parse("", "other").expect("a label");
    let unknown = ServiceChange { default_port: Some(other), ..Default::default() };
    assert_eq!(field(put(&mut book, unknown).expect_err("no such port")), "default_port");

    let exports = Exports { all: false, namespaces: [Namespace::parse("", "shop").expect("a label")].into() };
    put(&mut book, ServiceChange { exports: Some(exports.clone()), ..Default::default() }).expect("exported");
    let long = Duration::from_secs(60);
    put(&mut book, ServiceChange { drain_time: Some(long), ..Default::default() }).expect("changed");
    let service = web(&book);
    assert_eq!((service.ports.len(), service.drain_time, service.exports), (2, long, exports));
    let before = book.state.snapshot().revision;
    put(&mut book, ServiceChange { drain_time: Some(long), ..Default::default() }).expect("the same");
    assert_eq!(book.state.snapshot().revision, before);
    put(&mut book, ServiceChange { exports: Some(Exports::default()), ..Default::default() }).expect("taken back");
    assert_eq!(web(&book).exports, Exports::default());
}

#[test]
fn a_resource_is_put_changed_and_deleted() {
    let mut book = Book::default();
    book.limits.raw_resources = 2;
    let key = |name: &str| RawKey::parse("clusters", name, "").expect("a key");
    let put = |book: &mut Book, name: &str, bytes: &'static [u8]| {
        let resource = RawResource { bytes: bytes.into(), selector: None, ttl: None };
        book.run(&Command::PutRaw { key: key(name), resource }).map(drop)
    };
    put(&mut book, "a", b"1").expect("put");
    put(&mut book, "a", b"1").expect("the same");
    assert_eq!(book.state.snapshot().revision, Revision(1), "nothing changed");
    put(&mut book, "a", b"2").expect("changed");
    put(&mut book, "b", b"1").expect("another");
    assert!(matches!(put(&mut book, "c", b"1"), Err(Error::LimitReached { limit: 2, .. })));
    assert_eq!(book.state.snapshot().raw[&key("a")].revision, Revision(2));
    book.run(&Command::DeleteRaw { key: key("a") }).expect("deleted");
    assert!(matches!(book.run(&Command::DeleteRaw { key: key("a") }), Err(Error::NotFound { .. })));
    put(&mut book, "c", b"1").expect("there is room");
}
