//! A gateway with services behind it, and clients in front.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use trunkline_core::Lifecycle;
use trunkline_discovery::{Discovery, ServiceConfig, ServiceInstance, ServiceName};
use trunkline_gateway::{ApiGateway, GatewayConfig};
use trunkline_server::MicroserviceApp;
use trunkline_server::serve::{ConnectionLimits, Listener, Serving};

/// Longest that a test waits for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn soon() -> Instant {
    Instant::now() + SOON
}

/// A service behind the gateway, without any of our layers.
pub(crate) async fn upstream(router: Router) -> Serving {
    let listener = Listener::bind("127.0.0.1", 0).await.unwrap();
    listener.serve(ConnectionLimits::default(), move |_| router.clone())
}

/// An address that nobody listens on, taken so that nobody else begins to.
pub(crate) struct Nobody {
    pub(crate) address: SocketAddr,
    _socket: TcpSocket,
}

pub(crate) fn nobody() -> Nobody {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    Nobody {
        address: socket.local_addr().unwrap(),
        _socket: socket,
    }
}

/// A service of raw bytes: for each connection, what it does with it.
pub(crate) async fn scripted<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(trunkline_core::task::spawn("scripted", async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(trunkline_core::task::spawn("script", serve(stream)));
        }
    }));
    address
}

/// Reads until this comes, or the end; returns what came.
pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut got = Vec::new();
    let mut byte = [0];
    while !got.ends_with(end.as_bytes()) {
        match timeout(SOON, stream.read(&mut byte)).await.unwrap() {
            Ok(1) => got.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// Tells when it is dropped.
pub(crate) struct Dropped(pub(crate) Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// A stream whose pieces the test sends.
pub(crate) fn pieces(
    receiver: mpsc::Receiver<Bytes>,
) -> impl futures_util::Stream<Item = Result<Bytes, std::io::Error>> + Send + Unpin + 'static {
    let stream = futures_util::stream::unfold(receiver, async |mut receiver| {
        let piece = receiver.recv().await?;
        Some((Ok(piece), receiver))
    });
    Box::pin(stream)
}

pub(crate) struct Gateway {
    app: MicroserviceApp,
    pub(crate) address: SocketAddr,
}

impl Gateway {
    /// Starts one in front of services, each at these places.
    pub(crate) async fn before(services: &[(&str, &[SocketAddr])]) -> Self {
        Self::with(services, |config| config, |service| service).await
    }

    pub(crate) async fn with(
        services: &[(&str, &[SocketAddr])],
        change: impl FnOnce(GatewayConfig) -> GatewayConfig,
        service: impl Fn(ServiceConfig) -> ServiceConfig,
    ) -> Self {
        let discovery = Discovery::builder().build();
        let mut config = GatewayConfig::default().with_listen("127.0.0.1", 0);
        for (name, places) in services {
            config = config
                .with_service_at(name, service(ServiceConfig::default()))
                .unwrap();
            let name = ServiceName::new(name).unwrap();
            for place in *places {
                let instance =
                    ServiceInstance::new(name.clone(), place.ip().to_string(), place.port());
                discovery.register_external_service(instance).unwrap();
            }
        }
        let gateway = ApiGateway::builder(change(config))
            .with_discovery(&discovery)
            .unwrap();
        let app = gateway.app("gateway").build().unwrap();
        app.start().await.unwrap();
        let address = app.local_addr().unwrap();
        Self { app, address }
    }

    pub(crate) async fn stop(&self) {
        self.app.shutdown(soon()).await.unwrap();
    }

    pub(crate) fn app(&self) -> MicroserviceApp {
        self.app.clone()
    }

    pub(crate) async fn get(&self, path: &str) -> Response<Bytes> {
        self.ask(Request::get(path).body(String::new()).unwrap())
            .await
    }

    pub(crate) async fn ask(&self, request: Request<String>) -> Response<Bytes> {
        whole(
            self.open(request.map(|body| Full::new(Bytes::from(body))))
                .await,
        )
        .await
    }

    /// Asks over HTTP/1.1 and does not wait for the body.
    pub(crate) async fn open<B>(&self, mut request: Request<B>) -> Response<Incoming>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + 'static,
    {
        let io = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        drop(trunkline_core::task::spawn("client", connection));
        let host = self.address.to_string();
        request
            .headers_mut()
            .entry("host")
            .or_insert(host.parse().unwrap());
        timeout(SOON, sender.send_request(request))
            .await
            .unwrap()
            .unwrap()
    }

    /// Asks over HTTP/2 without TLS.
    pub(crate) async fn open_http2<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + Unpin
            + 'static,
    {
        self.try_http2(request).await.unwrap()
    }

    pub(crate) async fn try_http2<B>(
        &self,
        mut request: Request<B>,
    ) -> hyper::Result<Response<Incoming>>
    where
        B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
            + Send
            + Unpin
            + 'static,
    {
        let io = TokioIo::new(TcpStream::connect(self.address).await.unwrap());
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .unwrap();
        drop(trunkline_core::task::spawn("client", connection));
        let path = request.uri().path_and_query().unwrap().clone();
        *request.uri_mut() = format!("http://api.example.com{path}").parse().unwrap();
        timeout(SOON, sender.send_request(request)).await.unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes as they are and reads until the gateway closes.
    pub(crate) async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // It may have answered and closed before it has read everything.
        drop(stream.write_all(bytes.as_ref()).await);
        let mut bytes = Vec::new();
        drop(timeout(SOON, stream.read_to_end(&mut bytes)).await.unwrap());
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub(crate) async fn whole(response: Response<Incoming>) -> Response<Bytes> {
    let (head, body) = response.into_parts();
    let body = timeout(SOON, body.collect()).await.unwrap().unwrap();
    Response::from_parts(head, body.to_bytes())
}

/// The problem document of a response, whose head must fit it.
pub(crate) fn problem(response: &Response<Bytes>) -> serde_json::Value {
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json",
        "{:?}",
        response.body()
    );
    let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(problem["status"], response.status().as_u16());
    let id = response.headers()["x-correlation-id"].to_str().unwrap();
    assert_eq!(problem["correlation_id"], id);
    problem
}
