//! Reading a NACK: clients say in prose which resources they refuse.

use std::sync::Arc;

/// The resources at fault: those that the message names, or else all that the response changed.
pub(super) fn suspects<'a>(message: &str, changed: impl Iterator<Item = &'a Arc<str>> + Clone) -> Vec<Arc<str>> {
    let named = named(message, changed.clone());
    if named.is_empty() { changed.cloned().collect() } else { named }
}

/// Which of these names a message names.
pub(super) fn named<'a>(message: &str, of: impl Iterator<Item = &'a Arc<str>>) -> Vec<Arc<str>> {
    of.filter(|name| names(message, name)).cloned().collect()
}

/// Whether a text has a name in it as a whole: not `web` in `webshop`, nor in `web:admin`.
fn names(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/');
    text.match_indices(name).any(|(start, _)| {
        let before = text[..start].chars().next_back();
        let mut after = text[start + name.len()..].chars();
        let (next, then) = (after.next(), after.next());
        let joined = |c: char| matches!(c, '.' | ':') && then.is_some_and(part);
        !before.is_some_and(|c| part(c) || matches!(c, '.' | ':')) && !next.is_some_and(|c| part(c) || joined(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_named_as_a_whole() {
        for (message, name, expected) in [
            ("Error adding/updating cluster(s) web: bad", "web", true),
            ("Error adding/updating cluster(s) web:admin: bad", "web", false),
            ("Error adding/updating cluster(s) web:admin: bad", "web:admin", true),
            ("web", "web", true),
            ("in web.", "web", true),
            ("in web.shop", "web", false),
            ("webshop", "web", false),
            ("my-web", "web", false),
            ("'convoy/outbound'", "convoy/outbound", true),
            ("", "web", false),
        ] {
            assert_eq!(names(message, name), expected, "{name:?} in {message:?}");
        }
    }

    #[test]
    fn without_a_name_all_are_suspect() {
        let (web, api): (Arc<str>, Arc<str>) = ("web".into(), "api".into());
        let changed = [web, api.clone()];
        assert_eq!(suspects("bad", changed.iter()), changed);
        assert_eq!(suspects("api: bad", changed.iter()), [api]);
    }
}
