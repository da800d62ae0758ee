//! Envoy's resources as JSON and as bytes, by the descriptors of all of Envoy's v3 messages (`descriptors.binpb.gz`, made by
//! `tools/descriptors`). Nobody else names the library that reads them.
//!
//! The same JSON makes the same bytes (`canonical`): versions are hashes of them. Bytes that somebody puts are kept as they
//! are. What is nested deeper than `MAX_DEPTH` is refused both ways, so that nothing that is kept can overflow a stack when
//! it is shown.

mod canonical;
mod mistake;

use std::{collections::BTreeMap, io::Read, sync::LazyLock};

use bytes::Bytes;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FileDescriptor, MessageDescriptor, ReflectMessage, SerializeOptions, Value,
};
use serde_json::{Value as Json, json};

use crate::model::{Invalid, ResourceType, limits::quoted};

static PACKED: &[u8] = include_bytes!("descriptors.binpb.gz");

/// Loaded when first needed, which takes some milliseconds.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let mut descriptors = Vec::new();
    let mut reader = flate2::read::GzDecoder::new(PACKED);
    reader.read_to_end(&mut descriptors).expect("the file is part of the program, and a test reads it");
    DescriptorPool::decode(&*descriptors).expect("the file is part of the program, and a test reads it")
});

/// How deep messages may nest, those inside an `Any` counted on. Envoy refuses 100; its own examples need 20.
const MAX_DEPTH: usize = 64;
/// How much of a YAML text may be repeated by aliases: they are for a few lines said twice.
const MAX_ALIASED: usize = 10_000;
const ANY: &str = "google.protobuf.Any";
const TYPE: &str = "@type";

fn descriptor(kind: ResourceType) -> MessageDescriptor {
    message(kind.type_url()).expect("a test looks for each type")
}

/// The message that a type URL names.
fn message(type_url: &str) -> Option<MessageDescriptor> {
    POOL.get_message_by_name(type_url.rsplit('/').next().unwrap_or_default())
}

/// The bytes of a resource written as JSON. Its name may be left out, and is then `name`; its `@type` too.
///
/// # Errors
/// The field at fault by its path in the resource.
pub fn read(kind: ResourceType, name: &str, mut json: Json) -> Result<Bytes, Invalid> {
    if let Some(said) = json.as_object_mut().and_then(|fields| fields.remove(TYPE))
        && said.as_str() != Some(kind.type_url())
    {
        return Err(Invalid::new(TYPE, said, format!("that of the resource, {}", kind.type_url())));
    }
    mistake::check_depth(&json)?;
    let mut message = mistake::parse(descriptor(kind), &json)?;
    check_nested(&message, 0)?;
    let field = name_field(kind);
    if message.get_field_by_name(field).is_none_or(|said| said.as_str().is_none_or(str::is_empty)) {
        message.set_field_by_name(field, Value::String(name.to_owned()));
    }
    check_name(kind, name, &message)?;
    Ok(canonical::encode(&message).into())
}

/// Whether bytes are a resource of this type and name. They may have fields, and hold messages, that are not known here.
pub fn check(kind: ResourceType, name: &str, bytes: &[u8]) -> Result<(), Invalid> {
    let message = decode(descriptor(kind), bytes)?;
    check_nested(&message, 0)?;
    check_name(kind, name, &message)
}

/// A resource as JSON, with the names of fields as in the proto files. One that holds what cannot be written as JSON (a
/// message not known here) is shown as `{"@type": …, "value": its bytes in base 64}`.
pub fn write(kind: ResourceType, bytes: &[u8]) -> Json {
    let message = decode(descriptor(kind), bytes).ok();
    let shown = message.and_then(|message| to_json(&message));
    shown.unwrap_or_else(|| {
        let mut text = DynamicMessage::new(descriptor_of_bytes());
        text.set_field_by_name("value", Value::Bytes(Bytes::copy_from_slice(bytes)));
        json!({TYPE: kind.type_url(), "value": to_json(&text)})
    })
}

/// What stands in an `Any`, as `write` shows it.
pub fn show(body: &prost_types::Any) -> Json {
    ResourceType::from_type_url(&body.type_url).map(|kind| write(kind, &body.value)).unwrap_or_default()
}

/// The documents of a YAML text; JSON is YAML too. `no` and `010` are the texts that they look like, and not what they were
/// in old YAML.
pub fn yaml(text: &str) -> Result<Vec<Json>, String> {
    let options = serde_yaml::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: MAX_ALIASED },
    };
    serde_yaml::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}

/// The descriptors of some services with all that they depend on, as an encoded `FileDescriptorSet`.
pub fn describe<'a>(services: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut files: BTreeMap<String, FileDescriptor> = BTreeMap::new();
    let mut waiting: Vec<FileDescriptor> =
        services.filter_map(|name| POOL.get_service_by_name(name)).map(|service| service.parent_file()).collect();
    while let Some(file) = waiting.pop() {
        if files.insert(file.name().to_owned(), file.clone()).is_none() {
            waiting.extend(file.dependencies());
        }
    }
    let file = files.values().map(|file| file.file_descriptor_proto().clone()).collect();
    prost_types::FileDescriptorSet { file }.encode_to_vec()
}

/// A request of the REST form of xDS, as bytes.
pub fn read_request(json: &[u8]) -> Result<Vec<u8>, Invalid> {
    let json: Json = serde_json::from_slice(json).map_err(|error| Invalid::new("body", "…", error.to_string()))?;
    mistake::check_depth(&json)?;
    let request = message("envoy.service.discovery.v3.DiscoveryRequest").expect("a test looks for it");
    Ok(mistake::parse(request, &json)?.encode_to_vec())
}

/// A response of the REST form of xDS; none if it holds a message that is not known here.
pub fn write_response(bytes: &[u8]) -> Option<Json> {
    let response = message("envoy.service.discovery.v3.DiscoveryResponse").expect("a test looks for it");
    to_json(&decode(response, bytes).ok()?)
}

fn descriptor_of_bytes() -> MessageDescriptor {
    message("google.protobuf.BytesValue").expect("a test looks for it")
}

fn to_json(message: &DynamicMessage) -> Option<Json> {
    let options = SerializeOptions::new().use_proto_field_name(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).ok()
}

fn decode(descriptor: MessageDescriptor, bytes: &[u8]) -> Result<DynamicMessage, Invalid> {
    let name = descriptor.full_name().to_owned();
    DynamicMessage::decode(descriptor, bytes)
        .map_err(|error| Invalid::new("body", "…", format!("the bytes of a {name}: {error}")))
}

/// The field that holds a resource's name.
fn name_field(kind: ResourceType) -> &'static str {
    if kind == ResourceType::Endpoint { "cluster_name" } else { "name" }
}

fn check_name(kind: ResourceType, name: &str, message: &DynamicMessage) -> Result<(), Invalid> {
    let field = name_field(kind);
    let said = message.get_field_by_name(field);
    let said = said.as_ref().and_then(|said| said.as_str()).unwrap_or_default();
    // A virtual host is asked for by route configuration and domain, and has a name of its own.
    if said == name || (kind == ResourceType::VirtualHost && !said.is_empty()) {
        return Ok(());
    }
    Err(Invalid::new(field, said, format!("the name under which it is put, {:?}", quoted(name, 128))))
}

/// Checks the depth, and that what is in an `Any` of a known type is of that type.
fn check_nested(message: &DynamicMessage, depth: usize) -> Result<(), Invalid> {
    if depth > MAX_DEPTH {
        let rule = format!("at most {MAX_DEPTH} messages inside each other");
        return Err(Invalid::new(message.descriptor().full_name(), "…", rule));
    }
    if let Some(inner) = inside(message)? {
        return check_nested(&inner, depth + 1);
    }
    let check = |value: &Value| value.as_message().map_or(Ok(()), |inner| check_nested(inner, depth + 1));
    message.fields().try_for_each(|(_, value)| match value {
        Value::List(items) => items.iter().try_for_each(check),
        Value::Map(entries) => entries.values().try_for_each(check),
        value => check(value),
    })
}

/// The message inside an `Any`, if it is one, of a known type.
fn inside(any: &DynamicMessage) -> Result<Option<DynamicMessage>, Invalid> {
    if any.descriptor().full_name() != ANY {
        return Ok(None);
    }
    let (type_url, value) = (any.get_field_by_name("type_url"), any.get_field_by_name("value"));
    let type_url = type_url.as_ref().and_then(|url| url.as_str()).unwrap_or_default();
    let value = value.as_ref().and_then(|value| value.as_bytes()).cloned().unwrap_or_default();
    message(type_url).map(|inner| decode(inner, &value)).transpose()
}

#[cfg(test)]
mod tests;
