//! Generates the API's types from `proto/`, without `protoc`, and gives them the JSON form that `json.rs` describes.

use std::{env, path::PathBuf};

use prost::Message;
use prost_types::{
    FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

const FILES: &[&str] = &[
    "convoy/v1/checks.proto",
    "convoy/v1/types.proto",
    "convoy/v1/registry.proto",
    "convoy/v1/proxies.proto",
    "convoy/v1/resources.proto",
    "convoy/v1/explain.proto",
    "convoy/v1/brake.proto",
    "convoy/v1/load.proto",
    "convoy/v1/agent_cards.proto",
    "convoy/v1/query.proto",
    "convoy/v1/backup.proto",
];
/// Messages of others' APIs, shown as JSON.
const ANYS: [&str; 1] = [".convoy.v1.ProxyResource.resource"];
/// Texts that are JSON documents themselves.
const DOCUMENTS: [&str; 2] = [".convoy.v1.Registration.agent_card", ".convoy.v1.AgentCard.card"];
/// Messages of others' APIs that have no JSON here; see `Resource.body`.
const HIDDEN: [&str; 2] = [".convoy.v1.Resource.body", ".convoy.v1.PutResourceRequest.body"];
/// Enums that are left out when unspecified: only a removal has a cause.
const OPTIONAL_ENUMS: [&str; 3] =
    [".convoy.v1.WatchEvent.cause", ".convoy.v1.Transition.verdict", ".convoy.v1.Transition.removed"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let descriptors = protox::compile(FILES, ["../proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    std::fs::write(out.join("convoy.v1.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::configure()
        .build_server(env::var("CARGO_FEATURE_SERVER").is_ok())
        .btree_map(".")
        .message_attribute(".", "#[derive(serde::Serialize, serde::Deserialize)]")
        .message_attribute(".", "#[serde(default, deny_unknown_fields)]");
    for file in descriptors.file.iter().filter(|file| file.package() == "convoy.v1") {
        for message in &file.message_type {
            for field in &message.field {
                let path = format!(".convoy.v1.{}.{}", message.name(), field.name());
                for attribute in attributes(&path, field) {
                    config = config.field_attribute(&path, format!("#[serde({attribute})]"));
                }
            }
        }
    }
    config.compile_fds(descriptors)?;
    Ok(())
}

/// How a field stands in JSON. What is absent is left out.
fn attributes(path: &str, field: &FieldDescriptorProto) -> Vec<String> {
    let absent = || "skip_serializing_if = \"Option::is_none\"".to_owned();
    let with = |module: &str| vec![format!("with = \"crate::json::{module}\""), absent()];
    if field.label() == Label::Repeated {
        return if field.r#type() == Type::Enum { enums(field, "s") } else { Vec::new() };
    }
    match (field.r#type(), field.type_name()) {
        _ if HIDDEN.contains(&path) => vec!["skip".into()],
        _ if ANYS.contains(&path) => with("any"),
        _ if DOCUMENTS.contains(&path) => {
            vec!["with = \"crate::json::document\"".into(), "skip_serializing_if = \"String::is_empty\"".into()]
        }
        (_, ".google.protobuf.Duration") => with("duration"),
        (_, ".google.protobuf.Timestamp") => with("time"),
        (Type::Enum, _) => {
            let mut attributes = enums(field, "");
            if OPTIONAL_ENUMS.contains(&path) {
                attributes.push("skip_serializing_if = \"crate::json::is_unspecified\"".into());
            }
            attributes
        }
        (Type::Message, _) => vec![absent()],
        _ if field.proto3_optional() => vec![absent()],
        _ => Vec::new(),
    }
}

/// By their names: of one value, or of several ("s").
fn enums(field: &FieldDescriptorProto, several: &str) -> Vec<String> {
    let name = field.type_name().trim_start_matches(".convoy.v1.");
    let mut attributes = vec![
        format!("serialize_with = \"crate::json::write_enum{several}::<{name}, _>\""),
        format!("deserialize_with = \"crate::json::read_enum{several}::<{name}, _>\""),
    ];
    if !several.is_empty() {
        attributes.push("skip_serializing_if = \"Vec::is_empty\"".into());
    }
    attributes
}
