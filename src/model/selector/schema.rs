//! What an expression may look at: its variable's fields, and CEL's functions. A name that is none of these would be an
//! error at every evaluation, and so a condition that silently never holds.

use cel::common::ast::{Expr, IdedExpr, LiteralValue, operators};

use super::{Fault, children};

/// The names and shapes of something's fields.
pub type Fields = &'static [(&'static str, Shape)];

#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// A text, number or flag.
    Plain,
    Fields(Fields),
    /// Whatever its owner puts there.
    Free,
}

const FUNCTIONS: [&str; 13] = [
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "int",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];
/// The names of types are values, as in `type(node.metadata.a) == string`.
const TYPES: [&str; 10] = ["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "uint"];

pub(super) fn check(root: &IdedExpr, variable: &'static str, fields: Fields) -> Result<(), Fault> {
    let mut known = Known { variable, fields, bound: Vec::new() };
    known.shape(root)?;
    if known.may_be_bool(root) { Ok(()) } else { Err(Fault::new(root, "it must be true or false")) }
}

struct Known<'a> {
    variable: &'static str,
    fields: Fields,
    /// What the loops around name.
    bound: Vec<&'a str>,
}

impl<'a> Known<'a> {
    /// What an expression has, once all names in it are known.
    fn shape(&mut self, at: &'a IdedExpr) -> Result<Shape, Fault> {
        match &at.expr {
            Expr::Ident(name) => self.ident(at, name),
            Expr::Select(select) => match self.shape(&select.operand)? {
                Shape::Fields(fields) => field(at, &select.field, fields),
                Shape::Plain => {
                    let owner = path_end(&select.operand);
                    Err(Fault { skip: 1, ..Fault::new(at, format!("{owner:?} has no fields")) })
                }
                Shape::Free => Ok(Shape::Free),
            },
            Expr::Call(call) => {
                self.function(at, &call.func_name)?;
                let shapes: Vec<Shape> =
                    children(&at.expr).into_iter().map(|child| self.shape(child)).collect::<Result<_, _>>()?;
                match shapes.first() {
                    Some(Shape::Fields(_)) if call.func_name == operators::INDEX => {
                        Err(Fault::new(at, "its fields are written with a dot, as in node.id"))
                    }
                    _ => Ok(Shape::Free),
                }
            }
            Expr::Comprehension(of) => {
                self.shape(&of.iter_range)?;
                let before = self.bound.len();
                self.bound.extend([of.iter_var.as_str(), of.accu_var.as_str()]);
                self.bound.extend(of.iter_var2.as_deref());
                for inner in [&of.accu_init, &of.loop_cond, &of.loop_step, &of.result] {
                    self.shape(inner)?;
                }
                self.bound.truncate(before);
                Ok(Shape::Free)
            }
            Expr::Struct(_) => Err(Fault::new(at, "messages cannot be written here")),
            _ => {
                for child in children(&at.expr) {
                    self.shape(child)?;
                }
                Ok(Shape::Free)
            }
        }
    }

    fn ident(&self, at: &IdedExpr, name: &str) -> Result<Shape, Fault> {
        if self.bound.contains(&name) || TYPES.contains(&name) {
            Ok(Shape::Free)
        } else if name == self.variable {
            Ok(Shape::Fields(self.fields))
        } else {
            Err(Fault::new(at, unknown("", name, &[self.variable])))
        }
    }

    /// Operators have names that nobody can write.
    fn function(&self, at: &IdedExpr, name: &str) -> Result<(), Fault> {
        let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        if is_operator || FUNCTIONS.contains(&name) {
            return Ok(());
        }
        Err(Fault::new(at, unknown("function ", name, &FUNCTIONS)))
    }

    fn may_be_bool(&mut self, at: &'a IdedExpr) -> bool {
        match &at.expr {
            Expr::Literal(literal) => matches!(literal, LiteralValue::Boolean(_)),
            Expr::Ident(_) => false,
            // Names are known by now, so this has a shape.
            Expr::Select(select) => select.test || matches!(self.shape(at), Ok(Shape::Free)),
            Expr::Comprehension(of) => match &of.result.expr {
                Expr::Ident(_) => self.may_be_bool(&of.accu_init),
                _ => true,
            },
            Expr::Call(call) => match call.func_name.as_str() {
                operators::CONDITIONAL => call.args.iter().skip(1).all(|arm| self.may_be_bool(arm)),
                operators::ADD | operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE => false,
                operators::MODULO | operators::NEGATE => false,
                "bytes" | "double" | "int" | "size" | "string" | "type" | "uint" => false,
                _ => true,
            },
            _ => false,
        }
    }
}

fn field(at: &IdedExpr, name: &str, fields: Fields) -> Result<Shape, Fault> {
    if let Some((_, shape)) = fields.iter().find(|(known, _)| *known == name) {
        return Ok(*shape);
    }
    let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    // The node stands at its dot.
    Err(Fault { skip: 1, ..Fault::new(at, unknown("", name, &names)) })
}

/// The last name of a path.
fn path_end(at: &IdedExpr) -> &str {
    match &at.expr {
        Expr::Select(select) => &select.field,
        Expr::Ident(name) => name,
        _ => "it",
    }
}

/// That there is no such name, and which one may have been meant.
pub(super) fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let begins = |known: &str| name.len() > 2 && known.starts_with(name);
    let nearest = known.iter().min_by_key(|known| (!begins(known), distance(name, known)));
    match nearest {
        Some(near) if begins(near) || distance(name, near) <= 2 => {
            format!("there is no {kind}{name:?}, did you mean {near:?}?")
        }
        _ => format!("there is no {kind}{name:?}: it is one of {}", known.join(", ")),
    }
}

/// How many letters to change, add or leave out to make one name of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (index, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}
