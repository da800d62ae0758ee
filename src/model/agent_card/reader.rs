//! Reads the fields of a JSON object; an error says where, as in `agent_card.skills[2].id`.

use serde_json::{Map, Value};

use crate::model::Invalid;

/// An object, and the way to it.
pub(super) struct Reader<'a> {
    path: String,
    fields: &'a Map<String, Value>,
}

const NEEDED: &str = "it is needed";

impl<'a> Reader<'a> {
    pub(super) fn root(path: &str, value: &'a Value) -> Result<Self, Invalid> {
        Self::at(path.to_owned(), value)
    }

    fn at(path: String, value: &'a Value) -> Result<Self, Invalid> {
        match value.as_object() {
            Some(fields) => Ok(Self { path, fields }),
            None => Err(Invalid::new(path, value, "an object")),
        }
    }

    pub(super) fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// What is null is absent.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    fn needed<T>(&self, name: &str, value: Option<T>) -> Result<T, Invalid> {
        value.ok_or_else(|| Invalid::new(self.field(name), "", NEEDED))
    }

    /// A text that says something.
    pub(super) fn text(&self, name: &str) -> Result<&'a str, Invalid> {
        let text = self.needed(name, self.optional_text(name)?)?;
        if text.is_empty() { Err(Invalid::new(self.field(name), text, "not empty")) } else { Ok(text) }
    }

    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&'a str>, Invalid> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| Invalid::new(self.field(name), value, "a text"));
        self.get(name).map(text).transpose()
    }

    pub(super) fn optional_flag(&self, name: &str) -> Result<(), Invalid> {
        match self.get(name) {
            None | Some(Value::Bool(_)) => Ok(()),
            Some(value) => Err(Invalid::new(self.field(name), value, "true or false")),
        }
    }

    fn list(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Invalid> {
        let list = |value: &'a Value| value.as_array().ok_or_else(|| Invalid::new(self.field(name), value, "a list"));
        self.get(name).map(list).transpose()
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Invalid> {
        self.needed(name, self.optional_texts(name)?)
    }

    pub(super) fn optional_texts(&self, name: &str) -> Result<Option<Vec<String>>, Invalid> {
        let Some(list) = self.list(name)? else { return Ok(None) };
        let text = |(index, value): (usize, &Value)| {
            let field = || format!("{}[{index}]", self.field(name));
            value.as_str().map(str::to_owned).ok_or_else(|| Invalid::new(field(), value, "a text"))
        };
        list.iter().enumerate().map(text).collect::<Result<_, _>>().map(Some)
    }

    pub(super) fn object(&self, name: &str) -> Result<Self, Invalid> {
        self.needed(name, self.optional_object(name)?)
    }

    pub(super) fn optional_object(&self, name: &str) -> Result<Option<Self>, Invalid> {
        self.get(name).map(|value| Self::at(self.field(name), value)).transpose()
    }

    pub(super) fn objects(&self, name: &str) -> Result<Vec<Self>, Invalid> {
        self.needed(name, self.list(name)?)?;
        self.optional_objects(name)
    }

    pub(super) fn optional_objects(&self, name: &str) -> Result<Vec<Self>, Invalid> {
        let list = self.list(name)?.map(Vec::as_slice).unwrap_or_default();
        let object = |(index, value)| Self::at(format!("{}[{index}]", self.field(name)), value);
        list.iter().enumerate().map(object).collect()
    }
}
