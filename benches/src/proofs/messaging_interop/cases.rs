//! The messages that go both ways.

use bytes::Bytes;
use trunkline::messaging::Message;

use super::wire::{Told, Value};

/// One of them.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) message: Message,
}

pub(super) const REPEATED: &str = "a header twice";
pub(super) const BINARY_HEADER: &str = "a header of bytes";

const UNICODE: &str = "Grüße 世界 🚀";

pub(super) fn cases() -> Vec<Case> {
    let case = |name, message| Case { name, message };
    let every_byte: Vec<u8> = (0..=u8::MAX).cycle().take(1024).collect();
    let mut repeated = Message::new("twice").with_content_type("text/plain");
    repeated.headers.append("tag", "a");
    repeated.headers.append("tag", "b");
    let mut binary_header = Message::new("bytes");
    let bytes = Bytes::from_static(&[0, 159, 255]);
    binary_header.headers.append("raw", bytes);
    vec![
        case(
            "JSON, key, headers",
            Message::new(r#"{"id":1,"total":"9.90"}"#)
                .with_content_type("application/json")
                .with_key("customer-7")
                .with_header("tenant", "acme")
                .with_header("X-Region", "eu-west-1"),
        ),
        case(
            "every byte",
            Message::new(every_byte).with_content_type("application/octet-stream"),
        ),
        case(
            "empty payload",
            Message::new("").with_header("reason", "tombstone"),
        ),
        case(
            "unicode in payload, header, key",
            Message::new(UNICODE)
                .with_content_type("text/plain; charset=utf-8")
                .with_key("schlüssel")
                .with_header("greeting", UNICODE),
        ),
        case(
            "an empty header",
            Message::new("x").with_header("empty", ""),
        ),
        case(
            "priority",
            Message::new("soon").with_header("priority", "7"),
        ),
        case(
            "200 KB",
            Message::new(Bytes::from(vec![7; 200_000])).with_header("size", "large"),
        ),
        case(REPEATED, repeated),
        case(BINARY_HEADER, binary_header),
    ]
}

/// What AMQP can say and nothing of ours does.
pub(super) fn typed_headers() -> Told {
    let headers = [
        ("count", serde_json::json!(5)),
        ("large", serde_json::json!(9_000_000_000_u64)),
        ("done", serde_json::json!(true)),
        ("nothing", serde_json::Value::Null),
    ];
    let header = |(name, value): (&str, _)| (name.to_owned(), Value::Other(value));
    Told {
        id: Some("typed".to_owned()),
        content_type: None,
        key: None,
        payload: b"typed".to_vec(),
        headers: headers.into_iter().map(header).collect(),
    }
}
