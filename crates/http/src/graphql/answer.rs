//! What a GraphQL service answers.

use std::fmt;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use trunkline_core::{Error, ErrorKind, Origin, Retry};

use crate::error::ServiceError;
use crate::interface::decode_json;

/// What a GraphQL service answers: data, errors, or both.
///
/// ```
/// use trunkline_http::graphql::GraphQlResponse;
///
/// let text = r#"{ "data": { "name": "Ada" }, "errors": [{ "message": "no orders", "path": ["orders", 0] }] }"#;
/// let answer: GraphQlResponse<serde_json::Value> = serde_json::from_str(text)?;
/// assert!(answer.is_partial());
/// assert_eq!(answer.errors[0].to_string(), "no orders (orders.0)");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
#[non_exhaustive]
pub struct GraphQlResponse<T = Value> {
    /// What was asked for, as far as it could be had.
    pub data: Option<T>,
    /// What could not be had, and why.
    #[serde(default, deserialize_with = "absent_is_none")]
    pub errors: Vec<GraphQlError>,
    /// What the service says beside that.
    #[serde(default, deserialize_with = "absent_is_none")]
    pub extensions: Map<String, Value>,
}

/// `null` stands for nothing.
fn absent_is_none<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl<T> GraphQlResponse<T> {
    /// Whether there are data, and errors beside them.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.data.is_some() && !self.errors.is_empty()
    }

    /// The data, if nothing went wrong.
    ///
    /// # Errors
    /// Any error that the service told, as a [`ServiceError`] with [`GraphQlErrors`] within; `Validation` when it answered
    /// without data.
    pub fn into_result(self) -> Result<T, ServiceError> {
        if !self.errors.is_empty() {
            return Err(failed(self.errors).into());
        }
        self.data
            .ok_or_else(|| Error::invalid("GraphQL: the answer has no data").into())
    }
}

/// One error that a GraphQL service told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct GraphQlError {
    /// What went wrong.
    pub message: String,
    /// Where in the document.
    #[serde(default, deserialize_with = "absent_is_none")]
    pub locations: Vec<Location>,
    /// Which part of the data is missing: names of fields and places in lists.
    #[serde(default, deserialize_with = "absent_is_none")]
    pub path: Vec<Value>,
    /// What the service says beside that, such as a `code`.
    #[serde(default, deserialize_with = "absent_is_none")]
    pub extensions: Map<String, Value>,
}

/// A place in a document; both numbers begin at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Location {
    /// The line.
    pub line: u32,
    /// The column.
    pub column: u32,
}

impl GraphQlError {
    /// The code by which services tell kinds of errors apart: `UNAUTHENTICATED`.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        self.extensions.get("code")?.as_str()
    }

    fn kind(&self) -> ErrorKind {
        match self.code() {
            Some("UNAUTHENTICATED") => ErrorKind::Unauthenticated,
            Some("FORBIDDEN") => ErrorKind::Denied,
            Some("NOT_FOUND") => ErrorKind::NotFound,
            Some("BAD_USER_INPUT" | "GRAPHQL_PARSE_FAILED" | "GRAPHQL_VALIDATION_FAILED") => {
                ErrorKind::Invalid
            }
            Some(_) => ErrorKind::Internal,
            // What has no place in the data was refused before it was carried out.
            None if self.path.is_empty() => ErrorKind::Invalid,
            None => ErrorKind::Internal,
        }
    }
}

/// `message (path)`.
impl fmt::Display for GraphQlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (place, part) in self.path.iter().enumerate() {
            f.write_str(if place == 0 { " (" } else { "." })?;
            match part {
                Value::String(name) => f.write_str(name)?,
                other => write!(f, "{other}")?,
            }
        }
        if !self.path.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// Every error that a GraphQL service told; never empty. A typed cause of errors of this crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphQlErrors(pub Vec<GraphQlError>);

impl fmt::Display for GraphQlErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for GraphQlErrors {}

impl ServiceError {
    /// What a GraphQL service told, where it answered with errors.
    #[must_use]
    pub fn graphql_errors(&self) -> Option<&[GraphQlError]> {
        let told: &GraphQlErrors = self.error()?.find()?;
        Some(&told.0)
    }
}

/// The kind is that of the first error. They came as an answer: nobody sends the request again by itself.
fn failed(errors: Vec<GraphQlError>) -> Error {
    let kind = errors
        .first()
        .map_or(ErrorKind::Internal, GraphQlError::kind);
    let told = GraphQlErrors(errors);
    Error::new(kind, format!("GraphQL: {told}"))
        .with_origin(Origin::Remote)
        .with_retry(Retry::Never)
        .with_source(told)
}

/// Reads an answer. Data of another form than asked for are no news where the service has told why they are missing.
pub(super) fn read<T: DeserializeOwned>(
    service: &str,
    bytes: &[u8],
) -> Result<GraphQlResponse<T>, Error> {
    match decode_json::<GraphQlResponse<T>>(service, bytes) {
        Ok(answer) if answer.data.is_some() || !answer.errors.is_empty() => Ok(answer),
        // Data that are `null`: a field that may be so, or nothing.
        Ok(answer) => match serde_json::from_slice::<Map<String, Value>>(bytes) {
            Ok(members) if members.contains_key("data") => Ok(answer),
            _ => Err(Error::invalid(format!(
                "the answer of {service} is none of GraphQL: it has neither data nor errors"
            ))
            .with_origin(Origin::Remote)),
        },
        Err(mismatch) => match serde_json::from_slice::<GraphQlResponse<IgnoredAny>>(bytes) {
            Ok(answer) if !answer.errors.is_empty() => Err(failed(answer.errors)),
            _ => Err(mismatch),
        },
    }
}

/// Whether a body is an answer of GraphQL that tells errors.
pub(super) fn tells_errors(bytes: &[u8]) -> bool {
    serde_json::from_slice::<GraphQlResponse<IgnoredAny>>(bytes)
        .is_ok_and(|answer| !answer.errors.is_empty())
}
