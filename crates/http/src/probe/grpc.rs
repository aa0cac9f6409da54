//! The health protocol of gRPC: one question, two small messages, so no code is generated for it.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use trunkline_core::{Error, ErrorKind, Result};

use super::AGENT;
use crate::body::Body;
use crate::limits::Limits;
use crate::origin::Origin;
use crate::transport::Transport;

const CHECK: &str = "/grpc.health.v1.Health/Check";

/// Bytes of an answer; a sound one has seven.
const LONGEST_ANSWER: usize = 4096;

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Asks a server about one of its services, or about itself when the name is empty. The time allowed is told to the
/// server; keeping it is for the caller.
pub(super) async fn ask(
    transport: &Transport,
    origin: &Origin,
    service: &str,
    time: Duration,
) -> Result<()> {
    let mut request = Request::new(Body::from(question(service)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(CHECK);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert("grpc-timeout", timeout_header(time));
    let response = transport.send(origin, request, &Limits::default()).await?;
    let (head, body) = response.into_parts();
    if head.status != StatusCode::OK {
        return Err(failed(origin, format!("it answers with {}", head.status)));
    }
    // An answer that is an error has its status in the head, any other one in the trailers.
    if let Some(status) = Status::of(&head.headers) {
        status.check(origin, service)?;
    }
    let body = Limited::new(body, LONGEST_ANSWER).collect().await;
    let body = body.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => *error,
        Err(error) => failed(origin, "its answer breaks off or is too long").with_source(error),
    })?;
    match body.trailers().and_then(Status::of) {
        Some(status) => status.check(origin, service)?,
        None => return Err(failed(origin, "its answer is not gRPC: it has no status")),
    }
    match serving_status(&body.to_bytes()) {
        Some(1) => Ok(()),
        Some(other) => {
            let name = match other {
                0 => "UNKNOWN".to_owned(),
                2 => "NOT_SERVING".to_owned(),
                3 => "SERVICE_UNKNOWN".to_owned(),
                other => other.to_string(),
            };
            Err(failed(origin, format!("it says {name}")))
        }
        None => Err(failed(origin, "its answer cannot be read")),
    }
}

/// `HealthCheckRequest { string service = 1 }` with its prefix.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        put_varint(&mut message, service.len());
        message.put_slice(service.as_bytes());
    }
    let mut whole = BytesMut::with_capacity(PREFIX + message.len());
    whole.put_u8(0);
    whole.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    whole.put_slice(&message);
    whole.freeze()
}

fn put_varint(into: &mut BytesMut, mut number: usize) {
    while number >= 0x80 {
        into.put_u8((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.put_u8(number as u8);
}

/// The field `ServingStatus status = 1` of a `HealthCheckResponse` behind its prefix; 0 when it is left out, `None` when
/// it cannot be read.
fn serving_status(answer: &[u8]) -> Option<u64> {
    let (prefix, mut message) = answer.split_at_checked(PREFIX)?;
    let (compressed, length) = prefix.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if *compressed != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = take_varint(&mut message)?;
        match key & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            // What later versions of the message may add.
            1 => message = message.get(8..)?,
            2 => {
                let length = usize::try_from(take_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// At most eight digits and a unit: milliseconds do for a day.
fn timeout_header(time: Duration) -> HeaderValue {
    let text = format!("{}m", time.as_millis().clamp(1, 99_999_999));
    HeaderValue::from_str(&text).expect("digits and a letter")
}

struct Status {
    code: u32,
    message: String,
}

impl Status {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
        let message = headers.get("grpc-message");
        let message = message.and_then(|text| text.to_str().ok());
        Some(Self {
            code,
            message: message.unwrap_or_default().to_owned(),
        })
    }

    fn check(&self, origin: &Origin, service: &str) -> Result<()> {
        let text = match self.code {
            0 => return Ok(()),
            5 => format!("it knows no service `{service}`"),
            12 => "it does not serve grpc.health.v1".to_owned(),
            code => format!("it answers with the status {code}: {}", self.message),
        };
        Err(failed(origin, text))
    }
}

fn failed(origin: &Origin, what: impl std::fmt::Display) -> Error {
    let text = format!("gRPC health check of {}: {what}", origin.authority());
    Error::new(ErrorKind::Unavailable, text).with_origin(trunkline_core::Origin::Remote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_as_protobuf_writes_it() {
        assert_eq!(question("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(
            question("ab").as_ref(),
            [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']
        );
        let long = question(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn an_answer_is_read_whatever_else_it_holds() {
        let framed = |message: &[u8]| [&[0, 0, 0, 0, message.len() as u8], message].concat();
        assert_eq!(serving_status(&framed(&[8, 1])), Some(1));
        assert_eq!(serving_status(&framed(&[])), Some(0));
        let more = [
            0x12, 2, 1, 1, 0x19, 0, 0, 0, 0, 0, 0, 0, 0, 0x25, 0, 0, 0, 0, 8, 2,
        ];
        assert_eq!(serving_status(&framed(&more)), Some(2));
        for broken in [
            &[][..],
            &[0, 0, 0, 0, 9, 8],
            &[1, 0, 0, 0, 2, 8, 1],
            &framed(&[8]),
        ] {
            assert_eq!(serving_status(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn the_time_allowed_is_told_in_milliseconds() {
        assert_eq!(timeout_header(Duration::from_secs(5)), "5000m");
        assert_eq!(timeout_header(Duration::ZERO), "1m");
        assert_eq!(timeout_header(Duration::MAX), "99999999m");
    }
}
