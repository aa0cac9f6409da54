//! Where things are in etcd.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use trunkline_core::{Error, Result};
use trunkline_discovery::ServiceName;

/// What ids keep as it is; above all, no slash.
const PLAIN: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b':');

/// The keys below one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.trim_end_matches('/').to_owned(),
        }
    }

    /// What the keys of all instances of all services begin with.
    pub(crate) fn services(&self) -> String {
        format!("{}/services/", self.prefix)
    }

    /// What the keys of all instances of a service begin with.
    pub(crate) fn service(&self, service: &ServiceName) -> String {
        format!("{}/services/{service}/", self.prefix)
    }

    pub(crate) fn instance(&self, service: &str, id: &str) -> String {
        let id = utf8_percent_encode(id, &PLAIN);
        format!("{}/services/{service}/{id}", self.prefix)
    }

    /// Where it stands which service an id belongs to: ids are unique among all instances.
    pub(crate) fn id(&self, id: &str) -> String {
        let id = utf8_percent_encode(id, &PLAIN);
        format!("{}/ids/{id}", self.prefix)
    }

    /// The service of an instance's key.
    pub(crate) fn service_of(&self, key: &[u8]) -> Option<ServiceName> {
        let key = std::str::from_utf8(key).ok()?;
        let rest = key.strip_prefix(&self.services())?;
        let (service, id) = rest.split_once('/')?;
        percent_decode_str(id).decode_utf8().ok()?;
        ServiceName::new(service).ok()
    }
}

/// Bytes as etcd's JSON has them.
pub(crate) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn decoded(text: &str) -> Result<Vec<u8>> {
    STANDARD
        .decode(text)
        .map_err(|error| Error::internal("the answer of etcd is not understood").with_source(error))
}

/// The end of the range of all keys that begin with a prefix.
pub(crate) fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys there are.
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_what_begins_with_its_prefix_alone() {
        assert_eq!(end_of("/a/"), b"/a0");
        assert_eq!(end_of(""), [0]);
        let keys = Keys::new("/trunkline/");
        let users = ServiceName::new("users").unwrap();
        let key = keys.instance("users", "a/b ü");
        assert!(key.starts_with(&keys.service(&users)), "{key}");
        assert_eq!(keys.service_of(key.as_bytes()), Some(users.clone()));
        let other = keys.instance("users-admin", "x");
        assert!(!other.starts_with(&keys.service(&users)), "{other}");
        assert!(!keys.id("users/x").contains("users/x"));
    }
}
