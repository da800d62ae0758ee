//! Agent cards: a card is a registration, and is served back, whole, while its agent takes requests.

use convoy_client::proto::{
    self, GetAgentCardRequest, ListAgentCardsRequest, OverrideHealth, RegisterRequest, Registration,
    agent_cards_client::AgentCardsClient,
};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes};
use serde_json::{Value, json};
use tonic::{Code, transport::Channel};

use crate::support::{
    api::{refused, refused_http},
    child::{Child, Home},
    http::Answer,
    sample::{call, instance, instances, seconds},
    server::Convoy,
    until,
};

const READER_1: &str = "/v1/namespaces/default/services/readers/instances/reader-1";

/// A card with everything that A2A 1.0 knows, and some things that it does not.
fn whole() -> Value {
    json!({
        "name": "Page reader",
        "description": "Reads pages, and answers questions about them.",
        "version": "2.1.0",
        "provider": {"organization": "Readers & Sons", "url": "https://readers.example"},
        "documentationUrl": "https://readers.example/manual",
        "iconUrl": "https://readers.example/icon.png",
        "supportedInterfaces": [
            {"url": "http://10.0.0.7:8080/a2a", "protocolBinding": "JSONRPC", "protocolVersion": "1.0", "tenant": "shop"},
            {"url": "https://readers.example/grpc", "protocolBinding": "GRPC", "protocolVersion": "1.0"}
        ],
        "capabilities": {
            "streaming": true, "pushNotifications": false, "extendedAgentCard": true,
            "extensions": [
                {"uri": "https://readers.example/x", "description": "x", "required": false, "params": {"limit": 0.1}}
            ]
        },
        "securitySchemes": {"key": {"apiKeySecurityScheme": {"location": "header", "name": "x-key"}}},
        "securityRequirements": [{"schemes": {"key": {"list": ["read"]}}}],
        "defaultInputModes": ["text/plain", "image/png"],
        "defaultOutputModes": ["application/json"],
        "skills": [
            {
                "id": "ocr", "name": "OCR", "description": "Reads the text in a picture.", "tags": ["vision", "text"],
                "examples": ["What does this page say?"], "inputModes": ["image/png"], "outputModes": ["text/plain"],
                "securityRequirements": [{"schemes": {"key": {"list": []}}}]
            },
            {"id": "summary", "name": "Summaries", "description": "Sums up a page.", "tags": []}
        ],
        "signatures": [{"protected": "eyJhbGciOiJFUzI1NiJ9", "signature": "c2ln", "header": {"kid": "1"}}],
        "x-house-number": 12,
        "später": [null, true, "ä \" \\ \n"]
    })
}

fn minimal(url: &str) -> Value {
    json!({
        "name": "A", "description": "b", "version": "1", "capabilities": {}, "skills": [],
        "supportedInterfaces": [{"url": url, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}],
        "defaultInputModes": [], "defaultOutputModes": []
    })
}

async fn put(convoy: &Convoy, query: &str, card: &Value) -> Answer {
    convoy.api.http.put(&format!("{READER_1}/agent-card{query}"), card).await
}

async fn get(convoy: &Convoy) -> Answer {
    convoy.api.http.get(&format!("{READER_1}/agent-card")).await
}

fn cards(convoy: &Convoy) -> AgentCardsClient<Channel> {
    let address = format!("http://{}", convoy.addresses.grpc);
    AgentCardsClient::new(Channel::from_shared(address).expect("an address").connect_lazy())
}

#[tokio::test]
async fn a_whole_card_is_a_registration_and_comes_back_whole() {
    let convoy = Convoy::start().await;
    let answer = put(&convoy, "?ttl=20s&incarnation=7", &whole()).await.ok();
    assert_eq!((&answer["lease"]["ttl"], &answer["instance"]["incarnation"]), (&json!("20s"), &json!(7)));
    let listed = convoy.api.http.get("/v1/namespaces/default/services/readers/instances").await.ok();
    let found = &listed["instances"][0];
    assert_eq!(found["address"], "10.0.0.7");
    assert_eq!(found["ports"], json!([{"name": "http", "port": 8080, "protocol": "http"}]));
    assert_eq!(found["description"], whole()["description"]);
    let labels = json!({
        "a2a.name": "Page reader", "a2a.version": "2.1.0", "a2a.protocol-version": "1.0",
        "a2a.provider": "Readers & Sons"
    });
    assert_eq!(found["labels"], labels);
    let capability = |name: &str, description: &str, attributes: Value| json!({"name": name, "version": "2.1.0", "description": description, "attributes": attributes});
    let of_ocr = json!({"tags": "vision,text", "input_modes": "image/png", "output_modes": "text/plain"});
    let of_summary = json!({"input_modes": "text/plain,image/png", "output_modes": "application/json"});
    let capabilities = json!([
        capability("ocr", "OCR: Reads the text in a picture.", of_ocr),
        capability("summary", "Summaries: Sums up a page.", of_summary)
    ]);
    assert_eq!(found["capabilities"], capabilities);
    assert_eq!(found.get("agent_card"), None, "a card is shown only to those who ask for it");
    assert_eq!(get(&convoy).await.ok(), whole());
    // Said again it changes nothing, and the lease stays.
    let again = put(&convoy, "?ttl=20s&incarnation=7", &whole()).await.ok();
    for of in ["/instance", "/lease/id", "/digest", "/revision"] {
        assert_eq!(again.pointer(of), answer.pointer(of), "{of}");
    }
}

#[tokio::test]
async fn numbers_and_the_order_of_fields_stay_as_they_were_written() {
    let convoy = Convoy::start().await;
    let card = r#"{"z": 1.50, "a": 12345678901234567890123, "name": "A", "description": "b", "version": "1",
        "capabilities": {}, "skills": [], "defaultInputModes": [], "defaultOutputModes": [], "supportedInterfaces":
        [{"url": "http://10.0.0.7", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}]}"#;
    convoy.api.http.call(Method::PUT, &format!("{READER_1}/agent-card"), card).await.ok();
    let got = get(&convoy).await;
    assert_eq!(got.text, card.split_whitespace().collect::<String>());
}

#[tokio::test]
async fn where_an_agent_is_comes_from_its_card_or_beside_it() {
    let convoy = Convoy::start().await;
    for (url, query, address, port) in [
        ("http://10.0.0.7", "", "10.0.0.7", 80),
        ("http://[fd00::7]:9/x", "", "fd00::7", 9),
        ("http://10.0.0.7:9", "?port=8080", "10.0.0.7", 8080),
        ("http://10.0.0.7:9", "?address=10.0.0.8", "10.0.0.8", 9),
        ("http://reader.example:9", "?address=10.0.0.8&port=80", "10.0.0.8", 80),
    ] {
        let answer = put(&convoy, query, &minimal(url)).await.ok();
        let said = (&answer["instance"]["address"], &answer["instance"]["ports"][0]["port"]);
        assert_eq!(said, (&json!(address), &json!(port)), "{url} {query}");
    }
    let field = "agent_card.supportedInterfaces[0].url";
    for (url, query, field) in [
        ("http://reader.example", "", field),
        ("http://reader.example", "?port=80", field),
        ("grpc://10.0.0.7", "", field),
        ("reader", "?address=10.0.0.8", field),
        ("http://169.254.1.1", "", "address"),
        ("http://10.0.0.7", "?port=0", "ports[0].port"),
        ("http://10.0.0.7", "?port=x", "query"),
        ("http://10.0.0.7", "?prot=80", "query"),
        ("http://10.0.0.7", "?ttl=long", "ttl"),
    ] {
        let refused = refused_http(&put(&convoy, query, &minimal(url)).await).expect_err(url);
        assert_eq!(
            (refused.problem.code.as_str(), refused.problem.field.as_str()),
            ("invalid_argument", field),
            "{query}"
        );
    }
}

#[tokio::test]
async fn a_bad_card_names_its_place_in_both_faces() {
    let convoy = Convoy::start().await;
    let mut bad = whole();
    bad["skills"][1]["id"] = Value::Null;
    let refused_put = refused_http(&put(&convoy, "", &bad).await).expect_err("a skill without an id");
    assert_eq!(refused_put.problem.field, "agent_card.skills[1].id");
    let registration = Registration { agent_card: bad.to_string(), ..instance("readers", 1) };
    let refused_call = convoy.api.register(call([registration])).await.expect_err("a skill without an id");
    assert_eq!(refused_call.problem.field, "instances[0].agent_card.skills[1].id");
    let mut large = whole();
    large["x"] = "x".repeat(64 * 1024).into();
    for body in [large.to_string(), "[]".into(), "{".into(), String::new(), "7".into()] {
        let answer = convoy.api.http.call(Method::PUT, &format!("{READER_1}/agent-card"), body).await;
        assert_eq!(refused_http(&answer).expect_err("no card").problem.field, "agent_card");
    }
    let answer = convoy.api.http.call(Method::PUT, &format!("{READER_1}/agent-card"), vec![0xff]).await;
    assert_eq!(refused_http(&answer).expect_err("no text").problem.field, "agent_card");
    assert_eq!(get(&convoy).await.status, 404, "an error changes nothing");
}

#[tokio::test]
async fn an_ordinary_registration_may_have_a_card() {
    let convoy = Convoy::start().await;
    let body = json!({
        "address": "10.0.0.9", "ports": [{"name": "a2a", "port": 70, "protocol": "http2"}],
        "labels": {"language": "python"}, "capabilities": [{"name": "ocr", "version": "9"}], "agent_card": whole()
    });
    let answer = convoy.api.http.put(READER_1, &body).await.ok();
    let of = &answer["instance"];
    assert_eq!((&of["address"], &of["ports"][0]["port"]), (&json!("10.0.0.9"), &json!(70)));
    assert_eq!((&of["labels"]["language"], &of["labels"]["a2a.name"]), (&json!("python"), &json!("Page reader")));
    let versions: Vec<&Value> = of["capabilities"].as_array().expect("two").iter().map(|of| &of["version"]).collect();
    assert_eq!(versions, ["9", "2.1.0"]);
    assert_eq!(get(&convoy).await.ok(), whole());
    let request = GetAgentCardRequest { service: "readers".into(), id: "reader-1".into(), ..Default::default() };
    let over_grpc = cards(&convoy).get_agent_card(request).await.expect("a card").into_inner();
    assert_eq!(serde_json::from_str::<Value>(&over_grpc.card).expect("JSON"), whole());
    // Without its card it has none.
    let without = json!({"address": "10.0.0.9", "ports": [{"name": "a2a", "port": 70, "protocol": "http2"}]});
    let answer = convoy.api.http.put(READER_1, &without).await.ok();
    assert_eq!(answer["instance"]["capabilities"], json!([]));
    let refused = refused_http(&get(&convoy).await).expect_err("it has none");
    assert!(refused.problem.message.ends_with("it has registered none"), "{refused:?}");
}

#[tokio::test]
async fn only_those_who_take_requests_are_shown() {
    let convoy = Convoy::start().await;
    let shown = async || {
        let listed = convoy.api.http.get("/v1/agent-cards?service=readers").await.ok();
        (get(&convoy).await.status, listed["cards"].as_array().expect("cards").len())
    };
    put(&convoy, "?ready=false", &whole()).await.ok();
    assert_eq!(shown().await, (404, 0), "starting");
    let why = refused_http(&get(&convoy).await).expect_err("starting").problem;
    assert!(why.code == "not_found" && why.message.contains("it is starting"), "{why:?}");
    put(&convoy, "", &whole()).await.ok();
    assert_eq!(shown().await, (200, 1), "healthy");
    for (health, expected) in [(OverrideHealth::Degraded, (200, 1)), (OverrideHealth::Unhealthy, (404, 0))] {
        let body = json!({"health": health.to_string()});
        convoy.api.http.put(&format!("{READER_1}/override"), &body).await.ok();
        assert_eq!(shown().await, expected, "{health}");
    }
    convoy.api.http.delete(&format!("{READER_1}/override")).await.ok();
    convoy.api.http.post(&format!("{READER_1}/drain"), &json!({"drain_time": "60s"})).await.ok();
    assert_eq!(shown().await, (404, 0), "draining");
    convoy.api.http.delete(READER_1).await.ok();
    assert_eq!(shown().await, (404, 0), "deregistered");
    let request = GetAgentCardRequest { service: "readers".into(), id: "reader-1".into(), ..Default::default() };
    let status = cards(&convoy).get_agent_card(request).await.expect_err("it is gone");
    assert_eq!((status.code(), refused(&status).problem.code.as_str()), (Code::NotFound, "not_found"));
}

#[tokio::test]
async fn the_card_of_one_that_expired_is_not_served() {
    let convoy = Convoy::start().await;
    // Others that stay: it is no crash of all.
    convoy.api.register(RegisterRequest { ttl: seconds(600), ..instances("readers", 2..9) }).await.expect("registered");
    put(&convoy, "?ttl=1s", &whole()).await.ok();
    assert_eq!(get(&convoy).await.status, 200);
    until("the card's end", async || (get(&convoy).await.status == 404).then_some(())).await;
    assert_eq!(convoy.api.http.get("/v1/agent-cards").await.ok()["cards"], json!([]));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let convoy = Convoy::start().await;
    for (service, numbers) in [("planners", 0..3u32), ("readers", 3..6)] {
        let with_card = |number: u32| Registration { agent_card: whole().to_string(), ..instance(service, number) };
        let without = instance(service, numbers.end + 100);
        convoy.api.register(call(numbers.map(with_card).chain([without]))).await.expect("registered");
    }
    let ids = async |query: &str| {
        let (mut ids, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let listed = convoy.api.http.get(&format!("/v1/agent-cards?page_token={token}{query}")).await.ok();
            for of in listed["cards"].as_array().expect("cards") {
                assert_eq!(of["card"], whole());
                assert_eq!(of["verdict"], "healthy");
                ids.push(of["id"].as_str().expect("an id").to_owned());
            }
            pages += 1;
            token = listed["next_page_token"].as_str().expect("a token").to_owned();
            if token.is_empty() {
                return (ids, pages);
            }
        }
    };
    let all = ["planners-0", "planners-1", "planners-2", "readers-3", "readers-4", "readers-5"];
    assert_eq!(ids("").await.0, all);
    assert_eq!(ids("&page_size=1").await.0, all);
    let (two, pages) = ids("&page_size=2").await;
    assert_eq!(two, all);
    assert!((3..=4).contains(&pages), "{pages}");
    assert_eq!(ids("&service=readers&page_size=2").await.0, all[3..]);
    assert_eq!(ids("&namespace=other").await.0, [""; 0]);
    for (query, field) in [
        ("page_size=1001", "page_size"),
        ("page_token=x", "page_token"),
        ("namespace=X", "namespace"),
        ("service=-", "service"),
        ("order=name", "query"),
    ] {
        let answer = convoy.api.http.get(&format!("/v1/agent-cards?{query}")).await;
        assert_eq!(refused_http(&answer).expect_err(query).problem.field, field);
    }
    let over_grpc = cards(&convoy).list_agent_cards(ListAgentCardsRequest::default()).await.expect("a list");
    let over_grpc: Vec<String> = over_grpc.into_inner().cards.into_iter().map(|card| card.id).collect();
    assert_eq!(over_grpc, all);
}

#[tokio::test]
async fn a_page_ends_at_a_mebibyte() {
    let convoy = Convoy::start().await;
    let mut card = whole();
    card["x"] = "x".repeat(60_000).into();
    let with_card = |number: u32| Registration { agent_card: card.to_string(), ..instance("readers", number) };
    for numbers in [0..10, 10..20] {
        convoy.api.register(call(numbers.map(with_card))).await.expect("registered");
    }
    let page = |token: String| ListAgentCardsRequest { page_token: token, ..Default::default() };
    let first = cards(&convoy).list_agent_cards(page(String::new())).await.expect("a page").into_inner();
    let second = cards(&convoy).list_agent_cards(page(first.next_page_token)).await.expect("a page").into_inner();
    let count = |page: &[proto::AgentCard]| page.len();
    assert_eq!((count(&first.cards), count(&second.cards), second.next_page_token.as_str()), (17, 3, ""));
}

#[tokio::test]
async fn who_has_a_card_is_told_so() {
    let convoy = Convoy::start().await;
    put(&convoy, "", &whole()).await.ok();
    let ask = async |tag: &str| {
        let request = Request::get(format!("{READER_1}/agent-card")).header("host", "convoy");
        let request = request.header("if-none-match", tag).body(Full::new(Bytes::new())).expect("a request");
        let answer = convoy.api.http.send(request).await;
        let tag = answer.headers()["etag"].to_str().expect("a tag").to_owned();
        let status = answer.status().as_u16();
        (status, tag, answer.into_body().collect().await.expect("a body").to_bytes().len())
    };
    let (status, tag, length) = ask("\"other\"").await;
    assert!(status == 200 && length > 0);
    assert_eq!(ask(&format!("\"other\", W/{tag}")).await, (304, tag.clone(), 0));
    let mut changed = whole();
    changed["version"] = "3".into();
    put(&convoy, "", &changed).await.ok();
    assert_eq!(ask(&tag).await.0, 200);
}

#[tokio::test]
async fn a_restart_keeps_cards() {
    let home = Home::new("storage: redb\n");
    let mut child = Child::start(&home).await;
    let path = format!("{READER_1}/agent-card");
    let answer = child.api.http.put(&format!("{path}?ttl=10m&incarnation=1"), &whole()).await.ok();
    child.kill().await;
    let child = Child::start(&home).await;
    assert_eq!(child.api.http.get(&path).await.ok(), whole());
    let again = child.api.http.put(&format!("{path}?ttl=10m&incarnation=1"), &whole()).await.ok();
    assert_eq!((&again["digest"], &again["revision"]), (&answer["digest"], &answer["revision"]), "nothing was lost");
}
