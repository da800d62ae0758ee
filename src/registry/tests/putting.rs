//! Services that somebody puts.

use super::*;
use crate::model::{Exports, Namespace, Protocol, ServiceChange, ServicePort};

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
