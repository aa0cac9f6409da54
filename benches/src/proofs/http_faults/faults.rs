//! What a server does wrong, one by one.

use std::time::Duration;

use super::frames;

/// How a server behaves towards a request, when it misbehaves.
#[derive(Clone, Debug)]
pub(super) enum Script {
    /// Nobody listens.
    Refuse,
    /// The connection is reset before anything is read of it.
    ResetOnAccept,
    /// The request is read, this is written, and then the connection ends in some way.
    Answer(Vec<Piece>, End),
    /// A whole answer with this status that asks to come back later.
    ComeBackLater(u16, Later),
    /// The request is taken up and leads on to a place where nothing is found.
    LeadOn,
    /// HTTP/2: frames on the stream of the request, sent as soon as its head is here, without taking it up.
    TurnAway(fn(u32) -> Vec<u8>),
    /// HTTP/2: frames on the stream of the request, after it was taken up.
    Frames(fn(u32) -> Vec<u8>, End),
    /// HTTP/2: the same frames for ever, after some first ones.
    FramesForever(fn(u32) -> Vec<u8>, fn(u32) -> Vec<u8>),
    /// HTTP/2: it does not speak HTTP/2 at all.
    OtherProtocol,
}

/// Something that is written.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Text(&'static str),
    /// The same text, so many times.
    Times(&'static str, usize),
    /// The same text for ever.
    Forever(&'static str),
    /// The same text for ever, with a pause before each.
    Drip(&'static str),
}

/// How a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Reset,
    /// It stays, and the next request on it is answered.
    Keep,
    /// It stays, and nothing comes.
    Silence,
}

/// How a server says when to come back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Later {
    Seconds,
    Date,
    Unsaid,
}

/// What the client is set up for, and asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    Plain,
    /// Of two versions, the second where the first has nothing; redirects are followed.
    Versions,
    /// A stream of events.
    Events,
}

#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    pub(super) script: Script,
    pub(super) asking: Asking,
    pub(super) http2: bool,
    /// The request finds a connection that has carried another.
    pub(super) reused: bool,
    /// How long the head of an answer may take; only where it never comes.
    pub(super) head: Option<Duration>,
    /// How long a whole call may take; only where its end never comes.
    pub(super) total: Option<Duration>,
}

impl Fault {
    const fn new(name: &'static str, script: Script) -> Self {
        Self {
            name,
            script,
            asking: Asking::Plain,
            http2: false,
            reused: false,
            head: None,
            total: None,
        }
    }

    fn answer(name: &'static str, pieces: impl Into<Vec<Piece>>, end: End) -> Self {
        Self::new(name, Script::Answer(pieces.into(), end))
    }

    fn on_http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    fn on_a_reused_connection(mut self) -> Self {
        self.reused = true;
        self
    }

    fn asking_for(mut self, asking: Asking) -> Self {
        self.asking = asking;
        self
    }

    /// The head never comes.
    fn without_head(mut self) -> Self {
        self.head = Some(Duration::from_secs(2));
        self
    }

    /// The end never comes.
    fn without_end(mut self) -> Self {
        self.total = Some(Duration::from_secs(8));
        self
    }

    /// Whether it is tried once only: how soon a new connection shows that it is dead depends on when its settings came.
    pub(super) const fn once_only(&self) -> bool {
        matches!(self.script, Script::Frames(_, End::Silence)) && self.reused
    }

    /// Whether the server says itself that it did not process the request.
    pub(super) const fn turns_away(&self) -> bool {
        matches!(self.script, Script::TurnAway(_))
    }
}

/// The header that makes a length wrong on purpose.
const TEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

pub(super) fn all() -> Vec<Fault> {
    let mut faults = connections();
    faults.extend(heads());
    faults.extend(bodies());
    faults.extend(come_back_later());
    faults.extend(asked_otherwise());
    faults.extend(http2());
    faults
}

fn connections() -> Vec<Fault> {
    vec![
        Fault::new("refused", Script::Refuse),
        Fault::new("reset before the request is read", Script::ResetOnAccept),
        Fault::answer("closed before the answer", [], End::Close),
        Fault::answer("reset before the answer", [], End::Reset),
        Fault::answer("a reused connection closes", [], End::Close).on_a_reused_connection(),
        Fault::answer("a reused connection is reset", [], End::Reset).on_a_reused_connection(),
        Fault::answer("silence before the answer", [], End::Silence).without_head(),
    ]
}

fn heads() -> Vec<Fault> {
    use Piece::{Drip, Forever, Text, Times};
    vec![
        Fault::answer(
            "closed in the head",
            [Text("HTTP/1.1 200 OK\r\nco")],
            End::Close,
        ),
        Fault::answer(
            "reset in the head",
            [Text("HTTP/1.1 200 OK\r\nco")],
            End::Reset,
        ),
        Fault::answer(
            "slow loris in the head",
            [Text("HTTP/1.1 200 OK\r\nx: "), Drip("y")],
            End::Close,
        )
        .without_head(),
        Fault::answer(
            "a header without end",
            [
                Text("HTTP/1.1 200 OK\r\nx: "),
                Forever("yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"),
            ],
            End::Close,
        ),
        Fault::answer(
            "a header of 256 KiB",
            [
                Text("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: "),
                Times("yyyyyyyyyyyyyyyy", 16 * 1024),
                Text("\r\n\r\n"),
            ],
            End::Keep,
        ),
        Fault::answer(
            "a thousand headers",
            [
                Text("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n"),
                Times("x: y\r\n", 1000),
                Text("\r\n"),
            ],
            End::Keep,
        ),
        Fault::answer(
            "not HTTP",
            [Text("SSH-2.0-OpenSSH_9.9\r\n\r\n")],
            End::Close,
        ),
        Fault::answer(
            "a thousand 103 first",
            [
                Times("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", 1000),
                Text("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"),
            ],
            End::Keep,
        ),
        Fault::answer(
            "100 for ever",
            [Drip("HTTP/1.1 100 Continue\r\n\r\n")],
            End::Close,
        )
        .without_head(),
        Fault::answer(
            "100 for ever, 64 KiB at a time",
            [Forever("HTTP/1.1 100 Continue\r\n\r\n")],
            End::Close,
        )
        .without_head(),
    ]
}

fn bodies() -> Vec<Fault> {
    use Piece::{Drip, Text};
    vec![
        Fault::answer("reset after the head", [Text(TEN)], End::Reset),
        Fault::answer("closed in the body", [Text(TEN), Text("hello")], End::Close),
        Fault::answer("reset in the body", [Text(TEN), Text("hello")], End::Reset),
        Fault::answer(
            "slow loris in the body",
            [Text(CHUNKED), Drip("1\r\nx\r\n")],
            End::Close,
        )
        .without_end(),
        Fault::answer(
            "length too short",
            [Text(TEN), Text("hello, world, this is more")],
            End::Keep,
        ),
        // In one piece: what comes after the next request has gone out cannot be told from its answer.
        Fault::answer(
            "an answer smuggled behind the length",
            [Text(
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
            )],
            End::Keep,
        ),
        Fault::answer(
            "two lengths",
            [Text(
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 10\r\n\r\nhello",
            )],
            End::Keep,
        ),
        Fault::answer(
            "length and chunks",
            [Text(
                "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            )],
            End::Keep,
        ),
        Fault::answer(
            "a chunk without a size",
            [Text(CHUNKED), Text("zz\r\nhello")],
            End::Keep,
        ),
        Fault::answer(
            "a chunk of 2^68",
            [Text(CHUNKED), Text("100000000000000000\r\nhello")],
            End::Keep,
        ),
        Fault::answer(
            "a chunk longer than its size",
            [Text(CHUNKED), Text("3\r\nhello\r\n0\r\n\r\n")],
            End::Keep,
        ),
        Fault::answer(
            "chunks that end early",
            [Text(CHUNKED), Text("5\r\nhello\r\n")],
            End::Close,
        ),
    ]
}

fn come_back_later() -> Vec<Fault> {
    vec![
        Fault::new("503", Script::ComeBackLater(503, Later::Unsaid)),
        Fault::new(
            "503, Retry-After: 1",
            Script::ComeBackLater(503, Later::Seconds),
        ),
        Fault::new(
            "503, Retry-After: a date",
            Script::ComeBackLater(503, Later::Date),
        ),
        Fault::new(
            "429, Retry-After: 1",
            Script::ComeBackLater(429, Later::Seconds),
        ),
        Fault::new(
            "429, Retry-After: a date",
            Script::ComeBackLater(429, Later::Date),
        ),
    ]
}

/// What is sent once more by other means than a retry.
fn asked_otherwise() -> Vec<Fault> {
    use Piece::Text;
    let events = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n\
                  18\r\nretry: 100\ndata: one\n\n\n\n\r\n";
    vec![
        Fault::new("two versions: 303, then 404", Script::LeadOn).asking_for(Asking::Versions),
        Fault::answer("events: closed after one", [Text(events)], End::Close)
            .asking_for(Asking::Events),
        Fault::answer("events: reset after one", [Text(events)], End::Reset)
            .asking_for(Asking::Events),
    ]
}

fn http2() -> Vec<Fault> {
    let frames = |name, frames, end| Fault::new(name, Script::Frames(frames, end)).on_http2();
    let turn_away = |name, frames| Fault::new(name, Script::TurnAway(frames)).on_http2();
    let forever = |name, first, again| {
        Fault::new(name, Script::FramesForever(first, again))
            .on_http2()
            .without_head()
    };
    vec![
        turn_away("h2: REFUSED_STREAM", frames::refused),
        turn_away("h2: GOAWAY, last stream below", frames::go_away_below),
        turn_away(
            "h2: ENHANCE_YOUR_CALM, last stream below",
            frames::calm_down,
        ),
        frames(
            "h2: GOAWAY, last stream the own, then closed",
            frames::go_away,
            End::Close,
        ),
        frames("h2: INTERNAL_ERROR", frames::internal_error, End::Keep),
        frames("h2: closed before the answer", frames::nothing, End::Close),
        frames("h2: reset before the answer", frames::nothing, End::Reset),
        frames("h2: no answer on the stream", frames::nothing, End::Keep).without_head(),
        frames(
            "h2: the whole connection falls silent",
            frames::nothing,
            End::Silence,
        )
        .on_a_reused_connection()
        .without_head(),
        frames(
            "h2: INTERNAL_ERROR in the body",
            frames::half_then_error,
            End::Keep,
        ),
        frames("h2: closed in the body", frames::half, End::Close),
        frames("h2: length too long", frames::too_short, End::Keep),
        frames(
            "h2: a frame larger than agreed",
            frames::oversized,
            End::Silence,
        ),
        forever("h2: 100 for ever", frames::nothing, frames::informational),
        forever(
            "h2: CONTINUATION for ever",
            frames::open_head,
            frames::continuation,
        ),
        Fault::new("h2: HTTP/1.1 instead", Script::OtherProtocol).on_http2(),
    ]
}
