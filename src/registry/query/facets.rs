//! How many of the matching instances have which value of a field.

use std::collections::HashMap;

use crate::model::{Instance, Invalid};

/// Different values that are counted, of each field; what comes later is `other`.
const MAX_COUNTED: usize = 10_000;
/// Of these so many are answered, the most frequent first.
const MAX_SHOWN: usize = 100;

#[derive(Clone, Debug, PartialEq)]
pub enum FacetField {
    Namespace,
    Service,
    Health,
    Region,
    Zone,
    SubZone,
    Capability,
    Label(Box<str>),
}

impl FacetField {
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        Ok(match text {
            "namespace" => Self::Namespace,
            "service" => Self::Service,
            "health" => Self::Health,
            "region" => Self::Region,
            "zone" => Self::Zone,
            "sub_zone" => Self::SubZone,
            "capability" => Self::Capability,
            _ => match text.strip_prefix("label:") {
                Some(name) if !name.is_empty() => Self::Label(name.into()),
                _ => {
                    let rule = "namespace, service, health, region, zone, sub_zone, capability or label:NAME";
                    return Err(Invalid::new(field, text, rule));
                }
            },
        })
    }

    pub fn name(&self) -> String {
        match self {
            Self::Namespace => "namespace".into(),
            Self::Service => "service".into(),
            Self::Health => "health".into(),
            Self::Region => "region".into(),
            Self::Zone => "zone".into(),
            Self::SubZone => "sub_zone".into(),
            Self::Capability => "capability".into(),
            Self::Label(name) => format!("label:{name}"),
        }
    }

    /// The instance's values; each once.
    fn each<'a>(&self, instance: &'a Instance, mut count: impl FnMut(&'a str)) {
        let (service, spec) = (&instance.key.service, &instance.spec);
        match self {
            Self::Namespace => count(service.namespace.as_str()),
            Self::Service => count(service.name.as_str()),
            Self::Health => count(instance.verdict().as_str()),
            Self::Region => count(&spec.locality.region),
            Self::Zone => count(&spec.locality.zone),
            Self::SubZone => count(&spec.locality.sub_zone),
            Self::Label(name) => spec.labels.get(name).into_iter().for_each(count),
            Self::Capability => {
                for (index, capability) in spec.capabilities.iter().enumerate() {
                    let before = &spec.capabilities[..index];
                    if !before.iter().any(|earlier| earlier.name == capability.name) {
                        count(&capability.name);
                    }
                }
            }
        }
    }
}

#[derive(Debug)]
pub struct Counting {
    field: FacetField,
    counts: HashMap<Box<str>, u64>,
    other: u64,
    without: u64,
}

/// The counts of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Facet {
    pub field: String,
    /// The most frequent first.
    pub values: Vec<(Box<str>, u64)>,
    /// Of values that are not among these.
    pub other: u64,
    /// Instances that have no value.
    pub without: u64,
}

impl Counting {
    pub fn new(field: FacetField) -> Self {
        Self { field, counts: HashMap::new(), other: 0, without: 0 }
    }

    pub fn add(&mut self, instance: &Instance) {
        let (counts, other) = (&mut self.counts, &mut self.other);
        let mut any = false;
        self.field.each(instance, |value| {
            if value.is_empty() {
                return;
            }
            any = true;
            if let Some(count) = counts.get_mut(value) {
                *count += 1;
            } else if counts.len() < MAX_COUNTED {
                counts.insert(value.into(), 1);
            } else {
                *other += 1;
            }
        });
        self.without += u64::from(!any);
    }

    pub fn finish(self) -> Facet {
        let mut values: Vec<(Box<str>, u64)> = self.counts.into_iter().collect();
        values.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let cut = values.split_off(values.len().min(MAX_SHOWN));
        let other = self.other + cut.iter().map(|(_, count)| count).sum::<u64>();
        Facet { field: self.field.name(), values, other, without: self.without }
    }
}
