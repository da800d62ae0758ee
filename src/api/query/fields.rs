//! Which fields of an instance are wanted.

use convoy_client::proto;
use serde_json::Value;

use crate::model::{Invalid, limits::at_most};

const MAX_FIELDS: usize = 32;
/// What an instance is found by is always there.
const KEY: [&str; 3] = ["namespace", "service", "id"];
const NAMES: [&str; 20] = [
    "namespace",
    "service",
    "id",
    "incarnation",
    "address",
    "ports",
    "weight",
    "health",
    "labels",
    "capabilities",
    "locality",
    "sla",
    "lease",
    "registered_at",
    "revision",
    "load",
    "description",
    "effective_weight",
    "labels.",
    "history",
];

/// Everything if there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<String>);

impl Fields {
    pub fn parse(names: &[String]) -> Result<Self, Invalid> {
        at_most("fields", names.len(), MAX_FIELDS, "fields")?;
        for (index, name) in names.iter().enumerate() {
            let label = name.strip_prefix("labels.").is_some_and(|label| !label.is_empty());
            if !label && (name.ends_with('.') || !NAMES.contains(&name.as_str())) {
                let known = NAMES.iter().filter(|name| !name.ends_with('.')).copied().collect::<Vec<_>>().join(", ");
                return Err(Invalid::new(format!("fields[{index}]"), name, format!("labels.NAME or one of {known}")));
            }
        }
        Ok(Self(names.to_vec()))
    }

    fn wants(&self, name: &str) -> bool {
        self.0.is_empty() || KEY.contains(&name) || self.0.iter().any(|wanted| wanted == name)
    }

    /// Of the labels, if not all.
    fn labels(&self) -> Option<Vec<&str>> {
        let named = || self.0.iter().filter_map(|name| name.strip_prefix("labels.")).collect();
        (!self.wants("labels")).then(named)
    }

    /// The instance without what is not wanted.
    pub fn of(&self, mut from: proto::Instance) -> proto::Instance {
        if self.0.is_empty() {
            return from;
        }
        if let Some(named) = self.labels() {
            from.labels.retain(|label, _| named.contains(&label.as_str()));
        }
        macro_rules! keep {
            ($($field:ident),*) => {$(
                if !self.wants(stringify!($field)) {
                    from.$field = Default::default();
                }
            )*};
        }
        keep!(incarnation, address, ports, weight, health, capabilities, locality, sla, lease, registered_at);
        keep!(revision, load, description, effective_weight, history);
        from
    }

    /// In JSON, what is not wanted is left out.
    pub fn of_json(&self, instance: &mut Value) {
        let Value::Object(fields) = instance else { return };
        if self.0.is_empty() {
            return;
        }
        let labels = self.labels().is_some_and(|labels| !labels.is_empty());
        fields.retain(|name, _| self.wants(name) || name == "labels" && labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(names: &[&str]) -> Result<Fields, Invalid> {
        Fields::parse(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn every_field_is_known() {
        let Ok(Value::Object(all)) = serde_json::to_value(proto::Instance {
            registered_at: Some(Default::default()),
            health: Some(Default::default()),
            locality: Some(Default::default()),
            sla: Some(Default::default()),
            load: Some(Default::default()),
            ..Default::default()
        }) else {
            panic!("an instance is an object");
        };
        for name in all.keys() {
            fields(&[name]).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    #[test]
    fn what_is_not_wanted_is_left_out() {
        let labels = [("a", "1"), ("b.c", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let full = proto::Instance {
            id: "i".into(),
            weight: 7,
            address: "10.0.0.1".into(),
            labels: labels.into(),
            ..Default::default()
        };
        let wanted = fields(&["weight", "labels.b.c"]).expect("fields");
        let cut = wanted.of(full.clone());
        assert_eq!((cut.id.as_str(), cut.weight, cut.address.as_str()), ("i", 7, ""));
        assert_eq!(cut.labels.into_iter().collect::<Vec<_>>(), [("b.c".to_owned(), "2".to_owned())]);
        let mut json = serde_json::to_value(wanted.of(full.clone())).expect("JSON");
        wanted.of_json(&mut json);
        let expected =
            serde_json::json!({"namespace": "", "service": "", "id": "i", "weight": 7, "labels": {"b.c": "2"}});
        assert_eq!(json, expected);
        assert_eq!(fields(&[]).expect("none").of(full.clone()), full);
        for wrong in ["colour", "labels.", "", "health.verdict"] {
            assert_eq!(fields(&["id", wrong]).expect_err(wrong).field, "fields[1]");
        }
    }
}
