//! The parts of `timeout`, each for the endpoint that it is set on.

use std::time::Duration;

use trunkline_core::{Error, ErrorKind};
use trunkline_discovery::EndpointConfig;
use trunkline_http::{
    ClientBuilder, ConnectFailed, ConnectStage, EnhancedHttpClient, PoolTimeout, ServiceError,
    Silence, SlowHead,
};
use trunkline_resilience::config::TimeoutConfig;

use crate::rig::{Raw, Server, eventually, in_time, spawn};

const SHORT: Duration = Duration::from_millis(20);

/// A client whose endpoint `GET /short` has a limit, and no other.
fn limited(url: &str, set: impl FnOnce(&mut TimeoutConfig)) -> ClientBuilder<EnhancedHttpClient> {
    let mut short = EndpointConfig::default();
    set(&mut short.timeout);
    EnhancedHttpClient::builder()
        .base_url(url)
        .retry_enabled(false)
        .endpoint("GET /short", short)
}

async fn failure(client: &EnhancedHttpClient) -> Error {
    match in_time(client.get("/short").send()).await {
        Err(error) => Error::from(error),
        Ok(response) => Error::from(in_time(response.text()).await.unwrap_err()),
    }
}

/// Begins its answer to `/short` with one text, goes on with another for ever, and answers everything else at once.
async fn server(first: &'static str, again: &'static str) -> Server {
    Server::scripted(move |_, mut raw: Raw| async move {
        while let Some(request) = raw.request().await {
            if !request.starts_with("GET /short") {
                raw.answer("hello").await;
                continue;
            }
            raw.write(first).await;
            if again.is_empty() {
                return raw.until_closed().await;
            }
            loop {
                raw.write(again).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn connecting_has_the_limit_of_the_endpoint() {
    // It takes the connection and never says a word of TLS.
    let server = Server::scripted(|_, mut raw: Raw| async move { raw.until_closed().await }).await;
    let url = format!("https://{}", server.address);
    let client = limited(&url, |limits| limits.connection = Some(SHORT));
    let error = failure(&client.build().unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let failed = error.find::<ConnectFailed>().unwrap();
    assert_eq!(
        (failed.stage, failed.timeout),
        (ConnectStage::Tls, Some(SHORT))
    );
}

#[tokio::test]
async fn silence_has_the_limit_of_the_endpoint() {
    for first in ["", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"] {
        let server = server(first, "").await;
        let client = limited(&server.url(), |limits| limits.read = Some(SHORT));
        let client = client.build().unwrap();
        let error = failure(&client).await;
        assert_eq!(error.kind(), ErrorKind::Timeout, "{first}");
        assert_eq!(error.find::<Silence>().unwrap().limit, SHORT);
        assert_eq!(
            client.get("/").await.unwrap().text().await.unwrap(),
            "hello"
        );
    }
}

#[tokio::test]
async fn a_head_that_trickles_in_is_no_silence_but_has_a_limit_of_its_own() {
    for (first, again) in [
        ("", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("HTTP/1.1 200 OK\r\nx-slow: ", "y"),
        ("", ""),
    ] {
        let server = server(first, again).await;
        let client = limited(&server.url(), |limits| {
            limits.first_byte = Some(SHORT);
            limits.read = Some(Duration::from_secs(20));
        });
        let client = client.build().unwrap();
        let error = failure(&client).await;
        assert_eq!(
            error.kind(),
            ErrorKind::Timeout,
            "{again}: {}",
            error.report()
        );
        assert_eq!(error.find::<SlowHead>().unwrap().limit, SHORT);
        eventually("it is closed", || client.transport().stats().open == 0).await;
    }
}

#[tokio::test]
async fn a_body_that_trickles_in_is_no_matter_of_the_head() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let server = server(head, "1\r\nx\r\n").await;
    let client = limited(&server.url(), |limits| {
        limits.first_byte = Some(Duration::from_secs(10));
        limits.total = Some(Duration::from_millis(300));
    });
    let error = failure(&client.build().unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.find::<SlowHead>().is_none(), "{}", error.report());
}

#[tokio::test]
async fn waiting_for_a_connection_has_the_limit_of_the_endpoint() {
    let server = server("", "").await;
    let mut config = trunkline_http::HttpClientConfig::new(server.url());
    config.max_connections = 1;
    let mut short = EndpointConfig::default();
    short.timeout.pool = Some(SHORT);
    let client = EnhancedHttpClient::builder()
        .config(config)
        .retry_enabled(false)
        .endpoint("GET /other", short)
        .build()
        .unwrap();
    let holder = client.clone();
    let holding = spawn(async move { holder.get("/short").send().await });
    eventually("the connection is in use", || server.count.requests() == 1).await;
    let error = in_time(client.get("/other").send()).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::ServiceUnavailable(_)),
        "{error:?}"
    );
    assert_eq!(
        Error::from(error).find::<PoolTimeout>().unwrap().waited,
        SHORT
    );
    holding.abort();
}
