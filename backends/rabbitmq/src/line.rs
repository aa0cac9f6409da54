//! One socket to a server, plain or encrypted, that can be cut from outside.
//!
//! The driver polls it from a thread of its own, which waits for the socket to stir. When a server hangs in the middle of
//! the login, nothing stirs and the thread would stay; cutting the line wakes it with an error.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

/// The socket of one connection.
pub(crate) struct Line {
    socket: Socket,
    scissors: Scissors,
}

enum Socket {
    Plain(Compat<TcpStream>),
    Encrypted(Box<Compat<TlsStream<TcpStream>>>),
}

/// Cuts a [`Line`].
#[derive(Clone, Default)]
pub(crate) struct Scissors(Arc<Cut>);

#[derive(Default)]
struct Cut {
    is_cut: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Scissors {
    /// From now on the line fails, and whoever waits for it wakes.
    pub(crate) fn cut(&self) {
        self.0.is_cut.store(true, Ordering::Release);
        self.0.reader.wake();
        self.0.writer.wake();
    }

    fn check(&self, waker: &AtomicWaker, cx: &Context<'_>) -> io::Result<()> {
        waker.register(cx.waker());
        if self.0.is_cut.load(Ordering::Acquire) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the connection was given up",
            ));
        }
        Ok(())
    }
}

impl Line {
    pub(crate) fn plain(socket: TcpStream, scissors: Scissors) -> Self {
        let socket = Socket::Plain(socket.compat());
        Self { socket, scissors }
    }

    pub(crate) fn encrypted(socket: TlsStream<TcpStream>, scissors: Scissors) -> Self {
        let socket = Socket::Encrypted(Box::new(socket.compat()));
        Self { socket, scissors }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.scissors.check(&self.scissors.0.reader, cx)?;
        match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Socket::Encrypted(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.scissors.check(&self.scissors.0.writer, cx)?;
        match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Encrypted(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.scissors.check(&self.scissors.0.writer, cx)?;
        match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Socket::Encrypted(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.scissors.check(&self.scissors.0.writer, cx)?;
        match &mut self.socket {
            Socket::Plain(socket) => Pin::new(socket).poll_close(cx),
            Socket::Encrypted(socket) => Pin::new(socket).poll_close(cx),
        }
    }
}
