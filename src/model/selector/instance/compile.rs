//! From what CEL's parser read to what is evaluated. Every name is looked up, and types are followed as far as they are
//! known: what could never hold, and would silently match nothing, is refused with its column.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators};
use regex::RegexBuilder;

use super::{
    Knows, VARIABLE,
    fields::{self, Entries, Entry, Object},
    node::{Comparison, Constant, Conversion, Loop, Node, TextTest},
    value::{Operator, Type},
    version::Versions,
};
use crate::model::selector::{Fault, bounds, schema::unknown};

/// A compiled pattern may take so many bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;
const METHODS: [&str; 8] =
    ["capability", "contains", "endsWith", "has_capability", "in", "matches", "size", "startsWith"];
const FUNCTIONS: [&str; 8] = ["bool", "double", "has", "int", "matches", "size", "string", "uint"];
const LOOPS: [&str; 5] = ["all", "exists", "exists_one", "filter", "map"];

/// The whole of a condition, and whether it asks for the load.
pub fn condition(root: &IdedExpr, knows: Knows) -> Result<(Node, bool), Fault> {
    bounds::check(root)?;
    let mut compiler = Compiler { knows, bound: None, uses_load: false };
    Ok((compiler.boolean(root)?, compiler.uses_load))
}

struct Compiler<'a> {
    knows: Knows,
    /// What the loop around names, and what it is.
    bound: Option<(&'a str, Type)>,
    uses_load: bool,
}

/// An expression, or a part of `instance` that is no value but has fields.
enum Compiled {
    Node(Node, Type),
    Object(Option<Object>, Entries),
}

type Typed = (Node, Type);

impl<'a> Compiler<'a> {
    fn boolean(&mut self, at: &'a IdedExpr) -> Result<Node, Fault> {
        let (node, of) = self.value(at)?;
        match of {
            Type::Bool | Type::Any => Ok(node),
            of => Err(Fault::new(at, format!("it must be true or false, and is {}", of.as_str()))),
        }
    }

    fn text(&mut self, at: &'a IdedExpr, what: &str) -> Result<Node, Fault> {
        let (node, of) = self.value(at)?;
        if of.is_text() || of == Type::Any {
            return Ok(node);
        }
        Err(Fault::new(at, format!("{what} takes a text, not {}", of.as_str())))
    }

    fn value(&mut self, at: &'a IdedExpr) -> Result<Typed, Fault> {
        match self.compile(at)? {
            Compiled::Node(node, of) => Ok((node, of)),
            Compiled::Object(object, entries) => {
                let names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
                let owner = object.map_or(VARIABLE.into(), |object| format!("{VARIABLE}.{}", object.as_str()));
                Err(Fault::new(at, format!("name a field, as in {owner}.{}: it has {}", names[0], names.join(", "))))
            }
        }
    }

    fn compile(&mut self, at: &'a IdedExpr) -> Result<Compiled, Fault> {
        let (node, of) = match &at.expr {
            Expr::Literal(literal) => {
                let (constant, of) = constant(at, literal)?;
                (Node::Constant(constant), of)
            }
            Expr::Ident(name) => return self.ident(at, name),
            Expr::Select(select) => return self.select(at, select),
            Expr::Call(call) => self.call(at, call)?,
            Expr::List(list) if list.optional_indices.is_empty() => {
                let items: Vec<Typed> = list.elements.iter().map(|item| self.value(item)).collect::<Result<_, _>>()?;
                let texts = items.iter().all(|(_, of)| of.is_text());
                let nodes: Box<[Node]> = items.into_iter().map(|(node, _)| node).collect();
                (Node::List(nodes), if texts { Type::Texts } else { Type::List })
            }
            Expr::Comprehension(of) => self.comprehension(at, of)?,
            Expr::Map(_) => return Err(Fault::new(at, "maps cannot be written here")),
            Expr::Struct(_) => return Err(Fault::new(at, "messages cannot be written here")),
            Expr::List(_) => return Err(Fault::new(at, "optional values cannot be written here")),
            Expr::Unspecified => return Err(Fault::new(at, "an expression in CEL")),
        };
        Ok(Compiled::Node(node, of))
    }

    fn ident(&self, at: &IdedExpr, name: &str) -> Result<Compiled, Fault> {
        match self.bound {
            Some((bound, of)) if bound == name => Ok(Compiled::Node(Node::Item, of)),
            _ if name == VARIABLE => Ok(Compiled::Object(None, fields::INSTANCE)),
            Some((bound, _)) => Err(Fault::new(at, unknown("", name, &[VARIABLE, bound]))),
            None if fields::INSTANCE.iter().any(|(known, _)| *known == name) => {
                Err(Fault::new(at, format!("there is no {name:?}, did you mean \"{VARIABLE}.{name}\"?")))
            }
            None => Err(Fault::new(at, unknown("", name, &[VARIABLE]))),
        }
    }

    fn select(&mut self, at: &'a IdedExpr, select: &'a SelectExpr) -> Result<Compiled, Fault> {
        // The node stands at its dot.
        let fault = |rule: String| Fault { skip: if select.test { 0 } else { 1 }, ..Fault::new(at, rule) };
        let name = select.field.as_str();
        let (node, of) = match self.compile(&select.operand)? {
            Compiled::Object(_, entries) => {
                let Some((_, entry)) = entries.iter().find(|(known, _)| *known == name) else {
                    let names: Vec<&str> = entries.iter().map(|(name, _)| *name).collect();
                    return Err(fault(unknown("", name, &names)));
                };
                return self.entry(*entry, select.test).ok_or_else(|| {
                    fault("a load is not stored, and changes unseen: it can be asked for in queries only".into())
                });
            }
            Compiled::Node(node, of) => (node, of),
        };
        let known: &[(&str, Type)] = match of {
            Type::Labels => &[],
            Type::Metrics => &[],
            Type::Capability => fields::CAPABILITY,
            Type::Port => fields::PORT,
            Type::Check => fields::CHECK,
            Type::Any => return Err(fault(format!("it cannot be known whether there is a {name:?}"))),
            of if matches!(node, Node::Select(..)) => {
                let rule =
                    format!("{} has no fields; a name with a dot is written in brackets: labels[\"a.b\"]", of.as_str());
                return Err(fault(rule));
            }
            of => return Err(fault(format!("{} has no fields", of.as_str()))),
        };
        let of = match of {
            Type::Labels => Type::Text,
            Type::Metrics => Type::Double,
            _ => match known.iter().find(|(known, _)| *known == name) {
                Some((_, of)) => *of,
                None => {
                    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                    return Err(fault(unknown("", name, &names)));
                }
            },
        };
        if select.test {
            return Ok(Compiled::Node(Node::Has(node.into(), name.into()), Type::Bool));
        }
        Ok(Compiled::Node(Node::Select(node.into(), name.into()), of))
    }

    /// None if it is not known here.
    fn entry(&mut self, entry: Entry, test: bool) -> Option<Compiled> {
        self.uses_load |= matches!(entry, Entry::Object(Object::Load, _));
        Some(match entry {
            Entry::Object(Object::Load, _) if self.knows == Knows::Stored => return None,
            Entry::Field(field, _) if test => Compiled::Node(Node::HasField(field), Type::Bool),
            Entry::Object(object, _) if test => Compiled::Node(Node::HasObject(object), Type::Bool),
            Entry::Field(field, of) => Compiled::Node(Node::Field(field), of),
            Entry::Object(object, entries) => Compiled::Object(Some(object), entries),
        })
    }

    fn call(&mut self, at: &'a IdedExpr, call: &'a CallExpr) -> Result<Typed, Fault> {
        match (&call.target, call.args.as_slice()) {
            (Some(target), args) => self.method(at, &call.func_name, target, args),
            (None, [of]) => self.function(at, &call.func_name, of),
            (None, [a, b]) => self.binary(at, &call.func_name, a, b),
            (None, [condition, then, otherwise]) if call.func_name == operators::CONDITIONAL => {
                let condition = self.boolean(condition)?;
                let ((then, a), (otherwise, b)) = (self.value(then)?, self.value(otherwise)?);
                let of = if a == b { a } else { Type::Any };
                Ok((Node::Choice([condition, then, otherwise].into()), of))
            }
            (None, _) => Err(no_function(at, &call.func_name, call.args.len())),
        }
    }

    fn function(&mut self, at: &'a IdedExpr, name: &str, of: &'a IdedExpr) -> Result<Typed, Fault> {
        let conversion = match name {
            operators::LOGICAL_NOT => return Ok((Node::Not(self.boolean(of)?.into()), Type::Bool)),
            operators::NEGATE => {
                let (node, kind) = self.value(of)?;
                return match kind {
                    Type::Int | Type::Double | Type::Any => Ok((Node::Negate(node.into()), kind)),
                    kind => Err(Fault::new(at, format!("there is no - before {}", kind.as_str()))),
                };
            }
            "size" => return self.size(of),
            "bool" => (Conversion::Bool, Type::Bool),
            "double" => (Conversion::Double, Type::Double),
            "int" => (Conversion::Int, Type::Int),
            "string" => (Conversion::Text, Type::Text),
            "uint" => (Conversion::UInt, Type::UInt),
            _ => return Err(no_function(at, name, 1)),
        };
        let (node, kind) = self.value(of)?;
        let plain = kind.is_number() || kind.is_text() || matches!(kind, Type::Bool | Type::Any);
        if !plain {
            return Err(Fault::new(of, format!("{name}() does not take {}", kind.as_str())));
        }
        Ok((Node::Convert(conversion.0, node.into()), conversion.1))
    }

    fn size(&mut self, of: &'a IdedExpr) -> Result<Typed, Fault> {
        let (node, kind) = self.value(of)?;
        if kind.is_text() || kind.is_list() || kind.is_map() || kind == Type::Any {
            return Ok((Node::Size(node.into()), Type::Int));
        }
        Err(Fault::new(of, format!("size() takes a text, a list or a map, not {}", kind.as_str())))
    }

    fn binary(&mut self, at: &'a IdedExpr, name: &str, a: &'a IdedExpr, b: &'a IdedExpr) -> Result<Typed, Fault> {
        let comparison = match name {
            operators::LOGICAL_AND | operators::LOGICAL_OR => {
                let mut parts = Vec::new();
                self.parts(name, a, &mut parts)?;
                self.parts(name, b, &mut parts)?;
                let parts = parts.into();
                return Ok((
                    if name == operators::LOGICAL_AND { Node::And(parts) } else { Node::Or(parts) },
                    Type::Bool,
                ));
            }
            operators::EQUALS => Comparison::Equal,
            operators::NOT_EQUALS => Comparison::NotEqual,
            operators::LESS => Comparison::Less,
            operators::LESS_EQUALS => Comparison::LessOrEqual,
            operators::GREATER => Comparison::More,
            operators::GREATER_EQUALS => Comparison::MoreOrEqual,
            operators::IN => return self.contains(at, a, b),
            operators::INDEX => return self.index(at, a, b),
            operators::ADD => return self.calculation(at, Operator::Add, a, b),
            operators::SUBSTRACT => return self.calculation(at, Operator::Subtract, a, b),
            operators::MULTIPLY => return self.calculation(at, Operator::Multiply, a, b),
            operators::DIVIDE => return self.calculation(at, Operator::Divide, a, b),
            operators::MODULO => return self.calculation(at, Operator::Remainder, a, b),
            operators::OPT_INDEX | operators::OPT_SELECT => {
                return Err(Fault::new(at, "optional values cannot be written here"));
            }
            _ => return Err(no_function(at, name, 2)),
        };
        let ((left, left_type), (right, right_type)) = (self.value(a)?, self.value(b)?);
        verdict(left_type, b)?;
        verdict(right_type, a)?;
        let equality = matches!(comparison, Comparison::Equal | Comparison::NotEqual);
        if !left_type.meets(right_type) {
            let rule = format!("{} is never equal to {}", left_type.as_str(), right_type.as_str());
            return Err(Fault::new(at, if equality { rule } else { rule.replace("never equal", "not compared") }));
        }
        let ordered = |of: Type| of.is_number() || of.is_text() || matches!(of, Type::Bool | Type::Any);
        if !(equality || ordered(left_type) && ordered(right_type)) {
            return Err(Fault::new(at, format!("{} has no order", left_type.as_str())));
        }
        Ok((Node::Compare(comparison, [left, right].into()), Type::Bool))
    }

    /// The conditions that a chain of the same operator joins.
    fn parts(&mut self, operator: &str, at: &'a IdedExpr, parts: &mut Vec<Node>) -> Result<(), Fault> {
        if let Expr::Call(call) = &at.expr
            && call.func_name == operator
            && let [a, b] = call.args.as_slice()
        {
            self.parts(operator, a, parts)?;
            return self.parts(operator, b, parts);
        }
        parts.push(self.boolean(at)?);
        Ok(())
    }

    fn contains(&mut self, at: &'a IdedExpr, item: &'a IdedExpr, list: &'a IdedExpr) -> Result<Typed, Fault> {
        let (node, of) = self.value(item)?;
        if let Expr::List(written) = &list.expr
            && written.optional_indices.is_empty()
            && written.elements.iter().all(|element| matches!(element.expr, Expr::Literal(_)))
        {
            let mut constants = Vec::new();
            for element in &written.elements {
                let Expr::Literal(literal) = &element.expr else { continue };
                verdict(of, element)?;
                let (constant, kind) = constant(element, literal)?;
                if !of.meets(kind) {
                    let rule = format!("{} is never equal to {}", of.as_str(), kind.as_str());
                    return Err(Fault::new(element, rule));
                }
                constants.push(constant);
            }
            return Ok((Node::OneOf(node.into(), constants.into()), Type::Bool));
        }
        let (range, kind) = self.value(list)?;
        match kind {
            Type::Capabilities if of.is_text() => {
                Err(Fault::new(at, "capabilities are found by name with instance.has_capability(\"name\")"))
            }
            kind if kind == Type::Any || (kind.is_list() || kind.is_map()) && kind.item().meets(of) => {
                Ok((Node::In([node, range].into()), Type::Bool))
            }
            kind if kind.is_list() || kind.is_map() => {
                Err(Fault::new(at, format!("{} is never in a list of these", of.as_str())))
            }
            kind => Err(Fault::new(list, format!("in takes a list or a map, not {}", kind.as_str()))),
        }
    }

    fn index(&mut self, at: &'a IdedExpr, of: &'a IdedExpr, index: &'a IdedExpr) -> Result<Typed, Fault> {
        if let Compiled::Object(..) = self.compile(of)? {
            return Err(Fault::new(at, "its fields are written with a dot, as in instance.id"));
        }
        let ((node, kind), (index, index_type)) = (self.value(of)?, self.value(index)?);
        let by_name = kind.is_map() && (index_type.is_text() || index_type == Type::Any);
        let by_number = kind.is_list() && matches!(index_type, Type::Int | Type::UInt | Type::Any);
        if !by_name && !by_number && kind != Type::Any {
            let rule = format!(
                "{} in brackets after {}: a map takes a text, a list a whole number",
                index_type.as_str(),
                kind.as_str()
            );
            return Err(Fault::new(at, rule));
        }
        let item = match kind {
            Type::Labels => Type::Text,
            Type::Metrics => Type::Double,
            kind => kind.item(),
        };
        Ok((Node::Index([node, index].into()), item))
    }

    fn calculation(
        &mut self,
        at: &'a IdedExpr,
        operator: Operator,
        a: &'a IdedExpr,
        b: &'a IdedExpr,
    ) -> Result<Typed, Fault> {
        let ((left, x), (right, y)) = (self.value(a)?, self.value(b)?);
        let joined = operator == Operator::Add && (x.is_text() && y.is_text() || x.is_list() && y.is_list());
        let of = match (x, y) {
            (Type::Any, other) | (other, Type::Any) => other,
            _ if joined && x.is_text() => Type::Text,
            _ if joined && x == y => x,
            _ if joined => Type::List,
            (Type::Double, Type::Double) if operator == Operator::Remainder => {
                return Err(Fault::new(at, "% takes whole numbers"));
            }
            (x, y) if x == y && x.is_number() => x,
            (x, y) if x.is_number() && y.is_number() => {
                let rule = "whole numbers and others do not mix: write 2.0 in place of 2, or double(…)";
                return Err(Fault::new(at, rule));
            }
            (x, y) => return Err(Fault::new(at, format!("{} and {} do not add up", x.as_str(), y.as_str()))),
        };
        Ok((Node::Calculate(operator, [left, right].into()), of))
    }

    fn method(
        &mut self,
        at: &'a IdedExpr,
        name: &str,
        target: &'a IdedExpr,
        args: &'a [IdedExpr],
    ) -> Result<Typed, Fault> {
        if let "has_capability" | "capability" = name {
            return self.of_instance(at, name, target, args);
        }
        if LOOPS.contains(&name) {
            return Err(Fault::new(
                at,
                format!("{name}() takes a name and what to do with it: .{name}(x, x.name == \"a\")"),
            ));
        }
        let test = match (name, args) {
            ("size", []) => return self.size(target),
            ("matches", [pattern]) => return self.matches(target, pattern),
            ("contains", [_]) => TextTest::Contains,
            ("endsWith", [_]) => TextTest::EndsWith,
            ("startsWith", [_]) => TextTest::StartsWith,
            ("size" | "matches" | "contains" | "endsWith" | "startsWith", _) => {
                let wanted = if name == "size" { "nothing" } else { "one text" };
                return Err(Fault::new(at, format!("{name}() takes {wanted}")));
            }
            _ => return Err(Fault::new(at, unknown("function ", name, &METHODS))),
        };
        let call = format!("{name}()");
        let text = self.text(target, &call)?;
        let part = self.text(&args[0], &call)?;
        Ok((Node::Test(test, [text, part].into()), Type::Bool))
    }

    fn matches(&mut self, of: &'a IdedExpr, pattern: &'a IdedExpr) -> Result<Typed, Fault> {
        let text = self.text(of, "matches()")?;
        let Expr::Literal(LiteralValue::String(written)) = &pattern.expr else {
            return Err(Fault::new(pattern, "matches() takes a regular expression in quotes"));
        };
        let built =
            RegexBuilder::new(written.inner()).size_limit(MAX_PATTERN_BYTES).dfa_size_limit(MAX_PATTERN_BYTES).build();
        let compiled = built.map_err(|error| {
            let lines = error.to_string();
            let last = lines.lines().last().unwrap_or_default().to_owned();
            Fault::new(pattern, format!("matches() takes a regular expression: {last}"))
        })?;
        Ok((Node::Matches(text.into(), compiled.into()), Type::Bool))
    }

    /// What is asked of the instance itself.
    fn of_instance(
        &mut self,
        at: &'a IdedExpr,
        name: &str,
        target: &'a IdedExpr,
        args: &'a [IdedExpr],
    ) -> Result<Typed, Fault> {
        if !matches!(self.compile(target)?, Compiled::Object(None, _)) {
            return Err(Fault::new(at, format!("{name}() is asked of the instance: {VARIABLE}.{name}(\"a\")")));
        }
        match (name, args) {
            ("capability", [of]) => Ok((Node::Capability(self.text(of, "capability()")?.into()), Type::Capability)),
            ("has_capability", [of]) => {
                Ok((Node::HasCapability(self.text(of, "has_capability()")?.into(), None), Type::Bool))
            }
            ("has_capability", [of, version]) => {
                let of = self.text(of, "has_capability()")?;
                let Expr::Literal(LiteralValue::String(written)) = &version.expr else {
                    return Err(Fault::new(version, "the version is a text in quotes: \"2\", \">=2.1\""));
                };
                let versions = Versions::parse(written.inner()).ok_or_else(|| {
                    Fault::new(
                        version,
                        "a version is \"2\" (2 and all within it), \">=2.1\", or up to four with commas",
                    )
                })?;
                Ok((Node::HasCapability(of.into(), Some(versions)), Type::Bool))
            }
            ("capability", _) => Err(Fault::new(at, "capability() takes a name")),
            _ => Err(Fault::new(at, "has_capability() takes a name, and a version if it matters")),
        }
    }

    fn comprehension(&mut self, at: &'a IdedExpr, of: &'a ComprehensionExpr) -> Result<Typed, Fault> {
        let (range, kind) = self.value(&of.iter_range)?;
        if !(kind.is_list() || kind.is_map() || kind == Type::Any) {
            return Err(Fault::new(&of.iter_range, format!("a loop takes a list or a map, not {}", kind.as_str())));
        }
        let Expr::Call(step) = &of.loop_step.expr else { return Err(Fault::new(at, "a loop of CEL's own")) };
        // Bounds say that there is none around.
        self.bound = Some((&of.iter_var, kind.item()));
        let found = self.loop_body(at, of, step, range, kind);
        self.bound = None;
        found
    }

    /// Macros stand here as what they are made of: which one it was is told by its first value and its step.
    fn loop_body(
        &mut self,
        at: &IdedExpr,
        of: &'a ComprehensionExpr,
        step: &'a CallExpr,
        range: Node,
        kind: Type,
    ) -> Result<Typed, Fault> {
        let looped = |kind: Loop, range: Node, body: Node| Ok((Node::Loop(kind, [range, body].into()), Type::Bool));
        match (step.func_name.as_str(), step.args.as_slice(), &of.accu_init.expr) {
            (operators::LOGICAL_OR, [_, body], Expr::Literal(_)) => looped(Loop::Exists, range, self.boolean(body)?),
            (operators::LOGICAL_AND, [_, body], Expr::Literal(_)) => looped(Loop::All, range, self.boolean(body)?),
            (operators::CONDITIONAL, [body, _, _], Expr::Literal(_)) => {
                looped(Loop::ExistsOne, range, self.boolean(body)?)
            }
            (operators::CONDITIONAL, [guard, made, _], Expr::List(_)) => {
                let guard = self.boolean(guard)?;
                let (made, filters) = self.made(at, made)?;
                let of = if filters && kind.is_list() { kind } else { made.1.listed() };
                Ok((Node::Map(range.into(), Some(guard.into()), made.0.into()), of))
            }
            (operators::ADD, _, Expr::List(_)) => {
                let (made, filters) = self.made(at, &of.loop_step)?;
                let of = if filters && kind.is_list() { kind } else { made.1.listed() };
                Ok((Node::Map(range.into(), None, made.0.into()), of))
            }
            _ => Err(Fault::new(at, "a loop of CEL's own")),
        }
    }

    /// What `@result + [made]` makes, and whether it is the item itself.
    fn made(&mut self, at: &IdedExpr, step: &'a IdedExpr) -> Result<(Typed, bool), Fault> {
        if let Expr::Call(call) = &step.expr
            && let [_, list] = call.args.as_slice()
            && let Expr::List(list) = &list.expr
            && let [made] = list.elements.as_slice()
        {
            let made = self.value(made)?;
            let same = matches!(made.0, Node::Item);
            return Ok((made, same));
        }
        Err(Fault::new(at, "a loop of CEL's own"))
    }
}

impl Type {
    /// A list of these.
    fn listed(self) -> Self {
        if self.is_text() { Self::Texts } else { Self::List }
    }
}

impl Object {
    fn as_str(self) -> &'static str {
        match self {
            Self::Locality => "locality",
            Self::Sla => "sla",
            Self::Load => "load",
        }
    }
}

/// What a verdict is compared with must be one.
fn verdict(of: Type, with: &IdedExpr) -> Result<(), Fault> {
    if let Expr::Literal(LiteralValue::String(text)) = &with.expr
        && of == Type::Verdict
        && !fields::verdicts().contains(&text.inner())
    {
        return Err(Fault::new(with, unknown("health ", text.inner(), &fields::verdicts())));
    }
    Ok(())
}

fn constant(at: &IdedExpr, literal: &LiteralValue) -> Result<(Constant, Type), Fault> {
    Ok(match literal {
        LiteralValue::Boolean(is) => (Constant::Bool(*is.inner()), Type::Bool),
        LiteralValue::Double(number) => (Constant::Double(*number.inner()), Type::Double),
        LiteralValue::Int(number) => (Constant::Int(*number.inner()), Type::Int),
        LiteralValue::UInt(number) => (Constant::UInt(*number.inner()), Type::UInt),
        LiteralValue::String(text) => (Constant::Text(text.inner().into()), Type::Text),
        LiteralValue::Null => (Constant::Null, Type::Null),
        LiteralValue::Bytes(_) => return Err(Fault::new(at, "bytes cannot be written here")),
    })
}

fn no_function(at: &IdedExpr, name: &str, args: usize) -> Fault {
    if name == "has_capability" || name == "capability" {
        return Fault::new(at, format!("there is no function {name:?}, did you mean \"{VARIABLE}.{name}\"?"));
    }
    if FUNCTIONS.contains(&name) {
        return Fault::new(at, format!("{name}() does not take {args} values"));
    }
    Fault::new(at, unknown("function ", name, &FUNCTIONS))
}
