//! W3C Trace Context, level 1 (<https://www.w3.org/TR/trace-context/>).

use std::fmt;
use std::sync::Arc;

/// Longest `tracestate` that is handed on; the specification asks for at least 512.
const LONGEST_STATE: usize = 512;

/// The sampled bit of the trace flags.
const SAMPLED: u8 = 0x01;

/// Both digits of each byte.
static HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut byte = 0;
    while byte < all.len() {
        all[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    all
};

/// Sixteen bytes, not all zero, that name a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Eight bytes, not all zero, that name a span in a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

macro_rules! hex_id {
    ($name:ident, $size:literal) => {
        impl $name {
            /// Takes the bytes unless all are zero, which the specification forbids.
            #[must_use]
            pub fn from_bytes(bytes: [u8; $size]) -> Option<Self> {
                bytes.iter().any(|byte| *byte != 0).then_some(Self(bytes))
            }

            /// The bytes.
            #[must_use]
            pub const fn to_bytes(self) -> [u8; $size] {
                self.0
            }

            fn random() -> Self {
                let mut bytes = [0; $size];
                fastrand::fill(&mut bytes);
                // All zero once in 2^64 at most; it must not happen at all.
                bytes[0] |= u8::from(bytes.iter().all(|byte| *byte == 0));
                Self(bytes)
            }

            fn from_hex(text: &str) -> Option<Self> {
                let digits = text.as_bytes();
                if digits.len() != $size * 2 {
                    return None;
                }
                let mut bytes = [0; $size];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    *byte = hex_byte(pair)?;
                }
                Self::from_bytes(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Written for every request: `{:02x}` for each byte costs ten times as much.
                let mut text = [0; 2 * $size];
                put_hex(&mut text, &self.0);
                f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hex_id!(TraceId, 16);
hex_id!(SpanId, 8);

/// Writes two digits for each byte; returns what is left to write to.
fn put_hex<'a>(text: &'a mut [u8], bytes: &[u8]) -> &'a mut [u8] {
    let (own, rest) = text.split_at_mut(2 * bytes.len());
    for (pair, byte) in own.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&HEX[usize::from(*byte)]);
    }
    rest
}

/// Lower-case digits only: the specification refuses upper case.
fn hex_byte(pair: &[u8]) -> Option<u8> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// The trace a unit of work belongs to, and its place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: TraceId,
    span_id: SpanId,
    parent: Option<SpanId>,
    flags: u8,
    state: Option<Arc<str>>,
}

impl TraceContext {
    /// A new trace, sampled.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        let (trace_id, span_id) = (TraceId::random(), SpanId::random());
        Self {
            trace_id,
            span_id,
            parent: None,
            flags: SAMPLED,
            state: None,
        }
    }

    /// A trace with given ids, as a tracing library has made them.
    #[must_use]
    pub fn from_ids(trace_id: TraceId, span_id: SpanId, sampled: bool) -> Self {
        let flags = if sampled { SAMPLED } else { 0 };
        Self {
            trace_id,
            span_id,
            parent: None,
            flags,
            state: None,
        }
    }

    /// Reads the headers `traceparent` and `tracestate`. `None` when `traceparent` is malformed, in which case the
    /// specification asks for a new trace and for `tracestate` to be dropped.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let mut parts = traceparent.trim().split('-');
        let version = parts.next()?;
        let version_byte = hex_byte(version.as_bytes())?;
        let trace_id = TraceId::from_hex(parts.next()?)?;
        let span_id = SpanId::from_hex(parts.next()?)?;
        let flags = hex_byte(parts.next()?.as_bytes())?;
        // Version 255 is invalid; version 0 has exactly four parts; later ones may have more.
        if version_byte == 0xff || (version_byte == 0 && parts.next().is_some()) {
            return None;
        }
        let state = tracestate
            .map(str::trim)
            .filter(|state| !state.is_empty() && state.len() <= LONGEST_STATE && state.is_ascii());
        let state = state.map(Arc::from);
        Some(Self {
            trace_id,
            span_id,
            parent: None,
            flags: flags & SAMPLED,
            state,
        })
    }

    /// The header `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let header = self.to_traceparent();
        std::str::from_utf8(&header).unwrap_or_default().to_owned()
    }

    /// [`TraceContext::traceparent`] as bytes of ASCII, for headers that take them.
    #[must_use]
    pub fn to_traceparent(&self) -> [u8; 55] {
        // Written with every request and message: into its place, not through the formatting machinery.
        let mut header = [b'-'; 55];
        let (version, rest) = header.split_at_mut(3);
        version[..2].copy_from_slice(b"00");
        let rest = put_hex(rest, &self.trace_id.0);
        let rest = put_hex(&mut rest[1..], &self.span_id.0);
        put_hex(&mut rest[1..], &[self.flags]);
        header
    }

    /// The header `tracestate`, if there is one to hand on.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The id of the whole trace.
    #[must_use]
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// The id of this step.
    #[must_use]
    pub fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// The step above, if it is in this process or came from the wire.
    #[must_use]
    pub fn parent(&self) -> Option<SpanId> {
        self.parent
    }

    /// Whether the trace is being recorded.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// A new step under this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: SpanId::random(),
            parent: Some(self.span_id),
            ..self.clone()
        }
    }
}
