use std::time::Duration;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use trunkline_core::duration;
use trunkline_core::size::ByteSize;

#[derive(Serialize, Deserialize)]
struct Sample {
    #[serde(with = "trunkline_core::duration")]
    span: Duration,
    #[serde(default, with = "trunkline_core::duration::option")]
    maybe: Option<Duration>,
    #[serde(default)]
    size: ByteSize,
}

#[test]
fn x4_spans_are_text_or_seconds() {
    for (text, expected) in [
        (r#""30s""#, Duration::from_secs(30)),
        (r#""250ms""#, Duration::from_millis(250)),
        (r#""1h1m1s""#, Duration::from_secs(3661)),
        (r#""1.5s""#, Duration::from_millis(1500)),
        (r#""30.0""#, Duration::from_secs(30)),
        ("30", Duration::from_secs(30)),
        ("0.5", Duration::from_millis(500)),
        (r#""2d""#, Duration::from_secs(172_800)),
    ] {
        let read: Sample = serde_json::from_str(&format!("{{\"span\":{text}}}")).unwrap();
        assert_eq!(read.span, expected, "{text}");
    }
    for bad in [
        r#""soon""#,
        r#""-3s""#,
        "-1",
        r#""""#,
        r#""3x""#,
        r#""1e400""#,
        "1e300",
        "true",
    ] {
        assert!(
            serde_json::from_str::<Sample>(&format!("{{\"span\":{bad}}}")).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn sizes_are_text_or_bytes() {
    for (text, bytes) in [
        ("4MiB", 4 << 20),
        ("64KB", 64_000),
        ("10", 10),
        ("1.5KiB", 1536),
        ("7 b", 7),
    ] {
        assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes, "{text}");
    }
    for bad in ["", "MiB", "-1", "1ZB", "99999999999999999999", "1e400"] {
        assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn a_span_that_is_written_is_read_back(nanos in 0..u64::MAX / 2) {
        let span = Duration::from_nanos(nanos);
        prop_assert_eq!(duration::parse(&duration::format(span)), Ok(span));
    }

    #[test]
    fn a_size_that_is_written_is_read_back(bytes in any::<u64>()) {
        let size = ByteSize::new(bytes);
        prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        drop(duration::parse(&text));
        drop(text.parse::<ByteSize>());
    }
}
