//! Passes requests on through our client, so that a foreign client can use its cache.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Result;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;
use trunkline_core::task;
use trunkline_http::{Body, EnhancedHttpClient, HttpClientConfig};

/// The proxy, until dropped.
pub(super) struct Proxy {
    address: SocketAddr,
    _runtime: Runtime,
}

impl Proxy {
    /// In front of a server on this port.
    pub(super) fn start(port: u16) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let mut config = HttpClientConfig::new(format!("http://127.0.0.1:{port}"));
        // The suite counts requests, and breaks connections on purpose.
        config.retry.enabled = Some(false);
        config.circuit_breaker.enabled = Some(false);
        config.cache.enabled = Some(true);
        let client = EnhancedHttpClient::from_config(config)?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let _entered = runtime.enter();
        drop(task::spawn("suite proxy", serve(listener, client)));
        Ok(Self {
            address,
            _runtime: runtime,
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn serve(listener: TcpListener, client: EnhancedHttpClient) {
    while let Ok((socket, _)) = listener.accept().await {
        let client = client.clone();
        let service = service_fn(move |request| {
            let client = client.clone();
            async move { Ok::<_, Infallible>(pass(client, request).await) }
        });
        let mut server = hyper::server::conn::http1::Builder::new();
        let connection = server
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(socket), service);
        drop(task::spawn("suite connection", async move {
            drop(connection.await)
        }));
    }
}

async fn pass(client: EnhancedHttpClient, request: Request<Incoming>) -> Response<Body> {
    let mut request = request.map(Body::new);
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, CONTENT_LENGTH] {
        request.headers_mut().remove(name);
    }
    match client.oneshot(request).await {
        Ok(mut response) => {
            for name in [CONNECTION, TRANSFER_ENCODING] {
                response.headers_mut().remove(name);
            }
            *response.extensions_mut() = http::Extensions::new();
            response
        }
        Err(error) => {
            let mut response = Response::new(Body::from(error.report().to_string()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}
