//! A message as it is stored: key and payload in columns of their own, everything else in one compact value.

use bytes::Bytes;
use trunkline_core::Timestamp;
use trunkline_messaging::Message;

/// First byte of the value; another one belongs to a release that we do not know.
const FORMAT: u8 = 1;
const HAS_CONTENT_TYPE: u8 = 1;

/// Writes id, content type, time and headers.
pub(super) fn encode(message: &Message, now: i64) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.id.len() + message.headers.size() + 48);
    out.push(FORMAT);
    let flags = if message.content_type.is_some() {
        HAS_CONTENT_TYPE
    } else {
        0
    };
    out.push(flags);
    let published = message.published_at.map_or(now, Timestamp::unix_micros);
    out.extend_from_slice(&published.to_le_bytes());
    put(&mut out, message.id.as_bytes());
    if let Some(content_type) = &message.content_type {
        put(&mut out, content_type.as_bytes());
    }
    put_number(&mut out, message.headers.len());
    for (name, value) in message.headers.iter() {
        put(&mut out, name.as_bytes());
        put(&mut out, value.as_bytes());
    }
    out
}

/// Reads them back, with one allocation for all bytes; `None` when the value is damaged or of an unknown release.
pub(super) fn decode(head: &[u8], key: Option<&[u8]>, payload: &[u8]) -> Option<Message> {
    let mut all = Vec::with_capacity(head.len() + key.map_or(0, <[u8]>::len) + payload.len());
    all.extend_from_slice(head);
    all.extend_from_slice(key.unwrap_or_default());
    all.extend_from_slice(payload);
    let mut all = Bytes::from(all);
    let payload = all.split_off(all.len() - payload.len());
    let key_bytes = all.split_off(head.len());
    let mut rest = Reader { head: all, at: 0 };
    if rest.byte()? != FORMAT {
        return None;
    }
    let flags = rest.byte()?;
    let published = i64::from_le_bytes(rest.chunk_of(8)?.as_ref().try_into().ok()?);
    let mut message = Message::recorded(rest.text()?, payload);
    message.published_at = Some(Timestamp::from_unix_micros(published));
    if flags & HAS_CONTENT_TYPE != 0 {
        message.content_type = Some(rest.text()?);
    }
    for _ in 0..rest.number()? {
        let name = rest.text()?;
        message.headers.append(name, rest.chunk()?);
    }
    message.key = key.map(|_| key_bytes);
    Some(message)
}

/// A stable digest of a key (FNV-1a): the same in every process and release that shares the file.
pub(super) fn digest(key: &[u8]) -> i64 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

struct Reader {
    head: Bytes,
    at: usize,
}

impl Reader {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.head.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn number(&mut self) -> Option<usize> {
        let mut number = 0_usize;
        for shift in (0..u32::BITS).step_by(7) {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn chunk(&mut self) -> Option<Bytes> {
        let length = self.number()?;
        self.chunk_of(length)
    }

    fn chunk_of(&mut self, length: usize) -> Option<Bytes> {
        let end = self.at.checked_add(length)?;
        if end > self.head.len() {
            return None;
        }
        let chunk = self.head.slice(self.at..end);
        self.at = end;
        Some(chunk)
    }

    fn text(&mut self) -> Option<String> {
        let chunk = self.chunk()?;
        std::str::from_utf8(&chunk).ok().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            id in ".{0,40}",
            content_type in proptest::option::of(".{0,20}"),
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20)),
            headers in proptest::collection::vec((".{0,20}", proptest::collection::vec(any::<u8>(), 0..200)), 0..8),
            payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut message = Message::recorded(id, Bytes::from(payload));
            message.content_type = content_type;
            message.key = key.map(Bytes::from);
            message.published_at = Some(Timestamp::from_unix_micros(7));
            for (name, value) in headers {
                message.headers.append(name, Bytes::from(value));
            }
            let head = encode(&message, 1);
            prop_assert_eq!(decode(&head, message.key.as_deref(), &message.payload), Some(message));
        }

        #[test]
        fn damaged_values_are_refused_without_a_panic(head in proptest::collection::vec(any::<u8>(), 0..100)) {
            drop(decode(&head, None, b""));
        }

        #[test]
        fn a_cut_value_is_refused(cut in 1_usize..40) {
            let message = Message::new("x").with_content_type("text/plain").with_header("a", "b");
            let mut head = encode(&message, 1);
            head.truncate(head.len() - cut);
            prop_assert_eq!(decode(&head, None, b""), None);
        }
    }

    #[test]
    fn the_digest_never_changes() {
        assert_eq!(digest(b""), 0xcbf2_9ce4_8422_2325_u64.cast_signed());
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8_u64.cast_signed());
    }
}
