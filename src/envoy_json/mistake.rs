//! JSON read into a message, and where in it a mistake is. What is in an `Any` is read out of a buffer, in which the path is
//! lost; so after an error each of them is read by itself, innermost first.

use prost_reflect::{DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::Value as Json;

use super::{MAX_DEPTH, TYPE, message};
use crate::model::{Invalid, limits::quoted};

/// A list inside a message is a level of JSON, and none of messages.
const MAX_JSON_DEPTH: usize = 2 * MAX_DEPTH;
/// What the library says is quoted up to here.
const MAX_QUOTED_BYTES: usize = 512;

pub(super) fn check_depth(json: &Json) -> Result<(), Invalid> {
    let mut level: Vec<&Json> = vec![json];
    for _ in 0..MAX_JSON_DEPTH {
        level = level.into_iter().flat_map(children).map(|(_, child)| child).collect();
        if level.is_empty() {
            return Ok(());
        }
    }
    Err(Invalid::new("resource", "…", format!("at most {MAX_JSON_DEPTH} objects and lists inside each other")))
}

pub(super) fn parse(descriptor: MessageDescriptor, json: &Json) -> Result<DynamicMessage, Invalid> {
    read(descriptor, json).map_err(|mistake| inner_mistake(json, "").unwrap_or(mistake))
}

fn read(descriptor: MessageDescriptor, json: &Json) -> Result<DynamicMessage, Invalid> {
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(json, &mut track);
    let options = DeserializeOptions::new().deny_unknown_fields(true);
    DynamicMessage::deserialize_with_options(descriptor, tracked, &options).map_err(|error| {
        let mut path = track.path().to_string();
        if path == "." {
            path.clear();
        }
        let message = error.to_string();
        let value = at(json, &path).map(shown).unwrap_or_default();
        // The path ends at what has the field.
        let (path, value) = match unknown_field(&message) {
            Some(name) if path.is_empty() => (name.to_owned(), name.to_owned()),
            Some(name) => (format!("{path}.{name}"), name.to_owned()),
            None if path.is_empty() => ("resource".to_owned(), value),
            None => (path, value),
        };
        Invalid::new(quoted(&path, MAX_QUOTED_BYTES), value, quoted(&message, MAX_QUOTED_BYTES))
    })
}

fn unknown_field(message: &str) -> Option<&str> {
    message.strip_prefix("unrecognized field name '")?.strip_suffix('\'')
}

/// The first mistake in an `Any`, by its path from `path`.
fn inner_mistake(json: &Json, path: &str) -> Option<Invalid> {
    for (step, child) in children(json) {
        let inner = match (step, path) {
            (Step::Field(name), "") => name.to_owned(),
            (Step::Field(name), path) => format!("{path}.{name}"),
            (Step::Index(index), path) => format!("{path}[{index}]"),
        };
        if let Some(mistake) = inner_mistake(child, &inner) {
            return Some(mistake);
        }
        let Some(type_url) = child.get(TYPE) else { continue };
        let Some(descriptor) = type_url.as_str().and_then(message) else {
            let rule = "the type URL of a message of Envoy's API v3";
            return Some(Invalid::new(format!("{inner}.{TYPE}"), shown(type_url), rule));
        };
        let Some(fields) = content(child) else { continue };
        if let Err(mistake) = read(descriptor, &fields) {
            let is_whole = mistake.field == "resource";
            return Some(if is_whole { Invalid { field: inner, ..mistake } } else { mistake.inside(&inner) });
        }
    }
    None
}

/// What is beside the type, if that is how the message is written in an `Any`.
fn content(any: &Json) -> Option<Json> {
    let mut fields = any.as_object()?.clone();
    let type_url = fields.remove(TYPE)?;
    let is_well_known = type_url.as_str()?.contains("/google.protobuf.");
    if is_well_known { fields.remove("value") } else { Some(Json::Object(fields)) }
}

enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

fn children(json: &Json) -> Vec<(Step<'_>, &Json)> {
    match json {
        Json::Object(fields) => fields.iter().map(|(name, child)| (Step::Field(name), child)).collect(),
        Json::Array(items) => items.iter().enumerate().map(|(index, child)| (Step::Index(index), child)).collect(),
        _ => Vec::new(),
    }
}

/// The value at a path such as `filters[0].name`.
fn at<'a>(json: &'a Json, path: &str) -> Option<&'a Json> {
    let mut found = json;
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        found = match step.strip_suffix(']').and_then(|index| index.parse::<usize>().ok()) {
            Some(index) => found.get(index)?,
            None => found.get(step)?,
        };
    }
    Some(found)
}

fn shown(json: &Json) -> String {
    match json {
        Json::String(text) => text.clone(),
        Json::Object(_) => "{…}".into(),
        Json::Array(_) => "[…]".into(),
        other => other.to_string(),
    }
}
