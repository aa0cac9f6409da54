//! A server that misbehaves, byte by byte, and counts what comes to it.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use trunkline_core::task::Scope;

use super::faults::{End, Fault, Later, Piece, Script};
use super::frames::{self, ACK, DATA, END_STREAM, HEADERS, PING, PREFACE, SETTINGS};

/// Between the bytes of a slow loris.
const DRIP: Duration = Duration::from_millis(20);

/// Bytes of a flood that come at once, and the time between them.
const FLOOD: usize = 64 * 1024;
const BREATH: Duration = Duration::from_millis(2);

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// What who asks for events gets.
const GOOD_EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 13\r\n\r\ndata: hello\n\n";

/// Where requests are led on to: they are not those that are counted.
const LED_ON: &str = "/led-on";

/// What came to a server.
#[derive(Debug, Default)]
struct Tally {
    /// Requests whose head was read.
    arrived: AtomicUsize,
    /// Requests that were read whole and might have been processed.
    taken_up: AtomicUsize,
    /// When they arrived.
    times: std::sync::Mutex<Vec<Instant>>,
    /// How often it will still misbehave.
    left: AtomicUsize,
    /// Whether requests are counted.
    counting: AtomicUsize,
}

/// A server that ends when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    tally: Arc<Tally>,
    scope: Scope,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

impl Server {
    /// Starts one that misbehaves as often as told.
    pub(super) async fn start(fault: &Fault, times: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, scope) = (listener.local_addr()?, Scope::new());
        let tally = Arc::new(Tally::default());
        tally.left.store(times, Ordering::SeqCst);
        let server = Self {
            address,
            tally,
            scope,
        };
        if !matches!(fault.script, Script::Refuse) {
            let connections = Connections {
                fault: fault.clone(),
                tally: Arc::clone(&server.tally),
                scope: server.scope.clone(),
            };
            let (scope, stop) = (server.scope.clone(), server.scope.token());
            server.scope.spawn("misbehaving-server", async move {
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        () = stop.cancelled() => return,
                    };
                    let Ok((socket, _)) = accepted else { continue };
                    let (connections, stop) = (connections.clone(), stop.clone());
                    scope.spawn("misbehaving-connection", async move {
                        tokio::select! {
                            // How a connection ends is what this is about.
                            _ = connections.serve(socket) => {}
                            () = stop.cancelled() => {}
                        }
                    });
                }
            });
        }
        Ok(server)
    }

    /// Counts from now on.
    pub(super) fn count(&self) {
        self.tally.counting.store(1, Ordering::SeqCst);
    }

    /// Behaves from now on, and counts no more.
    pub(super) fn behave(&self) {
        self.tally.left.store(0, Ordering::SeqCst);
        self.tally.counting.store(0, Ordering::SeqCst);
    }

    pub(super) fn arrived(&self) -> usize {
        self.tally.arrived.load(Ordering::SeqCst)
    }

    pub(super) fn taken_up(&self) -> usize {
        self.tally.taken_up.load(Ordering::SeqCst)
    }

    /// The shortest time between two requests.
    pub(super) fn shortest_pause(&self) -> Option<Duration> {
        let times = self.tally.times.lock();
        let times = times.unwrap_or_else(PoisonError::into_inner);
        let pauses = times.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.min()
    }
}

impl Tally {
    fn arrives(&self) {
        if self.counting.load(Ordering::SeqCst) > 0 {
            self.arrived.fetch_add(1, Ordering::SeqCst);
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.push(Instant::now());
        }
    }

    fn is_taken_up(&self) {
        self.taken_up
            .fetch_add(self.counting.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn will_misbehave(&self) -> bool {
        self.counting.load(Ordering::SeqCst) > 0 && self.left.load(Ordering::SeqCst) > 0
    }

    /// Whether it is to misbehave once more.
    fn misbehaves(&self) -> bool {
        if self.counting.load(Ordering::SeqCst) == 0 {
            return false;
        }
        let less = |left: usize| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            .is_ok()
    }
}

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Plain,
    Events,
    LedOn,
}

impl Asked {
    /// By its head, in lower case.
    fn by(head: &str) -> Self {
        let line = head.lines().next().unwrap_or_default();
        if line.contains(LED_ON) {
            Self::LedOn
        } else if head.contains("\r\naccept: text/event-stream") {
            Self::Events
        } else {
            Self::Plain
        }
    }
}

#[derive(Clone)]
struct Connections {
    fault: Fault,
    tally: Arc<Tally>,
    scope: Scope,
}

impl Connections {
    async fn serve(&self, mut socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        match &self.fault.script {
            Script::ResetOnAccept if self.tally.misbehaves() => reset(&socket),
            _ if self.fault.http2 => self.serve_http2(socket).await,
            _ => {
                while let Some(asked) = self.read_request(&mut socket).await? {
                    if asked == Asked::LedOn && self.tally.will_misbehave() {
                        let nothing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
                        socket.write_all(nothing.as_bytes()).await?;
                        continue;
                    }
                    if asked == Asked::LedOn || !self.tally.misbehaves() {
                        let good = match asked {
                            Asked::Events => GOOD_EVENTS,
                            Asked::Plain | Asked::LedOn => GOOD,
                        };
                        socket.write_all(good.as_bytes()).await?;
                        continue;
                    }
                    match &self.fault.script {
                        Script::Answer(pieces, end) => {
                            for piece in pieces {
                                write(&mut socket, piece).await?;
                            }
                            if !finish(&mut socket, *end).await? {
                                return Ok(());
                            }
                        }
                        Script::ComeBackLater(status, later) => {
                            let answer = come_back(*status, *later);
                            socket.write_all(answer.as_bytes()).await?;
                        }
                        Script::LeadOn => {
                            let answer = format!(
                                "HTTP/1.1 303 See Other\r\nlocation: {LED_ON}\r\ncontent-length: 0\r\n\r\n"
                            );
                            socket.write_all(answer.as_bytes()).await?;
                        }
                        other => return Err(io::Error::other(format!("{other:?} is HTTP/2"))),
                    }
                }
                Ok(())
            }
        }
    }

    /// Reads a request; `None` at the end of the connection.
    async fn read_request(&self, socket: &mut TcpStream) -> io::Result<Option<Asked>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if socket.read(&mut byte).await? == 0 {
                return Ok(None);
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let asked = Asked::by(&head);
        if asked != Asked::LedOn {
            self.tally.arrives();
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .and_then(|length| length.trim().parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await?;
        if asked != Asked::LedOn {
            self.tally.is_taken_up();
        }
        Ok(Some(asked))
    }

    async fn serve_http2(&self, socket: TcpStream) -> io::Result<()> {
        let (mut read, write) = socket.into_split();
        let write = Writer(Arc::new(Mutex::new(write)));
        let mut preface = [0; PREFACE.len()];
        read.read_exact(&mut preface).await?;
        // Whoever speaks another protocol says nothing of this one.
        let other =
            matches!(self.fault.script, Script::OtherProtocol) && self.tally.will_misbehave();
        if !other {
            write.all(&frames::frame(SETTINGS, 0, 0, &[])).await?;
        }
        // What is turned away may still send the rest of itself.
        let mut turned_away = None;
        loop {
            let mut head = [0; 9];
            read.read_exact(&mut head).await?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(0);
            let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
            let mut payload = vec![0; length];
            read.read_exact(&mut payload).await?;
            match kind {
                SETTINGS if flags & ACK == 0 && !other => {
                    write.all(&frames::frame(SETTINGS, ACK, 0, &[])).await?;
                }
                PING if flags & ACK == 0 => {
                    write.all(&frames::frame(PING, ACK, 0, &payload)).await?;
                }
                HEADERS => {
                    self.tally.arrives();
                    if let Script::TurnAway(frames) = self.fault.script
                        && self.tally.misbehaves()
                    {
                        write.all(&frames(stream)).await?;
                        turned_away = Some(stream);
                    }
                }
                _ => {}
            }
            let is_whole = matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0;
            let is_request = is_whole && turned_away != Some(stream);
            if !is_request {
                continue;
            }
            match self.answer_stream(&write, stream).await? {
                End::Keep => {}
                End::Close => return Ok(()),
                End::Reset => return reset(write.0.lock().await.as_ref()),
                End::Silence => {
                    let mut rest = Vec::new();
                    return read.read_to_end(&mut rest).await.map(drop);
                }
            }
        }
    }

    /// Answers a request that is here whole. Returns how the connection goes on.
    async fn answer_stream(&self, write: &Writer, stream: u32) -> io::Result<End> {
        self.tally.is_taken_up();
        if !self.tally.misbehaves() {
            write.all(&frames::good(stream)).await?;
            return Ok(End::Keep);
        }
        match self.fault.script {
            Script::Frames(frames, end) => {
                write.all(&frames(stream)).await?;
                Ok(end)
            }
            Script::FramesForever(first, again) => {
                write.all(&first(stream)).await?;
                let flood = write.clone();
                self.scope.spawn("misbehaving-flood", async move {
                    while flood.all(&again(stream)).await.is_ok() {
                        sleep(BREATH).await;
                    }
                });
                Ok(End::Keep)
            }
            Script::OtherProtocol => {
                let refusal = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
                write.all(refusal.as_bytes()).await?;
                Ok(End::Close)
            }
            _ => Err(io::Error::other("this is no fault of HTTP/2")),
        }
    }
}

/// The sending half of a connection.
#[derive(Clone)]
struct Writer(Arc<Mutex<OwnedWriteHalf>>);

impl Writer {
    async fn all(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().await.write_all(bytes).await
    }
}

async fn write(socket: &mut TcpStream, piece: &Piece) -> io::Result<()> {
    match *piece {
        Piece::Text(text) => socket.write_all(text.as_bytes()).await,
        Piece::Times(text, times) => socket.write_all(text.repeat(times).as_bytes()).await,
        Piece::Forever(text) => {
            let many = text.repeat(FLOOD / text.len());
            loop {
                socket.write_all(many.as_bytes()).await?;
                // A breath, so that floods do not take the machine from the other calls.
                sleep(BREATH).await;
            }
        }
        Piece::Drip(text) => loop {
            socket.write_all(text.as_bytes()).await?;
            sleep(DRIP).await;
        },
    }
}

/// Returns whether the connection goes on.
async fn finish(socket: &mut TcpStream, end: End) -> io::Result<bool> {
    match end {
        End::Keep => Ok(true),
        End::Close => Ok(false),
        End::Reset => reset(socket).map(|()| false),
        End::Silence => {
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).await.map(|_| false)
        }
    }
}

/// The end of the connection will be a reset in place of a goodbye.
fn reset(socket: &TcpStream) -> io::Result<()> {
    #[expect(deprecated, reason = "zero seconds do not block: the socket is reset")]
    socket.set_linger(Some(Duration::ZERO))
}

fn come_back(status: u16, later: Later) -> String {
    let header = match later {
        Later::Unsaid => String::new(),
        Later::Seconds => "retry-after: 1\r\n".to_owned(),
        Later::Date => {
            #[expect(
                clippy::disallowed_methods,
                reason = "a date of the wall clock is what the header holds"
            )]
            let now = SystemTime::now();
            // A date has whole seconds: of two, more than one is left.
            let date = httpdate::fmt_http_date(now + Duration::from_secs(2));
            format!("retry-after: {date}\r\n")
        }
    };
    format!("HTTP/1.1 {status} Later\r\ncontent-length: 0\r\n{header}\r\n")
}
