//! A message as bytes, always the same: the library keeps maps in hash maps, whose order is random. Here their entries are
//! sorted, also inside an `Any`, whose bytes the library has made already.

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

pub(super) fn encode(message: &DynamicMessage) -> Vec<u8> {
    let mut out = Vec::new();
    // What is in an `Any` of an unknown type was never JSON, and one of a known type has been read before.
    if let Ok(Some(inner)) = super::inside(message) {
        let mut any = message.clone();
        any.set_field_by_name("value", Value::Bytes(encode(&inner).into()));
        return any.encode_to_vec();
    }
    for (field, value) in message.fields() {
        match value {
            Value::Map(entries) => {
                let mut sorted: Vec<(&MapKey, &Value)> = entries.iter().collect();
                sorted.sort_by_key(|(key, _)| *key);
                sorted.into_iter().for_each(|(key, value)| put(&field, &entry(&field, key, value), &mut out));
            }
            Value::List(items) => match items.first() {
                Some(Value::Message(_)) => {
                    items.iter().filter_map(Value::as_message).for_each(|item| put(&field, item, &mut out));
                }
                _ => alone(message, &field, value, &mut out),
            },
            Value::Message(inner) => put(&field, inner, &mut out),
            value => alone(message, &field, value, &mut out),
        }
    }
    out
}

/// A map is a list of messages with a key and a value.
fn entry(field: &FieldDescriptor, key: &MapKey, value: &Value) -> DynamicMessage {
    let Kind::Message(descriptor) = field.kind() else { unreachable!("a map field's kind is its entry") };
    let (key_field, value_field) = (descriptor.map_entry_key_field(), descriptor.map_entry_value_field());
    let mut entry = DynamicMessage::new(descriptor);
    entry.set_field(&key_field, key.clone().into());
    entry.set_field(&value_field, value.clone());
    entry
}

fn put(field: &FieldDescriptor, message: &DynamicMessage, out: &mut Vec<u8>) {
    let bytes = encode(message);
    encode_key(field.number(), WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend(bytes);
}

/// A field without messages in it, which the library writes.
fn alone(message: &DynamicMessage, field: &FieldDescriptor, value: &Value, out: &mut Vec<u8>) {
    let mut only = DynamicMessage::new(message.descriptor());
    only.set_field(field, value.clone());
    out.extend(only.encode_to_vec());
}
