//! What the client is told when there is no answer to pass on.

use http::{HeaderMap, StatusCode};
use trunkline_core::{Error, ErrorKind};
use trunkline_discovery::ServiceName;
use trunkline_http::BodyTooLarge;
use trunkline_resilience::{CircuitOpen, RetryExhausted};
use trunkline_server::ProblemResponse;

/// The problem that stands for an error behind the gateway. It names the service and never an address.
pub(crate) fn problem_of(service: &ServiceName, error: Error) -> ProblemResponse {
    let (status, detail) = describe(service, &error);
    let problem = ProblemResponse::new(status, detail).with_extension("service", service.as_str());
    let problem = match error.find::<CircuitOpen>().map(|open| open.retry_after) {
        Some(wait) => problem.with_retry_after(wait),
        None => problem,
    };
    problem.with_cause(error)
}

fn describe(service: &ServiceName, error: &Error) -> (StatusCode, String) {
    if error.find::<BodyTooLarge>().is_some() {
        return (StatusCode::PAYLOAD_TOO_LARGE, error.message().to_owned());
    }
    match cause_of(error).kind() {
        ErrorKind::Rejected | ErrorKind::RateLimited | ErrorKind::Exhausted => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{service} cannot be asked now"),
        ),
        ErrorKind::Timeout => (
            StatusCode::GATEWAY_TIMEOUT,
            format!("{service} did not answer in time"),
        ),
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, error.message().to_owned()),
        ErrorKind::Unavailable | ErrorKind::Internal => (
            StatusCode::BAD_GATEWAY,
            format!("{service} gave no sound answer"),
        ),
        _ => (
            StatusCode::BAD_GATEWAY,
            format!("{service} could not be asked"),
        ),
    }
}

/// Of several attempts the last one tells.
fn cause_of(error: &Error) -> &Error {
    error
        .find::<RetryExhausted>()
        .map_or(error, |attempts| &attempts.last)
}

/// A path that would climb out of its route, written plainly or percent-encoded.
pub(crate) fn climbs(path: &str) -> bool {
    path.split('/').any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        plain == "." || plain == ".."
    }) || path.to_ascii_lowercase().contains("%2f..")
}

/// Whether the client itself said until when it waits; only then a body that streams is cut off.
pub(crate) fn has_deadline(headers: &HeaderMap, deadline_header: &str) -> bool {
    headers.contains_key(deadline_header) || headers.contains_key("grpc-timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbing_paths_are_recognised_however_they_are_written() {
        for path in [
            "/a/../b",
            "/a/./b",
            "/a/%2e%2E/b",
            "/..",
            "/a/.%2e",
            "/a%2f..%2fb",
        ] {
            assert!(climbs(path), "{path}");
        }
        for path in ["/a/b", "/a/...", "/a/.well-known", "/a/..b", "/a/b..c"] {
            assert!(!climbs(path), "{path}");
        }
    }

    #[test]
    fn the_kind_of_error_decides_the_status() {
        let users = ServiceName::new("users").unwrap();
        for (error, status) in [
            (Error::rejected("no instance"), 503),
            (Error::timeout("late"), 504),
            (Error::unavailable("refused"), 502),
            (Error::internal("not HTTP"), 502),
            (Error::invalid("bad URI"), 400),
        ] {
            let kind = error.kind();
            assert_eq!(describe(&users, &error).0.as_u16(), status, "{kind}");
        }
    }
}
