//! Bodies that come and go in pieces.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Notify, mpsc};
use trunkline_core::{Error, ErrorKind};
use trunkline_http::{Body, BodyTooLarge, Limits};

use crate::rig::{Server, eventually, fetch, get, in_time, transport};

fn channel() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let pieces = stream::unfold(receiver, |mut receiver| async {
        receiver
            .recv()
            .await
            .map(|piece| (Ok::<_, Error>(piece), receiver))
    });
    (sender, Body::stream(pieces))
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    Response::new(Body::new(request.into_body()))
}

#[tokio::test]
async fn an_answer_is_read_while_it_is_written() {
    let next = Arc::new(Notify::new());
    let told = Arc::clone(&next);
    let server = Server::start_with(move |_| {
        let next = Arc::clone(&told);
        let pieces = stream::unfold((0, next), |(number, next)| async move {
            if number > 0 {
                next.notified().await;
            }
            (number < 5).then(|| {
                (
                    Ok::<_, Error>(Bytes::from(number.to_string())),
                    (number + 1, next),
                )
            })
        });
        async { Response::new(Body::stream(pieces)) }
    })
    .await;
    let transport = transport();
    let response = transport
        .send(&server.origin(), get("/"), &Limits::default())
        .await
        .unwrap();
    let mut pieces = Box::pin(response.into_body().into_stream());
    for number in 0..5 {
        assert_eq!(
            in_time(pieces.next()).await.unwrap().unwrap(),
            number.to_string()
        );
        // Only now the server writes the next one.
        next.notify_one();
    }
    assert!(in_time(pieces.next()).await.is_none());
    assert_eq!(transport.stats().idle, 1, "the connection is kept");
}

#[tokio::test]
async fn an_upload_is_sent_while_it_is_made() {
    let server = Server::start_with(async |request: Request<Incoming>| {
        let whole = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Body::from(whole))
    })
    .await;
    let (sender, body) = channel();
    let transport = transport();
    let origin = server.origin();
    let sent = crate::rig::spawn(async move {
        fetch(&transport, &origin, Request::post("/").body(body).unwrap()).await
    });
    eventually("the head arrives before the body ends", || {
        server.count.requests() == 1
    })
    .await;
    for piece in ["a", "b", "c"] {
        sender.send(Bytes::from(piece)).await.unwrap();
    }
    drop(sender);
    assert_eq!(in_time(sent).await.unwrap().unwrap(), "abc");
}

#[tokio::test]
async fn both_sides_may_talk_at_once() {
    let server = Server::start_with(echo).await;
    let (sender, body) = channel();
    let request = Request::post("/").body(body).unwrap();
    let transport = transport();
    let response = in_time(transport.send(&server.origin(), request, &Limits::default())).await;
    let mut pieces = Box::pin(response.unwrap().into_body().into_stream());
    // More than fits into any buffer on the way, and nobody reads the answer yet.
    for number in 0..5 {
        in_time(sender.send(Bytes::from(number.to_string())))
            .await
            .unwrap();
        assert_eq!(
            in_time(pieces.next()).await.unwrap().unwrap(),
            number.to_string()
        );
    }
    for _ in 0..3 {
        in_time(sender.send(Bytes::from("x"))).await.unwrap();
    }
    drop(sender);
    let mut rest = String::new();
    while let Some(piece) = in_time(pieces.next()).await {
        rest.push_str(std::str::from_utf8(&piece.unwrap()).unwrap());
    }
    assert_eq!(rest, "xxx");
}

#[tokio::test]
async fn giving_up_one_side_of_a_conversation_ends_the_other() {
    let server = Server::start_with(echo).await;
    let (sender, body) = channel();
    let request = Request::post("/").body(body).unwrap();
    let transport = transport();
    let response = transport
        .send(&server.origin(), request, &Limits::default())
        .await
        .unwrap();
    drop(response);
    in_time(sender.closed()).await;
    eventually("the place is free", || transport.stats().open == 0).await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let server = Server::start_with(echo).await;
    let whole = Bytes::from(vec![b'z'; 4 << 20]);
    let pieces: Vec<Bytes> = (0..64)
        .map(|piece| whole.slice(piece * 65536..(piece + 1) * 65536))
        .collect();
    let transport = transport();
    for body in [
        Body::from(whole.clone()),
        Body::stream(stream::iter(pieces.into_iter().map(Ok::<_, Error>))),
    ] {
        let request = Request::post("/").body(body).unwrap();
        let sent = transport
            .send(&server.origin(), request, &Limits::default())
            .await;
        let back = in_time(sent.unwrap().into_body().bytes(8 << 20))
            .await
            .unwrap();
        assert_eq!(back, whole);
    }
}

#[tokio::test]
async fn a_body_is_read_into_memory_up_to_the_limit_only() {
    let server = Server::start_with(async |request: Request<Incoming>| {
        let piece = Bytes::from(vec![b'x'; 1000]);
        if request.uri().path() == "/length" {
            return Response::new(Body::from(piece));
        }
        let pieces = (0..10).map(move |_| Ok::<_, Error>(piece.slice(..100)));
        Response::new(Body::stream(stream::iter(pieces)))
    })
    .await;
    for path in ["/length", "/chunked"] {
        let read = async |limit| {
            let limits = Limits::default();
            let response = transport()
                .send(&server.origin(), get(path), &limits)
                .await
                .unwrap();
            response.into_body().bytes(limit).await
        };
        assert_eq!(read(1000).await.unwrap().len(), 1000);
        let error = read(999).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert_eq!(error.find::<BodyTooLarge>().unwrap().limit, 999);
    }
}

#[tokio::test]
async fn an_upload_that_fails_is_its_own_fault() {
    let server = Server::start_with(echo).await;
    let pieces = stream::iter([
        Ok(Bytes::from("a")),
        Err(Error::unavailable("the disk is gone")),
    ]);
    let request = Request::post("/").body(Body::stream(pieces)).unwrap();
    let transport = transport();
    let sent = async {
        let response = transport
            .send(&server.origin(), request, &Limits::default())
            .await?;
        response.into_body().bytes(100).await
    };
    let error = in_time(sent).await.unwrap_err();
    let text = error.report().to_string();
    assert!(
        text.contains("the disk is gone") || error.kind() == ErrorKind::Unavailable,
        "{text}"
    );
    eventually("the place is free", || transport.stats().open == 0).await;
}

#[tokio::test]
async fn an_early_answer_ends_an_upload_that_nobody_reads() {
    let server = Server::start_with(async |_| {
        let mut response = Response::new(Body::from("no"));
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        response
    })
    .await;
    let (sender, body) = channel();
    let request = Request::post("/").body(body).unwrap();
    let transport = transport();
    let response = in_time(transport.send(&server.origin(), request, &Limits::default())).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(in_time(response.into_body().bytes(10)).await.unwrap(), "no");
    in_time(sender.closed()).await;
}

#[tokio::test]
async fn a_connection_can_become_something_else() {
    let server = Server::start_with(async |mut request: Request<Incoming>| {
        crate::rig::spawn(async move {
            let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
            let mut socket = hyper_util::rt::TokioIo::new(upgraded);
            let (mut read, mut write) = tokio::io::split(&mut socket);
            drop(tokio::io::copy(&mut read, &mut write).await);
        });
        Response::builder()
            .status(101)
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(Body::empty())
            .unwrap()
    })
    .await;
    let request = Request::get("/")
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(Body::empty())
        .unwrap();
    let transport = transport();
    let response = transport
        .send(&server.origin(), request, &Limits::default())
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    let upgraded = in_time(hyper::upgrade::on(response)).await.unwrap();
    let mut socket = hyper_util::rt::TokioIo::new(upgraded);
    tokio::io::AsyncWriteExt::write_all(&mut socket, b"ping")
        .await
        .unwrap();
    let mut back = [0; 4];
    in_time(tokio::io::AsyncReadExt::read_exact(&mut socket, &mut back))
        .await
        .unwrap();
    assert_eq!(&back, b"ping");
    assert_eq!(transport.stats().open, 1, "it keeps its place");
    drop(socket);
    eventually("the place is free", || transport.stats().open == 0).await;
}

#[tokio::test]
async fn the_deadline_bounds_the_body_too() {
    let server = Server::start_with(async |_| {
        let pieces = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, Error>(Bytes::from("x")), ()))
        });
        Response::new(Body::stream(pieces))
    })
    .await;
    let deadline = tokio::time::Instant::now() + Duration::from_millis(100);
    let limits = Limits::default().with_deadline(deadline);
    let response = transport()
        .send(&server.origin(), get("/"), &limits)
        .await
        .unwrap();
    let error = in_time(response.into_body().bytes(1 << 20))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}
