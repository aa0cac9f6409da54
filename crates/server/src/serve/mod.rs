//! A listener for HTTP/1 and HTTP/2 without TLS (h2c), on one port, that stops without cutting anything off.
//!
//! [`MicroserviceApp`](crate::MicroserviceApp) and the gateway stand on it; it serves any tower service alone too.
//! Connections are bounded, and a client that sends its head slowly, keeps a connection without using it, or does not
//! take what is sent, loses it.

mod activity;
mod connection;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tower_service::Service;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Result, Retry};

use connection::Connection;

/// Pause after an error that will not pass at once, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What clients may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Connections open at once; further ones wait to be accepted. Default 10000.
    pub max_connections: u32,
    /// Time for the head of a request. Default 10 s.
    pub header_timeout: Duration,
    /// Time for a connection without a request, and for a client that takes nothing of what is sent. Default 75 s.
    pub keepalive_expiry: Duration,
    /// After being told to stop, for how long idle connections are still open, and a client that reuses one is answered
    /// with `Connection: close`: it loses no request that it is just sending. Default 250 ms.
    pub linger: Duration,
    /// Largest head of a request, in bytes; at least 8 KiB. Default 64 KiB.
    pub max_head: u32,
    /// Requests at once on one HTTP/2 connection. Default 200.
    pub max_streams: u32,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            header_timeout: Duration::from_secs(10),
            keepalive_expiry: Duration::from_secs(75),
            linger: Duration::from_millis(250),
            max_head: 64 * 1024,
            max_streams: 200,
        }
    }
}

impl ConnectionLimits {
    /// Sets how many connections are open at once.
    #[must_use]
    pub fn with_max_connections(mut self, connections: u32) -> Self {
        self.max_connections = connections;
        self
    }

    /// Sets the time for the head of a request.
    #[must_use]
    pub fn with_header_timeout(mut self, timeout: Duration) -> Self {
        self.header_timeout = timeout;
        self
    }

    /// Sets for how long idle connections stay open at the end.
    #[must_use]
    pub fn with_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Sets the time for a connection without a request.
    #[must_use]
    pub fn with_keepalive_expiry(mut self, expiry: Duration) -> Self {
        self.keepalive_expiry = expiry;
        self
    }
}

/// A bound address, not served yet: connections wait until [`Listener::serve`].
///
/// ```
/// use std::convert::Infallible;
/// use std::time::Duration;
/// use http::{Request, Response};
/// use tokio::time::Instant;
/// use trunkline_server::serve::{ConnectionLimits, Listener};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let hello = tower::service_fn(|_: Request<_>| async {
///     Ok::<_, Infallible>(Response::new("hello".to_owned()))
/// });
/// let listener = Listener::bind("127.0.0.1", 0).await?;
/// let serving = listener.serve(ConnectionLimits::default(), move |_peer| hello);
/// println!("listening on {}", serving.local_addr());
/// serving.stop(Instant::now() + Duration::from_secs(5)).await;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds an address; port 0 takes a free one.
    ///
    /// # Errors
    /// `Conflict` when the port is taken, `Denied` when it may not be used, `Config` when the host is no address of
    /// this machine.
    ///
    /// # Cancel safety
    /// Nothing stays behind when it is dropped.
    pub async fn bind(host: &str, port: u16) -> Result<Self> {
        let shown = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let listener = TcpListener::bind((host, port)).await;
        let listener = listener.map_err(|cause| bind_error(&shown, cause))?;
        let address = listener
            .local_addr()
            .map_err(|cause| bind_error(&shown, cause))?;
        Ok(Self { listener, address })
    }

    /// The address bound, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Begins to serve. `make` gives each connection its service, and is told who the client is.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn serve<S, B>(
        self,
        limits: ConnectionLimits,
        make: impl Fn(SocketAddr) -> S + Send + Sync + 'static,
    ) -> Serving
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let serving = Serving {
            address: self.address,
            scope: Scope::new(),
            shed: CancellationToken::new(),
            open: watch::Sender::new(0),
            linger: limits.linger,
        };
        let acceptor = Acceptor {
            listener: self.listener,
            permits: Arc::new(Semaphore::new(limits.max_connections as usize)),
            opener: Opener {
                scope: serving.scope.clone(),
                shed: serving.shed.clone(),
                open: serving.open.clone(),
                limits,
            },
        };
        serving.scope.spawn("accept", acceptor.run(make));
        serving
    }
}

fn bind_error(address: &str, cause: io::Error) -> Error {
    let error = match cause.kind() {
        io::ErrorKind::AddrInUse => Error::conflict(format!(
            "{address} is in use by another program; choose another port, or 0 for a free one"
        )),
        io::ErrorKind::PermissionDenied => Error::new(
            trunkline_core::ErrorKind::Denied,
            format!("{address} may not be listened on; ports below 1024 need privileges"),
        ),
        _ => Error::config(format!("{address} cannot be listened on")),
    };
    error
        .with_operation("listen")
        .with_retry(Retry::Never)
        .with_source(cause)
}

/// A listener at work. Dropping it stops accepting and lets what runs finish; [`Serving::stop`] also waits for that.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    scope: Scope,
    /// Cancelled first: responses ask their clients to close.
    shed: CancellationToken,
    /// How many connections are open.
    open: watch::Sender<usize>,
    linger: Duration,
}

impl Serving {
    /// The address served, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.open.borrow()
    }

    /// Asks clients to close their connections: every HTTP/1 response says so from now on. New connections are still
    /// accepted and requests still served.
    pub fn shed(&self) {
        self.shed.cancel();
    }

    /// Stops accepting, lets requests that are under way finish until the deadline, then drops the rest. Returns how
    /// many connections had to be dropped: 0 when nothing was cut off.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn stop(&self, deadline: Instant) -> usize {
        self.shed();
        self.closed(deadline.min(Instant::now() + self.linger))
            .await;
        self.scope.stop();
        let left = self.closed(deadline).await;
        // Without connections nothing else takes any time.
        self.scope.shutdown(deadline).await;
        left
    }

    /// Waits until no connection is open; returns how many are.
    async fn closed(&self, deadline: Instant) -> usize {
        let mut open = self.open.subscribe();
        // The sender is ours: the wait ends with none left, or in time.
        drop(timeout_at(deadline, open.wait_for(|open| *open == 0)).await);
        self.connections()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.shed.cancel();
        self.scope.stop();
    }
}

struct Acceptor {
    listener: TcpListener,
    permits: Arc<Semaphore>,
    opener: Opener,
}

/// Makes connections of what was accepted.
struct Opener {
    scope: Scope,
    shed: CancellationToken,
    open: watch::Sender<usize>,
    limits: ConnectionLimits,
}

/// A place among the connections, taken for as long as it is open.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    open: watch::Sender<usize>,
}

impl Place {
    fn take(permit: OwnedSemaphorePermit, open: &watch::Sender<usize>) -> Self {
        open.send_modify(|open| *open += 1);
        Self {
            _permit: permit,
            open: open.clone(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.send_modify(|open| *open -= 1);
    }
}

impl Acceptor {
    async fn run<S, B>(self, make: impl Fn(SocketAddr) -> S + Send + Sync)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let stop = self.opener.scope.token();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                next = self.accept() => next,
            };
            if let Some((stream, peer, place)) = next {
                self.opener.open(stream, place, make(peer));
            }
        }
        self.finish(make);
    }

    /// Serves whoever is connected already and waits only to be accepted, then closes the listener. The kernel is asked
    /// itself: what the runtime knows of the listener may be a moment old. Who connects between the last answer and the
    /// closing is reset; a drain delay keeps clients from doing so.
    fn finish<S, B>(self, make: impl Fn(SocketAddr) -> S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let Self {
            listener,
            opener,
            permits,
        } = self;
        let Ok(listener) = listener.into_std() else {
            return;
        };
        while let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            let Ok((stream, peer)) = listener.accept() else {
                return;
            };
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                opener.open(stream, Place::take(permit, &opener.open), make(peer));
            }
        }
    }

    async fn accept(&self) -> Option<(TcpStream, SocketAddr, Place)> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        match self.listener.accept().await {
            Ok((stream, peer)) => Some((stream, peer, Place::take(permit, &self.opener.open))),
            Err(error) => {
                if !concerns_one_connection(&error) {
                    tracing::warn!(target: "trunkline::server", %error, "cannot accept connections");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None
            }
        }
    }
}

impl Opener {
    fn open<S, B>(&self, stream: TcpStream, place: Place, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        // Answers are written whole; waiting to fill packets only delays them. If it fails, only speed is lost.
        drop(stream.set_nodelay(true));
        let connection = Connection {
            limits: self.limits,
            scope: self.scope.clone(),
            shed: self.shed.clone(),
        };
        self.scope
            .spawn("connection", connection.serve(stream, place, service));
    }
}

fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
