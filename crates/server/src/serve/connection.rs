//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use trunkline_core::task::Scope;

use super::activity::{Activity, Patience, RequestGuard, Verdict, Watched};
use super::{ConnectionLimits, Place};

/// The least buffer that hyper takes.
const LEAST_HEAD: u32 = 8192;

/// How often a silent HTTP/2 client is asked whether it is still there, and how long it may take to answer.
const PING: Duration = Duration::from_secs(20);

/// Target of what is logged here.
const TARGET: &str = "trunkline::server";

#[derive(Clone, Copy)]
enum Phase {
    Open,
    /// Told to stop, and about to close.
    Stopping,
    /// What runs is finished, nothing new begins.
    Closing,
}

pub(super) struct Connection {
    pub(super) limits: ConnectionLimits,
    pub(super) scope: Scope,
    pub(super) shed: CancellationToken,
}

impl Connection {
    /// Serves until the client has gone, has been idle for too long, or the scope stops and nothing is left to answer.
    pub(super) async fn serve<S, B>(self, stream: TcpStream, place: Place, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let activity = Activity::begin();
        let io = TokioIo::new(Watched::new(stream, activity.clone(), place));
        let builder = self.builder();
        let answering = Answering {
            service,
            activity: activity.clone(),
            shed: self.shed.clone(),
        };
        let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(io, answering));
        let stop = self.scope.token();
        let mut stopped = std::pin::pin!(stop.cancelled());
        let patience = Patience {
            head: self.limits.header_timeout,
            idle: self.limits.keepalive_expiry,
        };
        let mut look = std::pin::pin!(sleep_until(Instant::now() + patience.head));
        let mut phase = Phase::Open;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(target: TARGET, %error, "connection ended with an error");
                    }
                    return;
                }
                () = stopped.as_mut(), if matches!(phase, Phase::Open) => {
                    phase = Phase::Stopping;
                    // Who has just connected may still say what it came for.
                    let grace = if activity.has_spoken() { Duration::ZERO } else { self.limits.linger };
                    look.as_mut().reset(Instant::now() + grace);
                }
                () = look.as_mut() => match (phase, activity.verdict(patience)) {
                    (_, Verdict::Stuck) | (Phase::Closing, Verdict::Idle) => return,
                    (Phase::Stopping, _) if !activity.has_spoken() => return,
                    (Phase::Stopping, _) | (Phase::Open, Verdict::Idle) => {
                        phase = Phase::Closing;
                        connection.as_mut().graceful_shutdown();
                        look.as_mut().reset(Instant::now() + patience.head);
                    }
                    (_, Verdict::Wait(next)) => look.as_mut().reset(next),
                },
            }
        }
    }

    fn builder(&self) -> auto::Builder<Streams> {
        let limits = self.limits;
        let head = limits.max_head.max(LEAST_HEAD);
        let mut builder = auto::Builder::new(Streams(self.scope.clone()));
        builder
            .http1()
            .timer(TokioTimer::new())
            // hyper's own counts the idle time between requests too; ours tells them apart.
            .header_read_timeout(None)
            .max_buf_size(head as usize);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING)
            .max_header_list_size(head)
            .max_concurrent_streams(limits.max_streams);
        builder
    }
}

/// Runs the requests of an HTTP/2 connection as tasks of the listener's scope.
#[derive(Clone)]
struct Streams(Scope);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("http2", future);
    }
}

/// Counts requests, and asks clients to close while the listener sheds them.
#[derive(Clone)]
struct Answering<S> {
    service: S,
    activity: Activity,
    shed: CancellationToken,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Answering<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<Counted<B>>;
    type Error = Infallible;
    type Future = AnswerFuture<S, S::Future>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        AnswerFuture {
            guard: Some(self.activity.request()),
            close: (request.version() < Version::HTTP_2).then(|| self.shed.clone()),
            state: AnswerState::Waiting {
                service: self.service.clone(),
                request: Some(request),
            },
        }
    }
}

pin_project! {
    struct AnswerFuture<S, F> {
        guard: Option<RequestGuard>,
        close: Option<CancellationToken>,
        #[pin]
        state: AnswerState<S, F>,
    }
}

pin_project! {
    #[project = AnswerStateProjection]
    enum AnswerState<S, F> {
        // A tower service must say that it is ready before it is called.
        Waiting { service: S, request: Option<Request<Incoming>> },
        Called { #[pin] future: F },
    }
}

impl<S, B> Future for AnswerFuture<S, S::Future>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
{
    type Output = Result<Response<Counted<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let AnswerStateProjection::Waiting { service, request } = this.state.as_mut().project() {
            let Ok(()) = ready!(service.poll_ready(cx));
            let request = request
                .take()
                .expect("it is taken once, on the way to the other state");
            let future = service.call(request);
            this.state.set(AnswerState::Called { future });
        }
        let AnswerStateProjection::Called { future } = this.state.project() else {
            return Poll::Pending;
        };
        let Ok(response) = ready!(future.poll(cx));
        let guard = this.guard.take();
        let mut response = response.map(|body| Counted { body, guard });
        let switching = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
        if !switching
            && this
                .close
                .as_ref()
                .is_some_and(CancellationToken::is_cancelled)
        {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Poll::Ready(Ok(response))
    }
}

pin_project! {
    /// A body whose end is the end of its request.
    struct Counted<B> {
        #[pin]
        body: B,
        guard: Option<RequestGuard>,
    }
}

impl<B: Body> Body for Counted<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if frame.is_none() {
            drop(this.guard.take());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
