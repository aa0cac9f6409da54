//! What the client is told when there is no answer to pass on.

use http::StatusCode;
use trunkline_core::{Error, ErrorKind, Retry};
use trunkline_discovery::ServiceName;
use trunkline_resilience::retry::AttemptFailure;
use trunkline_resilience::{CircuitOpen, Overloaded, RateLimited, RetryExhausted, retry_after};
use trunkline_server::ProblemResponse;

/// The problem that stands for an error behind the gateway. It names the service and never an address.
pub(crate) fn problem_of(service: &ServiceName, error: &Error) -> ProblemResponse {
    let (status, detail) = describe(service, error);
    let problem = ProblemResponse::new(status, detail).with_extension("service", service.as_str());
    // Whoever was refused here is told when to come back; what others asked of us is between them and us.
    let known = error.find::<CircuitOpen>().is_some()
        || error.find::<RateLimited>().is_some()
        || error.find::<Overloaded>().is_some();
    match retry_after(error).filter(|_| known) {
        Some(after) => problem.with_retry_after(after),
        None => problem,
    }
}

fn describe(service: &ServiceName, error: &Error) -> (StatusCode, String) {
    let last = cause_of(error);
    let (status, detail) = describe_last(service, last);
    // 503 says that nothing was processed.
    if status == StatusCode::SERVICE_UNAVAILABLE && may_have_been_processed(error) {
        return no_sound_answer(service);
    }
    (status, detail)
}

fn describe_last(service: &ServiceName, last: &Error) -> (StatusCode, String) {
    match last.kind() {
        ErrorKind::Timeout => (
            StatusCode::GATEWAY_TIMEOUT,
            format!("{service} did not answer in time"),
        ),
        ErrorKind::Invalid => (StatusCode::BAD_REQUEST, last.message().to_owned()),
        ErrorKind::Rejected | ErrorKind::RateLimited | ErrorKind::Exhausted => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{service} cannot be asked now"),
        ),
        ErrorKind::Cancelled => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the gateway is stopping".to_owned(),
        ),
        // What provably did not arrive may be sent again without a second thought.
        ErrorKind::Unavailable if last.retry() == Retry::Safe => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{service} cannot be reached"),
        ),
        _ => no_sound_answer(service),
    }
}

fn no_sound_answer(service: &ServiceName) -> (StatusCode, String) {
    (
        StatusCode::BAD_GATEWAY,
        format!("{service} gave no sound answer"),
    )
}

/// Whether an attempt before the last one may have done something.
fn may_have_been_processed(error: &Error) -> bool {
    let Some(attempts) = error.find::<RetryExhausted>() else {
        return false;
    };
    attempts
        .earlier
        .iter()
        .any(|attempt| match &attempt.failure {
            AttemptFailure::Error(error) => error.retry() != Retry::Safe,
            AttemptFailure::Answer(_) => true,
        })
}

/// Of several attempts the last one tells.
fn cause_of(error: &Error) -> &Error {
    error
        .find::<RetryExhausted>()
        .map_or(error, |attempts| &attempts.last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_error_decides_the_status() {
        let users = ServiceName::new("users").unwrap();
        for (error, status) in [
            (Error::rejected("no instance"), 503),
            (Error::timeout("late"), 504),
            (Error::unavailable("broke off"), 502),
            (Error::unavailable("refused").with_retry(Retry::Safe), 503),
            (Error::internal("not HTTP"), 502),
            (Error::invalid("bad URI"), 400),
            (Error::cancelled("shut down"), 503),
        ] {
            assert_eq!(describe(&users, &error).0.as_u16(), status, "{error}");
        }
    }

    #[test]
    fn no_address_is_told() {
        let users = ServiceName::new("users").unwrap();
        let error = Error::unavailable("cannot connect to 10.0.0.7:8000");
        let told = problem_of(&users, &error).problem().to_string();
        assert!(!told.contains("10.0.0.7"), "{told}");
    }
}
