//! Connection limits, counted at the server.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use trunkline_core::{ErrorKind, Retry};
use trunkline_http::{Limits, PoolFull, PoolTimeout, Transport, TransportConfig};

use crate::rig::{SOON, Server, eventually, fetch, get, in_time, spawn, text};

fn transport(connections: usize, idle: usize) -> Transport {
    let mut config = TransportConfig::default();
    config.max_connections = connections;
    config.max_keepalive_connections = idle;
    Transport::new(&config).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_sockets_than_allowed() {
    let slow = |_| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        text("hello")
    };
    let servers = [
        Server::start(slow).await,
        Server::start(slow).await,
        Server::start(slow).await,
    ];
    let transport = transport(7, 3);
    let callers: Vec<_> = (0..60)
        .map(|caller| {
            let transport = transport.clone();
            let origins: Vec<_> = servers.iter().map(Server::origin).collect();
            spawn(async move {
                let limits = Limits::default().with_pool(SOON);
                for round in 0..20 {
                    let origin = &origins[(caller + round) % origins.len()];
                    let response = transport.send(origin, get("/"), &limits).await.unwrap();
                    assert_eq!(response.into_body().bytes(10).await.unwrap(), "hello");
                    assert!(transport.stats().open <= 7);
                }
            })
        })
        .collect();
    for caller in callers {
        in_time(caller).await.unwrap();
    }
    // The servers notice a closed socket a little later than the client closes it.
    let most: usize = servers.iter().map(|server| server.count.most()).sum();
    assert!(most <= 3 * 7, "{most}");
    let requests: usize = servers.iter().map(|server| server.count.requests()).sum();
    assert_eq!(requests, 60 * 20);
    let stats = transport.stats();
    assert!(
        stats.idle <= 3 && stats.open == stats.idle && stats.waiting == 0,
        "{stats:?}"
    );
    let open = || {
        servers
            .iter()
            .map(|server| server.count.open())
            .sum::<usize>()
    };
    eventually("the rest is closed", || open() == stats.idle).await;
}

#[tokio::test]
async fn one_server_sees_no_more_than_the_limit() {
    let gate = Arc::new(Semaphore::new(0));
    let entered = Arc::clone(&gate);
    let server = Server::start(move |_| {
        let gate = Arc::clone(&entered);
        async move {
            drop(gate.acquire().await.unwrap());
            text("hello")
        }
    })
    .await;
    let transport = transport(4, 4);
    let callers: Vec<_> = (0..20)
        .map(|_| {
            let (transport, origin) = (transport.clone(), server.origin());
            spawn(async move { fetch(&transport, &origin, get("/")).await })
        })
        .collect();
    eventually("four are served", || server.count.requests() == 4).await;
    eventually("the others wait", || transport.stats().waiting == 16).await;
    gate.add_permits(1);
    for caller in callers {
        assert_eq!(in_time(caller).await.unwrap().unwrap(), "hello");
    }
    assert_eq!((server.count.most(), server.count.total()), (4, 4));
}

#[tokio::test]
async fn waiting_for_a_connection_is_bounded_in_time_and_number() {
    let server = Server::start(|_| std::future::pending()).await;
    let mut config = TransportConfig::default();
    config.max_connections = 1;
    config.max_waiting = Some(1);
    let transport = Transport::new(&config).unwrap();
    let (first, origin) = (transport.clone(), server.origin());
    let holder = spawn(async move { fetch(&first, &origin, get("/")).await });
    eventually("the connection is in use", || server.count.requests() == 1).await;

    let limits = Limits::default().with_pool(Duration::from_millis(30));
    let error = in_time(transport.send(&server.origin(), get("/"), &limits))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Rejected, Retry::Safe)
    );
    let timeout = error.find::<PoolTimeout>().unwrap();
    assert_eq!(
        (timeout.max_connections, timeout.waited),
        (1, Duration::from_millis(30))
    );

    let (second, origin) = (transport.clone(), server.origin());
    let waiter = spawn(async move { fetch(&second, &origin, get("/")).await });
    eventually("one waits", || transport.stats().waiting == 1).await;
    let error = fetch(&transport, &server.origin(), get("/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert_eq!(error.find::<PoolFull>().unwrap().waiting, 1);
    assert_eq!(server.count.requests(), 1);
    holder.abort();
    waiter.abort();
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_its_connection_to_the_next() {
    let server = Server::start(|request: http::Request<_>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        text("hello")
    })
    .await;
    let transport = transport(1, 1);
    for _ in 0..5 {
        let (first, origin) = (transport.clone(), server.origin());
        let gone = spawn(async move { fetch(&first, &origin, get("/never")).await });
        let before = server.count.requests();
        eventually("it is sent", || server.count.requests() > before).await;
        let (second, origin) = (transport.clone(), server.origin());
        let next = spawn(async move { fetch(&second, &origin, get("/")).await });
        eventually("the next waits", || transport.stats().waiting == 1).await;
        gone.abort();
        assert_eq!(in_time(next).await.unwrap().unwrap(), "hello");
    }
    assert_eq!(transport.stats().open, 1);
}

#[tokio::test]
async fn an_unused_connection_makes_room_for_another_host() {
    let one = Server::start(|_| async { text("one") }).await;
    let other = Server::start(|_| async { text("other") }).await;
    let transport = transport(1, 1);
    for _ in 0..3 {
        assert_eq!(
            fetch(&transport, &one.origin(), get("/")).await.unwrap(),
            "one"
        );
        assert_eq!(
            fetch(&transport, &other.origin(), get("/")).await.unwrap(),
            "other"
        );
    }
    eventually("the first is closed", || one.count.open() == 0).await;
    assert_eq!(transport.stats().open, 1);
    assert_eq!((one.count.total(), other.count.total()), (3, 3));
}

#[tokio::test]
async fn a_connection_is_reused_and_closed_when_it_was_not_used_for_long() {
    let server = Server::start(|_| async { text("hello") }).await;
    let mut config = TransportConfig::default();
    config.keepalive_expiry = Duration::from_millis(200);
    let transport = Transport::new(&config).unwrap();
    for _ in 0..10 {
        fetch(&transport, &server.origin(), get("/")).await.unwrap();
    }
    assert_eq!((server.count.total(), transport.stats().idle), (1, 1));
    eventually("it is closed", || server.count.open() == 0).await;
    assert_eq!((transport.stats().idle, transport.stats().open), (0, 0));
    fetch(&transport, &server.origin(), get("/")).await.unwrap();
    assert_eq!(server.count.total(), 2);
}

#[tokio::test]
async fn a_connection_that_the_server_closed_does_not_linger() {
    let close = Arc::new(Notify::new());
    let told = Arc::clone(&close);
    let server = Server::scripted(move |_, mut raw| {
        let close = Arc::clone(&told);
        async move {
            raw.request().await.unwrap();
            raw.answer("hello").await;
            close.notified().await;
        }
    })
    .await;
    let transport = transport(10, 10);
    fetch(&transport, &server.origin(), get("/")).await.unwrap();
    assert_eq!(transport.stats().idle, 1);
    close.notify_one();
    eventually("it is forgotten", || transport.stats().open == 0).await;
}

#[tokio::test]
async fn without_keepalive_every_request_has_its_own_connection() {
    let server = Server::start(|_| async { text("hello") }).await;
    let transport = transport(10, 0);
    for _ in 0..3 {
        fetch(&transport, &server.origin(), get("/")).await.unwrap();
    }
    assert_eq!((server.count.total(), transport.stats().open), (3, 0));
}

#[tokio::test]
async fn a_dropped_body_gives_its_connection_up_unless_it_had_come_already() {
    let server = Server::start(|request: http::Request<_>| async move {
        let size = if request.uri().path() == "/large" {
            8 << 20
        } else {
            10
        };
        text(vec![b'x'; size])
    })
    .await;
    let transport = transport(10, 10);
    let send = async |path| {
        let limits = Limits::default();
        drop(
            transport
                .send(&server.origin(), get(path), &limits)
                .await
                .unwrap(),
        );
    };
    send("/small").await;
    assert_eq!(
        transport.stats().idle,
        1,
        "a short rest is no reason to close"
    );
    send("/large").await;
    assert_eq!(transport.stats().open, 0);
    eventually("the server sees it", || server.count.open() == 0).await;
}

#[tokio::test]
async fn after_shutdown_nothing_is_sent() {
    let server = Server::start(|_| async { text("hello") }).await;
    let transport = transport(10, 10);
    fetch(&transport, &server.origin(), get("/")).await.unwrap();
    in_time(transport.shutdown(tokio::time::Instant::now() + SOON)).await;
    eventually("connections are closed", || server.count.open() == 0).await;
    let error = fetch(&transport, &server.origin(), get("/"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(transport.stats().open, 0);
}

#[tokio::test]
async fn a_shutdown_waits_for_the_answers_and_bodies_that_are_under_way() {
    let answer = Arc::new(Notify::new());
    let told = Arc::clone(&answer);
    let server = Server::scripted(move |_, mut raw| {
        let told = Arc::clone(&told);
        async move {
            raw.request().await;
            told.notified().await;
            raw.write("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe")
                .await;
            told.notified().await;
            raw.write("llo").await;
            raw.until_closed().await;
        }
    })
    .await;
    let transport = transport(10, 10);
    let (asking, origin) = (transport.clone(), server.origin());
    let fetched = spawn(async move { fetch(&asking, &origin, get("/")).await });
    eventually("it is asked", || server.count.requests() == 1).await;
    let stopping = transport.clone();
    let mut stopped =
        spawn(async move { stopping.shutdown(tokio::time::Instant::now() + SOON).await });
    for _ in 0..2 {
        let early = tokio::time::timeout(Duration::from_millis(20), &mut stopped).await;
        assert!(early.is_err(), "it did not wait");
        answer.notify_one();
    }
    assert_eq!(in_time(fetched).await.unwrap().unwrap(), "hello");
    in_time(stopped).await.unwrap();
    assert_eq!(transport.stats().open, 0);
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_its_deadline() {
    let server = Server::scripted(|_, mut raw| async move {
        raw.request().await;
        raw.until_closed().await;
    })
    .await;
    let transport = transport(10, 10);
    let (asking, origin) = (transport.clone(), server.origin());
    let fetched = spawn(async move { fetch(&asking, &origin, get("/")).await });
    eventually("it is asked", || server.count.requests() == 1).await;
    let deadline = tokio::time::Instant::now() + Duration::from_millis(20);
    in_time(transport.shutdown(deadline)).await;
    assert_eq!(transport.stats().open, 1, "it is its caller's to end");
    fetched.abort();
    eventually("the place is free", || transport.stats().open == 0).await;
}
