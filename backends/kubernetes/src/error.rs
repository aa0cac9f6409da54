//! What the API server answers, as errors.

use trunkline_core::{Error, ErrorKind, Origin, Retry};

use crate::message::Status;

/// How much of an answer an error repeats.
const SHOWN: usize = 300;

/// What an answer other than a success means, of a request or in a watch.
pub(crate) fn from_status(code: u16, body: &[u8]) -> Error {
    let said = serde_json::from_slice::<Status>(body).unwrap_or_default();
    of(code, &said)
}

pub(crate) fn of(code: u16, said: &Status) -> Error {
    let kind = match code {
        400 | 422 => ErrorKind::Invalid,
        401 => ErrorKind::Unauthenticated,
        403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        // Too many requests, and what is too old: it is asked for anew.
        429 => ErrorKind::RateLimited,
        408 | 410 | 500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let said_text = if said.message.is_empty() {
        &said.reason
    } else {
        &said.message
    };
    let shown: String = said_text
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect();
    let retry = match kind {
        ErrorKind::Unavailable | ErrorKind::RateLimited => Retry::Safe,
        _ => Retry::Never,
    };
    let text = match kind {
        ErrorKind::Denied => format!(
            "Kubernetes answered {code}: {shown}; the account needs `get`, `list` and `watch` of `endpointslices` (`discovery.k8s.io`)"
        ),
        _ => format!("Kubernetes answered {code}: {shown}"),
    };
    Error::new(kind, text)
        .with_origin(Origin::Remote)
        .with_retry(retry)
}

pub(crate) fn ended() -> Error {
    Error::cancelled("the registry was shut down")
}

pub(crate) fn announces_nothing() -> Error {
    Error::unsupported(
        "nothing is announced in Kubernetes: it keeps the endpoints of its pods itself",
    )
}
