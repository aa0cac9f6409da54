//! From what the driver and the server say to errors that a caller can act on.

use async_nats::ConnectErrorKind;
use serde::Deserialize;
use trunkline_core::{Error, ErrorKind, Origin, Retry};

/// What JetStream answers in place of what it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, thiserror::Error)]
#[error("JetStream error {err_code} ({code}): {description}")]
pub struct JetStreamError {
    /// As in HTTP.
    #[serde(default)]
    pub code: u16,
    /// The server's own number of the error.
    #[serde(default)]
    pub err_code: u64,
    /// In words.
    #[serde(default)]
    pub description: String,
}

/// The server's numbers of errors that are told apart.
pub(crate) mod code {
    pub(crate) const CONSUMER_NOT_FOUND: u64 = 10014;
    pub(crate) const CONSUMER_EXISTS: u64 = 10148;
    pub(crate) const CONSUMER_NAME_EXISTS: u64 = 10013;
    pub(crate) const INSUFFICIENT_RESOURCES: u64 = 10023;
    pub(crate) const NOT_ENABLED_FOR_ACCOUNT: u64 = 10039;
    pub(crate) const NO_MESSAGE: u64 = 10037;
    pub(crate) const STORAGE_EXCEEDED: u64 = 10047;
    pub(crate) const MESSAGE_TOO_LARGE: u64 = 10054;
    pub(crate) const STREAM_NAME_IN_USE: u64 = 10058;
    pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
    pub(crate) const STREAM_SUBJECTS_OVERLAP: u64 = 10065;
    pub(crate) const NOT_ENABLED: u64 = 10076;
    /// With "maximum messages exceeded" or "maximum bytes exceeded".
    pub(crate) const STORE_FAILED: u64 = 10077;
    pub(crate) const CONSUMER_FILTER_NOT_UNIQUE: u64 = 10100;
}

/// An error of the server's as ours.
pub(crate) fn of_jetstream(error: JetStreamError) -> Error {
    let kind = match error.err_code {
        code::CONSUMER_NOT_FOUND | code::STREAM_NOT_FOUND | code::NO_MESSAGE => ErrorKind::NotFound,
        code::CONSUMER_EXISTS
        | code::CONSUMER_NAME_EXISTS
        | code::STREAM_NAME_IN_USE
        | code::STREAM_SUBJECTS_OVERLAP
        | code::CONSUMER_FILTER_NOT_UNIQUE => ErrorKind::Conflict,
        code::INSUFFICIENT_RESOURCES | code::STORAGE_EXCEEDED => ErrorKind::Exhausted,
        code::STORE_FAILED if error.description.contains("exceeded") => ErrorKind::Exhausted,
        code::MESSAGE_TOO_LARGE => ErrorKind::Invalid,
        code::NOT_ENABLED | code::NOT_ENABLED_FOR_ACCOUNT => ErrorKind::Unsupported,
        _ => match error.code {
            404 => ErrorKind::NotFound,
            403 => ErrorKind::Denied,
            400 => ErrorKind::Invalid,
            503 => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        },
    };
    // The server has answered: it did not do it.
    let retry = match kind {
        ErrorKind::Exhausted | ErrorKind::Unavailable => Retry::Safe,
        _ => Retry::Never,
    };
    Error::new(kind, error.to_string())
        .with_retry(retry)
        .with_origin(Origin::Remote)
        .with_source(error)
}

/// Why a connection could not be made.
pub(crate) fn of_connect(
    kind: ConnectErrorKind,
    error: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    let text = error.to_string();
    let kind = match kind {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ErrorKind::Unauthenticated
        }
        ConnectErrorKind::TimedOut => ErrorKind::Timeout,
        ConnectErrorKind::ServerParse => ErrorKind::Config,
        ConnectErrorKind::Dns
        | ConnectErrorKind::Tls
        | ConnectErrorKind::Io
        | ConnectErrorKind::MaxReconnects => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("no connection to NATS: {text}"))
        .with_retry(Retry::Safe)
        .with_source(error)
}

/// The connection went away while an answer was awaited.
pub(crate) fn lost() -> Error {
    Error::unavailable("the connection was lost before the answer: it may have been processed")
        .with_retry(Retry::IfIdempotent)
}

/// After `disconnect`.
pub(crate) fn closed() -> Error {
    Error::cancelled("the broker was disconnected")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16, err_code: u64, description: &str) -> Error {
        of_jetstream(JetStreamError {
            code,
            err_code,
            description: description.to_owned(),
        })
    }

    #[test]
    fn what_the_server_says_becomes_a_kind() {
        for (code, err_code, description, kind, retry) in [
            (
                404,
                10059,
                "stream not found",
                ErrorKind::NotFound,
                Retry::Never,
            ),
            (
                404,
                10014,
                "consumer not found",
                ErrorKind::NotFound,
                Retry::Never,
            ),
            (
                503,
                10077,
                "maximum messages exceeded",
                ErrorKind::Exhausted,
                Retry::Safe,
            ),
            (
                503,
                10077,
                "maximum bytes exceeded",
                ErrorKind::Exhausted,
                Retry::Safe,
            ),
            (500, 10077, "disk failed", ErrorKind::Internal, Retry::Never),
            (
                500,
                10023,
                "insufficient resources",
                ErrorKind::Exhausted,
                Retry::Safe,
            ),
            (
                400,
                10054,
                "message size exceeds maximum allowed",
                ErrorKind::Invalid,
                Retry::Never,
            ),
            (
                400,
                10148,
                "consumer already exists",
                ErrorKind::Conflict,
                Retry::Never,
            ),
            (
                503,
                10008,
                "JetStream system temporarily unavailable",
                ErrorKind::Unavailable,
                Retry::Safe,
            ),
            (
                503,
                10039,
                "JetStream not enabled for account",
                ErrorKind::Unsupported,
                Retry::Never,
            ),
            (400, 10003, "bad request", ErrorKind::Invalid, Retry::Never),
        ] {
            let error = answered(code, err_code, description);
            assert_eq!((error.kind(), error.retry()), (kind, retry), "{error}");
            assert!(error.find::<JetStreamError>().is_some());
        }
    }
}
