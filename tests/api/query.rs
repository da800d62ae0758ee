//! Queries through both faces: conditions, words, orders, pages, counts, and what is refused.

use convoy_client::proto::{
    Capability, Locality, QueryOrder, QueryRequest, Registration, queries_client::QueriesClient,
};
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};

use crate::support::{
    api::{FACES, Face, Refused, answer, refused_http},
    sample::{call, instance},
    server::Convoy,
};

fn agent(id: &str, port: u32, language: &str, region: &str, capability: (&str, &str, &str)) -> Registration {
    let (name, version, description) = capability;
    let capability = Capability {
        name: name.into(),
        version: version.into(),
        description: description.into(),
        ..Default::default()
    };
    Registration {
        id: id.into(),
        labels: [("language".to_owned(), language.to_owned())].into(),
        capabilities: vec![capability],
        locality: Some(Locality { region: region.into(), zone: format!("{region}a"), ..Default::default() }),
        ..instance("agents", port)
    }
}

async fn convoy() -> Convoy {
    let convoy = Convoy::start().await;
    let images = ("image-processing", "2.1", "Finds cats and dogs in pictures");
    let law = ("summarise", "1", "Summarises legal documents");
    let agents = [
        agent("a-1", 1, "python", "us-east-1", images),
        agent("a-2", 2, "python", "eu-west-1", images),
        agent("a-3", 3, "rust", "us-east-1", images),
        agent("b-1", 4, "python", "us-east-1", law),
    ];
    convoy.api.register(call(agents)).await.expect("registered");
    convoy
}

async fn ask(convoy: &Convoy, face: Face, request: QueryRequest) -> Result<Value, Refused> {
    match face {
        Face::Http => refused_http(&convoy.api.http.post("/v1/query", &json!(request)).await),
        Face::Grpc => {
            let address = format!("http://{}", convoy.addresses.grpc);
            let channel: Channel = Endpoint::from_shared(address).expect("an address").connect_lazy();
            answer(QueriesClient::new(channel).query(request).await).map(|answer| json!(answer))
        }
    }
}

fn ids(answer: &Value) -> Vec<&str> {
    let instances = answer["instances"].as_array().expect("instances");
    instances.iter().map(|instance| instance["id"].as_str().expect("an id")).collect()
}

fn filter(text: &str) -> QueryRequest {
    QueryRequest { filter: text.into(), ..Default::default() }
}

const ISSUE: &str = r#"instance.labels.language == "python" && instance.has_capability("image-processing") && instance.locality.region == "us-east-1""#;

#[tokio::test]
async fn all_python_image_agents_in_a_region() {
    let convoy = convoy().await;
    for face in FACES {
        // By scan, and by the index that the first one asked for.
        loop {
            let found = ask(&convoy, face, filter(ISSUE)).await.expect("an answer");
            assert_eq!((ids(&found), &found["total"]), (vec!["a-1"], &json!(1)));
            if found["cost"]["index"] == json!(true) {
                assert_eq!(found["cost"]["examined"], json!(1));
                break;
            }
            assert_eq!(found["cost"]["examined"], json!(4));
        }
        let version =
            filter("instance.has_capability('image-processing', '>=2') && instance.labels.language != 'rust'");
        assert_eq!(ids(&ask(&convoy, face, version).await.expect("an answer")), ["a-1", "a-2"]);
    }
}

#[tokio::test]
async fn words_orders_pages_and_counts() {
    let convoy = convoy().await;
    for face in FACES {
        let words = QueryRequest { text: "summarise a legal document".into(), ..Default::default() };
        let found = ask(&convoy, face, words).await.expect("an answer");
        assert_eq!((ids(&found), found["scores"].as_array().map(Vec::len)), (vec!["b-1"], Some(1)));

        let near = Some(Locality { region: "eu-west-1".into(), ..Default::default() });
        let nearest = QueryRequest { near, order_by: QueryOrder::Nearest.into(), ..Default::default() };
        assert_eq!(ids(&ask(&convoy, face, nearest).await.expect("an answer")), ["a-2", "a-1", "a-3", "b-1"]);

        let mut request = QueryRequest { page_size: 3, facets: vec!["label:language".into()], ..Default::default() };
        let first = ask(&convoy, face, request.clone()).await.expect("an answer");
        assert_eq!((ids(&first), &first["total"]), (vec!["a-1", "a-2", "a-3"], &json!(4)));
        let languages = json!([{"value": "python", "count": 3}, {"value": "rust", "count": 1}]);
        let facet = json!({"field": "label:language", "values": languages, "other": 0, "without": 0});
        assert_eq!(first["facets"], json!([facet]));
        request.page_token = first["next_page_token"].as_str().expect("a token").into();
        let second = ask(&convoy, face, request.clone()).await.expect("an answer");
        assert_eq!((ids(&second), &second["next_page_token"]), (vec!["b-1"], &json!("")));
        let refused = ask(&convoy, face, QueryRequest { filter: "instance.ready".into(), ..request }).await;
        assert_eq!(refused.expect_err("of another question").problem.field, "page_token");
    }
    let path =
        "/v1/instances?filter=instance.labels.language%20==%20%22rust%22&fields=address,labels.language&count=true";
    let found = convoy.api.http.get(path).await.ok();
    let rust = json!({"namespace": "default", "service": "agents", "id": "a-3", "address": "10.0.0.3",
        "labels": {"language": "rust"}});
    assert_eq!((&found["instances"], &found["total"]), (&json!([rust]), &json!(1)));
}

#[tokio::test]
async fn load_is_asked_for_as_it_was_last_reported() {
    let convoy = convoy().await;
    let shared = convoy.api.register(call([Registration { id: "c-1".into(), ..instance("busy", 9) }])).await;
    let lease = shared.expect("registered").lease.expect("a lease").id;
    let beat = json!({"load": {"cpu": 0.9, "metrics": {"gpu": 0.5}}});
    convoy.api.http.post(&format!("/v1/leases/{lease}/heartbeat"), &beat).await.ok();
    for face in FACES {
        let busy = ask(&convoy, face, filter("instance.load.cpu > 0.8 && instance.load.metrics.gpu < 0.6")).await;
        assert_eq!(ids(&busy.expect("an answer")), ["c-1"]);
        let by_load = QueryRequest { order_by: QueryOrder::Load.into(), ..Default::default() };
        assert_eq!(ids(&ask(&convoy, face, by_load).await.expect("an answer"))[0], "c-1");
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place() {
    let convoy = convoy().await;
    for face in FACES {
        for (request, field, rule) in [
            (
                filter("instance.labels.language == 'python' && instance.lables.a == 'b'"),
                "filter",
                "column 50: there is no \"lables\", did you mean \"labels\"?",
            ),
            (filter("instance.health == 'helthy'"), "filter", "did you mean \"healthy\"?"),
            (QueryRequest { page_size: 1001, ..Default::default() }, "page_size", "1 to 1000"),
            (QueryRequest { facets: vec!["colour".into()], ..Default::default() }, "facets[0]", "label:NAME"),
            (QueryRequest { fields: vec!["colour".into()], ..Default::default() }, "fields[0]", "labels.NAME"),
            (
                QueryRequest { timeout: crate::support::sample::seconds(11), ..Default::default() },
                "timeout",
                "up to 10s",
            ),
            (QueryRequest { order_by: QueryOrder::Relevance.into(), ..Default::default() }, "order_by", "words"),
        ] {
            let problem = ask(&convoy, face, request).await.expect_err(rule).problem;
            assert_eq!((problem.code.as_str(), problem.field.as_str()), ("invalid_argument", field), "{face:?}");
            assert!(problem.rule.contains(rule), "{}", problem.rule);
        }
    }
}
