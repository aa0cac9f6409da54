//! The header `Idempotency-Key` and what a request is recognised by.

use axum::extract::OriginalUri;
use bytes::Bytes;
use http::request::Parts;
use sha2::{Digest, Sha256};
use trunkline_core::names::header::IDEMPOTENCY_KEY;

use crate::ProblemResponse;

/// Longest key that is kept.
const LONGEST: usize = 255;

/// The key of a request: a quoted string as the draft has it, or the same without quotes, as most clients send it.
pub(super) fn key_of(parts: &Parts) -> Result<Option<String>, ProblemResponse> {
    let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let refused = |why: &str| ProblemResponse::bad_request(format!("the Idempotency-Key {why}"));
    if values.next().is_some() {
        return Err(refused("stands there twice"));
    }
    let text = value
        .to_str()
        .map_err(|_| refused("is not visible ASCII"))?
        .trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => rest
            .strip_suffix('"')
            .ok_or_else(|| refused("lacks its closing quote"))?,
        None => text,
    };
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if key.is_empty() || key.len() > LONGEST || !key.bytes().all(allowed) {
        return Err(refused(
            "must be 1 to 255 visible ASCII characters without quotes",
        ));
    }
    Ok(Some(key.to_owned()))
}

/// A digest of method, path with query, and body.
pub(super) fn fingerprint(parts: &Parts, body: &Bytes) -> Bytes {
    let uri = match parts.extensions.get::<OriginalUri>() {
        Some(OriginalUri(uri)) => uri,
        None => &parts.uri,
    };
    let target = uri
        .path_and_query()
        .map_or(uri.path(), http::uri::PathAndQuery::as_str);
    let mut digest = Sha256::new();
    for part in [parts.method.as_str(), "\0", target, "\0"] {
        digest.update(part.as_bytes());
    }
    digest.update(body);
    Bytes::copy_from_slice(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn parts(method: &str, uri: &str, keys: &[&str]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for key in keys {
            request = request.header(IDEMPOTENCY_KEY, *key);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn keys_are_quoted_or_bare() {
        let long = "k".repeat(255);
        for (keys, expected) in [
            (&[][..], Ok(None)),
            (&["\"8e03978e\""], Ok(Some("8e03978e"))),
            (&["8e03978e"], Ok(Some("8e03978e"))),
            (&[long.as_str()], Ok(Some(long.as_str()))),
            (&["\"open"], Err(())),
            (&["\"\""], Err(())),
            (&[""], Err(())),
            (&["two words"], Err(())),
            (&["a\"b"], Err(())),
            (&["a", "b"], Err(())),
            (&[&*"k".repeat(256)], Err(())),
        ] {
            let found = key_of(&parts("POST", "/", keys));
            let found = found.map_err(|problem| assert_eq!(problem.status(), 400));
            assert_eq!(
                found.as_ref().map(Option::as_deref),
                expected.as_ref().copied(),
                "{keys:?}"
            );
        }
    }

    #[test]
    fn every_part_counts() {
        let body = Bytes::from_static(b"{}");
        let prints: std::collections::HashSet<Bytes> = [
            fingerprint(&parts("POST", "/a", &[]), &body),
            fingerprint(&parts("PATCH", "/a", &[]), &body),
            fingerprint(&parts("POST", "/a?x=1", &[]), &body),
            fingerprint(&parts("POST", "/b", &[]), &body),
            fingerprint(&parts("POST", "/a", &[]), &Bytes::new()),
        ]
        .into();
        assert_eq!(prints.len(), 5);
    }
}
