//! Frames of HTTP/2, byte by byte (RFC 9113), with header fields as HPACK writes them (RFC 7541).

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

pub(super) const ACK: u8 = 1;
pub(super) const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status: 200`, from the static table.
const OK: &[u8] = &[0x88];
/// `:status: 100`: a name of the static table, a value of three characters.
const CONTINUE: &[u8] = &[0x08, 3, b'1', b'0', b'0'];
/// `:status: 200`, `content-length: 10`.
const OK_TEN: &[u8] = &[0x88, 0x0f, 0x0d, 2, b'1', b'0'];

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn frames(frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    frames.into_iter().flatten().collect()
}

fn end(kind: u8, stream: u32, code: u32) -> Vec<u8> {
    frame(kind, 0, stream, &code.to_be_bytes())
}

fn go(last: u32, code: u32) -> Vec<u8> {
    frame(
        GOAWAY,
        0,
        0,
        &[last.to_be_bytes(), code.to_be_bytes()].concat(),
    )
}

pub(super) fn nothing(_: u32) -> Vec<u8> {
    Vec::new()
}

pub(super) fn good(stream: u32) -> Vec<u8> {
    frames([
        frame(HEADERS, END_HEADERS, stream, OK),
        frame(DATA, END_STREAM, stream, b"hello"),
    ])
}

pub(super) fn refused(stream: u32) -> Vec<u8> {
    end(RST_STREAM, stream, REFUSED_STREAM)
}

pub(super) fn go_away_below(stream: u32) -> Vec<u8> {
    go(stream.saturating_sub(2), NO_ERROR)
}

pub(super) fn calm_down(stream: u32) -> Vec<u8> {
    go(stream.saturating_sub(2), ENHANCE_YOUR_CALM)
}

pub(super) fn go_away(stream: u32) -> Vec<u8> {
    go(stream, INTERNAL_ERROR)
}

pub(super) fn internal_error(stream: u32) -> Vec<u8> {
    end(RST_STREAM, stream, INTERNAL_ERROR)
}

pub(super) fn half(stream: u32) -> Vec<u8> {
    frames([
        frame(HEADERS, END_HEADERS, stream, OK),
        frame(DATA, 0, stream, b"hel"),
    ])
}

pub(super) fn half_then_error(stream: u32) -> Vec<u8> {
    frames([half(stream), internal_error(stream)])
}

/// Five of ten bytes, and that is all.
pub(super) fn too_short(stream: u32) -> Vec<u8> {
    frames([
        frame(HEADERS, END_HEADERS, stream, OK_TEN),
        frame(DATA, END_STREAM, stream, b"hello"),
    ])
}

/// More than the 16 KiB that are allowed unless the settings say otherwise; hyper says 16 KiB.
pub(super) fn oversized(stream: u32) -> Vec<u8> {
    frames([
        frame(HEADERS, END_HEADERS, stream, OK),
        frame(DATA, END_STREAM, stream, &[b'x'; 1 << 20]),
    ])
}

pub(super) fn informational(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, CONTINUE)
}

/// A head that goes on in further frames.
pub(super) fn open_head(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0, stream, OK)
}

/// More of it: `a: b`, many times, never put into the table.
pub(super) fn continuation(stream: u32) -> Vec<u8> {
    let fields = [0x00, 1, b'a', 1, b'b'].repeat(1000);
    frame(CONTINUATION, 0, stream, &fields)
}
