//! What servers do wrong, byte by byte, and what may be concluded from it.

use std::time::Duration;

use http::Request;
use trunkline_core::{ErrorKind, Origin as Side, Retry};
use trunkline_http::{Body, ConnectFailed, ConnectStage, Limits, NoAnswer, Origin, Silence};

use crate::rig::{Raw, Server, fetch, get, in_time, post, transport};

#[tokio::test]
async fn nobody_listens() {
    let server = Server::scripted(|_, _| async {}).await;
    let origin = server.origin();
    server.stop().await;
    let error = fetch(&transport(), &origin, get("/")).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::Safe)
    );
    assert_eq!(
        error.find::<ConnectFailed>().unwrap().stage,
        ConnectStage::Connect
    );
    assert!(
        error.report().to_string().contains("refused"),
        "{}",
        error.report()
    );
}

#[tokio::test]
async fn a_host_without_an_address() {
    let origin = Origin::http("no-such-host.invalid", 80).unwrap();
    let error = in_time(fetch(&transport(), &origin, get("/")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::Safe)
    );
    assert_eq!(
        error.find::<ConnectFailed>().unwrap().stage,
        ConnectStage::Resolve
    );
}

#[tokio::test]
async fn the_second_address_of_a_host_is_tried() {
    // `localhost` is 127.0.0.1 and often ::1; the server listens on the first only.
    let server = Server::scripted(|_, mut raw: Raw| async move {
        while raw.request().await.is_some() {
            raw.answer("hello").await;
        }
    })
    .await;
    let origin = Origin::http("localhost", server.address.port()).unwrap();
    assert_eq!(
        in_time(fetch(&transport(), &origin, get("/")))
            .await
            .unwrap(),
        "hello"
    );
}

#[tokio::test]
async fn a_connection_that_dies_after_the_request_may_have_been_processed() {
    for reset in [false, true] {
        let server = Server::scripted(move |_, mut raw: Raw| async move {
            raw.request().await.unwrap();
            if reset {
                raw.reset();
            }
        })
        .await;
        let error = fetch(&transport(), &server.origin(), post("paid"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.retry(), Retry::IfIdempotent);
        let lost = error.find::<NoAnswer>().unwrap();
        assert!(lost.sent && !lost.received && !lost.reused, "{lost:?}");
        assert_eq!(server.count.requests(), 1, "it was sent again");
    }
}

#[tokio::test]
async fn a_reused_connection_that_was_closed_meanwhile_is_replaced() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
        raw.answer("hello").await;
    })
    .await;
    let transport = transport();
    for round in 1..=5 {
        // A body, so that it would matter if it went twice.
        assert_eq!(
            fetch(&transport, &server.origin(), post("x"))
                .await
                .unwrap(),
            "hello"
        );
        assert_eq!(server.count.requests(), round);
        crate::rig::eventually("the server has closed", || server.count.open() == 0).await;
    }
}

#[tokio::test]
async fn a_reused_connection_that_dies_with_the_request_is_not_replaced() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
        raw.answer("hello").await;
        raw.request().await.unwrap();
    })
    .await;
    let transport = transport();
    assert_eq!(
        fetch(&transport, &server.origin(), post("1"))
            .await
            .unwrap(),
        "hello"
    );
    let error = fetch(&transport, &server.origin(), post("2"))
        .await
        .unwrap_err();
    assert_eq!(error.retry(), Retry::IfIdempotent);
    assert!(error.find::<NoAnswer>().unwrap().reused);
    assert_eq!(server.count.requests(), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_error_and_not_a_short_answer() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhalf",
    ] {
        let server = Server::scripted(move |_, mut raw: Raw| async move {
            raw.request().await.unwrap();
            raw.write(answer).await;
        })
        .await;
        let error = fetch(&transport(), &server.origin(), get("/"))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{answer}");
        assert_eq!(error.origin(), Side::Remote);
    }
}

#[tokio::test]
async fn a_head_that_breaks_off_is_an_error() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
        raw.write("HTTP/1.1 200 OK\r\ncontent-le").await;
    })
    .await;
    let error = fetch(&transport(), &server.origin(), get("/"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unavailable, Retry::IfIdempotent)
    );
    assert!(error.find::<NoAnswer>().unwrap().received);
}

#[tokio::test]
async fn what_is_not_http_is_said_to_be_so() {
    for garbage in [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned(),
        "HTTP/1.1 abc OK\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\nx".to_owned(),
        format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(200_000)),
        format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(1000)),
    ] {
        let start: String = garbage.chars().take(30).collect();
        let server = Server::scripted(move |_, mut raw: Raw| {
            let garbage = garbage.clone();
            async move {
                raw.request().await.unwrap();
                raw.write(garbage).await;
                raw.until_closed().await;
            }
        })
        .await;
        let error = in_time(fetch(&transport(), &server.origin(), get("/")))
            .await
            .unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Internal,
            "{start}: {}",
            error.report()
        );
        assert_eq!(
            (error.origin(), error.retry()),
            (Side::Remote, Retry::IfIdempotent)
        );
        assert!(
            error.to_string().contains("cannot be read as HTTP"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn informational_answers_are_passed_over_and_trailers_read() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        while raw.request().await.is_some() {
            raw.write(
                "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n",
            )
            .await;
            raw.write(
                "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 5\r\n\r\n",
            )
            .await;
        }
    })
    .await;
    let transport = transport();
    for _ in 0..2 {
        assert_eq!(
            fetch(&transport, &server.origin(), get("/")).await.unwrap(),
            "abcde"
        );
    }
    assert_eq!(server.count.total(), 1, "the connection was not reused");
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_the_connection() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
        raw.write("HTTP/1.0 200 OK\r\n\r\nall of it").await;
    })
    .await;
    assert_eq!(
        fetch(&transport(), &server.origin(), get("/"))
            .await
            .unwrap(),
        "all of it"
    );
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
        raw.until_closed().await;
    })
    .await;
    let limits = Limits::default().with_read(Duration::from_millis(20));
    let transport = transport();
    let error = in_time(transport.send(&server.origin(), get("/"), &limits))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Timeout, Retry::IfIdempotent)
    );
    assert_eq!(
        error.find::<Silence>().unwrap().limit,
        Duration::from_millis(20)
    );
    crate::rig::eventually("the connection is closed", || server.count.open() == 0).await;
    assert_eq!(transport.stats().open, 0);
}

#[tokio::test]
async fn a_server_that_falls_silent_in_the_middle_is_given_up() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
        raw.write("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await;
        raw.until_closed().await;
    })
    .await;
    let limits = Limits::default().with_read(Duration::from_millis(20));
    let transport = transport();
    let response = transport
        .send(&server.origin(), get("/"), &limits)
        .await
        .unwrap();
    let error = in_time(response.into_body().bytes(100)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.find::<Silence>().is_some());
    crate::rig::eventually("the connection is closed", || server.count.open() == 0).await;
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_as_long_as_it_moves() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        raw.request().await.unwrap();
        for byte in "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".bytes() {
            raw.write([byte]).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    // Far less than the whole takes, far more than one byte takes.
    let limits = Limits::default().with_read(Duration::from_millis(250));
    let response = in_time(transport().send(&server.origin(), get("/"), &limits))
        .await
        .unwrap();
    assert_eq!(
        in_time(response.into_body().bytes(100)).await.unwrap(),
        "hello"
    );
}

#[tokio::test]
async fn what_is_sent_is_what_was_asked_for() {
    let server = Server::scripted(|_, mut raw: Raw| async move {
        let request = raw.request().await.unwrap();
        raw.answer(&request).await;
    })
    .await;
    let request = Request::put("http://elsewhere/a%20b?c=d")
        .header("x-one", "1")
        .body(Body::from("body"))
        .unwrap();
    let seen = fetch(&transport(), &server.origin(), request)
        .await
        .unwrap();
    let mut lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.remove(0), "PUT /a%20b?c=d HTTP/1.1");
    assert_eq!(lines.pop(), Some("body"));
    lines.sort_unstable();
    let host = format!("host: {}", server.address);
    assert_eq!(lines, ["", "content-length: 4", &host, "x-one: 1"]);

    let request = Request::get("/")
        .header("host", "kept.example")
        .body(Body::empty())
        .unwrap();
    let seen = fetch(&transport(), &server.origin(), request)
        .await
        .unwrap();
    assert!(seen.contains("host: kept.example\r\n"), "{seen}");
    assert!(!seen.contains("content-length"), "{seen}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_will_do() {
    use crate::rig::{Count, serve};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let served = crate::rig::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        serve(socket, Count::default(), |_| async {
            http::Response::new(Body::from("local"))
        })
        .await;
    });
    let transport = transport();
    let origin = Origin::unix(&path);
    assert_eq!(fetch(&transport, &origin, get("/")).await.unwrap(), "local");
    assert_eq!(fetch(&transport, &origin, get("/")).await.unwrap(), "local");
    drop(transport);
    in_time(served).await.unwrap();
    let missing = Origin::unix(directory.path().join("missing"));
    let error = fetch(&crate::rig::transport(), &missing, get("/"))
        .await
        .unwrap_err();
    assert_eq!(error.retry(), Retry::Safe);
}
