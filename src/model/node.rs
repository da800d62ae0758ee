//! An xDS client as it describes itself, and a condition on that.

use super::{Invalid, Locality, Namespace};

/// What selectors over nodes may look at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub id: String,
    pub cluster: String,
    pub namespace: Namespace,
    pub user_agent: String,
    pub locality: Locality,
    /// As the client gave it.
    pub metadata: serde_json::Value,
}

/// A condition on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSelector {
    text: String,
}

impl NodeSelector {
    pub fn parse(field: &str, text: &str) -> Result<Self, Invalid> {
        Err(Invalid::new(field, text, "selectors are not read yet"))
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn matches(&self, _: &Node) -> bool {
        false
    }
}
