//! What a call answers that never fails as a `Result`.

use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use trunkline_core::Error;

use crate::error::ServiceError;

/// How a call went, as one value: `data` after a success, `error` after a failure.
///
/// ```
/// use trunkline_http::{ServiceResult, StatusCode};
///
/// let result = ServiceResult::succeeded(vec!["Ada"], Some(StatusCode::OK));
/// assert!(result.success);
/// assert_eq!(result.data.as_deref(), Some(&["Ada"][..]));
/// assert_eq!(result.into_result()?, ["Ada"]);
/// # Ok::<(), trunkline_http::ServiceError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct ServiceResult<T = Value> {
    /// Whether there is data.
    pub success: bool,
    /// What was answered.
    pub data: Option<T>,
    /// What went wrong.
    pub error: Option<ServiceError>,
    /// The status of the answer, if there was one; that of an error status too.
    pub status_code: Option<StatusCode>,
}

impl<T> ServiceResult<T> {
    /// A success. What did not come by HTTP has no status.
    #[must_use]
    pub const fn succeeded(data: T, status_code: Option<StatusCode>) -> Self {
        Self {
            success: true,
            data: Some(data),
            error: None,
            status_code,
        }
    }

    /// A failure, with the status of its answer if there was one.
    #[must_use]
    pub fn failed(error: ServiceError) -> Self {
        Self {
            success: false,
            data: None,
            status_code: error.status_code(),
            error: Some(error),
        }
    }

    /// The data or the error.
    ///
    /// # Errors
    /// What the call failed with.
    pub fn into_result(self) -> Result<T, ServiceError> {
        match (self.data, self.error) {
            (Some(data), None) => Ok(data),
            (_, Some(error)) => Err(error),
            (None, None) => Err(Error::internal("the result has neither data nor error").into()),
        }
    }

    /// The same with other data.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> ServiceResult<U> {
        ServiceResult {
            success: self.success,
            data: self.data.map(change),
            error: self.error,
            status_code: self.status_code,
        }
    }

    /// The same with its data as JSON, so that results of different types can stand beside each other.
    #[must_use]
    pub fn erased(self) -> ServiceResult
    where
        T: Serialize,
    {
        let status_code = self.status_code;
        let data = self.into_result().and_then(|data| {
            serde_json::to_value(data).map_err(|error| {
                Error::invalid("the data cannot be written as JSON")
                    .with_source(error)
                    .into()
            })
        });
        let mut erased = match data {
            Ok(data) => ServiceResult::succeeded(data, status_code),
            Err(error) => ServiceResult::failed(error),
        };
        erased.status_code = status_code;
        erased
    }
}

impl<T, E: Into<ServiceError>> From<Result<T, E>> for ServiceResult<T> {
    fn from(result: Result<T, E>) -> Self {
        match result {
            Ok(data) => Self::succeeded(data, None),
            Err(error) => Self::failed(error.into()),
        }
    }
}
