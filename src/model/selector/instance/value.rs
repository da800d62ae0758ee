//! What comes out of an expression: borrowed from the instance, or from the condition's text, where it can be.
//!
//! Equality, order and arithmetic are CEL's: numbers of different types compare by their value and do not add up; what is
//! of different types is not equal; what has no order, or overflows, cannot be told.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap, rc::Rc};

use super::node::Fail;
use crate::model::{Capability, CheckState, Labels, Port};

/// What is known of an expression before it is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Nothing.
    Any,
    Null,
    Bool,
    Int,
    UInt,
    Double,
    Text,
    /// A text that is one of the verdicts.
    Verdict,
    Labels,
    Metrics,
    Capability,
    Capabilities,
    Port,
    Ports,
    Check,
    Checks,
    /// Of whatever.
    List,
    Texts,
}

impl Type {
    /// As it is called in an error.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Any => "a value",
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Int => "a whole number",
            Self::UInt => "a whole number with a u",
            Self::Double => "a number with a fraction",
            Self::Text | Self::Verdict => "a text",
            Self::Labels | Self::Metrics => "a map",
            Self::Capability => "a capability",
            Self::Port => "a port",
            Self::Check => "a check",
            Self::Capabilities | Self::Ports | Self::Checks | Self::List | Self::Texts => "a list",
        }
    }

    pub fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Verdict)
    }

    pub fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::UInt | Self::Double)
    }

    pub fn is_map(self) -> bool {
        matches!(self, Self::Labels | Self::Metrics)
    }

    pub fn is_list(self) -> bool {
        matches!(self, Self::Capabilities | Self::Ports | Self::Checks | Self::List | Self::Texts)
    }

    /// What a loop over it sees.
    pub fn item(self) -> Self {
        match self {
            Self::Capabilities => Self::Capability,
            Self::Ports => Self::Port,
            Self::Checks => Self::Check,
            // The names.
            Self::Labels | Self::Metrics | Self::Texts => Self::Text,
            _ => Self::Any,
        }
    }

    /// Whether values of both could be equal.
    pub fn meets(self, other: Self) -> bool {
        let any = self == Self::Any || other == Self::Any;
        any || self == other
            || self.is_text() && other.is_text()
            || self.is_number() && other.is_number()
            || self.is_list() && other.is_list()
    }
}

#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Cow<'a, str>),
    Labels(&'a Labels),
    Metrics(&'a BTreeMap<String, f64>),
    Capability(&'a Capability),
    Capabilities(&'a [Capability]),
    Port(&'a Port),
    Ports(&'a [Port]),
    Check(&'a CheckState),
    Checks(&'a [CheckState]),
    List(Rc<[Value<'a>]>),
}

impl<'a> Value<'a> {
    pub fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }

    /// How many items, entries or letters it has.
    pub fn size(&self) -> Result<usize, Fail> {
        Ok(match self {
            Self::Text(text) => text.chars().count(),
            Self::Labels(labels) => labels.len(),
            Self::Metrics(metrics) => metrics.len(),
            Self::Capabilities(list) => list.len(),
            Self::Ports(list) => list.len(),
            Self::Checks(list) => list.len(),
            Self::List(list) => list.len(),
            _ => return Err(Fail::Unknown),
        })
    }

    /// What it takes to look at all of it, in steps: as many as it has items, or eighths of its bytes.
    pub fn weight(&self) -> usize {
        match self {
            Self::Text(text) => text.len() / 8,
            Self::Labels(labels) => labels.bytes() / 8,
            Self::Metrics(metrics) => metrics.len(),
            Self::Capability(capability) => 4 + capability.attributes.bytes() / 8 + capability.description.len() / 8,
            Self::Capabilities(list) => list.iter().map(|item| Value::Capability(item).weight()).sum(),
            Self::Ports(list) => list.len(),
            Self::Checks(list) => list.len() * 8,
            Self::List(list) => list.iter().map(|item| 1 + item.weight()).sum(),
            _ => 0,
        }
    }

    /// A map's names.
    pub fn items(&self) -> Result<Box<dyn Iterator<Item = Value<'a>> + 'a>, Fail> {
        Ok(match self {
            Self::Labels(labels) => Box::new(labels.iter().map(|(name, _)| Value::text(name))),
            Self::Metrics(metrics) => Box::new(metrics.keys().map(|name| Value::text(name))),
            Self::Capabilities(list) => Box::new(list.iter().map(Value::Capability)),
            Self::Ports(list) => Box::new(list.iter().map(Value::Port)),
            Self::Checks(list) => Box::new(list.iter().map(Value::Check)),
            Self::List(list) => {
                let list = list.clone();
                Box::new((0..list.len()).map(move |index| list[index].clone()))
            }
            _ => return Err(Fail::Unknown),
        })
    }

    fn at(&self, index: usize) -> Option<Value<'a>> {
        match self {
            Self::Capabilities(list) => list.get(index).map(Value::Capability),
            Self::Ports(list) => list.get(index).map(Value::Port),
            Self::Checks(list) => list.get(index).map(Value::Check),
            Self::List(list) => list.get(index).cloned(),
            _ => None,
        }
    }

    /// `self[index]`
    pub fn get(&self, index: &Value<'_>) -> Result<Value<'a>, Fail> {
        let found = match (self, index) {
            (Self::Labels(labels), Value::Text(name)) => labels.get(name).map(Value::text),
            (Self::Metrics(metrics), Value::Text(name)) => metrics.get(&**name).map(|value| Value::Double(*value)),
            (_, index) => index.as_index().and_then(|index| self.at(index)),
        };
        found.ok_or(Fail::Unknown)
    }

    fn as_index(&self) -> Option<usize> {
        match self {
            Self::Int(index) => usize::try_from(*index).ok(),
            Self::UInt(index) => usize::try_from(*index).ok(),
            _ => None,
        }
    }

    /// `value in self`
    pub fn contains(&self, value: &Value<'_>) -> Result<bool, Fail> {
        match (self, value) {
            (Self::Labels(labels), Value::Text(name)) => Ok(labels.get(name).is_some()),
            (Self::Metrics(metrics), Value::Text(name)) => Ok(metrics.contains_key(&**name)),
            (Self::Labels(_) | Self::Metrics(_), Value::Bool(_) | Value::Int(_) | Value::UInt(_)) => Ok(false),
            (Self::Labels(_) | Self::Metrics(_), _) => Err(Fail::Unknown),
            _ => Ok(self.items()?.any(|item| item.equals(value))),
        }
    }

    pub fn equals(&self, other: &Value<'_>) -> bool {
        match (self, other) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Text(a), Value::Text(b)) => a == b,
            (Self::Labels(a), Value::Labels(b)) => a == b,
            (Self::Metrics(a), Value::Metrics(b)) => a == b,
            (Self::Capability(a), Value::Capability(b)) => a == b,
            (Self::Port(a), Value::Port(b)) => a == b,
            (Self::Check(a), Value::Check(b)) => a == b,
            (a, b) if a.is_list() && b.is_list() => {
                let same = a.size().ok() == b.size().ok();
                let (Ok(mut a), Ok(mut b)) = (a.items(), b.items()) else { return false };
                same && a.by_ref().zip(b.by_ref()).all(|(a, b)| a.equals(&b))
            }
            (a, b) => a.numbers(b).is_some_and(|order| order == Some(Ordering::Equal)),
        }
    }

    fn is_list(&self) -> bool {
        matches!(self, Self::Capabilities(_) | Self::Ports(_) | Self::Checks(_) | Self::List(_))
    }

    pub fn compare(&self, other: &Value<'_>) -> Result<Ordering, Fail> {
        match (self, other) {
            (Self::Bool(a), Value::Bool(b)) => Ok(a.cmp(b)),
            (Self::Text(a), Value::Text(b)) => Ok(a.cmp(b)),
            (a, b) => a.numbers(b).flatten().ok_or(Fail::Unknown),
        }
    }

    /// The order of two numbers, if they are and have one.
    fn numbers(&self, other: &Value<'_>) -> Option<Option<Ordering>> {
        use Value::{Double, Int, UInt};
        Some(match (self, other) {
            (Int(a), Int(b)) => Some(a.cmp(b)),
            (UInt(a), UInt(b)) => Some(a.cmp(b)),
            (Int(a), UInt(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (UInt(a), Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
            (Double(a), Double(b)) => a.partial_cmp(b),
            (Double(a), Int(b)) => a.partial_cmp(&(*b as f64)),
            (Int(a), Double(b)) => (*a as f64).partial_cmp(b),
            (Double(a), UInt(b)) => a.partial_cmp(&(*b as f64)),
            (UInt(a), Double(b)) => (*a as f64).partial_cmp(b),
            _ => return None,
        })
    }

    pub fn calculate(&self, operator: Operator, other: &Value<'a>) -> Result<Value<'a>, Fail> {
        use Value::{Double, Int, List, Text, UInt};
        let found = match (self, other) {
            (Int(a), Int(b)) => match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide => a.checked_div(*b),
                Operator::Remainder => a.checked_rem(*b),
            }
            .map(Int),
            (UInt(a), UInt(b)) => match operator {
                Operator::Add => a.checked_add(*b),
                Operator::Subtract => a.checked_sub(*b),
                Operator::Multiply => a.checked_mul(*b),
                Operator::Divide => a.checked_div(*b),
                Operator::Remainder => a.checked_rem(*b),
            }
            .map(UInt),
            (Double(a), Double(b)) => match operator {
                Operator::Add => Some(a + b),
                Operator::Subtract => Some(a - b),
                Operator::Multiply => Some(a * b),
                Operator::Divide => Some(a / b),
                Operator::Remainder => None,
            }
            .map(Double),
            (Text(a), Text(b)) if operator == Operator::Add => Some(Text(format!("{a}{b}").into())),
            (a, b) if operator == Operator::Add && a.is_list() && b.is_list() => {
                Some(List(a.items()?.chain(b.items()?).collect()))
            }
            _ => None,
        };
        found.ok_or(Fail::Unknown)
    }

    pub fn negate(&self) -> Result<Value<'a>, Fail> {
        match self {
            Self::Int(number) => number.checked_neg().map(Value::Int).ok_or(Fail::Unknown),
            Self::Double(number) => Ok(Value::Double(-number)),
            _ => Err(Fail::Unknown),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}
