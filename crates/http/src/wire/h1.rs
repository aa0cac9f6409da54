//! HTTP/1.1 on one connection.
//!
//! Whoever makes the request also drives the connection: no second task, no hand-over between threads, and a request
//! that is dropped closes its socket at once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use http::Request;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use trunkline_core::Result;

use crate::connect::{ConnectFailed, ConnectStage, Forward, Meter, Stream};
use crate::origin::Origin;
use crate::pool::Pooled;
use crate::wire::{Answered, Driven, Outward};

/// Headers of an answer: more lines or bytes than this are not a service's answer.
const MOST_HEADERS_BYTES: usize = 128 * 1024;

pub(crate) type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection that carries one request at a time.
pub(crate) struct H1 {
    sender: SendRequest<Outward>,
    /// Moves the bytes; gone when the connection is over.
    driver: Option<Driver>,
    meter: Arc<Meter>,
    forward: Option<Forward>,
    reused: bool,
    /// Reads that had ended when the present exchange began.
    reads: u64,
}

impl H1 {
    pub(crate) async fn handshake(origin: &Origin, mut stream: Stream) -> Result<Self> {
        let meter = stream.meter();
        let forward = stream.take_forward();
        let (sender, connection) = Builder::new()
            .max_header_size(MOST_HEADERS_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| {
                ConnectFailed::error(origin.authority(), ConnectStage::Handshake, error)
            })?;
        Ok(Self {
            sender,
            driver: Some(Box::pin(connection.with_upgrades())),
            meter,
            forward,
            reused: false,
            reads: 0,
        })
    }

    /// Whether it carried a request before.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// How requests are written where a proxy passes them on.
    pub(crate) fn forward(&self) -> Option<&Forward> {
        self.forward.as_ref()
    }

    pub(crate) fn mark_reused(&mut self) {
        self.reused = true;
    }

    /// Whether the last exchange is over and the next may begin.
    pub(crate) fn is_idle(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Moves bytes until there is nothing more to move.
    pub(crate) fn poll_drive(&mut self, cx: &mut Context<'_>) {
        if self.poll_driver(cx).is_ready() {
            self.driver = None;
        }
    }

    fn poll_driver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(driver) = &mut self.driver else {
            return Poll::Pending;
        };
        driver.as_mut().poll(cx).map(|ended| {
            if let Err(error) = ended {
                tracing::debug!(target: "trunkline", error = %error, "a connection ended");
            }
        })
    }

    /// Gives the connection away, to be driven by a task of its own.
    pub(crate) fn into_driver(self) -> Option<Driver> {
        self.driver
    }

    /// Hands a request over. The answer comes when the connection is driven; whoever drops it before its end leaves the
    /// connection in the middle of an exchange and has to drop that too.
    pub(crate) fn start(
        &mut self,
        request: Request<Outward>,
    ) -> impl Future<Output = Answered> + use<> {
        self.reads = self.meter.reads();
        self.sender.try_send_request(request)
    }
}

impl Driven for H1 {
    fn meter(&self) -> &Meter {
        &self.meter
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.poll_drive(cx);
        // Nothing has been read since the request was handed over and the connection stands: there is no answer yet. Not
        // to ask saves the wake-up that the answer's channel would send to this very task.
        self.meter.reads() != self.reads || self.driver.is_none()
    }
}

impl Pooled for H1 {
    /// The system remembers that the other side has closed until somebody looks.
    fn is_dead(&mut self) -> bool {
        // A driver that has ended is not dropped here: that gives its place back to the pool, and whoever asks holds the
        // pool's lock.
        let ended = self
            .poll_driver(&mut Context::from_waker(Waker::noop()))
            .is_ready();
        ended || !self.is_idle()
    }
}

impl fmt::Debug for H1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H1")
            .field("reused", &self.reused)
            .finish_non_exhaustive()
    }
}
