//! Path and query parameters.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::ProblemResponse;

/// Parameters of the path, as axum's own, but refusals are problem documents: 422 with the parameter in `errors`.
///
/// ```
/// use axum::{Router, routing::get};
/// use trunkline_server::Path;
///
/// async fn user(Path(id): Path<u64>) -> String { format!("user {id}") }
///
/// let router: Router = Router::new().route("/users/{id}", get(user));
/// # let _ = router;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(
    /// The parameters.
    pub T,
);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let read = AxumPath::from_request_parts(parts, state).await;
        read.map(|AxumPath(value)| Self(value))
            .map_err(refused_path)
    }
}

fn refused_path(rejection: PathRejection) -> ProblemResponse {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        // The route and its handler do not fit each other: nothing the caller could mend.
        let error = trunkline_core::Error::internal(rejection.body_text());
        return error.into();
    };
    let what = failed.body_text();
    match failed.into_kind() {
        ErrorKind::ParseErrorAtKey {
            key, expected_type, ..
        } => ProblemResponse::invalid_fields([(key, format!("is no {expected_type}"))]),
        ErrorKind::ParseError { expected_type, .. } => {
            ProblemResponse::invalid_fields([("path", format!("is no {expected_type}"))])
        }
        ErrorKind::InvalidUtf8InPathParam { key } => {
            ProblemResponse::invalid_fields([(key, "is no UTF-8")])
        }
        _ => ProblemResponse::invalid_fields([("path", what)]),
    }
}

/// Parameters of the query, as axum's own, but refusals are problem documents: 422.
///
/// ```
/// use trunkline_server::Query;
///
/// #[derive(serde::Deserialize)]
/// struct Paging { limit: Option<u32> }
///
/// async fn list(Query(paging): Query<Paging>) -> String { format!("{:?}", paging.limit) }
/// # let _ = list;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(
    /// The parameters.
    pub T,
);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ProblemResponse;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let read = AxumQuery::from_request_parts(parts, state).await;
        read.map(|AxumQuery(value)| Self(value))
            .map_err(|rejection| {
                let text = rejection.body_text();
                let what = text
                    .split_once(": ")
                    .map_or(text.as_str(), |(_, what)| what);
                // `limit: invalid digit …`, or `missing field `limit``.
                let (field, what) = match what.split_once(": ") {
                    Some((field, what)) if !field.contains(' ') => (field, what),
                    _ => ("query", what),
                };
                ProblemResponse::invalid_fields([(field, what)])
            })
    }
}
