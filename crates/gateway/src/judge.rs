//! What an answer says about the service that gave it.

use std::time::Duration;

use http::{HeaderMap, Response, StatusCode};
use trunkline_core::{Error, Retry};
use trunkline_http::Body;
use trunkline_resilience::{Classify, Outcome, Standard};

use crate::attempt::Attempts;

type Answer = Result<Response<Body>, Error>;

/// Errors by what they are, answers by their status: 5xx and 429 speak against the service, and 502, 503, 504 and 429
/// may be tried again where a repetition does no harm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByStatus;

impl Classify<Answer> for ByStatus {
    fn outcome(&self, answer: &Answer) -> Outcome {
        match answer {
            Ok(response) if is_failure(response.status()) => Outcome::Failure,
            other => Standard.outcome(other),
        }
    }

    fn retry(&self, answer: &Answer) -> Retry {
        match answer {
            Ok(response) if is_passing(response.status()) => Retry::IfIdempotent,
            Ok(_) => Retry::Never,
            error => Standard.retry(error),
        }
    }

    fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        match answer {
            Ok(response) => seconds(response.headers()),
            error => Standard.retry_after(error),
        }
    }
}

/// The same, except that nothing is tried again once the body of the request is gone.
pub(crate) struct Judge<'a>(pub(crate) &'a Attempts<'a>);

impl Classify<Answer> for Judge<'_> {
    fn outcome(&self, answer: &Answer) -> Outcome {
        ByStatus.outcome(answer)
    }

    fn retry(&self, answer: &Answer) -> Retry {
        match ByStatus.retry(answer) {
            Retry::Never => Retry::Never,
            _ if !self.0.can_repeat() => Retry::Never,
            other => other,
        }
    }

    fn retry_after(&self, answer: &Answer) -> Option<Duration> {
        ByStatus.retry_after(answer)
    }
}

fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// Conditions that pass; another instance may not have them.
fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
    )
}

fn seconds(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}
