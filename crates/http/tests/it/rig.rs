//! Servers to talk to: a real one that answers as a test says, and a scripted one that misbehaves byte by byte.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use trunkline_core::task::{self, Scope};
use trunkline_discovery::{ServiceInstance, ServiceName};
use trunkline_http::{Body, EnhancedHttpClient, Limits, Origin, Transport, TransportConfig};

/// Nothing here takes as long as this; what would hang fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Connections that a server has, and has had.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count {
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    total: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Count {
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn opened(&self) -> Opened {
        let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(open, Ordering::SeqCst);
        self.total.fetch_add(1, Ordering::SeqCst);
        Opened(self.clone())
    }
}

struct Opened(Count);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A server that ends with the test.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) count: Count,
    scope: Scope,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.scope.stop();
    }
}

impl Server {
    pub(crate) fn origin(&self) -> Origin {
        Origin::http("127.0.0.1", self.address.port()).unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes no connections any more and drops those that are there.
    pub(crate) async fn stop(&self) {
        self.scope.shutdown(Instant::now()).await;
    }

    /// A real server of HTTP/1.1 (and HTTP/2 for who begins with its preface).
    pub(crate) async fn start<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::start_with(move |request| {
            let answer = answer(request);
            async move { answer.await.map(|body| Body::from(body_bytes(body))) }
        })
        .await
    }

    /// The same with bodies that stream.
    pub(crate) async fn start_with<F, Fut>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::listen(move |socket, count| {
            let answer = answer.clone();
            async move { serve(socket, count, answer).await }
        })
        .await
    }

    /// A server that does with each connection what the test says; the number of the connection begins at 0.
    pub(crate) async fn scripted<F, Fut>(script: F) -> Self
    where
        F: Fn(usize, Raw) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::listen(move |socket, count| {
            let script = script.clone();
            async move {
                let number = count.total() - 1;
                script(number, Raw { socket, count }).await;
            }
        })
        .await
    }

    async fn listen<F, Fut>(each: F) -> Self
    where
        F: Fn(TcpStream, Count) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, scope) = (Count::default(), Scope::new());
        let (counted, spawner) = (count.clone(), scope.clone());
        scope.spawn("test-server", async move {
            let stop = spawner.token();
            loop {
                let socket = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = stop.cancelled() => return,
                };
                socket.set_nodelay(true).unwrap();
                let opened = counted.opened();
                let (work, stop) = (each(socket, counted.clone()), stop.clone());
                spawner.spawn("test-connection", async move {
                    let _opened = opened;
                    tokio::select! {
                        () = work => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        });
        Self {
            address,
            count,
            scope,
        }
    }
}

/// Serves one connection of a real server.
pub(crate) async fn serve<S, F, Fut>(socket: S, count: Count, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        count.requests.fetch_add(1, Ordering::SeqCst);
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
        .serve_connection_with_upgrades(TokioIo::new(socket), service)
        .await;
    // How connections end is what the tests are about.
    drop(served);
}

fn body_bytes(body: Full<Bytes>) -> Bytes {
    let frame = futures_util::FutureExt::now_or_never(body.collect());
    frame.unwrap().unwrap().to_bytes()
}

/// A connection of the scripted server.
pub(crate) struct Raw {
    socket: TcpStream,
    count: Count,
}

impl Raw {
    /// Reads one request: its head, and as much of a body as `Content-Length` says. `None` at the end.
    pub(crate) async fn request(&mut self) -> Option<String> {
        let mut read = Vec::new();
        let mut byte = [0];
        while !read.ends_with(b"\r\n\r\n") {
            if self.socket.read(&mut byte).await.ok()? == 0 {
                return None;
            }
            read.push(byte[0]);
        }
        self.count.requests.fetch_add(1, Ordering::SeqCst);
        let head = String::from_utf8(read).unwrap();
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length:")
                    .map(str::to_owned)
            })
            .map_or(0, |length| length.trim().parse().unwrap());
        let mut body = vec![0; length];
        self.socket.read_exact(&mut body).await.ok()?;
        Some(head + &String::from_utf8_lossy(&body))
    }

    pub(crate) async fn write(&mut self, text: impl AsRef<[u8]>) {
        // Whoever has gone away does not read it.
        drop(self.socket.write_all(text.as_ref()).await);
    }

    /// Waits for whatever comes next.
    #[cfg(feature = "compression")]
    pub(crate) async fn some_bytes(&mut self) {
        let mut some = [0; 256];
        assert!(self.socket.read(&mut some).await.unwrap() > 0);
    }

    /// Reads a body in chunks to its end, or to that of the connection: then it begins with `cut off: `.
    pub(crate) async fn chunks(&mut self) -> String {
        let mut whole = String::new();
        while let Some(line) = self.line().await {
            let length = usize::from_str_radix(&line, 16).unwrap();
            let mut piece = vec![0; length + 2];
            if self.socket.read_exact(&mut piece).await.is_err() {
                break;
            }
            if length == 0 {
                return whole;
            }
            whole.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
        format!("cut off: {whole}")
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.socket.read_u8().await.ok()?);
        }
        Some(String::from_utf8_lossy(&line).trim().to_owned())
    }

    /// A whole answer with a text.
    pub(crate) async fn answer(&mut self, text: &str) {
        let length = text.len();
        self.write(format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}"
        ))
        .await;
    }

    /// Is a proxy: takes the request for a tunnel, and leads to this address whatever was asked for.
    pub(crate) async fn tunnel_to(mut self, address: SocketAddr) {
        self.request().await.unwrap();
        self.write("HTTP/1.1 200 OK\r\n\r\n").await;
        let mut other = TcpStream::connect(address).await.unwrap();
        // How it ends is no matter.
        drop(tokio::io::copy_bidirectional(&mut self.socket, &mut other).await);
    }

    /// Waits until the other side closes.
    pub(crate) async fn until_closed(&mut self) {
        let mut rest = Vec::new();
        drop(self.socket.read_to_end(&mut rest).await);
    }

    /// Closes with a reset in place of a goodbye.
    pub(crate) fn reset(self) {
        #[expect(deprecated, reason = "zero seconds do not block: the socket is reset")]
        self.socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
}

pub(crate) fn text(text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(text.into()))
}

pub(crate) fn status(code: u16) -> Response<Full<Bytes>> {
    let mut response = text("");
    *response.status_mut() = code.try_into().unwrap();
    response
}

/// A server as an instance of a service.
pub(crate) fn instance(service: &str, server: &Server) -> ServiceInstance {
    let service = ServiceName::new(service).unwrap();
    ServiceInstance::new(service, "127.0.0.1", server.address.port())
}

pub(crate) fn transport() -> Transport {
    Transport::new(&TransportConfig::default()).unwrap()
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

pub(crate) fn post(body: impl Into<Body>) -> Request<Body> {
    Request::post("/").body(body.into()).unwrap()
}

/// Sends and reads the whole answer.
pub(crate) async fn fetch(
    transport: &Transport,
    origin: &Origin,
    request: Request<Body>,
) -> trunkline_core::Result<String> {
    let response = transport.send(origin, request, &Limits::default()).await?;
    let bytes = response.into_body().bytes(1 << 24).await?;
    Ok(String::from_utf8(bytes.into()).unwrap())
}

/// A client without waits between attempts.
pub(crate) fn enhanced(url: impl Into<String>) -> EnhancedHttpClient {
    let mut retry = trunkline_resilience::config::RetryConfig::default();
    retry.delay = Some(Duration::from_millis(1));
    let config = trunkline_http::HttpClientConfig::new(url).with_retry(retry);
    EnhancedHttpClient::builder()
        .config(config)
        .build()
        .unwrap()
}

/// Waits for something that other tasks bring about.
pub(crate) async fn eventually(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + SOON;
    while !done() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) async fn in_time<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(SOON, work).await.expect("it hangs")
}

pub(crate) fn spawn<F>(work: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    task::spawn("test", work)
}
