//! Which versions of a capability will do: `2`, `v2.1`, `>=2.1`, `>=2,<3`.
//!
//! A version without an operator stands for itself and all within it: `2` for 2, 2.0 and 2.1.3, not for 20. With an operator
//! versions are compared part by part, numbers as numbers; a part that is missing is 0. A leading `v` means nothing.

use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq)]
pub struct Versions(Box<[Bound]>);

#[derive(Clone, Debug, PartialEq)]
struct Bound {
    operator: Operator,
    version: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Within,
    Equal,
    Less,
    LessOrEqual,
    More,
    MoreOrEqual,
}

/// The longer operators first: `<=` starts with `<`.
const OPERATORS: [(&str, Operator); 5] = [
    ("<=", Operator::LessOrEqual),
    (">=", Operator::MoreOrEqual),
    ("<", Operator::Less),
    (">", Operator::More),
    ("=", Operator::Equal),
];
/// A version has at most 64 bytes.
const MAX_BOUNDS: usize = 4;

impl Versions {
    /// None if the text says nothing that a version could be compared with.
    pub fn parse(text: &str) -> Option<Self> {
        let bound = |text: &str| {
            let text = text.trim();
            let (operator, rest) = OPERATORS
                .iter()
                .find_map(|(sign, operator)| Some((*operator, text.strip_prefix(sign)?)))
                .unwrap_or((Operator::Within, text));
            let version = rest.trim();
            let fits = !version.is_empty() && !version.contains(['<', '>', '=', ' ', '*', '^', '~']);
            fits.then(|| Bound { operator, version: version.into() })
        };
        let bounds: Option<Box<[Bound]>> = text.split(',').map(bound).collect();
        bounds.filter(|bounds| bounds.len() <= MAX_BOUNDS).map(Self)
    }

    pub fn allow(&self, version: &str) -> bool {
        self.0.iter().all(|bound| bound.allows(version))
    }
}

impl Bound {
    fn allows(&self, version: &str) -> bool {
        match self.operator {
            Operator::Within => is_within(version, &self.version),
            // What has no version is neither before nor after one.
            _ if version.is_empty() => false,
            Operator::Equal => compare(version, &self.version).is_eq(),
            Operator::Less => compare(version, &self.version).is_lt(),
            Operator::LessOrEqual => compare(version, &self.version).is_le(),
            Operator::More => compare(version, &self.version).is_gt(),
            Operator::MoreOrEqual => compare(version, &self.version).is_ge(),
        }
    }
}

fn plain(version: &str) -> &str {
    let rest = version.strip_prefix(['v', 'V']).unwrap_or(version);
    if rest.starts_with(|c: char| c.is_ascii_digit()) { rest } else { version }
}

fn is_within(version: &str, of: &str) -> bool {
    let rest = plain(version).strip_prefix(plain(of));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-', '+']))
}

fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (plain(a).split('.'), plain(b).split('.'));
    loop {
        let (x, y) = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (x, y) => (x.unwrap_or("0"), y.unwrap_or("0")),
        };
        let order = match (x.parse::<u64>(), y.parse::<u64>()) {
            (Ok(x), Ok(y)) => x.cmp(&y),
            _ => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_versions_will_do() {
        for (wanted, version, expected) in [
            ("v2", "v2", true),
            ("v2", "2.1.3", true),
            ("2", "v2.0", true),
            ("2", "20", false),
            ("2.1", "2", false),
            ("2.1", "2.10", false),
            ("1.0.0", "1.0.0-rc1", true),
            ("beta", "beta", true),
            ("vision", "ision", false),
            (">=2.1", "2.10", true),
            (">=2.1", "2.1.0", true),
            (">2.1", "2.1.0", false),
            ("<3", "2.99", true),
            (">= 2, <3", "v2.5", true),
            (">=2,<3", "3", false),
            ("=2", "2.0.0", true),
            ("=2", "2.1", false),
            (">=0", "", false),
            ("2", "", false),
        ] {
            let versions = Versions::parse(wanted).expect(wanted);
            assert_eq!(versions.allow(version), expected, "{wanted} {version}");
        }
        for text in ["", ",", ">=", "^2", "2.*", "1 - 2", "1,2,3,4,5"] {
            assert_eq!(Versions::parse(text), None, "{text}");
        }
    }
}
