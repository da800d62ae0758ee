//! Where things are in etcd: every key begins with the prefix; behind it stands a record's key (`record`), or `m/` and
//! something about the store itself. Other kinds of keys are not the registry's: they are passed over.

use bytes::Bytes;

use super::rpc::RangeRequest;
use crate::storage::{Key, record};

/// The format of everything under the prefix.
const FORMAT: &str = "m/format";
/// Made by the first replica. See `EtcdStore::open`.
const STORE_ID: &str = "m/store_id";
const KINDS: [&str; 5] = ["s/", "i/", "l/", "r/", "c/"];

#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub fn record(&self, key: &Key) -> Bytes {
        self.of(&record::encode_key(key))
    }

    /// What a service's instances are under, tombstones too.
    pub fn instances(&self, service: &crate::model::ServiceKey) -> (Bytes, Bytes) {
        let prefix = format!("{}i/{service}/", self.prefix);
        (prefix.clone().into(), behind(&prefix))
    }

    pub fn format(&self) -> Bytes {
        self.of(FORMAT)
    }

    pub fn store_id(&self) -> Bytes {
        self.of(STORE_ID)
    }

    fn of(&self, relative: &str) -> Bytes {
        format!("{}{relative}", self.prefix).into()
    }

    /// The first key, and one behind the last.
    pub fn all(&self) -> (Bytes, Bytes) {
        (self.prefix.clone().into(), behind(&self.prefix))
    }

    /// A record's key, without the prefix; none if it is not of a record.
    pub fn relative<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let relative = std::str::from_utf8(key).ok()?.strip_prefix(&self.prefix)?;
        KINDS.iter().any(|kind| relative.starts_with(kind)).then_some(relative)
    }

    /// A read that every member answers with what all have agreed on.
    pub fn probe(&self) -> RangeRequest {
        RangeRequest { key: self.store_id(), ..RangeRequest::default() }
    }
}

/// Behind every key that begins with a prefix, which ends with a slash: there are characters after that.
fn behind(prefix: &str) -> Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_behind_its_last_key() {
        let keys = Keys::new("/convoy/");
        let (first, end) = keys.all();
        for key in ["/convoy/", "/convoy/a", "/convoy/\u{10ffff}"] {
            assert!(first.as_ref() <= key.as_bytes() && key.as_bytes() < end.as_ref(), "{key}");
        }
        for key in ["/convoy", "/convoy0", "/convoz/"] {
            assert!(key.as_bytes() < first.as_ref() || end.as_ref() <= key.as_bytes(), "{key}");
        }
        assert_eq!(keys.relative(b"/convoy/i/default/a/1"), Some("i/default/a/1"));
        for other in ["/convoy/m/format", "/convoy/x/1", "/other/i/default/a/1"] {
            assert_eq!(keys.relative(other.as_bytes()), None, "{other}");
        }
    }
}
