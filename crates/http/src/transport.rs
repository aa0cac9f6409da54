//! Sends one request to one place: connections, protocols, time limits, and nothing that decides for the caller.

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION};
use http::uri::{Authority, Parts, PathAndQuery};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use trunkline_core::{Error, Result, Retry, Secret};
use trunkline_discovery::Departures;

use crate::body::{Body, Received, Source, Upload};
use crate::config::HttpClientConfig;
use crate::connect::{Connector, Forward, Meter, ProxyRules, Tls, TlsFiles};
use crate::error::{self, Moved};
use crate::limits::{Limits, after};
use crate::origin::Origin;
use crate::pool::{self, Connection, Lease, Pool, PoolStats, StreamLease};
use crate::wire::{Answered, Exchange, Writing, back, head_within, outward};

/// Requests that may wait for a connection, for each connection allowed.
const WAITING_PER_CONNECTION: usize = 100;

/// Connections of a transport beside another one.
const CONNECTIONS_BESIDE: usize = 16;

/// An answer on its way to who asked. In a box: every layer hands it on, and a head is a quarter of a kilobyte, which each
/// of their futures would keep room for.
pub(crate) type Reply = Box<Response<Body>>;

/// Settings of a [`Transport`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransportConfig {
    /// Connections open at once, all origins together. Default 100.
    pub max_connections: usize,
    /// Connections kept open without a request, all origins together. Default 20.
    pub max_keepalive_connections: usize,
    /// How long a connection is kept open without a request. Default 30 s.
    pub keepalive_expiry: Duration,
    /// Requests that may wait for a connection. Default: 100 for each connection allowed.
    pub max_waiting: Option<usize>,
    /// File with further root certificates, PEM. Default: only the system's.
    pub ca_file: Option<PathBuf>,
    /// Whether the system's roots are trusted. Default: yes; without them those of `ca_file` alone are.
    pub system_roots: bool,
    /// File with the certificate that this side shows, and what leads from it to a root, PEM. Default: none.
    pub client_certificate: Option<PathBuf>,
    /// File with its private key, PEM. Default: the file of the certificate.
    pub client_key: Option<PathBuf>,
    /// URL of a proxy, such as `http://user:password@proxy:3128` or `socks5h://proxy:1080`; `none` for none. Default: as
    /// [`TransportConfig::with_proxy_rules`] says, or none.
    pub proxy: Option<Secret>,
    /// Hosts, domains, addresses and networks that are reached without `proxy`. What runs on this machine always is.
    pub no_proxy: Vec<String>,
    /// Whether public addresses alone are dialled, for URLs that come from outside. Default: no.
    pub deny_private_addresses: bool,
    /// Whether connections that are not encrypted speak HTTP/2 without asking. Default: no, they speak HTTP/1.1.
    pub http2_prior_knowledge: bool,
    /// What applies without `proxy`.
    rules: ProxyRules,
}

impl TransportConfig {
    /// Sets what goes through which proxy where `proxy` says nothing, such as what the environment says.
    #[must_use]
    pub fn with_proxy_rules(mut self, rules: ProxyRules) -> Self {
        self.rules = rules;
        self
    }

    fn proxy_rules(&self) -> Result<ProxyRules> {
        match self.proxy.as_ref().map(|url| url.expose().as_str()) {
            None => Ok(self.rules.clone()),
            Some("none") => Ok(ProxyRules::default()),
            Some(url) => ProxyRules::all(url, &self.no_proxy),
        }
    }
}

impl Default for TransportConfig {
    fn default() -> Self {
        Self::from(&HttpClientConfig::default())
    }
}

impl From<&HttpClientConfig> for TransportConfig {
    fn from(config: &HttpClientConfig) -> Self {
        let count = |count| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            max_connections: count(config.max_connections),
            max_keepalive_connections: count(config.max_keepalive_connections),
            keepalive_expiry: config.keepalive_expiry,
            max_waiting: None,
            ca_file: config.ca_file.clone(),
            system_roots: config.system_roots,
            client_certificate: config.client_certificate.clone(),
            client_key: config.client_key.clone(),
            proxy: config.proxy.clone().map(Secret::from),
            no_proxy: config.no_proxy.clone(),
            deny_private_addresses: config.deny_private_addresses,
            http2_prior_knowledge: config.http2_prior_knowledge,
            rules: ProxyRules::default(),
        }
    }
}

/// Sends single requests to single places and keeps the connections for the next ones. Cloning copies a pointer; clones
/// share the connections.
///
/// It neither retries nor chooses nor adds headers (but `Host`): that is for the clients above it, and for the gateway.
/// Bodies stream both ways. Errors say whether the request may have been processed ([`Error::retry`]).
///
/// ```no_run
/// use trunkline_http::{Body, Limits, Origin, Transport, TransportConfig};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let transport = Transport::new(&TransportConfig::default())?;
/// let origin = Origin::http("127.0.0.1", 8000)?;
/// let request = http::Request::get("/users/1").body(Body::empty()).expect("a sound request");
/// let response = transport.send(&origin, request, &Limits::default()).await?;
/// println!("{}", response.status());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Transport {
    pool: Arc<Pool>,
    /// The one to places that were not meant, once there is one.
    strangers: Arc<OnceLock<Option<Self>>>,
}

impl Transport {
    /// Makes a transport without connections. Reads the files of certificates; when they change, connections that are
    /// opened later use what is in them then.
    ///
    /// # Errors
    /// `Config` when a file cannot be read or does not hold what it should, when key and certificate do not belong
    /// together, or when `proxy` or `no_proxy` cannot be read.
    pub fn new(config: &TransportConfig) -> Result<Self> {
        let tls = Tls::new(TlsFiles {
            ca: config.ca_file.clone(),
            system_roots: config.system_roots,
            certificate: config.client_certificate.clone(),
            key: config.client_key.clone(),
        })?;
        Self::with_tls(config, tls)
    }

    /// Makes a transport that encrypts by the application's own settings: other roots, a certificate of its own, other
    /// protocols by ALPN. No file is read.
    ///
    /// # Errors
    /// `Config` when `proxy` or `no_proxy` cannot be read.
    pub fn with_rustls(config: &TransportConfig, settings: rustls::ClientConfig) -> Result<Self> {
        Self::with_tls(config, Tls::with_settings(settings))
    }

    fn with_tls(config: &TransportConfig, tls: Tls) -> Result<Self> {
        let open = config.max_connections.max(1);
        let limits = pool::Limits {
            open,
            idle: config.max_keepalive_connections,
            expiry: config.keepalive_expiry,
            waiting: config
                .max_waiting
                .unwrap_or(open.saturating_mul(WAITING_PER_CONNECTION)),
        };
        let connector = Connector {
            tls: Arc::new(tls),
            prior_knowledge: config.http2_prior_knowledge,
            proxy: config.proxy_rules()?,
            public_only: config.deny_private_addresses,
            no_tunnels: Arc::default(),
        };
        Ok(Self::of(Pool::new(limits, Arc::new(connector))))
    }

    /// A transport that connects in the same way, with few connections of its own: what goes through it never waits for
    /// requests of this one.
    pub(crate) fn beside(&self) -> Self {
        self.beside_by(Arc::clone(self.pool.connector()))
    }

    /// The same, speaking HTTP/2 without asking on connections that are not encrypted.
    pub(crate) fn beside_by_http2(&self) -> Self {
        let mut connector = Connector::clone(self.pool.connector());
        connector.prior_knowledge = true;
        self.beside_by(Arc::new(connector))
    }

    fn beside_by(&self, connector: Arc<Connector>) -> Self {
        let limits = pool::Limits {
            open: CONNECTIONS_BESIDE,
            idle: CONNECTIONS_BESIDE,
            waiting: CONNECTIONS_BESIDE.saturating_mul(WAITING_PER_CONNECTION),
            ..self.pool.limits()
        };
        Self::of(Pool::new(limits, connector))
    }

    fn of(pool: Arc<Pool>) -> Self {
        Self {
            pool,
            strangers: Arc::default(),
        }
    }

    /// What leads to places that somebody else has named: there no certificate of this side is shown. The same where none is
    /// shown anyway.
    pub(crate) fn to_strangers(&self) -> &Self {
        let make = || {
            let mut connector = Connector::clone(self.pool.connector());
            connector.tls = Arc::new(connector.tls.without_identity()?);
            Some(Self::of(Pool::new(self.pool.limits(), Arc::new(connector))))
        };
        self.strangers.get_or_init(make).as_ref().unwrap_or(self)
    }

    /// Closes connections to instances as they leave: those without a request at once, the others when theirs is over. Ends
    /// with the transport, or when nobody knows the service any more.
    pub(crate) fn close_departed(
        &self,
        mut departures: Departures,
        tell: impl Fn(&Origin) + Send + 'static,
    ) {
        let (pool, stop) = (Arc::downgrade(&self.pool), self.pool.scope().token());
        let close = async move {
            while let Some(left) = departures.next().await {
                let Some(pool) = pool.upgrade() else { return };
                let origins = left.iter().filter_map(|it| Origin::of_instance(it).ok());
                for origin in origins {
                    pool.retire(&origin);
                    tell(&origin);
                }
            }
        };
        self.pool.scope().spawn("http-departed", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = close => {}
            }
        });
    }

    /// Connections and requests that wait for one, now.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        self.pool.stats()
    }

    /// Sends a request to an origin and waits for the head of the answer; its body streams.
    ///
    /// Of the request's URI only path and query count. `Host` is added unless the request brings one.
    ///
    /// # Errors
    /// - `Unavailable` with [`ConnectFailed`](crate::ConnectFailed) or [`NoAnswer`](crate::NoAnswer); `Timeout` with
    ///   [`Silence`](crate::Silence), or when a limit of connecting or the deadline ran out.
    /// - `Rejected` with [`PoolTimeout`](crate::PoolTimeout) or [`PoolFull`](crate::PoolFull): no connection was free.
    /// - `Internal` of remote origin when the answer is not HTTP; `Invalid` when the request cannot be sent as it is;
    ///   `Cancelled` after shutdown or when the request's own stream failed.
    ///
    /// [`Error::retry`] is `Safe` only where it is sure that the request was not processed.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection in use (HTTP/1.1) or resets the stream (HTTP/2), at once. The request may have
    /// been processed.
    pub async fn send(
        &self,
        origin: &Origin,
        request: Request<Body>,
        limits: &Limits,
    ) -> Result<Response<Body>> {
        let reply = self.send_boxed(origin, Box::new(request), limits).await?;
        Ok(*reply)
    }

    /// The same for a request in a box, which costs nothing to hand on.
    pub(crate) async fn send_boxed(
        &self,
        origin: &Origin,
        mut request: Box<Request<Body>>,
        limits: &Limits,
    ) -> Result<Reply> {
        let target = Target::of(origin, &mut request, limits);
        // Not awaited from within the match: what is matched on would be kept for as long.
        let unsent = match self.once(&target, request, limits.now).await {
            Sent::Answered(response) => return Ok(response),
            Sent::Failed(error) => return Err(error),
            Sent::Unsent(request) => request,
        };
        Box::pin(self.again(&target, unsent)).await
    }

    /// Ends: each round uses up a connection that the other side had closed, and they are bounded.
    async fn again(&self, target: &Target<'_>, mut request: Box<Request<Body>>) -> Result<Reply> {
        loop {
            match self.once(target, request, None).await {
                Sent::Answered(response) => return Ok(response),
                Sent::Failed(error) => return Err(error),
                Sent::Unsent(unsent) => request = unsent,
            }
        }
    }

    /// Sends a request on one connection.
    async fn once(
        &self,
        target: &Target<'_>,
        mut request: Box<Request<Body>>,
        now: Option<Instant>,
    ) -> Sent {
        let now = now.unwrap_or_else(Instant::now);
        let connection = match self.pool.ready(target.origin, now) {
            Some(connection) => connection,
            None => match Box::pin(self.connect(target)).await {
                Ok(connection) => connection,
                Err(error) => return Sent::Failed(error),
            },
        };
        match connection {
            Connection::Own(mut lease) => {
                let connection = lease.connection();
                target.for_own(&mut request, connection.forward());
                let before = connection.meter().moved_both();
                let Target { origin, limits, .. } = *target;
                let answered = match limits.first_byte {
                    // Nothing around it: an exchange is large, and was moved once more by whatever stands there.
                    None => {
                        let answer = connection.start(outward(*request));
                        Exchange::new(connection, answer, origin, limits).await
                    }
                    Some(limit) => {
                        let meter = Arc::clone(connection.meter());
                        let answer = connection.start(outward(*request));
                        let exchange = Exchange::new(connection, answer, origin, limits);
                        Box::pin(target.answered_within(limit, exchange, Some(&*meter))).await
                    }
                };
                match answered {
                    Ok(answer) => own_answer(lease, answer, before, target),
                    Err(error) => Sent::Failed(error),
                }
            }
            Connection::Shared(lease) => Box::pin(send_shared(lease, request, target)).await,
        }
    }

    async fn connect(&self, target: &Target<'_>) -> Result<Connection> {
        let Target { origin, limits, .. } = target;
        let connecting = self.pool.connection(origin, limits.pool, limits.connection);
        let Some(deadline) = limits.deadline else {
            return connecting.await;
        };
        match timeout_at(deadline, connecting).await {
            Ok(result) => result,
            // Nothing was sent yet.
            Err(_) => Err(error::late(origin).with_retry(Retry::Safe)),
        }
    }

    /// Closes connections without a request and waits for the others until the deadline: for the answers that are
    /// waited for and for the bodies that are being read. Then it ends by force what runs on tasks of its own: shared
    /// connections, and those on which both sides talk at once. What its caller drives, an exchange over HTTP/1.1, ends
    /// by its own time limits or when the caller drops it. Further requests fail with `Cancelled`.
    ///
    /// # Cancel safety
    /// Dropping it stops the waiting; no further requests are taken all the same.
    pub async fn shutdown(&self, deadline: Instant) {
        if let Some(Some(strangers)) = self.strangers.get() {
            Box::pin(strangers.shutdown(deadline)).await;
        }
        self.pool.close();
        // Who is late is dealt with below.
        drop(timeout_at(deadline, self.pool.emptied()).await);
        self.pool.scope().shutdown(deadline).await;
    }
}

/// What came of sending a request on a connection.
enum Sent {
    Answered(Reply),
    Failed(Error),
    /// A connection that had carried requests before was closed by the other side, and nothing of this request was
    /// written on it: another connection will do.
    Unsent(Box<Request<Body>>),
}

/// Where a request goes, how long it may take, and how it looks there.
struct Target<'a> {
    origin: &'a Origin,
    /// What the request brought as its host.
    host: Option<HeaderValue>,
    limits: &'a Limits,
    upload: Option<Upload>,
}

impl<'a> Target<'a> {
    fn of(origin: &'a Origin, request: &mut Request<Body>, limits: &'a Limits) -> Self {
        let host = request.headers().get(HOST).cloned();
        let upload = request.body().is_stream().then(|| {
            let (body, upload) = Upload::watch(std::mem::take(request.body_mut()));
            *request.body_mut() = body;
            upload
        });
        *request.version_mut() = Version::HTTP_11;
        Self {
            origin,
            host,
            limits,
            upload,
        }
    }

    /// Waits for an answer whose head has a limit of its own.
    async fn answered_within<T>(
        &self,
        limit: Duration,
        exchange: impl Future<Output = Result<T>>,
        meter: Option<&Meter>,
    ) -> Result<T> {
        let upload = self.upload.as_ref();
        let writing = Writing { meter, upload };
        let head = head_within(exchange, writing, limit).await;
        head.unwrap_or_else(|| Err(error::slow_head(self.origin, limit)))
    }

    fn host(&self) -> &HeaderValue {
        let origin = self.origin;
        self.host.as_ref().unwrap_or_else(|| origin.host_header())
    }

    /// As HTTP/1.1 wants it: the path alone, and the host in a header.
    fn for_own(&self, request: &mut Request<Body>, forward: Option<&Forward>) {
        let uri = request.uri();
        if uri.authority().is_some() || uri.scheme().is_some() || uri.path_and_query().is_none() {
            *request.uri_mut() = Uri::from(path_of(uri));
            // One that came back unsent by a proxy may go through a tunnel now.
            request.headers_mut().remove(PROXY_AUTHORIZATION);
        }
        // One that the request brought stands there.
        if self.host.is_none() {
            let host = self.origin.host_header();
            request.headers_mut().insert(HOST, host.clone());
        }
        if let Some(forward) = forward {
            self.for_proxy(request, forward);
        }
    }

    /// As a proxy wants it that passes requests on: the whole URI, and what says to the proxy who asks.
    fn for_proxy(&self, request: &mut Request<Body>, forward: &Forward) {
        let mut parts = Parts::default();
        parts.scheme = Some(self.origin.scheme());
        parts.authority = Some(self.origin.authority().clone());
        parts.path_and_query = Some(path_of(request.uri()));
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
        if let Some(credentials) = &forward.credentials {
            let headers = request.headers_mut();
            headers.insert(PROXY_AUTHORIZATION, credentials.clone());
        }
    }

    /// As HTTP/2 wants it: the whole URI. A `Host` that the request brought takes the place of the origin's.
    fn for_shared(&self, request: &mut Request<Body>) -> Result<()> {
        let authority = Authority::try_from(self.host().as_bytes()).map_err(|error| {
            Error::invalid("the Host header is no host name or address").with_source(error)
        })?;
        let mut parts = Parts::default();
        parts.scheme = Some(self.origin.scheme());
        parts.authority = Some(authority);
        parts.path_and_query = Some(path_of(request.uri()));
        *request.uri_mut() = Uri::from_parts(parts)
            .map_err(|error| Error::invalid("the URI cannot be sent").with_source(error))?;
        request.headers_mut().remove(HOST);
        Ok(())
    }
}

impl Target<'_> {
    /// A request that a shared connection gives back, with the host that it brought.
    fn as_brought(&self, mut request: Box<Request<Body>>) -> Box<Request<Body>> {
        if let Some(host) = &self.host {
            request.headers_mut().insert(HOST, host.clone());
        }
        request
    }
}

fn path_of(uri: &Uri) -> PathAndQuery {
    let path = uri.path_and_query().cloned();
    path.unwrap_or_else(|| PathAndQuery::from_static("/"))
}

/// What becomes of the connection, and what the answer's body comes from.
fn own_answer(mut lease: Lease, answer: Answered, before: (u64, u64), target: &Target<'_>) -> Sent {
    let Target { origin, limits, .. } = target;
    let response = match answer {
        Ok(response) => response,
        Err(mut failed) => {
            let connection = lease.connection();
            let (sent, received) = connection.meter().moved_both();
            let moved = Moved {
                reused: connection.is_reused(),
                sent: sent != before.0,
                received: received != before.1,
            };
            return match failed.take_message() {
                Some(request) if moved.reused => Sent::Unsent(back(request)),
                _ => Sent::Failed(error::no_answer(origin, moved, failed.into_error())),
            };
        }
    };
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let (parts, incoming) = response.into_parts();
    let ended = incoming.is_end_stream();
    let uploading = target.upload.as_ref().is_some_and(Upload::is_under_way);
    let source = if switched || uploading {
        let until = match (switched, ended) {
            (true, _) => Until::End,
            (false, true) => Until::Silence,
            (false, false) => Until::Read,
        };
        drive_by_task(lease, until, limits)
    } else if ended || lease.connection().is_idle() {
        // The rest of the answer has come with its head: the connection is free for the next request already.
        lease.finish();
        Source::Here
    } else {
        Source::Own(lease)
    };
    let body = match source {
        _ if ended => Body::empty(),
        Source::Here => Body::arrived(incoming, origin),
        source => {
            let received = Received::new(incoming, source, origin, limits);
            Body::received(received.beside(target.upload.as_ref()))
        }
    };
    Sent::Answered(Box::new(Response::from_parts(parts, body)))
}

async fn send_shared(
    mut lease: StreamLease,
    mut request: Box<Request<Body>>,
    target: &Target<'_>,
) -> Sent {
    let Target { origin, limits, .. } = target;
    if let Err(error) = target.for_shared(&mut request) {
        return Sent::Failed(error);
    }
    let mut handle = lease.handle().clone();
    lease.begin(limits.given_up.into_iter().chain(limits.deadline).min());
    let answer = handle.start(outward(*request));
    let exchange = Exchange::new(&mut handle, answer, origin, limits);
    let answered = match limits.first_byte {
        None => exchange.await,
        Some(limit) => Box::pin(target.answered_within(limit, exchange, None)).await,
    };
    match answered {
        Err(_) => lease.timed_out(),
        Ok(_) => lease.answered(),
    }
    let response = match answered {
        Err(error) => return Sent::Failed(error),
        Ok(Err(mut failed)) => {
            return match failed.take_message() {
                Some(request) => {
                    lease.mark_broken();
                    Sent::Unsent(target.as_brought(back(request)))
                }
                None => Sent::Failed(error::no_stream_answer(origin, failed.into_error())),
            };
        }
        Ok(Ok(response)) => response,
    };
    let response = response.map(|incoming| {
        if incoming.is_end_stream() {
            return Body::empty();
        }
        let source = Source::Shared(lease);
        let received = Received::new(incoming, source, origin, limits);
        Body::received(received.beside(target.upload.as_ref()))
    });
    Sent::Answered(Box::new(response))
}

/// How long a task moves the bytes of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// It speaks something else from now on.
    End,
    /// The answer has come; what is left of the request may still go, for as long as it moves.
    Silence,
    /// Whoever reads the answer has got it or has given it up.
    Read,
}

/// Lets a task move the bytes of a connection on which both sides are still talking, or that speaks something else from
/// now on: whoever reads the answer may first want to write more of the request.
fn drive_by_task(mut lease: Lease, until: Until, limits: &Limits) -> Source {
    let (alive, dropped) = oneshot::channel::<()>();
    let scope = lease.pool().scope().clone();
    let meter = Arc::clone(lease.connection().meter());
    let (deadline, silence) = (limits.deadline, limits.read);
    let Some(driver) = lease.detach() else {
        return Source::Here;
    };
    scope.spawn("http1-connection", async move {
        let driven = async {
            // How it ended is known to whoever reads the answer.
            match deadline {
                Some(deadline) => drop(timeout_at(deadline, driver).await),
                None => drop(driver.await),
            }
        };
        match until {
            Until::End => driven.await,
            Until::Silence => while_it_moves(driven, &meter, silence).await,
            Until::Read => tokio::select! {
                () = driven => {}
                _ = dropped => {}
            },
        }
    });
    match until {
        Until::Read => Source::Task(alive),
        Until::End | Until::Silence => Source::Here,
    }
}

/// Goes on until it is over, or no byte has moved for so long.
async fn while_it_moves(driven: impl Future<Output = ()>, meter: &Meter, silence: Duration) {
    let mut driven = pin!(driven);
    loop {
        let seen = meter.moved();
        let quiet = timeout_at(after(Instant::now(), silence), driven.as_mut()).await;
        if quiet.is_ok() || meter.moved() == seen {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a shared connection gave back unsent may go on one of its own: the other side may speak something else by now.
    #[test]
    fn a_host_that_was_brought_survives_a_shared_connection() {
        let origin = Origin::http("users.example", 8080).unwrap();
        let limits = Limits::default();
        for (brought, expected) in [
            (Some("other.example"), "other.example"),
            (None, "users.example:8080"),
        ] {
            let mut request = Box::new(Request::new(Body::empty()));
            if let Some(host) = brought {
                let host = HeaderValue::from_static(host);
                request.headers_mut().insert(HOST, host);
            }
            let target = Target::of(&origin, &mut request, &limits);
            target.for_shared(&mut request).unwrap();
            assert!(!request.headers().contains_key(HOST));
            let mut request = target.as_brought(back(outward(*request)));
            target.for_own(&mut request, None);
            assert_eq!(request.headers()[HOST], expected);
            assert_eq!(request.uri(), "/");
        }
    }
}
