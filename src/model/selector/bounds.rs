//! How large an expression may be, counted before it is evaluated.

use cel::common::ast::{Expr, IdedExpr, LiteralValue};

use super::{Fault, children};

const MAX_NODES: usize = 256;
/// How deep they may nest: `1 + 1 + 1` nests, `a && b && c` hardly does. A level takes up to 20 KB of the evaluator's stack
/// in a build without optimisation, and a worker of the runtime has 2 MiB.
const MAX_DEPTH: usize = 32;
/// Four loops inside each other over 50 elements ran for a second.
const MAX_LOOPS: usize = 1;
/// The elements of a list or map that is written out, where a loop goes over it.
const MAX_LOOP_LITERAL: usize = 32;
const MATCHES: &str = "matches";

pub(super) fn check(root: &IdedExpr) -> Result<(), Fault> {
    let mut nodes = 0;
    visit(root, 0, 0, &mut nodes)
}

fn visit(at: &IdedExpr, depth: usize, loops: usize, nodes: &mut usize) -> Result<(), Fault> {
    *nodes += 1;
    if *nodes > MAX_NODES {
        return Err(Fault::new(at, format!("at most {MAX_NODES} terms, fields and operators")));
    }
    if depth > MAX_DEPTH {
        return Err(Fault::new(at, format!("at most {MAX_DEPTH} operators, fields and calls inside each other")));
    }
    let mut inside = loops;
    match &at.expr {
        Expr::Comprehension(of) => {
            inside += 1;
            if inside > MAX_LOOPS {
                return Err(Fault::new(at, "not a loop inside a loop"));
            }
            let written = match &of.iter_range.expr {
                Expr::List(list) => list.elements.len(),
                Expr::Map(map) => map.entries.len(),
                _ => 0,
            };
            if written > MAX_LOOP_LITERAL {
                return Err(Fault::new(at, format!("loops over at most {MAX_LOOP_LITERAL} elements written out")));
            }
        }
        Expr::Call(call) if call.func_name == MATCHES => {
            // Each call compiles its pattern.
            if loops > 0 {
                return Err(Fault::new(at, "matches() not inside a loop"));
            }
            check_pattern(at, call.args.last())?;
        }
        _ => {}
    }
    children(&at.expr).into_iter().try_for_each(|child| visit(child, depth + 1, inside, nodes))
}

/// A pattern is known at once, so that a wrong one is refused and not a condition that never holds.
fn check_pattern(at: &IdedExpr, pattern: Option<&IdedExpr>) -> Result<(), Fault> {
    let Some(Expr::Literal(LiteralValue::String(pattern))) = pattern.map(|pattern| &pattern.expr) else {
        return Err(Fault::new(at, "matches() takes a text in quotes"));
    };
    let test = cel::Context::with_env(super::STANDARD.clone());
    let text = cel::common::ast::LiteralValue::String(pattern.clone());
    let literal = |value: LiteralValue| IdedExpr { id: 0, expr: Expr::Literal(value) };
    let call = cel::common::ast::CallExpr {
        func_name: MATCHES.into(),
        target: Some(Box::new(literal(text.clone()))),
        args: vec![literal(text)],
    };
    match cel::Value::resolve(&IdedExpr { id: 0, expr: Expr::Call(call) }, &test) {
        Ok(_) => Ok(()),
        Err(error) => {
            let lines = error.to_string();
            let last = lines.lines().last().unwrap_or_default();
            Err(Fault::new(at, format!("matches() takes a regular expression: {last}")))
        }
    }
}
