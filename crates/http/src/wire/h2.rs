//! HTTP/2 on one connection, shared by many requests.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use http::Request;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use trunkline_core::Result;
use trunkline_core::task::Scope;

use crate::connect::{ConnectFailed, ConnectStage, Meter, Stream};
use crate::origin::Origin;
use crate::pool::Pooled;
use crate::wire::{Answered, Driven, Outward};

/// Requests on one connection. Most servers allow 100 or more; where one allows fewer, the rest wait on the connection.
pub(crate) const MOST_STREAMS: usize = 100;

/// A connection with requests on it from which nothing has come for so long is asked for a sign of life.
const PING_AFTER: Duration = Duration::from_secs(10);

/// It has so long to give it.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A handle of a connection that carries many requests.
#[derive(Clone)]
pub(crate) struct H2 {
    sender: SendRequest<Outward>,
    meter: Arc<Meter>,
}

/// Runs the tasks of a connection in the scope of the transport.
#[derive(Clone)]
struct InScope(Scope);

impl<F> Executor<F> for InScope
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn("http2-stream", task);
    }
}

impl H2 {
    pub(crate) async fn handshake(origin: &Origin, stream: Stream, scope: &Scope) -> Result<Self> {
        let meter = stream.meter();
        let failed =
            |error| ConnectFailed::error(origin.authority(), ConnectStage::Handshake, error);
        let (mut sender, connection) = Builder::new(InScope(scope.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        scope.spawn("http2-connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(target: "trunkline", error = %error, "a connection ended");
            }
        });
        sender.ready().await.map_err(failed)?;
        Ok(Self { sender, meter })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Bytes that have come on the connection.
    pub(crate) fn received(&self) -> u64 {
        self.meter.moved_both().1
    }

    /// Hands a request over. Dropped before the end of the answer's head, it resets the stream.
    pub(crate) fn start(
        &mut self,
        request: Request<Outward>,
    ) -> impl Future<Output = Answered> + use<> {
        self.sender.try_send_request(request)
    }
}

impl Driven for H2 {
    fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A task of its own drives the connection.
    fn drive(&mut self, _: &mut Context<'_>) -> bool {
        true
    }
}

impl Pooled for H2 {
    fn is_dead(&mut self) -> bool {
        self.is_closed()
    }
}

impl fmt::Debug for H2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("H2")
    }
}
