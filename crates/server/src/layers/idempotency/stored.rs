//! A response as it is kept for repetition.
//!
//! Layout, version 1: `1`, then `0` for a whole response or `1` for one whose body was too large to keep, the status
//! (two bytes), the number of headers (two bytes), each header as length and name, length and value (two bytes each),
//! then the body. Numbers are big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::response::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

const VERSION: u8 = 1;
const WHOLE: u8 = 0;
const OMITTED: u8 = 1;

/// Headers that belong to one connection or one moment.
const NOT_KEPT: [&str; 10] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "date",
    "content-length",
];

#[derive(Debug, PartialEq)]
pub(super) struct Stored {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// `None` when it was too large to keep.
    pub(super) body: Option<Bytes>,
}

impl Stored {
    pub(super) fn of(head: &Parts, body: Option<Bytes>) -> Self {
        let mut headers = head.headers.clone();
        for name in NOT_KEPT {
            headers.remove(name);
        }
        Self {
            status: head.status,
            headers,
            body,
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u8(if self.body.is_some() { WHOLE } else { OMITTED });
        out.put_u16(self.status.as_u16());
        let fits = |length: usize| u16::try_from(length).ok();
        let headers: Vec<_> = self
            .headers
            .iter()
            .filter_map(|(name, value)| {
                let lengths = (fits(name.as_str().len())?, fits(value.len())?);
                Some((name, value, lengths))
            })
            .take(usize::from(u16::MAX))
            .collect();
        out.put_u16(fits(headers.len()).unwrap_or(u16::MAX));
        for (name, value, (name_length, value_length)) in headers {
            out.put_u16(name_length);
            out.put_slice(name.as_str().as_bytes());
            out.put_u16(value_length);
            out.put_slice(value.as_bytes());
        }
        out.extend_from_slice(self.body.as_deref().unwrap_or_default());
        out.freeze()
    }

    /// `None` when the bytes are none of ours.
    pub(super) fn decode(mut bytes: Bytes) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let whole = match bytes.try_get_u8().ok()? {
            WHOLE => true,
            OMITTED => false,
            _ => return None,
        };
        let status = StatusCode::from_u16(bytes.try_get_u16().ok()?).ok()?;
        let count = bytes.try_get_u16().ok()?;
        let mut headers = HeaderMap::new();
        for _ in 0..count {
            let name = HeaderName::from_bytes(&take(&mut bytes)?).ok()?;
            let value = HeaderValue::from_maybe_shared(take(&mut bytes)?).ok()?;
            headers.append(name, value);
        }
        Some(Self {
            status,
            headers,
            body: whole.then_some(bytes),
        })
    }
}

fn take(bytes: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(bytes.try_get_u16().ok()?);
    (bytes.len() >= length).then(|| bytes.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            status in 200u16..600,
            headers in proptest::collection::vec(("[a-z][a-z0-9-]{0,20}", proptest::collection::vec(0x20u8..0x7f, 0..50)), 0..8),
            body in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &headers {
                map.append(HeaderName::try_from(name.as_str()).unwrap(), HeaderValue::from_bytes(value).unwrap());
            }
            let stored = Stored {
                status: StatusCode::from_u16(status).unwrap(),
                headers: map,
                body: body.map(Bytes::from),
            };
            prop_assert_eq!(Stored::decode(stored.encode()), Some(stored));
        }

        #[test]
        fn foreign_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            drop(Stored::decode(Bytes::from(bytes)));
        }
    }

    #[test]
    fn headers_of_the_moment_are_not_kept() {
        let response = http::Response::builder()
            .header("Date", "now")
            .header("Connection", "close")
            .header("Location", "/orders/7")
            .body(())
            .unwrap();
        let stored = Stored::of(&response.into_parts().0, None);
        assert_eq!(stored.headers.len(), 1);
        assert!(stored.headers.contains_key("location"));
    }
}
