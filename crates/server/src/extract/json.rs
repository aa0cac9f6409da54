//! JSON bodies.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_core::Error;

use crate::ProblemResponse;

/// A JSON body, read or answered.
///
/// As an extractor it refuses with a problem document: 415 when the body is no JSON by its content type, 413 when it is
/// too large, 400 when it is malformed (with line and column), 422 when it is well-formed and does not fit (with the
/// field in `errors`).
///
/// ```
/// use axum::{Router, routing::post};
/// use trunkline_server::Json;
///
/// #[derive(serde::Deserialize)]
/// struct Order { quantity: u32 }
///
/// async fn place(Json(order): Json<Order>) -> Json<u32> { Json(order.quantity) }
///
/// let router: Router = Router::new().route("/orders", post(place));
/// # let _ = router;
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(
    /// What was read, or what is answered.
    pub T,
);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ProblemResponse;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        if !is_json(request.headers()) {
            return Err(ProblemResponse::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON, with `Content-Type: application/json`",
            ));
        }
        let body = Bytes::from_request(request, state).await.map_err(unread)?;
        read(&body).map(Self)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(text) => {
                let json = HeaderValue::from_static("application/json");
                ([(CONTENT_TYPE, json)], text).into_response()
            }
            Err(cause) => {
                let error =
                    Error::internal("an answer cannot be written as JSON").with_source(cause);
                ProblemResponse::from(error).into_response()
            }
        }
    }
}

/// `application/json` or anything that ends in `+json`.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let named = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let Some((kind, subtype)) = named
        .and_then(|named| named.split(';').next())
        .and_then(|media| media.trim().split_once('/'))
    else {
        return false;
    };
    let subtype = subtype.to_ascii_lowercase();
    kind.eq_ignore_ascii_case("application") && (subtype == "json" || subtype.ends_with("+json"))
}

#[expect(clippy::needless_pass_by_value, reason = "what `map_err` hands over")]
pub(crate) fn unread(rejection: BytesRejection) -> ProblemResponse {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        _ => ProblemResponse::bad_request("the body could not be read to its end"),
    }
}

pub(crate) fn too_large() -> ProblemResponse {
    ProblemResponse::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "the body is larger than this service takes",
    )
}

pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ProblemResponse> {
    use serde_json::error::Category;
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.into_inner();
        match cause.classify() {
            Category::Data => misfit(&path, &cause),
            _ => malformed(&cause),
        }
    })?;
    reader.end().map_err(|cause| malformed(&cause))?;
    Ok(value)
}

fn malformed(cause: &serde_json::Error) -> ProblemResponse {
    ProblemResponse::bad_request(format!("the body is no valid JSON: {cause}"))
}

fn misfit(path: &str, cause: &serde_json::Error) -> ProblemResponse {
    let text = cause.to_string();
    // The position is of no use to whoever made the document from data.
    let what = text.split(" at line ").next().unwrap_or(&text);
    ProblemResponse::invalid_fields([(field(path, what), what)])
}

/// The field that is wrong. Of one that is missing or unknown serde's message names it, and the path only leads to the
/// object around it.
fn field(path: &str, what: &str) -> String {
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .into_iter()
        .find_map(|start| what.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    let around = if path == "." { "" } else { path };
    match named {
        // An unknown field is part of the path already.
        Some(name) if around == name || around.ends_with(&format!(".{name}")) => around.to_owned(),
        Some(name) if around.is_empty() => name.to_owned(),
        Some(name) => format!("{around}.{name}"),
        None if around.is_empty() => ".".to_owned(),
        None => around.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::HashMap;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Order {
        #[allow(dead_code, reason = "only read")]
        items: Vec<Item>,
        #[allow(dead_code, reason = "only read")]
        #[serde(default)]
        notes: HashMap<String, u8>,
    }

    #[derive(Debug, Deserialize)]
    struct Item {
        #[allow(dead_code, reason = "only read")]
        quantity: u32,
    }

    #[test]
    fn the_wrong_field_is_named() {
        for (body, field, what) in [
            (
                r#"{"items":[{"quantity":1},{"quantity":"two"}]}"#,
                "items[1].quantity",
                "invalid type",
            ),
            (
                r#"{"items":[{"quantity":-1}]}"#,
                "items[0].quantity",
                "invalid value",
            ),
            (r#"{"items":[{}]}"#, "items[0].quantity", "missing field"),
            (r"{}", "items", "missing field"),
            (r#"{"items":[],"extra":1}"#, "extra", "unknown field"),
            (
                r#"{"items":[],"notes":{"a.b":300}}"#,
                "notes.a.b",
                "invalid value",
            ),
            ("[1]", ".", "invalid"),
            ("null", ".", "invalid type"),
        ] {
            let problem = read::<Order>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.status(), 422, "{body}");
            let error = &problem.problem().extensions["errors"][0];
            let named = error["field"].as_str().unwrap();
            if field != "." {
                assert_eq!(named, field, "{body}");
            }
            let detail = error["detail"].as_str().unwrap();
            assert!(
                detail.starts_with(what) && !detail.contains("line"),
                "{body}: {detail}"
            );
        }
    }

    #[test]
    fn malformed_is_400_with_the_place() {
        for body in [
            "",
            "{",
            "{\"items\":[}",
            "{\"items\":[]} x",
            "\u{1}",
            "{'items':[]}",
        ] {
            let problem = read::<Order>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.status(), 400, "{body}");
            assert!(
                problem
                    .problem()
                    .detail
                    .as_deref()
                    .unwrap()
                    .contains("line 1 column")
            );
        }
    }

    #[test]
    fn json_media_types() {
        for (media, expected) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/vnd.orders+json", true),
            ("text/json", false),
            ("application/jsonp", false),
            ("application", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
            assert_eq!(is_json(&headers), expected, "{media}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
