//! Hedging, seen from the servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::Method;
use trunkline_discovery::{Instances, ServiceInstance, ServiceName};
use trunkline_http::{Body, EnhancedHttpClient, HttpClientConfig};
use trunkline_telemetry::{Format, Metrics};

use crate::rig::{Raw, Server, eventually, in_time, text};

/// A server that reads requests and never answers; it sees whether they are given up.
async fn silent() -> (Server, Arc<AtomicUsize>) {
    let given_up = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&given_up);
    let server = Server::scripted(move |_, mut raw: Raw| {
        let seen = Arc::clone(&seen);
        async move {
            raw.request().await;
            raw.until_closed().await;
            seen.fetch_add(1, Ordering::SeqCst);
        }
    })
    .await;
    (server, given_up)
}

fn client(servers: &[&Server], hedge: serde_json::Value) -> (EnhancedHttpClient, Metrics) {
    let name = ServiceName::new("users").unwrap();
    let all = servers
        .iter()
        .map(|server| ServiceInstance::new(name.clone(), "127.0.0.1", server.address.port()))
        .collect();
    let mut config = HttpClientConfig::default();
    config.hedge = serde_json::from_value(hedge).unwrap();
    config.retry.enabled = Some(false);
    let metrics = Metrics::new();
    let client = EnhancedHttpClient::builder()
        .config(config)
        .service("users")
        .metrics(&metrics)
        .instances(Instances::fixed(name, all))
        .build()
        .unwrap();
    (client, metrics)
}

fn fixed() -> serde_json::Value {
    serde_json::json!({ "delay": "20ms" })
}

#[tokio::test]
async fn a_silent_instance_is_overtaken_by_another_and_its_request_is_given_up() {
    let (slow, given_up) = silent().await;
    let good = Server::start(|_| async { text("hello") }).await;
    let (client, metrics) = client(&[&slow, &good], fixed());
    // An instance that has never answered is asked once, then it looks slow.
    for _ in 0..10 {
        let response = in_time(client.get("/").send()).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "hello");
    }
    let asked = slow.count.requests();
    assert!(asked >= 1, "it was asked");
    eventually("its requests are given up", || {
        given_up.load(Ordering::SeqCst) == asked
    })
    .await;
    assert_eq!(good.count.requests(), 10);
    let shown = metrics.render(Format::Prometheus).unwrap();
    for name in ["trunkline_hedges_total", "trunkline_hedges_won_total"] {
        let line = format!("{name}{{service=\"users\",endpoint=\"*\"}} ");
        let (_, value) = shown.split_once(&line).expect(name);
        let value: usize = value.lines().next().unwrap().parse().unwrap();
        assert!(value >= 1, "{name}: {value}");
    }
}

#[tokio::test]
async fn over_http2_the_loser_is_reset_and_the_connection_lives() {
    // The first request hangs; whatever comes beside or after it on the same connection is answered.
    let number = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Tell(Arc<AtomicUsize>);
    impl Drop for Tell {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let seen = Arc::clone(&dropped);
    let server = Server::start(move |_| {
        let first = number.fetch_add(1, Ordering::SeqCst) == 0;
        let tell = first.then(|| Tell(Arc::clone(&seen)));
        async move {
            let _tell = tell;
            if first {
                std::future::pending::<()>().await;
            }
            text("hello")
        }
    })
    .await;
    let mut settings = trunkline_http::TransportConfig::default();
    settings.http2_prior_knowledge = true;
    let mut config = HttpClientConfig::new(server.url());
    config.hedge = serde_json::from_value(fixed()).unwrap();
    let client = EnhancedHttpClient::builder()
        .config(config)
        .transport(trunkline_http::Transport::new(&settings).unwrap())
        .build()
        .unwrap();
    for _ in 0..3 {
        let response = in_time(client.get("/").send()).await.unwrap();
        assert_eq!(response.text().await.unwrap(), "hello");
    }
    eventually("the first request is reset", || {
        dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    // On a slow machine more than the one that hangs may be hedged.
    assert_eq!(server.count.total(), 1, "one connection");
    assert!(server.count.requests() >= 4);
}

#[tokio::test]
async fn what_changes_something_is_not_hedged_and_a_stream_never_is() {
    let server = Server::start(|_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        text("hello")
    })
    .await;
    let (client, _) = client(&[&server], serde_json::json!({ "delay": "1ms" }));
    let stream = || {
        let pieces = stream::iter([Ok::<_, trunkline_core::Error>(Bytes::from("hello"))]);
        Body::stream(pieces)
    };
    for (number, request) in [
        client.post("/").json(&1),
        client.post("/").json(&1).idempotency_key("k"),
        client.put("/").json(&1),
        client.delete("/"),
        client.get("/").body(stream()),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(in_time(request.send()).await.unwrap().status(), 200);
        assert_eq!(server.count.requests(), number + 1);
    }
    in_time(client.request(Method::HEAD, "/").send())
        .await
        .unwrap();
    assert_eq!(server.count.requests(), 7, "a HEAD is");
}

#[tokio::test]
async fn a_cancelled_call_gives_up_all_its_requests() {
    let (one, given_up_one) = silent().await;
    let (two, given_up_two) = silent().await;
    let (client, _) = client(&[&one, &two], fixed());
    let call = crate::rig::spawn(async move { client.get("/").await });
    eventually("both are asked", || {
        one.count.requests() + two.count.requests() == 2
    })
    .await;
    assert_eq!(one.count.requests(), 1, "the hedge goes to the other one");
    call.abort();
    eventually("both are given up", || {
        given_up_one.load(Ordering::SeqCst) + given_up_two.load(Ordering::SeqCst) == 2
    })
    .await;
}
