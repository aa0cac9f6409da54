//! Persisted queries: a document is sent once and known by its hash from then on.

use sha2::{Digest as _, Sha256};

use super::answer::GraphQlError;

/// What a service says to a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// It wants the document as well.
    NotFound,
    /// It keeps no documents.
    NotSupported,
}

/// The hash by which a document is known: SHA-256, in hexadecimal digits.
pub(super) fn hash(document: &str) -> String {
    let digits = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    let hash = Sha256::digest(document.as_bytes());
    hash.iter()
        .flat_map(|byte| [digits(byte >> 4), digits(byte & 15)])
        .collect()
}

/// What the errors of an answer say to a hash, if anything. Nothing was carried out then.
pub(super) fn said(errors: &[GraphQlError]) -> Option<Said> {
    errors.iter().find_map(|error| {
        let message = error.message.as_str();
        match (error.code(), message) {
            (Some("PERSISTED_QUERY_NOT_FOUND"), _) | (_, "PersistedQueryNotFound") => {
                Some(Said::NotFound)
            }
            (Some("PERSISTED_QUERY_NOT_SUPPORTED"), _) | (_, "PersistedQueryNotSupported") => {
                Some(Said::NotSupported)
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_other_clients() {
        // The example of the protocol's description.
        let known = "ecf4edb46db40b5132295c0291d62fb65d6759a9eedfa4d5d612dd5ec54a6b38";
        assert_eq!(hash("{__typename}"), known);
    }
}
