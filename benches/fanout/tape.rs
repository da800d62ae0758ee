//! What Convoy answered to one client, in a file, from which the floor answers to all.

use std::{collections::HashMap, path::Path};

use anyhow::Context;
use bytes::Bytes;

use crate::{
    stream::Recorded,
    wire::{self, CLUSTER, ENDPOINT, RESOURCE_NAME, RESOURCE_VERSION, RESOURCES},
};

/// The resources, as elements of a response.
#[derive(Debug, Default)]
pub struct Tape {
    pub clusters: Bytes,
    pub endpoints: HashMap<String, Bytes>,
    pub all_endpoints: Bytes,
}

impl Tape {
    /// Writes responses to a file: each its type and its bytes.
    pub fn save(responses: &[Recorded], path: &Path) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        for (type_url, response) in responses {
            wire::put(1, type_url, &mut bytes);
            wire::put(2, response, &mut bytes);
        }
        std::fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
    }

    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let (mut tape, mut clusters, mut endpoints) = (Self::default(), Vec::new(), Vec::new());
        let mut type_url = "";
        for (field, value, _) in wire::fields(&bytes) {
            if field == 1 {
                type_url = std::str::from_utf8(value)?;
                continue;
            }
            for (_, resource, element) in wire::fields(value).filter(|(field, ..)| *field == RESOURCES) {
                match type_url {
                    CLUSTER => clusters.extend_from_slice(element),
                    ENDPOINT => {
                        endpoints.extend_from_slice(element);
                        tape.endpoints.insert(text(resource, RESOURCE_NAME)?, Bytes::copy_from_slice(element));
                    }
                    _ => {}
                }
            }
        }
        (tape.clusters, tape.all_endpoints) = (clusters.into(), endpoints.into());
        Ok(tape)
    }
}

/// The names and versions of the resources of a type, as a client that has them says.
pub fn versions(responses: &[Recorded], type_url: &str) -> anyhow::Result<Vec<(String, String)>> {
    let of_type = responses.iter().filter(|(of, _)| of == type_url.as_bytes());
    let resources = of_type.flat_map(|(_, response)| wire::fields(response)).filter(|(field, ..)| *field == RESOURCES);
    resources.map(|(_, value, _)| Ok((text(value, RESOURCE_NAME)?, text(value, RESOURCE_VERSION)?))).collect()
}

fn text(resource: &[u8], field: u32) -> anyhow::Result<String> {
    let value = wire::field(resource, field).context("a resource without name or version")?;
    Ok(std::str::from_utf8(value)?.to_owned())
}
