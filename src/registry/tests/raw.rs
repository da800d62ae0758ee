//! Resources that somebody wrote.

use super::*;
use crate::{
    model::{Node, NodeSelector, RawKey, RawResource, ResourceType},
    registry::state::Dirty,
};

fn raw_key(name: &str, variant: &str) -> RawKey {
    RawKey::parse("clusters", name, variant).expect("a key")
}

fn put(book: &mut Book, key: &RawKey, bytes: &'static [u8]) -> Result<(), Error> {
    let resource = RawResource { bytes: bytes.into(), selector: None, ttl: None };
    book.run(&Command::PutRaw { key: key.clone(), resource }).map(drop)
}

#[test]
fn a_resource_is_put_changed_and_deleted() {
    let (mut book, key) = (Book::default(), raw_key("a", ""));
    put(&mut book, &key, b"one").expect("put");
    assert_eq!(book.effects.dirty, [Dirty::Raw(key.clone())]);
    let first = book.snapshot().raw[&key].clone();
    put(&mut book, &key, b"one").expect("said again");
    assert_eq!((&book.snapshot().raw[&key], book.effects.dirty.len()), (&first, 0), "nothing has changed");
    put(&mut book, &key, b"two").expect("changed");
    assert!(book.snapshot().raw[&key].revision > first.revision);
    book.run(&Command::DeleteRaw { key: key.clone() }).expect("deleted");
    assert!(book.snapshot().raw.is_empty());
    assert_eq!(book.effects.dirty, [Dirty::Raw(key.clone())]);
    let error = book.run(&Command::DeleteRaw { key }).expect_err("gone");
    assert_eq!(error, Error::NotFound { kind: "resource", name: "clusters/a".into() });
}

#[test]
fn variants_stand_beside_each_other_and_count() {
    let mut book = Book { limits: Limits { raw_resources: 2, ..Limits::default() }, ..Book::default() };
    let (plain, edge) = (raw_key("a", ""), raw_key("a", "edge"));
    put(&mut book, &plain, b"one").expect("put");
    put(&mut book, &edge, b"two").expect("put");
    let error = put(&mut book, &raw_key("b", ""), b"three").expect_err("full");
    assert_eq!(error, Error::LimitReached { what: "the number of resources".into(), limit: 2 });
    put(&mut book, &edge, b"three").expect("changing what is there needs no room");
    assert_eq!(book.snapshot().raw.len(), 2);
}

#[test]
fn a_node_gets_the_first_variant_that_selects_it_and_else_the_one_for_all() {
    let mut book = Book::default();
    let put = |book: &mut Book, name: &str, variant: &str, selector: &str| {
        let selector = (!selector.is_empty()).then(|| NodeSelector::parse("selector", selector).expect("a selector"));
        let resource = RawResource { bytes: variant.to_owned().into(), selector, ttl: None };
        book.run(&Command::PutRaw { key: raw_key(name, variant), resource }).expect("put");
    };
    put(&mut book, "a", "", "");
    put(&mut book, "a", "b", "node.id.startsWith('web')");
    put(&mut book, "a", "c", "node.id == 'web-1' || node.id == 'db'");
    put(&mut book, "aa", "a", "true");
    put(&mut book, "b", "x", "node.id == 'db'");
    for (name, node, expected) in [
        ("a", "web-1", Some("b")),
        ("a", "web-2", Some("b")),
        ("a", "db", Some("c")),
        ("a", "other", Some("")),
        ("aa", "other", Some("a")),
        ("b", "db", Some("x")),
        ("b", "other", None),
        ("c", "db", None),
    ] {
        let node = Node { id: node.into(), ..Node::default() };
        let found = book.snapshot().variant_for(ResourceType::Cluster, name, &node);
        assert_eq!(found.map(|(key, _)| &*key.variant), expected, "{name} {node:?}");
    }
    assert_eq!(book.snapshot().variants(ResourceType::Cluster, "a").count(), 3);
    assert_eq!(book.snapshot().variants(ResourceType::Route, "a").count(), 0);
}
