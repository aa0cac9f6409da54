//! The bytes of one connection: a socket, plain or encrypted, that counts and holds its place in the pool.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_rustls::client::TlsStream;

use super::Forward;
use crate::pool::Place;

/// After so many reads that gave something the task looks at its time limits: whoever floods it with what leads to no
/// answer, such as informational answers, would keep it reading.
const MOST_IN_A_ROW: u8 = 16;

/// A connected socket.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    #[cfg(unix)]
    Unix(UnixStream),
}

/// What has gone over a connection. Written by the one task that drives it, read by the same.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    /// Reads that ended, whatever came of them.
    reads: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Meter {
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes sent and received.
    pub(crate) fn moved_both(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.sent), load(&self.received))
    }

    /// Changes whenever bytes move, in whichever direction.
    pub(crate) fn moved(&self) -> u64 {
        let (sent, received) = self.moved_both();
        sent.wrapping_add(received)
    }

    /// One task at a time counts, so a load and a store do: they cost less than an addition that others could join.
    fn add(counter: &AtomicU64, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        counter.store(
            counter.load(Ordering::Relaxed).wrapping_add(count),
            Ordering::Relaxed,
        );
    }
}

/// A socket that counts its bytes and keeps its place in the pool for as long as it lives.
pub(crate) struct Stream {
    // Dropped in this order: the socket is closed before its place is given to the next.
    socket: Socket,
    meter: Arc<Meter>,
    /// Reads that gave something since one last gave nothing.
    in_a_row: u8,
    forward: Option<Forward>,
    _place: Place,
}

impl Stream {
    pub(crate) fn new(socket: Socket, place: Place) -> Self {
        Self {
            socket,
            meter: Arc::new(Meter::default()),
            in_a_row: 0,
            forward: None,
            _place: place,
        }
    }

    /// Says that its other end is a proxy that is sent the requests.
    pub(crate) fn forwarded(mut self, forward: Option<Forward>) -> Self {
        self.forward = forward;
        self
    }

    pub(crate) fn take_forward(&mut self) -> Option<Forward> {
        self.forward.take()
    }

    pub(crate) fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(count)) = &written {
            Meter::add(&self.meter.sent, *count);
        }
        written
    }
}

macro_rules! each_socket {
    ($socket:expr, $io:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($io) => $call,
            Socket::Tls($io) => $call,
            #[cfg(unix)]
            Socket::Unix($io) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.in_a_row == MOST_IN_A_ROW {
            self.in_a_row = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = each_socket!(&mut self.socket, io => Pin::new(io).poll_read(cx, buf));
        if read.is_ready() {
            Meter::add(&self.meter.reads, 1);
            Meter::add(&self.meter.received, buf.filled().len() - before);
            self.in_a_row += 1;
        } else {
            self.in_a_row = 0;
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = each_socket!(&mut self.socket, io => Pin::new(io).poll_write(cx, buf));
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written =
            each_socket!(&mut self.socket, io => Pin::new(io).poll_write_vectored(cx, bufs));
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        each_socket!(&self.socket, io => io.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_socket!(&mut self.socket, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each_socket!(&mut self.socket, io => Pin::new(io).poll_shutdown(cx))
    }
}
