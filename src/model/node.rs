//! An xDS client as it describes itself, and a condition on that.

use cel::Value;
use serde_json::Value as Json;

use super::{
    Invalid, Locality, Namespace,
    selector::{self, Fields, Selector, Shape},
};

/// What selectors over nodes may look at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub id: String,
    pub cluster: String,
    pub namespace: Namespace,
    pub user_agent: String,
    pub locality: Locality,
    /// As the client gave it.
    pub metadata: Json,
}

/// A loop that compares lists in each step takes the square of this. Envoys have some tens.
const MAX_METADATA_VALUES: usize = 1_000;
const VARIABLE: &str = "node";
const LOCALITY: Fields = &[("region", Shape::Plain), ("sub_zone", Shape::Plain), ("zone", Shape::Plain)];
const FIELDS: Fields = &[
    ("cluster", Shape::Plain),
    ("id", Shape::Plain),
    ("locality", Shape::Fields(LOCALITY)),
    ("metadata", Shape::Free),
    ("namespace", Shape::Plain),
    ("user_agent", Shape::Plain),
];

impl Node {
    /// Whether its metadata has so few values that every condition on them is told soon.
    fn is_small(&self) -> bool {
        let (mut waiting, mut count) = (vec![&self.metadata], 0);
        while let Some(value) = waiting.pop() {
            count += 1;
            if count + waiting.len() > MAX_METADATA_VALUES {
                return false;
            }
            match value {
                Json::Array(items) => waiting.extend(items.iter().take(MAX_METADATA_VALUES + 1)),
                Json::Object(fields) => waiting.extend(fields.values().take(MAX_METADATA_VALUES + 1)),
                _ => {}
            }
        }
        true
    }

    fn value(&self) -> Value {
        let text = |name: &str, text: &str| (name.to_owned(), text.to_owned().into());
        let locality = [
            text("region", &self.locality.region),
            text("sub_zone", &self.locality.sub_zone),
            text("zone", &self.locality.zone),
        ];
        selector::map([
            text("cluster", &self.cluster),
            text("id", &self.id),
            ("locality".to_owned(), selector::map(locality)),
            ("metadata".to_owned(), selector::value(&self.metadata)),
            text("namespace", self.namespace.as_str()),
            text("user_agent", &self.user_agent),
        ])
    }
}

/// A condition on a node, such as `node.metadata.role == "edge"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSelector(Selector);

impl NodeSelector {
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        Selector::parse(field, text, VARIABLE, FIELDS).map(Self)
    }

    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it holds. On a node with more than a thousand values in its metadata none does.
    pub fn matches(&self, node: &Node) -> bool {
        node.is_small() && self.0.matches(VARIABLE, node.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_can_be_asked_for() {
        let node = Node {
            id: "web-1".into(),
            cluster: "web".into(),
            namespace: Namespace::default(),
            user_agent: "envoy/1.40.0".into(),
            locality: Locality { region: "eu".into(), zone: "eu-a".into(), sub_zone: "rack".into() },
            metadata: serde_json::json!({"role": "edge"}),
        };
        for text in [
            "node.id == 'web-1' && node.cluster == 'web' && node.namespace == 'default'",
            "node.user_agent.startsWith('envoy/')",
            "node.locality.region == 'eu' && node.locality.zone == 'eu-a' && node.locality.sub_zone == 'rack'",
            "node.metadata.role == \"edge\"",
        ] {
            assert!(NodeSelector::parse("selector", text).expect(text).matches(&node), "{text}");
            assert!(!NodeSelector::parse("selector", text).expect(text).matches(&Node::default()), "{text}");
        }
    }

    #[test]
    fn a_node_with_too_much_metadata_is_not_looked_at() {
        let of = |count: usize| Node { metadata: vec![1; count].into(), ..Node::default() };
        let always = NodeSelector::parse("selector", "true").expect("a selector");
        assert!(always.matches(&of(MAX_METADATA_VALUES - 1)));
        assert!(!always.matches(&of(MAX_METADATA_VALUES)));
        let lists = serde_json::json!({"a": vec![1; 480], "b": vec![1; 480]});
        let slow = NodeSelector::parse("selector", "node.metadata.a.all(x, node.metadata.a == node.metadata.b)");
        let started = std::time::Instant::now();
        assert!(slow.expect("a selector").matches(&Node { metadata: lists, ..Node::default() }));
        println!("the slowest takes {:?}", started.elapsed());
    }
}
