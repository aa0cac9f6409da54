//! The same request by every client of this process.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use tokio::net::TcpStream;
use trunkline_core::task;
use trunkline_discovery::{EndpointConfig, Instances, ServiceInstance, ServiceName};
use trunkline_http::{
    Body, EnhancedHttpClient, HttpClientConfig, Limits, Origin, Transport, TransportConfig,
};
use trunkline_telemetry::Metrics;

use super::measure::{Sample, measure};

pub(super) fn ours(server: SocketAddr, requests: usize) -> Result<Sample> {
    let name = ServiceName::new("users")?;
    let instance = ServiceInstance::new(name.clone(), server.ip().to_string(), server.port());
    let mut config = HttpClientConfig::default();
    config.max_keepalive_connections = 100;
    config.bulkhead.max_concurrent = Some(1000);
    let client = EnhancedHttpClient::builder()
        .config(config)
        .instances(Instances::fixed(name, vec![instance]))
        .endpoint("GET /users/{id}", EndpointConfig::default())
        .metrics(&Metrics::new())
        .build()?;
    let connect = || {
        let client = client.clone();
        async { Ok(client) }
    };
    measure(requests, connect, |client| async move {
        let answer = client.get("/users/1").send().await?.bytes().await?;
        Ok((client, answer))
    })
}

pub(super) fn transport(server: SocketAddr, requests: usize) -> Result<Sample> {
    let mut config = TransportConfig::default();
    config.max_keepalive_connections = 100;
    let transport = Transport::new(&config)?;
    let origin = Origin::http(&server.ip().to_string(), server.port())?;
    let connect = || {
        let client = (transport.clone(), origin.clone());
        async { Ok(client) }
    };
    measure(requests, connect, |(transport, origin)| async move {
        let request = Request::get("/users/1").body(Body::empty())?;
        let response = transport.send(&origin, request, &Limits::default()).await?;
        let answer = response.into_body().bytes(1 << 20).await?;
        Ok(((transport, origin), answer))
    })
}

pub(super) fn hyper_util(server: SocketAddr, requests: usize) -> Result<Sample> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let uri: Uri = format!("http://{server}/users/1").parse()?;
    let connect = || {
        let client = (client.clone(), uri.clone());
        async { Ok(client) }
    };
    measure(requests, connect, |(client, uri)| async move {
        let request = Request::get(uri.clone()).body(Empty::new())?;
        let response = client.request(request).await?;
        let answer = response.into_body().collect().await?.to_bytes();
        Ok(((client, uri), answer))
    })
}

pub(super) fn reqwest(server: SocketAddr, requests: usize) -> Result<Sample> {
    let client = reqwest::Client::builder().build()?;
    let url: reqwest::Url = format!("http://{server}/users/1").parse()?;
    let connect = || {
        let client = (client.clone(), url.clone());
        async { Ok(client) }
    };
    measure(requests, connect, |(client, url)| async move {
        let answer = client.get(url.clone()).send().await?.bytes().await?;
        Ok(((client, url), answer))
    })
}

/// What reqwest's users add for retries: the layer of its middleware crate that backs off exponentially.
pub(super) fn reqwest_retrying(server: SocketAddr, requests: usize) -> Result<Sample> {
    let policy = ExponentialBackoff::builder().build_with_max_retries(3);
    let client = reqwest_middleware::ClientBuilder::new(reqwest::Client::builder().build()?)
        .with(RetryTransientMiddleware::new_with_policy(policy))
        .build();
    let url: reqwest::Url = format!("http://{server}/users/1").parse()?;
    let connect = || {
        let client = (client.clone(), url.clone());
        async { Ok(client) }
    };
    measure(requests, connect, |(client, url)| async move {
        let answer = client.get(url.clone()).send().await?.bytes().await?;
        Ok(((client, url), answer))
    })
}

pub(super) fn bare(server: SocketAddr, requests: usize) -> Result<Sample> {
    let host = HeaderValue::try_from(server.to_string())?;
    let connect = || {
        let host = host.clone();
        async move {
            let socket = TcpStream::connect(server).await?;
            socket.set_nodelay(true)?;
            let io = TokioIo::new(socket);
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            drop(task::spawn("bare-connection", connection));
            Ok((sender, host))
        }
    };
    measure(requests, connect, |(mut sender, host)| async move {
        sender.ready().await?;
        let request = Request::get("/users/1").header("host", host.clone());
        let response = sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await?;
        let answer = response.into_body().collect().await?.to_bytes();
        Ok(((sender, host), answer))
    })
}
