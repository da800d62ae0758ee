//! JSON and bytes, both ways.

use prost::Message;

use super::*;

fn router() -> Json {
    json!({"name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}})
}

fn manager(filters: &Json) -> Json {
    json!({"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "http_filters": filters})
}

fn listener(typed_config: &Json) -> Json {
    json!({"address": {"socket_address": {"address": "0.0.0.0", "port_value": 8443}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": typed_config}]}]})
}

#[test]
fn every_type_is_known() {
    for kind in ResourceType::ALL {
        assert!(descriptor(kind).get_field_by_name(name_field(kind)).is_some(), "{kind:?}");
        let bytes = read(kind, "a/b", json!({})).expect("a name is enough");
        check(kind, "a/b", &bytes).expect("read back");
        assert_eq!(write(kind, &bytes), json!({name_field(kind): "a/b"}));
    }
    descriptor_of_bytes();
}

#[test]
fn a_listener_with_filters_comes_back_as_it_was() {
    let from = listener(&manager(&json!([router()])));
    let bytes = read(ResourceType::Listener, "edge", from.clone()).expect("valid");
    let mut expected = from;
    expected["name"] = json!("edge");
    assert_eq!(write(ResourceType::Listener, &bytes), expected);
    check(ResourceType::Listener, "edge", &bytes).expect("valid");
}

#[test]
fn camel_case_and_the_type_are_understood() {
    let plain = json!({"name": "a", "connect_timeout": "1s", "type": "EDS"});
    let camel = json!({"@type": ResourceType::Cluster.type_url(), "connectTimeout": "1s", "type": "EDS"});
    let bytes = |json| read(ResourceType::Cluster, "a", json).expect("valid");
    assert_eq!(bytes(plain), bytes(camel));
}

#[test]
fn mistakes_are_told_with_their_path() {
    let ratelimit = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
    let unknown = json!({"name": "x", "typed_config": {"@type": "type.googleapis.com/acme.Filter", "a": 1}});
    let wrong = json!({"name": "x", "typed_config": {"@type": ratelimit, "stat_prefix": 7}});
    let misspelt = json!({"name": "x", "typed_config": {"@type": ratelimit, "stat_prefx": "a"}});
    let inner = "filter_chains[0].filters[0].typed_config.http_filters[1].typed_config";
    let with = |filter: Json| listener(&manager(&json!([router(), filter])));
    for (kind, json, field, says) in [
        (ResourceType::Cluster, json!({"nam": "a"}), "nam", "nam"),
        (ResourceType::Cluster, json!({"name": "b"}), "name", "under which it is put, \"a\""),
        (ResourceType::Endpoint, json!({"cluster_name": "b"}), "cluster_name", "under which it is put"),
        (ResourceType::Cluster, json!({"connect_timeout": 5}), "connect_timeout", ""),
        (ResourceType::Cluster, json!({"type": "EDZ"}), "type", "EDZ"),
        (ResourceType::Cluster, json!({"@type": "type.googleapis.com/a.B"}), "@type", "Cluster"),
        (ResourceType::Cluster, json!([]), "resource", "map"),
        (ResourceType::Cluster, json!("a"), "resource", "map"),
        (ResourceType::Listener, with(unknown), &format!("{inner}.@type"), "Envoy's API v3"),
        (ResourceType::Listener, with(wrong), &format!("{inner}.stat_prefix"), "string"),
        (ResourceType::Listener, with(misspelt), &format!("{inner}.stat_prefx"), "stat_prefx"),
    ] {
        let error = read(kind, "a", json.clone()).expect_err(field);
        assert!(error.field == field && error.rule.contains(says), "{json}: {error:?}");
    }
}

#[test]
fn bytes_are_checked_and_may_hold_what_is_not_known() {
    let cluster = |name: &str| read(ResourceType::Cluster, name, json!({})).expect("valid");
    assert_eq!(check(ResourceType::Cluster, "a", &cluster("b")).expect_err("another name").field, "name");
    assert_eq!(check(ResourceType::Cluster, "a", b"").expect_err("no name").field, "name");
    assert_eq!(check(ResourceType::Cluster, "a", b"\xff").expect_err("garbage").field, "body");
    let newer = [&cluster("a")[..], b"\xfa\xff\x03\x01x"].concat();
    check(ResourceType::Cluster, "a", &newer).expect("a field of a newer version");
    // name, and typed_config of a type that is not known here.
    let any = prost_types::Any { type_url: "type.googleapis.com/acme.Filter".into(), value: b"\x0a\x01x".to_vec() };
    let body = any.encode_to_vec();
    let extension = [b"\x0a\x01a\x12", &[body.len() as u8][..], &body].concat();
    check(ResourceType::ExtensionConfig, "a", &extension).expect("taken as it is");
    let shown = write(ResourceType::ExtensionConfig, &extension);
    assert_eq!(shown["@type"], ResourceType::ExtensionConfig.type_url());
    assert!(shown["value"].is_string(), "{shown}");
    // A known type with bytes that are not of it.
    let any = prost_types::Any { type_url: ResourceType::Cluster.type_url().into(), value: b"\xff".to_vec() };
    let body = any.encode_to_vec();
    let extension = [b"\x0a\x01a\x12", &[body.len() as u8][..], &body].concat();
    assert_eq!(check(ResourceType::ExtensionConfig, "a", &extension).expect_err("garbage").field, "body");
}

#[test]
fn the_same_json_makes_the_same_bytes() {
    let names: Vec<String> = (0..20).map(|number| format!("key-{number}")).collect();
    let fields: serde_json::Map<String, Json> =
        names.iter().map(|name| (name.clone(), json!({"a": [1, name]}))).collect();
    let metadata = json!({"metadata": {"filter_metadata": {"envoy.lb": fields, "b": fields, "c": {}}}});
    let nested = json!({"typed_config": {"@type": "type.googleapis.com/google.protobuf.Struct", "value": fields}});
    let first = (
        read(ResourceType::Cluster, "a", metadata.clone()).expect("valid"),
        read(ResourceType::ExtensionConfig, "a", nested.clone()).expect("valid"),
    );
    for _ in 0..20 {
        assert_eq!(read(ResourceType::Cluster, "a", metadata.clone()).expect("valid"), first.0);
        assert_eq!(read(ResourceType::ExtensionConfig, "a", nested.clone()).expect("valid"), first.1);
    }
    let mut expected = metadata;
    expected["name"] = json!("a");
    let expected = expected.to_string().replace("[1,", "[1.0,");
    assert_eq!(write(ResourceType::Cluster, &first.0).to_string(), expected);
}

/// On the stack of a worker of the runtime.
#[test]
fn what_is_nested_too_deep_is_refused() {
    let run = || {
        let structs = |depth: usize| (0..depth).fold(json!(1), |inner, _| json!({"a": inner}));
        let metadata = |depth: usize| json!({"metadata": {"filter_metadata": {"a": {"a": structs(depth)}}}});
        read(ResourceType::Cluster, "a", metadata(15)).expect("deep enough for anybody");
        for depth in [64, 100, 120, 2000] {
            read(ResourceType::Cluster, "a", metadata(depth)).expect_err("too deep");
        }
        let nested = |depth: usize| {
            let any = |value: Vec<u8>| prost_types::Any { type_url: format!("a/{ANY}"), value };
            let inner = (0..depth).fold(any(Vec::new()), |inner, _| any(inner.encode_to_vec()));
            let extension = descriptor(ResourceType::ExtensionConfig);
            let mut message = DynamicMessage::new(extension);
            message.set_field_by_name("name", Value::String("a".into()));
            let config = decode(super::message(ANY).expect("known"), &inner.encode_to_vec()).expect("an Any");
            message.set_field_by_name("typed_config", Value::Message(config));
            message.encode_to_vec()
        };
        let good = nested(MAX_DEPTH - 5);
        check(ResourceType::ExtensionConfig, "a", &good).expect("deep");
        write(ResourceType::ExtensionConfig, &good);
        for depth in [MAX_DEPTH + 1, 1000] {
            assert!(check(ResourceType::ExtensionConfig, "a", &nested(depth)).is_err(), "{depth}");
        }
    };
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(run);
    thread.expect("a thread").join().expect("nothing panics");
}
#[test]
fn yaml_means_what_it_says() {
    let documents = yaml("a: no\nb: 010\nc: 1_000\nd: 1.10\ne: y\nf: true\ng: ~\n---\n{h: 1}\n---\n").expect("YAML");
    assert_eq!(
        documents,
        [json!({"a": "no", "b": "010", "c": "1_000", "d": 1.10, "e": "y", "f": true, "g": null}), json!({"h": 1})]
    );
    for (text, says) in [("a: 1\na: 2\n", "a"), ("a: [\n", "line"), ("a: 1\n b: 2\n", "line")] {
        assert!(yaml(text).expect_err(text).contains(says), "{text}");
    }
}
