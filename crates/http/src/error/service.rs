//! What a call to a service ends in when it does not end in what was asked for.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use trunkline_core::{Error, ErrorKind, Origin, Problem, Retry};
use trunkline_resilience::{CircuitOpen, RetriedBelow, RetryExhausted};

use super::Mismatch;

/// A call to a service failed. `B` is what the body of an answer with an error status is read as.
///
/// ```
/// use trunkline_http::ServiceError;
///
/// fn worth_an_alarm(error: &ServiceError) -> bool {
///     match error {
///         ServiceError::CircuitOpen(_) => false,
///         ServiceError::Status(answer) => answer.status.is_server_error(),
///         _ => true,
///     }
/// }
/// ```
#[doc(alias = "ServiceClientError")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError<B = Problem>
where
    B: fmt::Debug + fmt::Display + Send + Sync + 'static,
{
    /// The circuit is open: nothing was sent. [`ServiceError::circuit_open`] says until when.
    #[doc(alias = "CircuitOpenError")]
    #[doc(alias = "CircuitBreakerOpenError")]
    #[error(transparent)]
    CircuitOpen(Error),
    /// There was no answer in time.
    #[doc(alias = "ServiceTimeoutError")]
    #[error(transparent)]
    ServiceTimeout(Error),
    /// The service cannot be reached, or the call was refused here for another reason than an open circuit.
    #[doc(alias = "ServiceUnavailableError")]
    #[error(transparent)]
    ServiceUnavailable(Error),
    /// What was to be sent, or what came, is not what it has to be.
    #[doc(alias = "ValidationError")]
    #[error(transparent)]
    Validation(Error),
    /// The service answered with an error.
    #[error(transparent)]
    Status(Box<StatusError<B>>),
    /// Anything else; the error says what.
    #[error(transparent)]
    Other(Error),
}

/// A service answered with an error status.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatusError<B = Problem> {
    /// The service; empty for an answer that is to be given here.
    pub service: String,
    /// The status.
    pub status: StatusCode,
    /// What the body says.
    pub problem: B,
    /// Whether it was retried already, here or by who answered: it is not worth another attempt one hop further.
    pub retried: bool,
    attempts: Option<Attempts>,
    /// What the body does not have of the form that was asked for, where `problem` is what could be read all the same.
    unread: Option<Box<Mismatch>>,
}

/// Every attempt of a call that ended in an answer; in the extensions of the answer.
#[derive(Clone, Debug)]
pub(crate) struct Attempts(Arc<RetryExhausted>);

impl Attempts {
    pub(crate) fn new(exhausted: RetryExhausted) -> Self {
        Self(Arc::new(exhausted))
    }

    pub(crate) fn told(&self) -> &RetryExhausted {
        &self.0
    }
}

/// An answer is no other one for having been asked for more often.
impl PartialEq for Attempts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Attempts {}

impl<B: fmt::Display> fmt::Display for StatusError<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            status,
            problem,
            ..
        } = self;
        write!(f, "{service} answered {}: {problem}", status.as_u16())
    }
}

impl<B: fmt::Debug + fmt::Display> std::error::Error for StatusError<B> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.retried.then_some(&RetriedBelow as _)
    }
}

impl<B> StatusError<B> {
    pub(crate) const fn new(service: String, status: StatusCode, problem: B) -> Self {
        Self {
            service,
            status,
            problem,
            retried: false,
            attempts: None,
            unread: None,
        }
    }

    pub(crate) fn after(mut self, attempts: Option<Attempts>) -> Self {
        self.attempts = attempts;
        self
    }

    pub(crate) fn unread(mut self, mismatch: Option<Mismatch>) -> Self {
        self.unread = mismatch.map(Box::new);
        self
    }

    /// What stands for it where its problem breaks the rules of its type: the status is known all the same.
    #[cfg(feature = "validate")]
    pub(crate) fn unfit(self, mismatch: Mismatch) -> ServiceError<B>
    where
        B: fmt::Debug + fmt::Display + Clone + Send + Sync + 'static,
    {
        let title = self.status.canonical_reason().unwrap_or("unknown status");
        let problem =
            Problem::new(self.status.as_u16(), title).with_detail(self.problem.to_string());
        let error = StatusError {
            service: self.service,
            status: self.status,
            problem,
            retried: self.retried,
            attempts: self.attempts,
            unread: Some(Box::new(mismatch)),
        };
        Error::from(ServiceError::Status(Box::new(error))).into()
    }

    /// Every attempt, when there was more than one.
    #[must_use]
    pub fn retry_exhausted(&self) -> Option<&RetryExhausted> {
        self.attempts.as_ref().map(Attempts::told)
    }

    pub(crate) const fn retried(mut self, retried: bool) -> Self {
        self.retried = retried;
        self
    }
}

impl<B> ServiceError<B>
where
    B: fmt::Debug + fmt::Display + Send + Sync + 'static,
{
    /// An answer to give: what an implementation of an interface returns, for the server's half to send as it is. An
    /// [`Error`] of [`trunkline_core`] does as well, and becomes the status that its kind is.
    pub fn answer(status: StatusCode, problem: B) -> Self {
        Self::Status(Box::new(StatusError::new(String::new(), status, problem)))
    }

    /// The status of the answer, if there was one.
    #[must_use]
    pub fn status_code(&self) -> Option<StatusCode> {
        match self {
            Self::Status(answer) => Some(answer.status),
            _ => self.unread().map(|answer| answer.status),
        }
    }

    /// The answer whose body is not of the form that was asked for.
    fn unread(&self) -> Option<&StatusError> {
        self.error()?.find()
    }

    /// The open circuit that refused the call.
    #[must_use]
    pub fn circuit_open(&self) -> Option<&CircuitOpen> {
        self.error()?.find()
    }

    /// Every attempt, when there was more than one or another one was refused.
    #[must_use]
    pub fn retry_exhausted(&self) -> Option<&RetryExhausted> {
        match self {
            Self::Status(answer) => answer.retry_exhausted(),
            _ => {
                let told = self.error()?.find();
                told.or_else(|| self.unread()?.retry_exhausted())
            }
        }
    }

    /// What does not have the form that it has to have, place by place.
    #[must_use]
    pub fn mismatch(&self) -> Option<&Mismatch> {
        let found = self.error()?.find();
        found.or_else(|| self.unread()?.unread.as_deref())
    }

    /// The error within; an answer with an error status is none.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::CircuitOpen(error)
            | Self::ServiceTimeout(error)
            | Self::ServiceUnavailable(error)
            | Self::Validation(error)
            | Self::Other(error) => Some(error),
            Self::Status(_) => None,
        }
    }

    /// What went wrong, in one word.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Status(answer) => Problem::kind_of(answer.status.as_u16()),
            other => other.error().map_or(ErrorKind::Internal, Error::kind),
        }
    }
}

/// Chosen by the typed cause, then by the kind.
impl<B> From<Error> for ServiceError<B>
where
    B: fmt::Debug + fmt::Display + Clone + Send + Sync + 'static,
{
    fn from(error: Error) -> Self {
        if let Some(answer) = error.find::<StatusError<B>>() {
            return Self::Status(Box::new(answer.clone()));
        }
        if error.find::<CircuitOpen>().is_some() {
            return Self::CircuitOpen(error);
        }
        match error.kind() {
            ErrorKind::Timeout => Self::ServiceTimeout(error),
            ErrorKind::Unavailable | ErrorKind::Rejected | ErrorKind::RateLimited => {
                Self::ServiceUnavailable(error)
            }
            ErrorKind::Invalid => Self::Validation(error),
            _ => Self::Other(error),
        }
    }
}

impl<B> From<ServiceError<B>> for Error
where
    B: fmt::Debug + fmt::Display + Send + Sync + 'static,
{
    fn from(error: ServiceError<B>) -> Self {
        match error {
            ServiceError::CircuitOpen(error)
            | ServiceError::ServiceTimeout(error)
            | ServiceError::ServiceUnavailable(error)
            | ServiceError::Validation(error)
            | ServiceError::Other(error) => error,
            ServiceError::Status(answer) => {
                let status = answer.status.as_u16();
                let retry = match status {
                    429 | 502..=504 => Retry::IfIdempotent,
                    _ => Retry::Never,
                };
                Self::new(Problem::kind_of(status), answer.to_string())
                    .with_origin(Origin::Remote)
                    .with_retry(retry)
                    .with_source(*answer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_resilience::Target;
    use trunkline_resilience::breaker::{Breaker, BreakerSettings, Control};

    use super::*;

    fn open() -> Error {
        let breaker = Breaker::new(Target::service("users"), BreakerSettings::default());
        breaker.force(Control::ForcedOpen);
        Error::from(breaker.try_acquire().unwrap_err())
    }

    #[test]
    fn an_error_becomes_the_case_that_it_is() {
        let case = |error: Error| -> ServiceError { error.into() };
        assert!(matches!(case(open()), ServiceError::CircuitOpen(_)));
        assert!(case(open()).circuit_open().is_some());
        assert!(matches!(
            case(Error::timeout("x")),
            ServiceError::ServiceTimeout(_)
        ));
        assert!(matches!(
            case(Error::unavailable("x")),
            ServiceError::ServiceUnavailable(_)
        ));
        assert!(matches!(
            case(Error::rejected("x")),
            ServiceError::ServiceUnavailable(_)
        ));
        assert!(matches!(
            case(Error::invalid("x")),
            ServiceError::Validation(_)
        ));
        assert!(matches!(case(Error::config("x")), ServiceError::Other(_)));
        assert_eq!(case(Error::timeout("x")).status_code(), None);
    }

    #[test]
    fn an_answer_survives_the_way_through_the_one_error() {
        let answer: StatusError = StatusError::new(
            "users".to_owned(),
            StatusCode::NOT_FOUND,
            Problem::new(404, "Not Found").with_detail("no user 42"),
        );
        let error = Error::from(ServiceError::Status(Box::new(answer.clone())));
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.origin(), Origin::Remote);
        assert_eq!(error.retry(), Retry::Never);
        assert_eq!(
            error.to_string(),
            "users answered 404: Not Found: no user 42"
        );
        let back: ServiceError = error.into();
        assert_eq!(back.status_code(), Some(StatusCode::NOT_FOUND));
        assert!(matches!(back, ServiceError::Status(found) if *found == answer));
    }
}
