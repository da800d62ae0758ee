//! The equalities without which a condition cannot hold: by them an index finds the few instances that could match, and
//! by an instance's own terms the few conditions that could see it.

use std::sync::Arc;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, operators};

use super::VARIABLE;
use crate::model::{Instance, ServiceKey};

/// One equality that can be looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    Namespace(Arc<str>),
    Service(Arc<str>),
    Id(Arc<str>),
    /// By name, of whatever version.
    Capability(Arc<str>),
    Label(Arc<str>, Arc<str>),
    Region(Arc<str>),
    Zone(Arc<str>),
    SubZone(Arc<str>),
}

impl Term {
    /// Whether it holds for the instance.
    pub fn holds(&self, instance: &Instance) -> bool {
        let (service, locality) = (&instance.key.service, &instance.spec.locality);
        match self {
            Self::Namespace(text) => service.namespace.as_str() == &**text,
            Self::Service(text) => service.name.as_str() == &**text,
            Self::Id(text) => instance.key.id.as_str() == &**text,
            Self::Capability(name) => instance.spec.capabilities.iter().any(|capability| capability.name == *name),
            Self::Label(name, value) => instance.spec.labels.get(name) == Some(&**value),
            Self::Region(text) => *locality.region == **text,
            Self::Zone(text) => *locality.zone == **text,
            Self::SubZone(text) => *locality.sub_zone == **text,
        }
    }

    /// All terms that hold for the instance. A capability that stands there in two versions comes twice.
    pub fn all_of(instance: &Instance) -> impl Iterator<Item = Self> {
        let (service, spec) = (&instance.key.service, &instance.spec);
        let plain = [
            Self::Namespace(service.namespace.as_str().into()),
            Self::Service(service.name.as_str().into()),
            Self::Id(instance.key.id.as_str().into()),
            Self::Region(spec.locality.region.as_str().into()),
            Self::Zone(spec.locality.zone.as_str().into()),
            Self::SubZone(spec.locality.sub_zone.as_str().into()),
        ];
        let capabilities = spec.capabilities.iter().map(|capability| Self::Capability(capability.name.clone()));
        let labels = spec.labels.iter().map(|(name, value)| Self::Label(name.into(), value.into()));
        plain.into_iter().chain(capabilities).chain(labels)
    }
}

/// More alternatives than this are no help.
const MAX_ALTERNATIVES: usize = 32;

/// Each entry is a list of alternatives, one of which must hold. No entries: nothing is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms(Box<[Box<[Term]>]>);

impl Terms {
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[Term]> {
        self.0.iter().map(|alternatives| &**alternatives)
    }

    /// Whether an instance of a service could match, as far as the service's name says: a condition that names services
    /// looks at no others.
    pub fn may_hold_in(&self, service: &ServiceKey) -> bool {
        let could = |term: &Term| match term {
            Term::Namespace(name) => service.namespace.as_str() == &**name,
            Term::Service(name) => service.name.as_str() == &**name,
            _ => true,
        };
        self.iter().all(|alternatives| alternatives.iter().any(could))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the condition could hold for the instance, as far as its terms say.
    pub fn may_hold(&self, instance: &Instance) -> bool {
        self.iter().all(|alternatives| alternatives.iter().any(|term| term.holds(instance)))
    }
}

pub(super) fn of(root: &IdedExpr) -> Terms {
    let mut found = Vec::new();
    collect(root, &mut found);
    Terms(found.into_iter().map(Vec::into_boxed_slice).collect())
}

fn collect(at: &IdedExpr, found: &mut Vec<Vec<Term>>) {
    let Expr::Call(call) = &at.expr else { return };
    match (call.func_name.as_str(), call.args.as_slice()) {
        (operators::LOGICAL_AND, [a, b]) => {
            collect(a, found);
            collect(b, found);
        }
        (operators::LOGICAL_OR, [a, b]) => {
            // Of each side one entry must hold: the one with the fewest alternatives is the best.
            let best = |side: &IdedExpr| {
                let mut found = Vec::new();
                collect(side, &mut found);
                found.into_iter().min_by_key(Vec::len)
            };
            if let (Some(mut a), Some(b)) = (best(a), best(b)) {
                a.extend(b);
                push(a, found);
            }
        }
        (operators::EQUALS, [a, b]) => {
            let equal = |field: &IdedExpr, with: &IdedExpr| Some(term(path(field)?, text(with)?));
            if let Some(Some(term)) = equal(a, b).or_else(|| equal(b, a)) {
                push(vec![term], found);
            }
        }
        (operators::IN, [item, list]) => {
            let Expr::List(list) = &list.expr else { return };
            let one = |with: &IdedExpr| term(path(item)?, text(with)?);
            // What is not a text is never equal to one.
            if let Some(terms) = list.elements.iter().map(one).collect::<Option<Vec<_>>>()
                && !terms.is_empty()
            {
                push(terms, found);
            }
        }
        ("has_capability", [name, ..]) => {
            if let Some(name) = text(name) {
                push(vec![Term::Capability(name.into())], found);
            }
        }
        _ => {}
    }
}

fn push(mut alternatives: Vec<Term>, found: &mut Vec<Vec<Term>>) {
    alternatives.sort();
    alternatives.dedup();
    if alternatives.len() <= MAX_ALTERNATIVES && !found.contains(&alternatives) {
        found.push(alternatives);
    }
}

fn text(at: &IdedExpr) -> Option<&str> {
    match &at.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// The names after `instance`.
fn path(at: &IdedExpr) -> Option<Vec<&str>> {
    match &at.expr {
        Expr::Ident(name) => (name == VARIABLE).then(Vec::new),
        Expr::Select(select) if !select.test => {
            let mut path = path(&select.operand)?;
            path.push(&select.field);
            Some(path)
        }
        Expr::Call(CallExpr { func_name, target: None, args }) if func_name == operators::INDEX => {
            let [of, index] = args.as_slice() else { return None };
            let mut path = path(of)?;
            path.push(text(index)?);
            Some(path)
        }
        _ => None,
    }
}

fn term(path: Vec<&str>, value: &str) -> Option<Term> {
    let value: Arc<str> = value.into();
    Some(match path.as_slice() {
        ["namespace"] => Term::Namespace(value),
        ["service"] => Term::Service(value),
        ["id"] => Term::Id(value),
        ["labels", name] => Term::Label((*name).into(), value),
        ["locality", "region"] => Term::Region(value),
        ["locality", "zone"] => Term::Zone(value),
        ["locality", "sub_zone"] => Term::SubZone(value),
        _ => return None,
    })
}
