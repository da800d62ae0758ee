//! A condition as it is evaluated, and its evaluation.
//!
//! What cannot be told (a label that is not there, a number that overflows) is an error, which `||` and `&&` swallow if
//! their other side decides, and a loop if another item does: CEL's rules. What has used up its steps has failed, whatever
//! stands beside it.

use std::{cell::Cell, cmp::Ordering};

use convoy_client::proto::Load;
use regex::Regex;

use super::{
    fields::{self, Field, Object},
    value::{Operator, Value},
    version::Versions,
};
use crate::model::Instance;

/// What looking at one instance may cost: a loop over 256 capabilities with 100 operators takes a quarter of it, and all of
/// it a millisecond or two.
pub const MAX_STEPS: u32 = 100_000;
/// The same of a condition that is kept (of a watch, of a virtual service): it is evaluated at every change that could concern
/// it, for all who keep one. A look at each of 256 capabilities with ten operators has room.
pub const MAX_STORED_STEPS: u32 = 5_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail {
    /// It cannot be told.
    Unknown,
    /// It would take too long.
    Spent,
}

/// What an evaluation sees.
pub struct Scope<'a> {
    pub instance: &'a Instance,
    pub load: Option<&'a Load>,
    /// What the loop around is at. There is only one: loops do not stand inside loops.
    item: Cell<Option<Value<'a>>>,
    most: u32,
    left: Cell<u32>,
}

impl<'a> Scope<'a> {
    /// With at most so many steps.
    pub fn new(instance: &'a Instance, load: Option<&'a Load>, most: u32) -> Self {
        Self { instance, load, item: Cell::new(None), most, left: Cell::new(most) }
    }

    pub fn steps(&self) -> u32 {
        self.most - self.left.get()
    }

    fn take(&self, steps: usize) -> Result<(), Fail> {
        let left = u32::try_from(steps).ok().and_then(|steps| self.left.get().checked_sub(steps));
        self.left.set(left.unwrap_or(0));
        left.map(|_| ()).ok_or(Fail::Spent)
    }

    fn item(&self) -> Result<Value<'a>, Fail> {
        let item = self.item.take();
        self.item.set(item.clone());
        item.ok_or(Fail::Unknown)
    }
}

#[derive(Debug)]
pub enum Constant {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Box<str>),
}

impl Constant {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(is) => Value::Bool(*is),
            Self::Int(number) => Value::Int(*number),
            Self::UInt(number) => Value::UInt(*number),
            Self::Double(number) => Value::Double(*number),
            Self::Text(text) => Value::text(text),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextTest {
    Contains,
    EndsWith,
    StartsWith,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    Bool,
    Double,
    Int,
    Text,
    UInt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loop {
    All,
    Exists,
    ExistsOne,
}

#[derive(Debug)]
pub enum Node {
    Constant(Constant),
    Field(Field),
    HasField(Field),
    HasObject(Object),
    Item,
    /// `of.name`, of a map, a capability, a port or a check.
    Select(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    Index(Box<[Node; 2]>),
    List(Box<[Node]>),
    Not(Box<Node>),
    And(Box<[Node]>),
    Or(Box<[Node]>),
    Choice(Box<[Node; 3]>),
    Compare(Comparison, Box<[Node; 2]>),
    /// `x in ["a", "b"]`
    OneOf(Box<Node>, Box<[Constant]>),
    In(Box<[Node; 2]>),
    Calculate(Operator, Box<[Node; 2]>),
    Negate(Box<Node>),
    Size(Box<Node>),
    Convert(Conversion, Box<Node>),
    Test(TextTest, Box<[Node; 2]>),
    Matches(Box<Node>, Box<Regex>),
    HasCapability(Box<Node>, Option<Versions>),
    /// The first of that name.
    Capability(Box<Node>),
    Loop(Loop, Box<[Node; 2]>),
    /// The range, which items, and what is made of them.
    Map(Box<Node>, Option<Box<Node>>, Box<Node>),
}

impl Node {
    pub fn holds<'a>(&'a self, scope: &Scope<'a>) -> bool {
        self.test(scope) == Ok(true)
    }

    fn test<'a>(&'a self, scope: &Scope<'a>) -> Result<bool, Fail> {
        match self.value(scope)? {
            Value::Bool(is) => Ok(is),
            _ => Err(Fail::Unknown),
        }
    }

    fn value<'a>(&'a self, scope: &Scope<'a>) -> Result<Value<'a>, Fail> {
        scope.take(1)?;
        Ok(match self {
            Self::Constant(constant) => constant.value(),
            Self::Field(field) => field.get(scope)?,
            Self::HasField(field) => Value::Bool(field.get(scope).is_ok()),
            Self::HasObject(object) => Value::Bool(object.is_there(scope)),
            Self::Item => scope.item()?,
            Self::Select(of, name) => select(&of.value(scope)?, name)?,
            Self::Has(of, name) => Value::Bool(has(&of.value(scope)?, name)?),
            Self::Index(parts) => {
                let [of, index] = &**parts;
                of.value(scope)?.get(&index.value(scope)?)?
            }
            Self::List(items) => {
                let items: Result<_, _> = items.iter().map(|item| item.value(scope)).collect();
                Value::List(items?)
            }
            Self::Not(of) => Value::Bool(!of.test(scope)?),
            Self::And(parts) => Value::Bool(fold(parts.iter().map(|part| part.test(scope)), false)?),
            Self::Or(parts) => Value::Bool(fold(parts.iter().map(|part| part.test(scope)), true)?),
            Self::Choice(parts) => {
                let [condition, then, otherwise] = &**parts;
                if condition.test(scope)? { then.value(scope)? } else { otherwise.value(scope)? }
            }
            Self::Compare(comparison, parts) => {
                let (a, b) = both(parts, scope)?;
                scope.take(a.weight().min(b.weight()))?;
                Value::Bool(comparison.test(&a, &b)?)
            }
            Self::OneOf(of, constants) => {
                let of = of.value(scope)?;
                scope.take(constants.len() / 4)?;
                Value::Bool(constants.iter().any(|constant| of.equals(&constant.value())))
            }
            Self::In(parts) => {
                let (item, list) = both(parts, scope)?;
                scope.take(list.weight())?;
                Value::Bool(list.contains(&item)?)
            }
            Self::Calculate(operator, parts) => {
                let (a, b) = both(parts, scope)?;
                scope.take(a.weight() + b.weight())?;
                a.calculate(*operator, &b)?
            }
            Self::Negate(of) => of.value(scope)?.negate()?,
            Self::Size(of) => {
                let of = of.value(scope)?;
                scope.take(of.weight())?;
                Value::Int(i64::try_from(of.size()?).map_err(|_| Fail::Unknown)?)
            }
            Self::Convert(conversion, of) => conversion.of(of.value(scope)?)?,
            Self::Test(test, parts) => {
                let (text, part) = both(parts, scope)?;
                scope.take(text.weight())?;
                Value::Bool(test.of(&text, &part)?)
            }
            Self::Matches(of, pattern) => {
                let Value::Text(text) = of.value(scope)? else { return Err(Fail::Unknown) };
                // Some patterns take hundreds of states to each letter.
                scope.take(text.len())?;
                Value::Bool(pattern.is_match(&text))
            }
            Self::HasCapability(name, versions) => {
                let Value::Text(name) = name.value(scope)? else { return Err(Fail::Unknown) };
                let capabilities = &scope.instance.spec.capabilities;
                scope.take(capabilities.len() / 4)?;
                let fits = |version: &str| versions.as_ref().is_none_or(|versions| versions.allow(version));
                Value::Bool(capabilities.iter().any(|of| *of.name == *name && fits(&of.version)))
            }
            Self::Capability(name) => {
                let Value::Text(name) = name.value(scope)? else { return Err(Fail::Unknown) };
                let capabilities = &scope.instance.spec.capabilities;
                scope.take(capabilities.len() / 4)?;
                Value::Capability(capabilities.iter().find(|of| *of.name == *name).ok_or(Fail::Unknown)?)
            }
            Self::Loop(kind, parts) => {
                let [range, body] = &**parts;
                Value::Bool(kind.run(range.value(scope)?, body, scope)?)
            }
            Self::Map(range, guard, make) => {
                let mut made = Vec::new();
                for item in range.value(scope)?.items()? {
                    scope.item.set(Some(item));
                    let wanted = match guard {
                        Some(guard) => guard.test(scope)?,
                        None => true,
                    };
                    if wanted {
                        made.push(make.value(scope)?);
                    }
                }
                Value::List(made.into())
            }
        })
    }
}

fn both<'a>(parts: &'a [Node; 2], scope: &Scope<'a>) -> Result<(Value<'a>, Value<'a>), Fail> {
    let [a, b] = parts;
    Ok((a.value(scope)?, b.value(scope)?))
}

/// Joins conditions by `||` (one that is true decides) or `&&` (one that is false does): an error counts only if none
/// decides.
fn fold(parts: impl Iterator<Item = Result<bool, Fail>>, decides: bool) -> Result<bool, Fail> {
    let mut failed = false;
    for part in parts {
        match part {
            Ok(is) if is == decides => return Ok(decides),
            Ok(_) => {}
            Err(Fail::Unknown) => failed = true,
            Err(Fail::Spent) => return Err(Fail::Spent),
        }
    }
    if failed { Err(Fail::Unknown) } else { Ok(!decides) }
}

fn select<'a>(of: &Value<'a>, name: &str) -> Result<Value<'a>, Fail> {
    match of {
        Value::Labels(labels) => labels.get(name).map(Value::text).ok_or(Fail::Unknown),
        Value::Metrics(metrics) => metrics.get(name).map(|value| Value::Double(*value)).ok_or(Fail::Unknown),
        Value::Capability(capability) => fields::of_capability(capability, name),
        Value::Port(port) => fields::of_port(port, name),
        Value::Check(check) => fields::of_check(check, name),
        _ => Err(Fail::Unknown),
    }
}

fn has(of: &Value<'_>, name: &str) -> Result<bool, Fail> {
    match of {
        Value::Labels(_) | Value::Metrics(_) | Value::Capability(_) | Value::Port(_) | Value::Check(_) => {
            Ok(select(of, name).is_ok())
        }
        _ => Err(Fail::Unknown),
    }
}

impl Comparison {
    fn test(self, a: &Value<'_>, b: &Value<'_>) -> Result<bool, Fail> {
        let order = |wanted: fn(Ordering) -> bool| a.compare(b).map(wanted);
        match self {
            Self::Equal => Ok(a.equals(b)),
            Self::NotEqual => Ok(!a.equals(b)),
            Self::Less => order(Ordering::is_lt),
            Self::LessOrEqual => order(Ordering::is_le),
            Self::More => order(Ordering::is_gt),
            Self::MoreOrEqual => order(Ordering::is_ge),
        }
    }
}

impl TextTest {
    fn of(self, text: &Value<'_>, part: &Value<'_>) -> Result<bool, Fail> {
        let (Value::Text(text), Value::Text(part)) = (text, part) else { return Err(Fail::Unknown) };
        Ok(match self {
            Self::Contains => text.contains(&**part),
            Self::EndsWith => text.ends_with(&**part),
            Self::StartsWith => text.starts_with(&**part),
        })
    }
}

/// The first number that is too large for an `i64`, and for a `u64`.
const TWO_TO_63: f64 = 9_223_372_036_854_775_808.0;
const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;

impl Conversion {
    fn of<'a>(self, value: Value<'a>) -> Result<Value<'a>, Fail> {
        let found = match (self, value) {
            (Self::Bool, Value::Bool(is)) => Some(Value::Bool(is)),
            (Self::Bool, Value::Text(text)) => match &*text {
                "true" | "TRUE" | "True" | "t" | "1" => Some(Value::Bool(true)),
                "false" | "FALSE" | "False" | "f" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            (Self::Double, Value::Double(number)) => Some(Value::Double(number)),
            (Self::Double, Value::Int(number)) => Some(Value::Double(number as f64)),
            (Self::Double, Value::UInt(number)) => Some(Value::Double(number as f64)),
            (Self::Double, Value::Text(text)) => text.parse().ok().map(Value::Double),
            (Self::Int, Value::Int(number)) => Some(Value::Int(number)),
            (Self::Int, Value::UInt(number)) => i64::try_from(number).ok().map(Value::Int),
            (Self::Int, Value::Double(number)) => {
                let fits = number > -TWO_TO_63 && number < TWO_TO_63;
                fits.then_some(Value::Int(number as i64))
            }
            (Self::Int, Value::Text(text)) => text.parse().ok().map(Value::Int),
            (Self::UInt, Value::UInt(number)) => Some(Value::UInt(number)),
            (Self::UInt, Value::Int(number)) => u64::try_from(number).ok().map(Value::UInt),
            (Self::UInt, Value::Double(number)) => {
                (0.0..TWO_TO_64).contains(&number).then_some(Value::UInt(number as u64))
            }
            (Self::UInt, Value::Text(text)) => text.parse().ok().map(Value::UInt),
            (Self::Text, Value::Text(text)) => Some(Value::Text(text)),
            (Self::Text, Value::Bool(is)) => Some(Value::text(if is { "true" } else { "false" })),
            (Self::Text, Value::Int(number)) => Some(Value::Text(number.to_string().into())),
            (Self::Text, Value::UInt(number)) => Some(Value::Text(number.to_string().into())),
            (Self::Text, Value::Double(number)) => Some(Value::Text(number.to_string().into())),
            _ => None,
        };
        found.ok_or(Fail::Unknown)
    }
}

impl Loop {
    fn run<'a>(self, range: Value<'a>, body: &'a Node, scope: &Scope<'a>) -> Result<bool, Fail> {
        let steps = range.items()?.map(|item| {
            scope.item.set(Some(item));
            body.test(scope)
        });
        match self {
            Self::All => fold(steps, false),
            Self::Exists => fold(steps, true),
            Self::ExistsOne => {
                let mut count = 0;
                for step in steps {
                    count += usize::from(step?);
                }
                Ok(count == 1)
            }
        }
    }
}
