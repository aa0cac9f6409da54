//! Errors as answers: problem documents (RFC 9457).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use trunkline_core::{Context, Error, ErrorKind, Origin, Problem};
use trunkline_resilience::RetriedBelow;

/// The name of [`trunkline_core::names::header::RETRIES_EXHAUSTED`], as header maps want it.
pub(crate) const RETRIES_EXHAUSTED: HeaderName = HeaderName::from_static("x-retries-exhausted");

/// The member that carries the correlation id.
const CORRELATION_ID: &str = "correlation_id";

/// A problem document as a response; what handlers return as their error.
///
/// Every [`Error`] becomes one with `?`. Within a request's scope it names the correlation id. What is `Internal` or
/// concerns the configuration is logged in full and told to nobody.
///
/// ```
/// use trunkline_core::Error;
/// use trunkline_server::{Json, ProblemResponse};
///
/// async fn stock() -> trunkline_core::Result<u32> { Err(Error::unavailable("the stock cannot be reached")) }
///
/// async fn handler() -> Result<Json<u32>, ProblemResponse> {
///     let left = stock().await?;
///     if left == 0 {
///         return Err(ProblemResponse::conflict("sold out"));
///     }
///     Ok(Json(left))
/// }
/// # let _ = handler;
/// ```
#[derive(Debug)]
pub struct ProblemResponse(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    problem: Problem,
    retry_after: Option<Duration>,
    /// The cause was retried already: whoever called us need not.
    retried: bool,
    cause: Option<Error>,
}

macro_rules! shortcuts {
    ($($(#[$doc:meta])* $name:ident => $status:ident;)*) => {$(
        $(#[$doc])*
        #[must_use]
        pub fn $name(detail: impl Into<String>) -> Self {
            Self::new(StatusCode::$status, detail)
        }
    )*};
}

impl ProblemResponse {
    /// A problem with the title that the status has by itself.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self::of(status, blank(status).with_detail(detail))
    }

    shortcuts! {
        /// 400: the request is malformed.
        bad_request => BAD_REQUEST;
        /// 401: nobody, or nobody known, is asking.
        unauthorized => UNAUTHORIZED;
        /// 403: the one who asks may not do this.
        forbidden => FORBIDDEN;
        /// 404: it does not exist.
        not_found => NOT_FOUND;
        /// 409: it contradicts the present state.
        conflict => CONFLICT;
        /// 422: the request is well-formed and wrong.
        unprocessable => UNPROCESSABLE_ENTITY;
        /// 503: it cannot be done now.
        unavailable => SERVICE_UNAVAILABLE;
    }

    /// A 422 that names the fields that are wrong, each with what is wrong, in the member `errors`.
    #[must_use]
    pub fn invalid_fields<F, W>(fields: impl IntoIterator<Item = (F, W)>) -> Self
    where
        F: Into<String>,
        W: Into<String>,
    {
        let errors: Vec<serde_json::Value> = fields
            .into_iter()
            .map(|(field, what)| serde_json::json!({"field": field.into(), "detail": what.into()}))
            .collect();
        Self::unprocessable("the request has invalid fields").with_extension("errors", errors)
    }

    fn of(status: StatusCode, problem: Problem) -> Self {
        Self(Box::new(Inner {
            status,
            problem,
            retry_after: None,
            retried: false,
            cause: None,
        }))
    }

    /// Names the kind of problem by a URI reference.
    #[must_use]
    pub fn with_type(self, problem_type: impl Into<String>) -> Self {
        self.edit(|problem| problem.with_type(problem_type))
    }

    /// Replaces the title.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.0.problem.title = title.into();
        self
    }

    /// Names this occurrence by a URI reference.
    #[must_use]
    pub fn with_instance(self, instance: impl Into<String>) -> Self {
        self.edit(|problem| problem.with_instance(instance))
    }

    /// Adds a member of its own.
    #[must_use]
    pub fn with_extension(
        self,
        name: impl Into<String>,
        value: impl Into<serde_json::Value>,
    ) -> Self {
        self.edit(|problem| problem.with_extension(name, value))
    }

    /// Asks the client to wait that long, in whole seconds rounded up.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// Adds the error behind it, which is logged and not told.
    #[must_use]
    pub fn with_cause(mut self, cause: Error) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The document.
    #[must_use]
    pub fn problem(&self) -> &Problem {
        &self.0.problem
    }

    fn edit(mut self, change: impl FnOnce(Problem) -> Problem) -> Self {
        self.0.problem = change(std::mem::take(&mut self.0.problem));
        self
    }

    fn log(&self) {
        let Inner { status, cause, .. } = &*self.0;
        let Some(cause) = cause else { return };
        let (status, error) = (status.as_u16(), cause.report());
        match status {
            500 => tracing::error!(target: "trunkline::server", status, %error, "request failed"),
            501.. => tracing::warn!(target: "trunkline::server", status, %error, "request failed"),
            _ => tracing::debug!(target: "trunkline::server", status, %error, "request refused"),
        }
    }
}

/// The status that tells a caller of this error.
///
/// An error that another service answered with is not the fault of our caller: only `NotFound`, `Conflict`,
/// `RateLimited`, `Unavailable` and `Timeout` mean the same one hop further, everything else is 502.
#[must_use]
pub fn status_of(error: &Error) -> StatusCode {
    let relayed = matches!(
        error.kind(),
        ErrorKind::NotFound
            | ErrorKind::Conflict
            | ErrorKind::RateLimited
            | ErrorKind::Unavailable
            | ErrorKind::Timeout
            | ErrorKind::Rejected
            | ErrorKind::Cancelled
    );
    if error.origin() == Origin::Remote && !relayed {
        return StatusCode::BAD_GATEWAY;
    }
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Rejected | ErrorKind::Cancelled => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Exhausted => StatusCode::INSUFFICIENT_STORAGE,
        // `Config`, `Internal`, and kinds that a later version adds.
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for ProblemResponse {
    fn from(error: Error) -> Self {
        let status = status_of(&error);
        let told = !matches!(error.kind(), ErrorKind::Internal | ErrorKind::Config);
        let problem = match told {
            true => blank(status).with_detail(error.message()),
            false => blank(status).with_detail("the cause is in the log of the service"),
        };
        let mut response = Self::of(status, problem);
        response.0.retry_after = retry_after(&error);
        response.0.retried = RetriedBelow::is_in(&error);
        response.with_cause(error)
    }
}

fn retry_after(error: &Error) -> Option<Duration> {
    trunkline_resilience::retry_after(error)
}

impl From<Problem> for ProblemResponse {
    /// A status outside 400 to 599 becomes 500.
    fn from(problem: Problem) -> Self {
        let status = problem.status.filter(|status| (400..600).contains(status));
        let status = status.and_then(|status| StatusCode::from_u16(status).ok());
        Self::of(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), problem)
    }
}

impl IntoResponse for ProblemResponse {
    fn into_response(mut self) -> Response {
        self.log();
        if let Some(context) = Context::current()
            && !self.0.problem.extensions.contains_key(CORRELATION_ID)
        {
            self = self.with_extension(CORRELATION_ID, context.correlation_id().as_str());
        }
        let Inner {
            status,
            problem,
            retry_after,
            retried,
            ..
        } = *self.0;
        let mut response = (status, document(&problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static(Problem::CONTENT_TYPE),
        );
        if let Some(wait) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
        }
        if retried {
            headers.insert(RETRIES_EXHAUSTED, HeaderValue::from_static("true"));
        }
        response
    }
}

fn document(problem: &Problem) -> Vec<u8> {
    serde_json::to_vec(problem).unwrap_or_else(|_| b"{}".to_vec())
}

fn blank(status: StatusCode) -> Problem {
    Problem::new(
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error"),
    )
}

pub(crate) fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Marks a response, in its extensions, as that of another server: it is passed on as it is. An error without a body
/// that is not marked becomes a problem document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOn;

/// Turns an error response without any body, as axum gives for unknown routes and methods, into a problem document.
pub(crate) fn explain_empty(response: Response) -> Response {
    use http_body::Body as _;
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_empty = response.body().size_hint().exact() == Some(0);
    let is_passed_on = response.extensions().get::<PassedOn>().is_some();
    if !is_error || !is_empty || is_passed_on || response.headers().contains_key(CONTENT_TYPE) {
        return response;
    }
    let detail = match status {
        StatusCode::NOT_FOUND => "there is no such route",
        StatusCode::METHOD_NOT_ALLOWED => "the route does not have this method",
        _ => "the request was refused",
    };
    let (mut head, _) = response.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    let mut explained = ProblemResponse::new(status, detail).into_response();
    // Such as `Allow`.
    for (name, value) in &head.headers {
        explained.headers_mut().append(name, value.clone());
    }
    explained
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_status() {
        let local = [
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Timeout, 504),
            (ErrorKind::Cancelled, 503),
            (ErrorKind::Rejected, 503),
            (ErrorKind::RateLimited, 429),
            (ErrorKind::NotFound, 404),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Unauthenticated, 401),
            (ErrorKind::Denied, 403),
            (ErrorKind::Invalid, 422),
            (ErrorKind::Config, 500),
            (ErrorKind::Unsupported, 501),
            (ErrorKind::Exhausted, 507),
            (ErrorKind::Internal, 500),
        ];
        for (kind, status) in local {
            assert_eq!(status_of(&Error::new(kind, "x")).as_u16(), status, "{kind}");
            // What a caller of ours reads out of it is what it was, where one status stands for one kind.
            if !matches!(
                kind,
                ErrorKind::Cancelled | ErrorKind::Rejected | ErrorKind::Config
            ) {
                assert_eq!(Problem::kind_of(status), kind);
            }
        }
        let remote = [
            (ErrorKind::NotFound, 404),
            (ErrorKind::Unavailable, 503),
            (ErrorKind::Timeout, 504),
            (ErrorKind::RateLimited, 429),
            (ErrorKind::Conflict, 409),
            (ErrorKind::Invalid, 502),
            (ErrorKind::Unauthenticated, 502),
            (ErrorKind::Denied, 502),
            (ErrorKind::Internal, 502),
        ];
        for (kind, status) in remote {
            let error = Error::new(kind, "x").with_origin(Origin::Remote);
            assert_eq!(status_of(&error).as_u16(), status, "{kind}");
        }
    }

    #[test]
    fn what_is_internal_is_not_told() {
        let problem = ProblemResponse::from(Error::internal("row 7 of table secrets"));
        let text = serde_json::to_string(problem.problem()).unwrap();
        assert!(!text.contains("secrets"), "{text}");
        let problem = ProblemResponse::from(Error::not_found("no user 7"));
        assert_eq!(problem.problem().detail.as_deref(), Some("no user 7"));
    }

    #[test]
    fn seconds_are_rounded_up() {
        for (millis, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
            assert_eq!(whole_seconds(Duration::from_millis(millis)), seconds);
        }
    }

    #[test]
    fn what_was_retried_here_says_so_to_who_would_retry_it_above() {
        let plain = ProblemResponse::from(Error::unavailable("x")).into_response();
        assert!(!plain.headers().contains_key(RETRIES_EXHAUSTED));
        let retried = Error::unavailable("x").with_source(RetriedBelow);
        let told = ProblemResponse::from(retried).into_response();
        assert_eq!(told.headers()[RETRIES_EXHAUSTED], "true");
        assert_eq!(
            RETRIES_EXHAUSTED.as_str(),
            trunkline_core::names::header::RETRIES_EXHAUSTED.to_ascii_lowercase()
        );
    }
}
