//! What a client does about compression and sizes, worked out when it is made.

use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RANGE,
};
use http::{Method, Response};
use http_body::Body as _;
use trunkline_core::{BoxFuture, Error, ErrorKind, Origin, Result, Retry};

use super::{CompressionConfig, ContentCoding, Limited, codec};
use crate::body::{Body, too_large};
use crate::config::HttpClientConfig;
use crate::options::Draft;
use crate::transport::Reply;

/// Codings of one body, one on top of the other; more are no mistake but an attack.
const MOST_CODINGS: usize = 3;

/// A digest of the bytes that are sent, which would be wrong after compression.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Types that hardly get smaller.
const COMPRESSED_TYPES: &[&str] = &[
    "image/",
    "video/",
    "audio/",
    "font/woff",
    "application/zip",
    "application/gzip",
    "application/zstd",
    "application/x-7z",
    "application/pdf",
];

/// What a client does about compression and sizes.
#[derive(Debug)]
pub(crate) struct Codings {
    /// What the requests say they accept.
    accept: Option<HeaderValue>,
    request: Option<ContentCoding>,
    min_size: u64,
    most_sent: Option<usize>,
    most_streamed: Option<usize>,
}

impl Codings {
    pub(crate) fn of(config: &HttpClientConfig) -> Result<Self> {
        let CompressionConfig {
            accept,
            request,
            min_size,
        } = &config.compression;
        if let Some(coding) = config.compression.missing().next() {
            return Err(Error::config("`compression` cannot be had").with_source(left_out(coding)));
        }
        let names: Vec<&str> = accept.iter().map(|coding| coding.as_str()).collect();
        let accept = (!names.is_empty()).then(|| names.join(", "));
        let accept = accept.map(HeaderValue::try_from).transpose();
        let accept = accept.map_err(|error| {
            Error::config("`compression.accept` cannot be sent").with_source(error)
        })?;
        Ok(Self {
            accept,
            request: *request,
            min_size: min_size.bytes(),
            most_sent: config.max_request_size.map(|size| size.as_usize()),
            most_streamed: config.max_stream_size.map(|size| size.as_usize()),
        })
    }

    /// Says in the request what may come back. Whether the answer is to be decoded then: whoever asks for a coding, or a
    /// range of what is coded, wants what they asked for.
    pub(crate) fn ask(&self, method: &Method, headers: &mut HeaderMap) -> bool {
        let Some(accept) = &self.accept else {
            return false;
        };
        if *method == Method::HEAD
            || headers.contains_key(ACCEPT_ENCODING)
            || headers.contains_key(RANGE)
        {
            return false;
        }
        headers.insert(ACCEPT_ENCODING, accept.clone());
        true
    }

    /// Whether there is nothing to do about the body of a request.
    pub(crate) fn sends_as_it_is(&self, draft: &Draft) -> bool {
        self.request.is_none() && self.most_sent.is_none() && draft.options.compress.is_none()
    }

    /// Bounds the body of a request, and compresses it where that is asked for. Made in a box, which few calls need.
    pub(crate) fn prepare<'a>(
        &'a self,
        draft: &'a mut Draft,
        body: Body,
    ) -> BoxFuture<'a, Result<Body>> {
        Box::pin(self.prepared(draft, body))
    }

    async fn prepared(&self, draft: &mut Draft, body: Body) -> Result<Body> {
        let body = self.bounded(body)?;
        let Some(coding) = self.coding_of(draft, &body) else {
            return Ok(body);
        };
        if !coding.is_built() {
            return Err(left_out(coding));
        }
        let is_stream = body.is_stream();
        let headers = &mut draft.headers;
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.as_str()));
        headers.remove(CONTENT_LENGTH);
        let body = codec::encoded(body, coding);
        if is_stream {
            return Ok(body);
        }
        // One that can be sent again stays one, and its length is known.
        Ok(Body::from(body.bytes(usize::MAX).await?))
    }

    fn bounded(&self, body: Body) -> Result<Body> {
        let Some(most) = self.most_sent else {
            return Ok(body);
        };
        if body.size_hint().lower() > u64::try_from(most).unwrap_or(u64::MAX) {
            return Err(too_large(most));
        }
        Ok(if body.is_stream() {
            Body::around(Limited::new(body, most))
        } else {
            body
        })
    }

    fn coding_of(&self, draft: &Draft, body: &Body) -> Option<ContentCoding> {
        let headers = &draft.headers;
        if body.is_end_stream() || headers.contains_key(CONTENT_ENCODING) {
            return None;
        }
        if draft.options.compress.is_some() {
            return draft.options.compress;
        }
        let coding = self.request?;
        let size = body.size_hint();
        if size.exact().is_some_and(|size| size < self.min_size)
            || headers.contains_key(CONTENT_DIGEST)
        {
            return None;
        }
        let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let kind = kind.unwrap_or_default().to_ascii_lowercase();
        let is_small = COMPRESSED_TYPES
            .iter()
            .any(|known| kind.starts_with(known.as_bytes()));
        (!is_small).then_some(coding)
    }

    /// Bounds the body of an answer that is read as a stream.
    pub(crate) fn bound_stream(&self, response: &mut Response<Body>) {
        if let Some(most) = self.most_streamed
            && !response.body().is_end_stream()
        {
            let body = std::mem::take(response.body_mut());
            *response.body_mut() = Body::around(Limited::new(body, most));
        }
    }
}

/// Undoes the codings of an answer. One with a coding that nobody asked for and nobody knows stays as it is.
///
/// # Errors
/// `Invalid` of remote origin when there are absurdly many.
pub(crate) fn decode(mut response: Reply) -> Result<Reply> {
    if response.body().is_end_stream() || !response.headers().contains_key(CONTENT_ENCODING) {
        return Ok(response);
    }
    let mut codings = Vec::new();
    for value in response.headers().get_all(CONTENT_ENCODING) {
        for name in String::from_utf8_lossy(value.as_bytes()).split(',') {
            let name = name.trim();
            if name.is_empty() || name.eq_ignore_ascii_case("identity") {
                continue;
            }
            let Some(coding) = ContentCoding::parse(name) else {
                return Ok(response);
            };
            codings.push(coding);
            if codings.len() > MOST_CODINGS {
                return Err(
                    Error::invalid("the answer has more content codings than make sense")
                        .with_origin(Origin::Remote)
                        .with_retry(Retry::Never),
                );
            }
        }
    }
    // The last one was applied last.
    for coding in codings.into_iter().rev() {
        let body = std::mem::take(response.body_mut());
        *response.body_mut() = codec::decoded(body, coding);
    }
    // They speak of what came over the wire.
    response.headers_mut().remove(CONTENT_ENCODING);
    response.headers_mut().remove(CONTENT_LENGTH);
    Ok(response)
}

fn left_out(coding: ContentCoding) -> Error {
    let message = format!(
        "the content coding `{coding}` is left out of this build; it needs the feature `compression`"
    );
    Error::new(ErrorKind::Unsupported, message)
}
