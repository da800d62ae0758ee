use serde_json::json;

use super::*;

fn minimal() -> Value {
    json!({
        "name": "Reader", "description": "Reads pages.", "version": "1.2.0", "capabilities": {},
        "supportedInterfaces": [
            {"url": "http://10.0.0.7:8080/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
        ],
        "defaultInputModes": ["image/png"], "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "ocr", "name": "OCR", "description": "Reads text in pictures.", "tags": ["text", "vision"]}]
    })
}

fn completed(card: &Value, mut registration: Registration) -> Result<Registration, Invalid> {
    registration.agent_card = card.to_string();
    complete(&mut registration, &Limits::default()).map(|()| registration)
}

#[test]
fn a_card_is_a_registration() {
    let registration = completed(&minimal(), Registration::default()).expect("a card");
    let port = |name: &str, port, protocol: Protocol| Port { name: name.into(), port, protocol: protocol.into() };
    assert_eq!(
        (registration.address.as_str(), &registration.ports[..]),
        ("10.0.0.7", &[port("http", 8080, Protocol::Http)][..])
    );
    let labels = [("a2a.name", "Reader"), ("a2a.protocol-version", "1.0"), ("a2a.version", "1.2.0")];
    assert_eq!(registration.labels, labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(registration.description, "Reads pages.");
    let attributes = [("input_modes", "image/png"), ("output_modes", "text/plain"), ("tags", "text,vision")];
    let capability = Capability {
        name: "ocr".into(),
        version: "1.2.0".into(),
        description: "OCR: Reads text in pictures.".into(),
        attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    assert_eq!(registration.capabilities, [capability]);
    let mut again = registration.clone();
    complete(&mut again, &Limits::default()).expect("a card");
    assert_eq!(again, registration);
}

#[test]
fn what_the_registration_says_goes_before_the_card() {
    let said = Registration {
        address: "10.0.0.9".into(),
        ports: [Port { name: "a2a".into(), port: 1, protocol: Protocol::Http2.into() }].into(),
        labels: [("a2a.name".to_owned(), "mine".to_owned())].into(),
        capabilities: [Capability { name: "ocr".into(), version: "9".into(), ..Default::default() }].into(),
        description: "mine".into(),
        ..Default::default()
    };
    let registration = completed(&minimal(), said.clone()).expect("a card");
    assert_eq!(registration.labels["a2a.name"], "mine");
    let same = Registration { agent_card: String::new(), labels: said.labels.clone(), ..registration };
    assert_eq!(same, said);
    // A registration that names its ports says where it is in its own way: the caller's address is good enough.
    let mut of_name = minimal();
    of_name["supportedInterfaces"][0]["url"] = "https://agents.example.com".into();
    let said = Registration { address: String::new(), ..said };
    assert_eq!(completed(&of_name, said).expect("a card").address, "");
}

#[test]
fn bindings_and_schemes_make_protocols() {
    for (url, binding, port, protocol) in [
        ("http://10.0.0.7", "HTTP+JSON", 80, Protocol::Http),
        ("http://10.0.0.7:9", "GRPC", 9, Protocol::Grpc),
        ("grpc://10.0.0.7:9", "GRPC", 9, Protocol::Grpc),
        ("https://10.0.0.7", "JSONRPC", 443, Protocol::Tcp),
        ("http://10.0.0.7", "https://example.com/morse", 80, Protocol::Tcp),
    ] {
        let mut card = minimal();
        card["supportedInterfaces"][0]["url"] = url.into();
        card["supportedInterfaces"][0]["protocolBinding"] = binding.into();
        let of = completed(&card, Registration::default()).expect(url);
        let expected = Port { name: protocol.to_string(), port, protocol: protocol.into() };
        assert_eq!(of.ports, [expected], "{url} {binding}");
    }
}

#[test]
fn each_mistake_names_its_place() {
    for (pointer, value, field) in [
        ("/name", Value::Null, "name"),
        ("/name", json!(7), "name"),
        ("/description", json!(""), "description"),
        ("/version", json!("v".repeat(65)), "version"),
        ("/capabilities", Value::Null, "capabilities"),
        ("/capabilities", json!({"streaming": "yes"}), "capabilities.streaming"),
        ("/capabilities", json!({"extensions": [{}]}), "capabilities.extensions[0].uri"),
        ("/supportedInterfaces", Value::Null, "supportedInterfaces"),
        ("/supportedInterfaces", json!([]), "supportedInterfaces"),
        ("/supportedInterfaces/0", json!("x"), "supportedInterfaces[0]"),
        ("/supportedInterfaces/0/url", Value::Null, "supportedInterfaces[0].url"),
        ("/supportedInterfaces/0/url", json!("http://reader.example.com"), "supportedInterfaces[0].url"),
        ("/supportedInterfaces/0/url", json!("grpc://10.0.0.7"), "supportedInterfaces[0].url"),
        ("/supportedInterfaces/0/url", json!("10.0.0.7:80"), "supportedInterfaces[0].url"),
        ("/supportedInterfaces/0/protocolBinding", json!(""), "supportedInterfaces[0].protocolBinding"),
        ("/supportedInterfaces/0/protocolVersion", Value::Null, "supportedInterfaces[0].protocolVersion"),
        ("/defaultInputModes", Value::Null, "defaultInputModes"),
        ("/defaultOutputModes", json!([1]), "defaultOutputModes[0]"),
        ("/skills", json!({}), "skills"),
        ("/skills/0/id", Value::Null, "skills[0].id"),
        ("/skills/0/id", json!("s".repeat(257)), "skills[0].id"),
        ("/skills/0/tags", Value::Null, "skills[0].tags"),
        ("/skills/0/tags", json!(["a", {}]), "skills[0].tags[1]"),
    ] {
        let mut card = minimal();
        *card.pointer_mut(pointer).expect(pointer) = value.clone();
        let refused = completed(&card, Registration::default()).expect_err(pointer);
        assert_eq!(refused.field, format!("agent_card.{field}"), "{pointer} {value}");
    }
    let mut twice = minimal();
    twice["skills"] = json!([twice["skills"][0], twice["skills"][0]]);
    assert_eq!(completed(&twice, Registration::default()).expect_err("twice").field, "agent_card.skills[1].id");
    for (name, value, field) in [
        ("provider", json!({"organization": "x"}), "provider.url"),
        ("iconUrl", json!(1), "iconUrl"),
        ("securitySchemes", json!([]), "securitySchemes"),
        ("securityRequirements", json!({}), "securityRequirements"),
        ("signatures", json!([{"protected": "x"}]), "signatures[0].signature"),
    ] {
        let mut card = minimal();
        card[name] = value;
        let refused = completed(&card, Registration::default()).expect_err(name);
        assert_eq!(refused.field, format!("agent_card.{field}"));
    }
}

#[test]
fn what_is_no_card_is_refused() {
    let limits = Limits { agent_card_bytes: 1_000, ..Limits::default() };
    let mut long = minimal();
    long["description"] = "d".repeat(1_000).into();
    let mut deep = minimal();
    deep["x"] = (0..MAX_DEPTH).fold(Value::Null, |inside, _| json!([inside]));
    for text in ["", "[]", "7", "{", "{} {}", &long.to_string(), &deep.to_string()] {
        assert_eq!(AgentCard::parse(text, &limits).expect_err(text).field, FIELD, "{text}");
    }
}

#[test]
fn only_blanks_are_lost() {
    let text = "{ \"a b\" : [ 1.50 , 12345678901234567890123 ],\r\n\t\"c\\\" \\\\\" : \" d \" }";
    assert_eq!(without_blanks(text), (r#"{"a b":[1.50,12345678901234567890123],"c\" \\":" d "}"#.to_owned(), 2));
}

#[test]
fn long_texts_are_cut_for_search_and_kept_in_the_card() {
    let mut card = minimal();
    card["description"] = "ä".repeat(1_000).into();
    card["name"] = "ö".repeat(1_000).into();
    let registration = completed(&card, Registration::default()).expect("a card");
    assert_eq!((registration.description.len(), registration.labels["a2a.name"].len()), (1_024, 256));
    assert_eq!(serde_json::from_str::<Value>(&registration.agent_card).expect("JSON"), card);
}
