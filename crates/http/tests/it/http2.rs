//! Many requests on one connection.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use trunkline_core::{ErrorKind, Retry};
use trunkline_http::{Body, Limits, Transport, TransportConfig};

use crate::rig::{SOON, Server, eventually, fetch, get, in_time, post, spawn, text};

fn transport() -> Transport {
    let mut config = TransportConfig::default();
    config.http2_prior_knowledge = true;
    Transport::new(&config).unwrap()
}

#[tokio::test]
async fn many_requests_share_one_connection() {
    let server = Server::start_with(async |request: Request<Incoming>| {
        assert_eq!(request.version(), http::Version::HTTP_2);
        let host = request.uri().authority().unwrap().to_string();
        let whole = request.into_body().collect().await.unwrap().to_bytes();
        tokio::time::sleep(Duration::from_millis(5)).await;
        Response::builder()
            .header("host-was", host)
            .body(Body::from(whole))
            .unwrap()
    })
    .await;
    let transport = transport();
    let callers: Vec<_> = (0..80)
        .map(|number: usize| {
            let (transport, origin) = (transport.clone(), server.origin());
            let body = number.to_string();
            spawn(async move { (body.clone(), fetch(&transport, &origin, post(body)).await) })
        })
        .collect();
    for caller in callers {
        let (sent, received) = in_time(caller).await.unwrap();
        assert_eq!(received.unwrap(), sent);
    }
    assert_eq!(server.count.total(), 1);
    assert_eq!((transport.stats().open, transport.stats().idle), (1, 1));
}

#[tokio::test]
async fn more_requests_than_fit_on_one_connection_open_another() {
    let server = Server::start(|_| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        text("hello")
    })
    .await;
    let transport = transport();
    let callers: Vec<_> = (0..150)
        .map(|_| {
            let (transport, origin) = (transport.clone(), server.origin());
            spawn(async move { fetch(&transport, &origin, get("/")).await })
        })
        .collect();
    for caller in callers {
        assert_eq!(in_time(caller).await.unwrap().unwrap(), "hello");
    }
    assert_eq!(server.count.total(), 2);
}

#[tokio::test]
async fn a_dropped_call_resets_its_stream_and_leaves_the_connection() {
    let server = Server::start(|request: Request<_>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        text("hello")
    })
    .await;
    let transport = transport();
    let limits = Limits::default().with_read(Duration::from_millis(50));
    let error = in_time(transport.send(&server.origin(), get("/never"), &limits)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(
        fetch(&transport, &server.origin(), get("/")).await.unwrap(),
        "hello"
    );
    assert_eq!(server.count.total(), 1);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let server = Server::start(|_| async { text("hello") }).await;
    let transport = transport();
    assert_eq!(
        fetch(&transport, &server.origin(), get("/")).await.unwrap(),
        "hello"
    );
    let listener = server.address;
    server.stop().await;
    let error = fetch(&transport, &server.origin(), get("/"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::Safe)
    );
    eventually("its place is free", || transport.stats().open == 0).await;
    assert_ne!(listener.port(), 0);
}

/// A server that speaks just enough HTTP/2 to refuse.
async fn refusing(frames: impl Fn(u32) -> Vec<u8> + Clone + Send + Sync + 'static) -> Server {
    Server::scripted(move |_, mut raw| {
        let frames = frames.clone();
        async move {
            // Our settings, then whatever the test says about the first stream, which is number 1.
            raw.write([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            raw.write(frames(1)).await;
            raw.until_closed().await;
        }
    })
    .await
}

fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, 0];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const NO_ERROR: u32 = 0;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

#[tokio::test]
async fn a_refused_stream_was_not_processed() {
    let server = refusing(|stream| frame(RST_STREAM, stream, &REFUSED_STREAM.to_be_bytes())).await;
    let error = in_time(fetch(&transport(), &server.origin(), post("x")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::Safe)
    );
}

#[tokio::test]
async fn a_stream_that_broke_may_have_been_processed() {
    let server = refusing(|stream| frame(RST_STREAM, stream, &INTERNAL_ERROR.to_be_bytes())).await;
    let error = in_time(fetch(&transport(), &server.origin(), post("x")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::IfIdempotent)
    );
}

#[tokio::test]
async fn whoever_goes_away_says_what_it_did_not_process() {
    let going = |last: u32, code: u32| {
        let mut payload = last.to_be_bytes().to_vec();
        payload.extend(code.to_be_bytes());
        frame(GOAWAY, 0, &payload)
    };
    let server = refusing(move |_| going(0, NO_ERROR)).await;
    let error = in_time(fetch(&transport(), &server.origin(), post("x")))
        .await
        .unwrap_err();
    assert_eq!(error.retry(), Retry::Safe, "{}", error.report());

    // It came to our stream, then the connection ended: it may have been processed.
    let server = Server::scripted(move |_, mut raw| async move {
        raw.write([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        raw.write(going(1, INTERNAL_ERROR)).await;
    })
    .await;
    let error = in_time(fetch(&transport(), &server.origin(), post("x")))
        .await
        .unwrap_err();
    assert_eq!(error.retry(), Retry::IfIdempotent, "{}", error.report());
}

#[tokio::test]
async fn shutdown_lets_streams_end() {
    let server = Server::start(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        text(Bytes::from("late"))
    })
    .await;
    let transport = transport();
    let (caller, origin) = (transport.clone(), server.origin());
    let call = spawn(async move { fetch(&caller, &origin, get("/")).await });
    eventually("it is under way", || server.count.requests() == 1).await;
    in_time(transport.shutdown(tokio::time::Instant::now() + SOON)).await;
    assert_eq!(in_time(call).await.unwrap().unwrap(), "late");
}
