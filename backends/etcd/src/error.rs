//! What etcd answers, as errors.

use http::StatusCode;
use serde::Deserialize;
use trunkline_core::{Error, ErrorKind, Origin, Retry};

/// How much of an answer an error repeats.
const SHOWN: usize = 200;

/// The words of the gateway: the code is that of gRPC.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fault {
    #[serde(alias = "grpc_code")]
    code: u32,
    message: String,
    error: String,
}

/// What an answer other than a success means. All that is asked here may be asked again.
pub(crate) fn from_answer(status: StatusCode, body: &[u8]) -> Error {
    match serde_json::from_slice::<Fault>(body) {
        Ok(fault) if fault.code != 0 => from_fault(&fault),
        _ => {
            let kind = match status.as_u16() {
                401 => ErrorKind::Unauthenticated,
                403 => ErrorKind::Denied,
                429 => ErrorKind::RateLimited,
                500..=599 => ErrorKind::Unavailable,
                _ => ErrorKind::Internal,
            };
            error(kind, &format!("etcd answered {status}"))
        }
    }
}

/// What a fault means, of an answer or in a watch.
pub(crate) fn from_fault(fault: &Fault) -> Error {
    let said = if fault.message.is_empty() {
        &fault.error
    } else {
        &fault.message
    };
    let shown: String = said
        .chars()
        .filter(|c| !c.is_control())
        .take(SHOWN)
        .collect();
    error(
        kind_of(fault.code, &shown),
        &format!("etcd answered: {shown}"),
    )
}

fn error(kind: ErrorKind, text: &str) -> Error {
    let retry = match kind {
        ErrorKind::Unavailable | ErrorKind::RateLimited => Retry::Safe,
        _ => Retry::Never,
    };
    Error::new(kind, text.to_owned())
        .with_origin(Origin::Remote)
        .with_retry(retry)
}

fn kind_of(code: u32, said: &str) -> ErrorKind {
    // It answers "invalid argument" to those who do not log in, or not rightly.
    let of_login = [
        "authentication failed",
        "user name is empty",
        "revision of auth store is old",
    ];
    if of_login.iter().any(|words| said.contains(words)) {
        return ErrorKind::Unauthenticated;
    }
    match code {
        3 | 11 => ErrorKind::Invalid,
        // It waited itself for too long, and may have done it.
        4 => ErrorKind::Unavailable,
        5 => ErrorKind::NotFound,
        7 => ErrorKind::Denied,
        8 => ErrorKind::RateLimited,
        // Nobody has switched authentication on.
        9 if said.contains("authentication is not enabled") => ErrorKind::Config,
        16 => ErrorKind::Unauthenticated,
        // Unknown, failed precondition, aborted, unavailable: a leader that changed, a member that stops.
        1 | 2 | 9 | 10 | 14 => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    }
}

/// Whether another member may do better.
pub(crate) fn is_of_member(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Rejected
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_their_kinds() {
        for (status, code, said, kind) in [
            (
                404,
                5,
                "etcdserver: requested lease not found",
                ErrorKind::NotFound,
            ),
            (
                401,
                16,
                "etcdserver: invalid auth token",
                ErrorKind::Unauthenticated,
            ),
            (
                400,
                3,
                "etcdserver: user name is empty",
                ErrorKind::Unauthenticated,
            ),
            (
                400,
                3,
                "etcdserver: authentication failed, invalid user ID or password",
                ErrorKind::Unauthenticated,
            ),
            (
                400,
                3,
                "etcdserver: key is not provided",
                ErrorKind::Invalid,
            ),
            (403, 7, "etcdserver: permission denied", ErrorKind::Denied),
            (
                429,
                8,
                "etcdserver: mvcc: database space exceeded",
                ErrorKind::RateLimited,
            ),
            (
                412,
                9,
                "etcdserver: authentication is not enabled",
                ErrorKind::Config,
            ),
            (
                503,
                14,
                "etcdserver: leader changed",
                ErrorKind::Unavailable,
            ),
            (504, 4, "context deadline exceeded", ErrorKind::Unavailable),
        ] {
            let body = format!(r#"{{"error":"{said}","message":"{said}","code":{code}}}"#);
            let error = from_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(error.kind(), kind, "{said}");
        }
        let plain = from_answer(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(plain.kind(), ErrorKind::Unavailable);
        assert!(is_of_member(&plain));
    }
}
