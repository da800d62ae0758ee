//! A condition on an instance, such as `instance.labels.language == "python" && instance.has_capability("images")`.
//!
//! CEL's parser reads it; what it says is then checked against what instances have, and evaluated here and not by the CEL
//! library: that one needs each instance converted to its own values, knows no types, and has no limit on what an
//! evaluation may cost. What is the same in both is compared by the tests; what is not there (maps that are written out,
//! optional values, bytes) is refused with its column.
//!
//! - `fields`: what an instance has; `compile`: from CEL to `node`; `value`: what comes out of it; `version`: which
//!   versions of a capability will do; `terms`: the equalities that must hold, by which indexes find candidates.
//! - Evaluating one takes no allocation but for lists and joined texts, at most `MAX_STEPS`, and a small stack.

mod compile;
mod fields;
mod node;
mod terms;
mod value;
mod version;

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use convoy_client::proto::Load;

use self::node::{Node, Scope};
pub use self::terms::{Term, Terms};
use super::read;
use crate::model::{Instance, Invalid};

const VARIABLE: &str = "instance";

/// What a condition may know of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knows {
    /// What is stored: every change of it is seen as it happens.
    Stored,
    /// Also the load as last reported.
    Load,
}

/// Two are equal if their texts are.
#[derive(Clone)]
pub struct InstanceSelector(Arc<Compiled>);

struct Compiled {
    text: Box<str>,
    root: Node,
    terms: Terms,
    uses_load: bool,
    /// How many steps it may take.
    most: u32,
}

/// What came of looking at an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looked {
    pub matches: bool,
    /// What it took: operators, fields and calls, and texts by their length.
    pub steps: u32,
}

impl InstanceSelector {
    /// Reads a condition. An error says at which column.
    pub fn parse(field: &str, text: &str, knows: Knows) -> Result<Self, Invalid> {
        let ((root, uses_load), terms) =
            read(field, text, |expression| Ok((compile::condition(expression, knows)?, terms::of(expression))))?;
        let most = match knows {
            Knows::Stored => node::MAX_STORED_STEPS,
            Knows::Load => node::MAX_STEPS,
        };
        Ok(Self(Arc::new(Compiled { text: text.into(), root, terms, uses_load, most })))
    }

    /// Whether the condition holds. One that cannot be told, because of a label that is not there or too much to look
    /// at, does not.
    pub fn matches(&self, instance: &Instance, load: Option<&Load>) -> bool {
        self.look(instance, load).matches
    }

    pub fn look(&self, instance: &Instance, load: Option<&Load>) -> Looked {
        let scope = Scope::new(instance, load, self.0.most);
        let matches = self.0.root.holds(&scope);
        Looked { matches, steps: scope.steps() }
    }

    /// Equalities that hold for every instance that matches.
    pub fn terms(&self) -> &Terms {
        &self.0.terms
    }

    /// Whether it asks for the load.
    pub fn uses_load(&self) -> bool {
        self.0.uses_load
    }

    pub fn as_str(&self) -> &str {
        &self.0.text
    }
}

impl fmt::Debug for InstanceSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl PartialEq for InstanceSelector {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for InstanceSelector {}
