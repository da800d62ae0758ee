//! Conditions in CEL: compiled once, at the border, and bounded so that evaluating one can neither overflow a stack nor
//! run for long. `Selector` is one on what its caller describes (see `node`), evaluated by the CEL library;
//! `InstanceSelector` one on instances, of which there are many, evaluated by its own means.
//!
//! The CEL library has no cost limit at run time and no types at compile time, so both are made up for here: `bounds`
//! counts before anything is evaluated, `schema` follows the paths of fields.

mod bounds;
pub mod instance;
mod schema;

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, Value,
    common::ast::{EntryExpr, Expr, IdedExpr},
};

pub use self::{
    instance::{InstanceSelector, Knows, Term, Terms},
    schema::{Fields, Shape},
};
use super::{Invalid, limits::quoted};

/// A longer text can overflow the stack of CEL's parser (2 000 terms did, on 2 MiB).
pub const MAX_BYTES: usize = 1024;
/// How deep brackets may nest.
const MAX_DEPTH: u16 = 24;
/// The parser goes on a little after an error, whatever the depth, and takes some 20 KB of stack for each bracket in a
/// build without optimisation: this is enough for a text of nothing else. It is reserved, and not used unless needed.
const PARSER_STACK: usize = 64 * 1024 * MAX_BYTES;
/// What the parser says of an error is quoted up to here.
const MAX_QUOTED_BYTES: usize = 256;

/// CEL's own functions; making them takes longer than using them.
pub(in crate::model) static STANDARD: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A condition on one variable. Two are equal if their texts are.
#[derive(Clone)]
pub struct Selector {
    text: Arc<str>,
    expression: Arc<IdedExpr>,
}

impl Selector {
    /// Reads a condition on `variable`, which has `fields`. An error says at which column.
    pub fn parse(field: &str, text: &str, variable: &'static str, fields: Fields) -> Result<Self, Invalid> {
        let expression = read(field, text, |expression| {
            bounds::check(expression)?;
            schema::check(expression, variable, fields)?;
            Ok(Arc::new(expression.clone()))
        })?;
        Ok(Self { text: text.into(), expression })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the condition holds. One that cannot be told, because of a key that is not there or a value of another
    /// type, does not.
    pub fn matches(&self, variable: &str, value: Value) -> bool {
        let mut context = Context::with_env(STANDARD.clone());
        context.add_variable_from_value(variable, value);
        Value::resolve(&self.expression, &context) == Ok(Value::Bool(true))
    }
}

/// Parses a text, and makes of it what `make` does. An error says at which column.
fn read<T: Send>(
    field: &str,
    text: &str,
    make: impl FnOnce(&IdedExpr) -> Result<T, Fault> + Send,
) -> Result<T, Invalid> {
    let invalid = |rule: String| Invalid::new(field, text, rule);
    if text.len() > MAX_BYTES {
        return Err(invalid(format!("at most {MAX_BYTES} bytes")));
    }
    let compile = || {
        let parser = STANDARD.parser().max_recursion_depth(MAX_DEPTH);
        let (expression, source) = parser.parse_with_source_info(text).map_err(|errors| syntax(&errors))?;
        make(&expression).map_err(|fault| {
            let column = source.offset_for(fault.at).map_or(0, |(start, _)| start as usize);
            format!("column {}: {}", column + 1 + fault.skip, fault.rule)
        })
    };
    on_large_stack(compile).map_err(invalid)
}

fn on_large_stack<T: Send>(run: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("selector".into()).stack_size(PARSER_STACK);
        let running = thread.spawn_scoped(scope, run).map_err(|error| format!("it cannot be read now: {error}"))?;
        // A panic of the parser is a fault of the text as well.
        running.join().unwrap_or_else(|_| Err("an expression in CEL".into()))
    })
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

/// What is wrong with an expression, and where: a node of it, and how many columns after its own.
#[derive(Debug)]
struct Fault {
    at: u64,
    skip: usize,
    rule: String,
}

impl Fault {
    fn new(at: &IdedExpr, rule: impl Into<String>) -> Self {
        Self { at: at.id, skip: 0, rule: rule.into() }
    }
}

/// The parser's first error, as one line.
fn syntax(errors: &cel::ParseErrors) -> String {
    let Some(first) = errors.errors.first() else { return "an expression in CEL".into() };
    let message: String = quoted(first.msg.lines().next().unwrap_or_default(), MAX_QUOTED_BYTES);
    format!("column {}: {message}", first.pos.1.max(1))
}

/// The expressions directly inside one.
fn children(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(of) => {
            vec![&of.iter_range, &of.accu_init, &of.loop_cond, &of.loop_step, &of.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| values(&entry.expr)).collect(),
        Expr::Struct(of) => of.entries.iter().flat_map(|entry| values(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn values(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// JSON as a value of CEL.
pub fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::Null,
        Json::Bool(is) => Value::Bool(*is),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::Int(whole),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => text.clone().into(),
        Json::Array(items) => Value::List(Arc::new(items.iter().map(value).collect())),
        Json::Object(fields) => map(fields.iter().map(|(name, of)| (name.clone(), value(of)))),
    }
}

/// Named values as one of CEL.
pub fn map(fields: impl IntoIterator<Item = (String, Value)>) -> Value {
    fields.into_iter().collect::<std::collections::HashMap<String, Value>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCALITY: Fields = &[("zone", Shape::Plain)];
    const FIELDS: Fields = &[("id", Shape::Plain), ("locality", Shape::Fields(LOCALITY)), ("metadata", Shape::Free)];

    fn parse(text: &str) -> Result<Selector, Invalid> {
        Selector::parse("selector", text, "node", FIELDS)
    }

    #[test]
    fn mistakes_say_where_and_how_to_mend_them() {
        for (text, says) in [
            ("", "column 1: "),
            ("node.id ==", "column 11: "),
            ("nod.id == 'a'", "column 1: there is no \"nod\", did you mean \"node\"?"),
            ("node.idd == 'a'", "column 6: there is no \"idd\", did you mean \"id\"?"),
            ("true && node.locality.zoen == 'a'", "column 23: there is no \"zoen\", did you mean \"zone\"?"),
            ("node.xyzzy == 'a'", "column 6: there is no \"xyzzy\": it is one of id, locality, metadata"),
            ("node.id.length == 1", "column 9: \"id\" has no fields"),
            ("node['id'] == 'a'", "its fields are written with a dot"),
            ("has(node.idd)", "did you mean \"id\"?"),
            ("sise(node.id) == 3", "there is no function \"sise\", did you mean \"size\"?"),
            ("node.id.startWith('a')", "there is no function \"startWith\", did you mean \"startsWith\"?"),
            ("node.id", "it must be true or false"),
            ("'a'", "it must be true or false"),
            ("size(node.id)", "it must be true or false"),
            ("node.metadata.a.map(x, x)", "it must be true or false"),
            ("node.id.matches('(')", "column "),
            ("node.id.matches(node.id)", "a text in quotes"),
            ("[1].exists(x, node.id.matches('a'))", "not inside a loop"),
            ("[1].all(x, [2].all(y, x == y))", "a loop inside a loop"),
            ("[[2].all(y, y == 2)].all(x, x)", "a loop inside a loop"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.field == "selector" && error.rule.contains(says), "{text}: {}", error.rule);
        }
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_evaluated() {
        let long = |count: usize, text: &str| text.repeat(count);
        let list = |count: usize| format!("[{}].exists(x, x == 1)", vec!["1"; count].join(","));
        for (text, good) in [
            (format!("true{}", long(100, "&&true")), true),
            (format!("1{}==1", long(30, "+1")), true),
            (format!("1{}==1", long(40, "+1")), false),
            (format!("node.metadata{} == 1", long(25, ".b")), true),
            (format!("node.metadata{} == 1", long(400, ".b")), false),
            (format!("node.metadata{} == 1", long(300, "[0]")), false),
            (format!("{}true", long(500, "!")), true),
            (format!("{}true{}", long(20, "("), long(20, ")")), true),
            (format!("{}true{}", long(40, "("), long(40, ")")), false),
            (format!("{}true{}", long(400, "("), long(400, ")")), false),
            (list(32), true),
            (list(33), false),
            (format!("'{}' == 'a'", long(1100, "x")), false),
        ] {
            assert_eq!(parse(&text).is_ok(), good, "{text}: {:?}", parse(&text));
        }
    }

    #[test]
    fn unknown_is_no_match() {
        let of = |metadata: &str| {
            let json = serde_json::from_str(metadata).expect("JSON");
            map([("id".to_owned(), "web-1".into()), ("metadata".to_owned(), value(&json))])
        };
        let metadata = r#"{"role": "edge", "tags": ["a", "b"], "port": 80, "weight": 80.0, "on": true, "no": null}"#;
        for (text, expected) in [
            ("node.id == 'web-1'", true),
            ("node.id.startsWith('web-')", true),
            ("node.id.matches('^web-[0-9]+$')", true),
            ("node.metadata.role == 'edge'", true),
            ("node.metadata['role'] in ['edge', 'gateway']", true),
            ("'a' in node.metadata.tags", true),
            ("node.metadata.tags.exists(tag, tag == 'b')", true),
            ("node.metadata.port == 80 && node.metadata.weight == 80 && node.metadata.port == 80.0", true),
            ("node.metadata.port > 79", true),
            ("node.metadata.on", true),
            ("node.metadata.role", false),
            ("node.metadata.none == 'edge'", false),
            ("node.metadata.none != 'edge'", false),
            ("has(node.metadata.none) || node.metadata.no == null", true),
            ("has(node.metadata.role) && !has(node.metadata.none)", true),
            ("node.metadata.role > 7", false),
            ("1 / 0 == 1", false),
        ] {
            assert_eq!(parse(text).expect(text).matches("node", of(metadata)), expected, "{text}");
        }
    }

    /// Whatever somebody writes ends soon and on a small stack, where a worker of the runtime would have to take it.
    #[test]
    fn no_text_overflows_the_stack_or_runs_for_long() {
        let run = || {
            let parts = [
                "1+",
                "!",
                "-",
                "(",
                "[",
                "{",
                ".b",
                "[0]",
                "a?",
                "b:",
                "node",
                ".metadata",
                "&&",
                "'x'",
                "true",
                ".all(x,",
                ")",
                "==",
                " in ",
                ".matches(",
                "\"",
                "é",
            ];
            for part in parts {
                for other in parts {
                    let text: String = [part, other].iter().cycle().take(2000).copied().collect();
                    for length in [1024, 150] {
                        let end = (0..=length.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
                        let cut = &text[..end.unwrap_or(0)];
                        for text in [cut, &format!("true || {}", cut.trim_end_matches(part))] {
                            if let Ok(selector) = parse(text) {
                                selector.matches("node", map([("metadata".to_owned(), Value::Null)]));
                            }
                        }
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(run);
        thread.expect("a thread").join().expect("nothing panics");
    }
}
