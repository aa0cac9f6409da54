//! What Consul answers, as errors.

use http::StatusCode;
use trunkline_core::{Error, ErrorKind, Origin, Retry};

/// How much of an answer an error repeats.
const SHOWN: usize = 200;

/// What an answer other than a success means. All that is asked of Consul may be asked again.
pub(crate) fn from_answer(status: StatusCode, body: &[u8]) -> Error {
    let text = String::from_utf8_lossy(body);
    let said: String = text
        .trim()
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect();
    let kind = kind_of(status, &said);
    let retry = match kind {
        ErrorKind::Unavailable | ErrorKind::RateLimited => Retry::Safe,
        _ => Retry::Never,
    };
    let told = if said.is_empty() {
        format!("Consul answered {status}")
    } else {
        format!("Consul answered {status}: {said}")
    };
    Error::new(kind, told)
        .with_origin(Origin::Remote)
        .with_retry(retry)
}

fn kind_of(status: StatusCode, said: &str) -> ErrorKind {
    match status.as_u16() {
        400 => ErrorKind::Invalid,
        401 => ErrorKind::Unauthenticated,
        // A token that nobody knows is another thing than one that may not.
        403 if said.contains("ACL not found") || said.contains("token does not exist") => {
            ErrorKind::Unauthenticated
        }
        403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        429 => ErrorKind::RateLimited,
        // Older releases answer so for a token that nobody knows.
        500 if said.contains("ACL not found") => ErrorKind::Unauthenticated,
        500 if said.contains("Permission denied") => ErrorKind::Denied,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

/// Whether an agent says that it has no such check: 1.8 answers 500, newer ones 404.
pub(crate) fn is_unknown_check(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || error.message().contains("does not have associated TTL")
        || error.message().contains("Unknown check")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_their_kinds() {
        for (status, said, kind) in [
            (400, "Missing service name", ErrorKind::Invalid),
            (401, "", ErrorKind::Unauthenticated),
            (403, "ACL not found", ErrorKind::Unauthenticated),
            (403, "Permission denied", ErrorKind::Denied),
            (404, "", ErrorKind::NotFound),
            (
                429,
                "Your IP is issuing too many concurrent connections",
                ErrorKind::RateLimited,
            ),
            (500, "No cluster leader", ErrorKind::Unavailable),
            (500, "ACL not found", ErrorKind::Unauthenticated),
            (503, "", ErrorKind::Unavailable),
            (302, "", ErrorKind::Internal),
        ] {
            let error = from_answer(StatusCode::from_u16(status).unwrap(), said.as_bytes());
            assert_eq!(error.kind(), kind, "{status} {said}");
            assert_eq!(error.origin(), Origin::Remote);
        }
    }

    #[test]
    fn an_unknown_check_is_known_from_every_release() {
        let of = |status: u16, said: &str| {
            from_answer(StatusCode::from_u16(status).unwrap(), said.as_bytes())
        };
        assert!(is_unknown_check(&of(
            500,
            "CheckID \"x\" does not have associated TTL"
        )));
        assert!(is_unknown_check(&of(404, "Unknown check ID \"x\"")));
        assert!(!is_unknown_check(&of(500, "No cluster leader")));
    }
}
