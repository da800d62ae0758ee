//! Conditions by table; the same expressions by CEL's own evaluator; and what no text may do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cel::{
    Context,
    extractors::{Arguments, This},
    objects::Value as Cel,
};
use proptest::prelude::*;

use super::*;
use crate::model::{
    Capability, CheckKind, CheckState, CheckStatus, Drain, Incarnation, InstanceSpec, Labels, LeaseId, Locality, Port,
    PortName, Protocol, Sla, UnixMillis, parse,
};

fn capability(name: &str, version: &str, attributes: Labels) -> Capability {
    Capability { name: name.into(), version: version.into(), description: "Sees things".into(), attributes }
}

fn instance() -> Instance {
    let key = parse::instance_key("shop", "vision", "vision-1").expect("a key");
    let port =
        |name: &str, number, protocol| Port { name: PortName::parse("", name).expect("a name"), number, protocol };
    let spec = InstanceSpec {
        address: [10, 1, 2, 3].into(),
        ports: [port("http", 8080, Protocol::Http), port("rpc", 9090, Protocol::Grpc)].into(),
        weight: 50,
        ready: true,
        labels: Labels::from([("language", "python"), ("a.b/c", "d"), ("replicas", "3")]),
        capabilities: [
            capability("image-processing", "2.1", Labels::from([("formats", "png,jpeg"), ("max_pixels", "1000000")])),
            capability("image-processing", "3", Labels::default()),
            capability("grpc:orders.v2", "", Labels::default()),
        ]
        .into(),
        locality: Arc::new(Locality { region: "us-east-1".into(), zone: "us-east-1a".into(), sub_zone: "".into() }),
        sla: Arc::new(Sla {
            latency_p99: Some(Duration::from_micros(12_500)),
            cost_per_request: Some(0.25),
            ..Sla::default()
        }),
        description: "Reads invoices".into(),
        card: None,
    };
    let mut instance = Instance::new(key, Incarnation(7), LeaseId(1), spec.into(), UnixMillis(1_700_000_000_123));
    instance.checks = [CheckState {
        name: "up".into(),
        kind: CheckKind::Readiness,
        status: CheckStatus::Passing,
        since: UnixMillis(1),
        output: "200 OK".into(),
    }]
    .into();
    instance
}

fn load() -> Load {
    Load { cpu: Some(0.5), in_flight: Some(3.0), metrics: BTreeMap::from([("gpu".into(), 0.9)]), ..Load::default() }
}

fn parsed(text: &str) -> InstanceSelector {
    InstanceSelector::parse("filter", text, Knows::Load).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_issues_example() {
    let text = r#"instance.labels.language == "python" && instance.has_capability("image-processing") && instance.locality.region == "us-east-1""#;
    let selector = InstanceSelector::parse("filter", text, Knows::Stored).expect("valid");
    let mut instance = instance();
    assert!(selector.matches(&instance, None));
    Arc::make_mut(&mut instance.spec).labels = Labels::from([("language", "rust")]);
    assert!(!selector.matches(&instance, None));
}

#[test]
fn what_can_be_asked() {
    for (text, expected) in [
        ("instance.namespace == 'shop' && instance.service == 'vision' && instance.id == 'vision-1'", true),
        ("instance.address.startsWith('10.1.') && instance.incarnation == 7 && instance.weight == 50", true),
        ("instance.effective_weight >= 50", true),
        ("instance.registered_at == 1700000000", true),
        ("instance.health == 'healthy' && instance.ready && !instance.draining && !instance.lapsed", true),
        ("instance.braked || instance.operator != ''", false),
        ("instance.checks.exists(c, c.name == 'up' && c.status == 'passing' && c.kind == 'readiness')", true),
        ("instance.checks.exists(c, c.output.contains('200'))", true),
        ("instance.description.contains('invoices')", true),
        ("instance.labels['a.b/c'] == 'd' && 'language' in instance.labels", true),
        ("has(instance.labels.language) && !has(instance.labels.version)", true),
        ("int(instance.labels.replicas) > 2", true),
        ("instance.labels.version == '1'", false),
        ("instance.labels.version != '1'", false),
        ("instance.labels.version == '1' || instance.id == 'vision-1'", true),
        ("instance.labels.version == '1' && true", false),
        ("instance.labels.language in ['go', 'python']", true),
        ("instance.labels.exists(name, name.startsWith('lang'))", true),
        ("instance.has_capability('image-processing', '2')", true),
        ("instance.has_capability('image-processing', '>=2.5')", true),
        ("instance.has_capability('image-processing', '>3')", false),
        ("instance.has_capability('grpc:orders.v2')", true),
        ("instance.has_capability('grpc:orders.v2', '1')", false),
        ("instance.has_capability('grpc')", false),
        ("instance.capability('image-processing').attributes.formats.contains('png')", true),
        ("int(instance.capability('image-processing').attributes.max_pixels) >= 1000000", true),
        ("instance.capability('none').version == ''", false),
        ("has(instance.capability('grpc:orders.v2').attributes.formats)", false),
        ("instance.capabilities.exists(c, c.name == 'image-processing' && c.version == '3')", true),
        ("instance.capabilities.all(c, c.description == 'Sees things')", true),
        ("instance.capabilities.exists_one(c, c.name.startsWith('grpc:'))", true),
        ("instance.capabilities[2].name == 'grpc:orders.v2'", true),
        ("'3' in instance.capabilities.map(c, c.version)", true),
        ("size(instance.ports) == 2 && instance.ports[1].protocol == 'grpc'", true),
        ("instance.ports.exists(p, p.name == 'rpc' && p.number == 9090)", true),
        ("instance.sla.latency_p99_ms == 12.5 && instance.sla.latency_p99_ms <= 20", true),
        ("instance.sla.cost_per_request < 0.3", true),
        ("instance.sla.throughput_rps > 0", false),
        ("has(instance.sla) && has(instance.sla.cost_per_request) && !has(instance.sla.throughput_rps)", true),
        ("instance.locality.zone.matches('^us-east-1[a-c]$')", true),
        ("instance.load.cpu < 0.8 && instance.load.in_flight == 3", true),
        ("instance.load.metrics.gpu > 0.5 && instance.load.metrics['gpu'] < 1.0", true),
        ("instance.load.queue_depth < 5", false),
        ("has(instance.load) && !has(instance.load.memory)", true),
        ("instance.weight > 10 ? instance.ready : instance.draining", true),
        ("instance.weight * 2 == 100 && instance.weight % 7 == 1 && -instance.weight < 0", true),
        ("instance.load.cpu * 100.0 == 50.0", true),
        ("instance.id + '.' + instance.service == 'vision-1.vision'", true),
        ("instance.weight / 0 == 1 || true", true),
    ] {
        let selector = parsed(text);
        assert_eq!(selector.matches(&instance(), Some(&load())), expected, "{text}");
    }
    assert!(!parsed("instance.load.cpu < 0.8").matches(&instance(), None), "an instance without load");
    let mut draining = instance();
    draining.drain = Some(Drain { since: UnixMillis(1), time: Duration::from_secs(1) });
    assert!(parsed("instance.health == 'draining' && instance.draining").matches(&draining, None));
}

#[test]
fn mistakes_say_where_and_how_to_mend_them() {
    for (text, says) in [
        ("instance.lables.x == 'a'", "column 10: there is no \"lables\", did you mean \"labels\"?"),
        (
            "instance.id == 'a' && instance.locality.regoin == 'a'",
            "column 41: there is no \"regoin\", did you mean \"region\"?",
        ),
        ("labels.language == 'a'", "column 1: there is no \"labels\", did you mean \"instance.labels\"?"),
        ("instanc.id == 'a'", "column 1: there is no \"instanc\", did you mean \"instance\"?"),
        ("has_capability('a')", "did you mean \"instance.has_capability\"?"),
        ("instance.hascapability('a')", "there is no function \"hascapability\", did you mean \"has_capability\"?"),
        ("instance.capabilities.has_capability('a')", "is asked of the instance"),
        ("'a' in instance.capabilities", "found by name with instance.has_capability"),
        ("instance.has_capability('a', '^2')", "a version is"),
        ("instance.has_capability('a', instance.id)", "a text in quotes"),
        ("instance.has_capability()", "takes a name"),
        ("instance.health == 'helthy'", "column 20: there is no health \"helthy\", did you mean \"healthy\"?"),
        ("instance.health in ['healthy', 'well']", "there is no health \"well\""),
        ("instance.sla.latency_p99 < 5", "did you mean \"latency_p99_ms\"?"),
        ("instance.weight == '5'", "a whole number is never equal to a text"),
        ("instance.weight < 'a'", "a whole number is not compared to a text"),
        ("instance.load.cpu * 100 > 50", "whole numbers and others do not mix: write 2.0"),
        ("instance.id - 'a' == 'b'", "do not add up"),
        ("instance.labels.a.b == 'c'", "labels[\"a.b\"]"),
        ("instance.locality == 'a'", "name a field, as in instance.locality.region"),
        ("instance['id'] == 'a'", "its fields are written with a dot"),
        ("instance.ports[0].nmae == 'a'", "did you mean \"name\"?"),
        ("instance.capabilities.exists(c, c.nane == 'a')", "did you mean \"name\"?"),
        ("instance.capabilities.exists(c, d.name == 'a')", "there is no \"d\""),
        ("instance.labels.exists('a')", "exists() takes a name and what to do with it"),
        ("instance.id", "it must be true or false, and is a text"),
        ("instance.weight && true", "column 9: it must be true or false, and is a whole number"),
        ("size(instance.weight) == 1", "size() takes a text, a list or a map"),
        ("instance.weight.startsWith('a')", "startsWith() takes a text, not a whole number"),
        ("instance.id.startsWith()", "takes one text"),
        ("instance.capabilities.exists(c, c.name.matches('^a'))", "matches() not inside a loop"),
        ("instance.id.matches('(')", "takes a regular expression"),
        ("instance.id.matches('(a{1000}){1000}')", "takes a regular expression"),
        ("instance.ready < {'a': 1}", "maps cannot be written here"),
        ("b'a' == b'a'", "bytes cannot be written here"),
        ("instance.?id == 'a'", "optional values cannot be written here"),
        ("type(instance.id) == string", "there is no function \"type\""),
        ("instance.id.upper() == 'A'", "there is no function \"upper\""),
        ("instance.ports < instance.ports", "has no order"),
        ("instance.id in 'abc'", "in takes a list or a map"),
        ("", "column 1: "),
        ("instance.id ==", "column 15: "),
    ] {
        let error = InstanceSelector::parse("filter", text, Knows::Load).expect_err(text);
        assert!(error.field == "filter" && error.rule.contains(says), "{text}: {}", error.rule);
    }
    let error = InstanceSelector::parse("selector", "instance.load.cpu < 0.5", Knows::Stored).expect_err("load");
    assert_eq!(error.rule, "column 10: a load is not stored, and changes unseen: it can be asked for in queries only");
}

#[test]
fn the_equalities_that_must_hold() {
    let label = |name: &str, value: &str| Term::Label(name.into(), value.into());
    let (python, go) = (label("language", "python"), label("language", "go"));
    let region = Term::Region("us".into());
    let images = Term::Capability("images".into());
    for (text, expected) in [
        (
            "instance.labels.language == 'python' && instance.has_capability('images') && instance.locality.region == 'us'",
            vec![vec![python.clone()], vec![images.clone()], vec![region]],
        ),
        ("'python' == instance.labels['language'] && instance.weight > 5", vec![vec![python.clone()]]),
        ("instance.labels.language in ['go', 'python']", vec![vec![go.clone(), python.clone()]]),
        ("instance.has_capability('images', '>=2')", vec![vec![images]]),
        (
            "(instance.labels.language == 'go' && instance.ready) || instance.labels.language == 'python'",
            vec![vec![go, python]],
        ),
        ("instance.labels.language == 'python' || instance.ready", vec![]),
        ("!(instance.labels.language == 'python')", vec![]),
        ("instance.labels.language != 'python'", vec![]),
        ("instance.ready ? instance.labels.language == 'python' : false", vec![]),
        (
            "instance.namespace == 'a' && instance.service == 'b' && instance.id == 'c' && instance.locality.zone == 'd'",
            vec![
                vec![Term::Namespace("a".into())],
                vec![Term::Service("b".into())],
                vec![Term::Id("c".into())],
                vec![Term::Zone("d".into())],
            ],
        ),
        ("instance.ready", vec![]),
    ] {
        let selector = parsed(text);
        let found: Vec<Vec<Term>> = selector.terms().iter().map(<[Term]>::to_vec).collect();
        assert_eq!(found, expected, "{text}");
    }
}

/// The instance as CEL's own values.
fn as_cel(instance: &Instance, load: Option<&Load>) -> Cel {
    use crate::model::selector::map;
    let text = |name: &str, value: &str| (name.to_owned(), Cel::from(value));
    let labels = |labels: &Labels| map(labels.iter().map(|(name, value)| (name.to_owned(), value.into())));
    let spec = &instance.spec;
    let capabilities: Vec<Cel> = (spec.capabilities.iter())
        .map(|of| {
            let attributes = ("attributes".to_owned(), labels(&of.attributes));
            map([
                text("name", &of.name),
                text("version", &of.version),
                text("description", &of.description),
                attributes,
            ])
        })
        .collect();
    let ports: Vec<Cel> = (spec.ports.iter())
        .map(|of| {
            let number = ("number".to_owned(), Cel::Int(of.number.into()));
            map([text("name", of.name.as_str()), text("protocol", of.protocol.as_str()), number])
        })
        .collect();
    let locality = [
        text("region", &spec.locality.region),
        text("zone", &spec.locality.zone),
        text("sub_zone", &spec.locality.sub_zone),
    ];
    let millis = |latency: Option<Duration>| latency.map(|latency| latency.as_secs_f64() * 1000.0);
    let numbers = |numbers: &[(&str, Option<f64>)]| {
        let there = numbers.iter().filter_map(|(name, number)| Some(((*name).to_owned(), Cel::Float((*number)?))));
        there.collect::<Vec<_>>()
    };
    let sla = numbers(&[
        ("latency_p50_ms", millis(spec.sla.latency_p50)),
        ("latency_p99_ms", millis(spec.sla.latency_p99)),
        ("throughput_rps", spec.sla.throughput_rps),
        ("cost_per_request", spec.sla.cost_per_request),
    ]);
    let mut fields = vec![
        text("namespace", instance.key.service.namespace.as_str()),
        text("service", instance.key.service.name.as_str()),
        text("id", instance.key.id.as_str()),
        text("address", &spec.address.to_string()),
        text("description", &spec.description),
        text("health", instance.verdict().as_str()),
        ("ready".to_owned(), Cel::Bool(spec.ready)),
        ("weight".to_owned(), Cel::Int(spec.weight.into())),
        ("incarnation".to_owned(), Cel::Int(instance.incarnation.0 as i64)),
        ("labels".to_owned(), labels(&spec.labels)),
        ("capabilities".to_owned(), Cel::List(capabilities.into())),
        ("ports".to_owned(), Cel::List(ports.into())),
        ("locality".to_owned(), map(locality)),
        ("sla".to_owned(), map(sla)),
    ];
    // What is not reported is not there, but `instance.load` is.
    let reported = load.cloned().unwrap_or_default();
    let mut parts = numbers(&[
        ("cpu", reported.cpu),
        ("memory", reported.memory),
        ("queue_depth", reported.queue_depth),
        ("in_flight", reported.in_flight),
    ]);
    if load.is_some() {
        let metrics = reported.metrics.iter().map(|(name, value)| (name.clone(), Cel::Float(*value)));
        parts.push(("metrics".to_owned(), map(metrics)));
    }
    fields.push(("load".to_owned(), map(parts)));
    map(fields)
}

fn field(of: &Cel, name: &str) -> Cel {
    let Cel::Map(map) = of else { return Cel::Null };
    map.map.iter().find(|(key, _)| key.to_string() == name).map_or(Cel::Null, |(_, value)| value.clone())
}

/// By CEL's own evaluator.
fn by_cel(text: &str, instance: &Instance, load: Option<&Load>) -> bool {
    let program = cel::Program::compile(text).expect("it was compiled before");
    let mut context = Context::with_env(crate::model::selector::STANDARD.clone());
    context.add_variable_from_value("instance", as_cel(instance, load));
    let named = |this: &Cel, name: &Cel| -> Vec<Cel> {
        let Cel::List(list) = field(this, "capabilities") else { return Vec::new() };
        list.iter().filter(|capability| field(capability, "name") == *name).cloned().collect()
    };
    let has = move |This(this): This<Cel>, Arguments(args): Arguments| {
        let fits = |capability: &Cel| match (args.get(1), field(capability, "version")) {
            (Some(Cel::String(wanted)), Cel::String(version)) => {
                version::Versions::parse(wanted).expect("it was compiled before").allow(&version)
            }
            _ => true,
        };
        named(&this, &args[0]).iter().any(fits)
    };
    context.add_function("has_capability", has).expect("a new name");
    context
        .add_function("capability", move |This(this): This<Cel>, name: Cel| {
            named(&this, &name).into_iter().next().ok_or(cel::ExecutionError::NoSuchKey(Arc::new("capability".into())))
        })
        .expect("a new name");
    program.execute(&context) == Ok(Cel::Bool(true))
}

fn one_of(texts: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    prop::sample::select(texts).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> + Clone {
    one_of(&[
        "instance.id",
        "instance.service",
        "instance.address",
        "instance.description",
        "instance.health",
        "instance.labels.language",
        "instance.labels.none",
        "instance.labels['a.b/c']",
        "instance.locality.region",
        "instance.locality.sub_zone",
        "instance.capability('image-processing').version",
        "instance.capability('none').version",
        "instance.capability('image-processing').attributes.formats",
        "instance.capabilities[0].name",
        "instance.capabilities[9].name",
        "instance.ports[1].protocol",
        "string(instance.weight)",
        "string(instance.ready)",
        "(instance.id + instance.service)",
        "(instance.ready ? instance.id : instance.labels.none)",
        "'python'",
        "'vision-1'",
        "''",
        "'é'",
    ])
}

fn whole() -> impl Strategy<Value = String> + Clone {
    one_of(&[
        "instance.weight",
        "instance.incarnation",
        "instance.ports[0].number",
        "size(instance.labels)",
        "size(instance.capabilities)",
        "instance.id.size()",
        "size(instance.capabilities.filter(c, c.version != ''))",
        "size(instance.capabilities.map(c, c.attributes.formats))",
        "size(instance.labels.map(n, n))",
        "int(instance.labels.replicas)",
        "int(instance.labels.language)",
        "int(instance.sla.latency_p99_ms)",
        "(instance.weight - 60)",
        "(instance.weight / (instance.incarnation - 7))",
        "(9223372036854775807 + instance.weight)",
        "-instance.weight",
        "0",
        "7",
        "50",
    ])
}

fn fraction() -> impl Strategy<Value = String> + Clone {
    one_of(&[
        "instance.sla.latency_p99_ms",
        "instance.sla.latency_p50_ms",
        "instance.sla.cost_per_request",
        "instance.load.cpu",
        "instance.load.memory",
        "instance.load.metrics.gpu",
        "instance.load.metrics['none']",
        "double(instance.weight)",
        "(instance.load.cpu * 100.0)",
        "(instance.load.cpu / 0.0)",
        "12.5",
        "0.5",
    ])
}

fn condition() -> impl Strategy<Value = String> {
    let order = one_of(&["==", "!=", "<", "<=", ">", ">="]);
    let compare = |a: BoxedStrategy<String>, b: BoxedStrategy<String>| {
        (a, order.clone(), b).prop_map(|(a, order, b)| format!("{a} {order} {b}"))
    };
    let number = || prop_oneof![whole(), fraction()].boxed();
    let test = (text(), one_of(&["contains", "startsWith", "endsWith"]), text());
    let plain = one_of(&[
        "true",
        "false",
        "instance.ready",
        "instance.has_capability('image-processing')",
        "instance.has_capability('image-processing', '>=2.5')",
        "instance.has_capability('grpc:orders.v2', '1')",
        "instance.has_capability(instance.labels.none)",
        "has(instance.labels.language)",
        "has(instance.labels.none)",
        "has(instance.sla.latency_p50_ms)",
        "has(instance.load.cpu)",
        "has(instance.capability('none').attributes.a)",
        "has(instance.capability('image-processing').attributes.formats)",
        "instance.id.matches('^vision-[0-9]+$')",
        "instance.labels.none.matches('.*')",
        "instance.health in ['healthy', 'starting']",
        "instance.weight in [1, 50, 7]",
        "instance.labels.language in ['go', 'python']",
        "'language' in instance.labels",
        "instance.labels.none in instance.labels",
        "instance.capabilities[1] in instance.capabilities",
        "instance.capabilities == instance.capabilities",
        "instance.capabilities[0] == instance.capabilities[1]",
        "instance.labels == instance.capabilities[0].attributes",
        "instance.capabilities.exists(c, c.name == 'image-processing' && c.version == '3')",
        "instance.capabilities.exists(c, c.attributes.formats == 'png,jpeg')",
        "instance.capabilities.exists(c, c.attributes.formats == 'gif')",
        "instance.capabilities.all(c, c.attributes.formats == 'gif')",
        "instance.capabilities.all(c, has(c.attributes.formats))",
        "instance.capabilities.all(c, c.version != '' || c.name.startsWith('grpc'))",
        "instance.capabilities.exists_one(c, c.version == '3')",
        "instance.capabilities.exists_one(c, c.attributes.formats == 'gif')",
        "instance.ports.exists(p, p.number > 9000)",
        "instance.labels.all(n, n.size() > 4)",
        "instance.labels.exists(n, instance.labels[n] == 'python')",
        "'3' in instance.capabilities.map(c, c.version)",
        "'3' in instance.capabilities.map(c, c.name != 'none', c.version)",
        "instance.capabilities.filter(c, c.version == '3')[0].name == 'image-processing'",
        "[1, 2].exists(x, x == instance.weight)",
        "[instance.weight, 3] == [50, 3]",
        "[1, 2] + [3] == [1, 2, 3]",
        "bool(instance.labels.language)",
        "bool('true')",
    ]);
    let leaf = prop_oneof![
        3 => plain,
        2 => compare(text().boxed(), text().boxed()),
        2 => compare(number(), number()),
        1 => test.prop_map(|(a, test, b)| format!("{a}.{test}({b})")),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), one_of(&["&&", "||"]), inner.clone()).prop_map(|(a, with, b)| format!("({a} {with} {b})")),
            inner.clone().prop_map(|of| format!("!({of})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("(({a}) ? ({b}) : ({c}))")),
        ]
    })
}

/// An instance now and then without what the conditions ask for.
fn any_instance() -> impl Strategy<Value = (Instance, Option<Load>)> {
    (any::<[bool; 6]>(), 0u16..100).prop_map(|(keep, weight)| {
        let mut instance = instance();
        let spec = Arc::make_mut(&mut instance.spec);
        let [labels, capabilities, sla, ready, attributes, with_load] = keep;
        if !labels {
            spec.labels = Labels::from([("language", "go"), ("none", "vision-1")]);
        }
        if !capabilities {
            spec.capabilities = spec.capabilities[..1].into();
        }
        if !attributes {
            spec.capabilities = spec.capabilities[1..].into();
        }
        if !sla {
            spec.sla = Arc::new(Sla { latency_p50: Some(Duration::from_millis(7)), ..Sla::default() });
        }
        spec.ready = ready;
        spec.weight = if weight.is_multiple_of(2) { 50 } else { weight };
        (instance, with_load.then(load))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Both evaluators say the same of whatever is written.
    #[test]
    fn it_is_the_language_that_cel_is(text in condition(), (instance, load) in any_instance()) {
        prop_assume!(text.len() <= 1024);
        // What is refused here, for instance because it could never hold, is not compared.
        if let Ok(selector) = InstanceSelector::parse("filter", &text, Knows::Load) {
            let (ours, theirs) = (selector.matches(&instance, load.as_ref()), by_cel(&text, &instance, load.as_ref()));
            prop_assert_eq!(ours, theirs, "{}", text);
            // What matches has its terms.
            prop_assert!(!ours || selector.terms().may_hold(&instance), "{}: {:?}", text, selector.terms());
            let all: Vec<Term> = Term::all_of(&instance).collect();
            let among = |alternatives: &[Term]| alternatives.iter().any(|term| all.contains(term));
            prop_assert!(!ours || selector.terms().iter().all(among), "{}", text);
        }
    }
}

/// With as much of everything as the limits allow.
fn largest() -> (Instance, Load) {
    let mut instance = instance();
    let spec = Arc::make_mut(&mut instance.spec);
    spec.labels = (0..64).map(|index| (format!("l{index}"), "v".repeat(256))).collect();
    let long = capability("long", "1", Labels::from([("text", "a".repeat(12_000).as_str())]));
    let others = (0..255).map(|index| capability(&format!("c{index}"), "1", Labels::default()));
    spec.capabilities = others.chain([long]).collect();
    spec.description = "a".repeat(1024).into();
    let load = Load { metrics: (0..64).map(|index| (format!("m{index}"), 1.0)).collect(), ..load() };
    (instance, load)
}

/// The longest that anything may take to look at one instance, in a build without optimisation on a shared machine.
const TOO_LONG: Duration = Duration::from_millis(500);

#[test]
fn nothing_that_can_be_written_runs_for_long() {
    let (instance, load) = largest();
    let repeat = |text: &str, with: &str, count: usize| vec![text; count].join(with);
    for text in [
        format!("instance.capabilities.all(c, {})", repeat("instance.capabilities == instance.capabilities", "&&", 12)),
        format!("instance.capabilities.all(c, {})", repeat("c in instance.capabilities", "&&", 30)),
        format!("instance.capabilities.all(c, {})", repeat("instance.labels==instance.labels", "&&", 20)),
        format!("instance.capabilities.all(c, {})", repeat("'x' in instance.labels||true", "&&", 20)),
        format!(
            "instance.capabilities.all(c, {})",
            repeat("instance.capability('long').attributes.text.contains('b')||true", "&&", 13)
        ),
        format!(
            "instance.capabilities.all(c, size({}) > 1)",
            repeat("instance.capability('long').attributes.text", "+", 20)
        ),
        format!("size({}) > 1", repeat("instance.capability('long').attributes.text", "+", 20)),
        format!("instance.capabilities.all(c, size({}) > 1)", repeat("instance.capabilities", "+", 20)),
        format!("{} || true", repeat("instance.capability('long').attributes.text.matches('(a*)*b')", "||", 12)),
        "instance.capability('long').attributes.text.matches('(a|aa|[^b]{1,12}){1,12}b')".to_owned(),
        "instance.capability('long').attributes.text.matches('(.*)(.*)(.*)(.*)(.*)(.*)[^a]')".to_owned(),
        format!("instance.labels.all(n, {})", repeat("instance.labels[n] != ''", "&&", 30)),
        format!("instance.capabilities.all(c, {})", repeat("instance.has_capability('none')||true", "&&", 20)),
    ] {
        let Ok(selector) = InstanceSelector::parse("filter", &text, Knows::Load) else { panic!("{text}") };
        let started = std::time::Instant::now();
        let looked = selector.look(&instance, Some(&load));
        let took = started.elapsed();
        println!("{took:?}, {} steps: {text:.80}", looked.steps);
        assert!(took < TOO_LONG && looked.steps <= node::MAX_STEPS, "{text}: {took:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Pieces in any order: each text is refused or evaluated, soon and on the stack of a worker.
    #[test]
    fn no_text_overflows_the_stack_or_runs_for_long(
        pieces in prop::collection::vec(one_of(&[
            "instance", ".labels", ".capabilities", ".exists(c,", ".all(c,", ".map(c,", ".filter(c,", "c.name", "c", ")", "(",
            " == ", " && ", " || ", " in ", "+", "-", "!", "[", "]", "{", "}", ",", "0", "1.5", "'a'", "\"", "é", " ? ", " : ",
            ".matches('", "(a*)*", "')", ".size()", "size(", "has(", ".load", ".metrics", ".description", "true", "instance.id",
        ]), 1..60),
        repeats in 1usize..40,
    ) {
        let text: String = pieces.concat().repeat(repeats);
        let end = (0..=1024.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let text = text[..end].to_owned();
        let run = move || {
            let (instance, load) = largest();
            let started = std::time::Instant::now();
            if let Ok(selector) = InstanceSelector::parse("filter", &text, Knows::Load) {
                selector.look(&instance, Some(&load));
            }
            (started.elapsed(), text)
        };
        let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(run).expect("a thread");
        let (took, text) = thread.join().expect("nothing panics");
        prop_assert!(took < TOO_LONG, "{took:?}: {text}");
    }
}
