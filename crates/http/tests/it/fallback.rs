//! What answers when a call has failed for good, and when nothing else may.

use std::time::Duration;

use futures_util::stream;
use http::{Method, Request};
use hyper::body::Incoming;
use serde_json::{Value, json};
use trunkline_discovery::{
    BalanceStrategy, Discovery, EjectionConfig, LoadBalancerConfig, ServiceName, StaticList,
};
use trunkline_http::{Body, EnhancedHttpClient, Fallback, HttpClientConfig};

use crate::rig::{Server, in_time, instance, status, text};

/// Quick retries, and whatever else the test wants.
fn config(url: impl Into<String>, change: impl FnOnce(&mut HttpClientConfig)) -> HttpClientConfig {
    let mut config = HttpClientConfig::new(url);
    config.retry.delay = Some(Duration::from_millis(1));
    change(&mut config);
    config
}

#[tokio::test]
async fn a_fixed_value_answers_when_all_else_failed() {
    let server = Server::start(|_| async { status(503) }).await;
    let client = EnhancedHttpClient::from_config(config(server.url(), |config| {
        config.fallback.value = Some(json!({ "name": "nobody" }));
    }))
    .unwrap();
    let response = client.get("/").await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.fallback()),
        (200, Some(Fallback::Value))
    );
    assert_eq!(response.json::<Value>().await.unwrap()["name"], "nobody");
    server.stop().await;
    assert_eq!(
        client.get("/").await.unwrap().fallback(),
        Some(Fallback::Value)
    );
}

#[tokio::test]
async fn another_service_answers_when_all_else_failed() {
    let bad = Server::start(|_| async { status(503) }).await;
    let spare =
        Server::start(async |request: Request<Incoming>| text(request.uri().path().to_owned()))
            .await;
    let list = vec![instance("users", &bad), instance("users-archive", &spare)];
    let list = StaticList::new(list).unwrap();
    let mut config = config("", |config| {
        config.fallback.service = Some("users-archive".to_owned());
        config.circuit_breaker.enabled = Some(false);
    });
    config.base_url = None;
    config.service = Some("users".to_owned());
    let discovery = Discovery::builder().resolver(list).build();
    let client = EnhancedHttpClient::builder()
        .config(config)
        .discovery(&discovery)
        .build()
        .unwrap();
    let response = in_time(client.get("/users/1").send()).await.unwrap();
    assert_eq!(response.fallback(), Some(Fallback::Service));
    assert_eq!(response.text().await.unwrap(), "/users/1");
    spare.stop().await;
    let response = in_time(client.get("/users/1").send()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.fallback()),
        (503, None)
    );
}

#[tokio::test]
async fn an_instance_that_fails_as_a_fallback_is_ejected_as_any_other() {
    let bad = Server::start(|_| async { status(503) }).await;
    let spare = Server::start(|_| async { text("spare") }).await;
    let at = |server| instance("users-archive", server);
    let gone = Server::start(|_| async { text("") }).await;
    gone.stop().await;
    for (failing, failures) in [(&bad, 2), (&gone, 1)] {
        let list = StaticList::new(vec![at(failing), at(&spare)]).unwrap();
        let ejection = EjectionConfig::default()
            .with_consecutive_failures(failures)
            .with_max_percent(50);
        let balance = LoadBalancerConfig::new(BalanceStrategy::RoundRobin).with_ejection(ejection);
        let discovery = Discovery::builder()
            .resolver(list)
            .load_balancer(balance)
            .build();
        let config = config(bad.url(), |config| {
            config.fallback.service = Some("users-archive".to_owned());
            config.circuit_breaker.enabled = Some(false);
            config.retry.enabled = Some(false);
        });
        let client = EnhancedHttpClient::builder()
            .config(config)
            .discovery(&discovery)
            .build()
            .unwrap();
        for _ in 0..2 * failures {
            in_time(client.get("/").send()).await.unwrap();
        }
        let instances = discovery.instances(&ServiceName::new("users-archive").unwrap());
        let left: Vec<u16> = instances
            .snapshot()
            .in_rotation()
            .map(|one| one.port)
            .collect();
        assert_eq!(left, [spare.address.port()]);
    }
}

/// Calls one server, and the service `spare` at another where that fails.
fn with_spare(url: String, spare: &Server) -> EnhancedHttpClient {
    let discovery = Discovery::builder()
        .resolver(StaticList::new(vec![instance("spare", spare)]).unwrap())
        .build();
    let config = config(url, |config| {
        config.fallback.service = Some("spare".to_owned());
        config.retry.enabled = Some(false);
        config.circuit_breaker.enabled = Some(false);
    });
    EnhancedHttpClient::builder()
        .config(config)
        .discovery(&discovery)
        .build()
        .unwrap()
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_again_by_another_service() {
    let spare = Server::start(|_| async { text("spare") }).await;
    let bad = Server::start(|_| async { status(503) }).await;
    let client = with_spare(bad.url(), &spare);
    let pay = || client.post("/pay").json(&1);
    let answer = in_time(pay().send()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.fallback()), (503, None));
    assert_eq!(spare.count.requests(), 0);
    // With a key a second time does no harm.
    let answer = in_time(pay().idempotency_key("k").send()).await.unwrap();
    assert_eq!(answer.fallback(), Some(Fallback::Service));
    assert_eq!(spare.count.requests(), 1);
    // And what never arrived was not done.
    bad.stop().await;
    let answer = in_time(pay().send()).await.unwrap();
    assert_eq!(answer.fallback(), Some(Fallback::Service));
    assert_eq!(spare.count.requests(), 2);
}

#[tokio::test]
async fn another_service_that_does_not_know_who_asks_has_not_answered() {
    let bad = Server::start(|_| async { status(503) }).await;
    for refusal in [401, 403, 429, 500] {
        let spare = Server::start(move |_| async move { status(refusal) }).await;
        let client = with_spare(bad.url(), &spare);
        let answer = in_time(client.get("/").send()).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.fallback()), (503, None));
        assert_eq!(spare.count.requests(), 1, "{refusal}");
    }
}

#[tokio::test]
async fn another_service_that_is_down_as_well_has_a_circuit_of_its_own() {
    let bad = Server::start(|_| async { status(503) }).await;
    let spare = Server::start(|_| async { status(500) }).await;
    let discovery = Discovery::builder()
        .resolver(StaticList::new(vec![instance("spare", &spare)]).unwrap())
        .build();
    let config = config(bad.url(), |config| {
        config.fallback.service = Some("spare".to_owned());
        config.retry.enabled = Some(false);
        config.circuit_breaker.failure_threshold = Some(3);
    });
    let client = EnhancedHttpClient::builder()
        .config(config)
        .discovery(&discovery)
        .build()
        .unwrap();
    for _ in 0..6 {
        in_time(client.get("/").send()).await.ok();
    }
    assert_eq!(spare.count.requests(), 3, "the fourth was refused here");
}

#[tokio::test]
async fn a_mistake_of_ours_is_not_covered_up() {
    let server = Server::start(|_| async { text("hello") }).await;
    let client = EnhancedHttpClient::from_config(config(server.url(), |config| {
        config.fallback.value = Some(json!({ "name": "nobody" }));
    }))
    .unwrap();
    let broken = stream::iter([Err::<bytes::Bytes, _>(std::io::Error::other(
        "no such file",
    ))]);
    let put = client.request(Method::PUT, "/").body(Body::stream(broken));
    let error = in_time(put.send()).await.unwrap_err();
    assert!(
        error.to_string().contains("the stream of a body"),
        "{error}"
    );
    client.shutdown(tokio::time::Instant::now()).await;
    in_time(client.get("/").send()).await.unwrap_err();
}

#[tokio::test]
async fn another_service_is_not_told_who_asks() {
    let bad = Server::start(|_| async { status(503) }).await;
    let spare = Server::start(async |request: Request<Incoming>| {
        let names = request.headers().keys().map(ToString::to_string);
        text(names.collect::<Vec<_>>().join(" "))
    })
    .await;
    let list = vec![instance("users", &bad), instance("users-archive", &spare)];
    let discovery = Discovery::builder()
        .resolver(StaticList::new(list).unwrap())
        .build();
    let mut config = config("", |config| {
        config.fallback.service = Some("users-archive".to_owned());
        config.retry.enabled = Some(false);
        config
            .headers
            .insert("x-partner-key".to_owned(), "k".into());
    });
    config.base_url = None;
    config.service = Some("users".to_owned());
    let client = EnhancedHttpClient::builder()
        .config(config)
        .discovery(&discovery)
        .build()
        .unwrap();
    let request = client
        .get("/users/1")
        .bearer("token")
        .header("accept-language", "de")
        .idempotency_key("once");
    let response = in_time(request.send()).await.unwrap();
    assert_eq!(response.fallback(), Some(Fallback::Service));
    let seen = response.text().await.unwrap();
    for name in ["accept-language", "idempotency-key", "x-correlation-id"] {
        assert!(seen.contains(name), "{name}: {seen}");
    }
    for name in ["authorization", "x-partner-key"] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_found_is_no_fallback() {
    let config = config("http://localhost:1", |config| {
        config.fallback.service = Some("users-archive".to_owned());
    });
    let error = EnhancedHttpClient::from_config(config.clone()).unwrap_err();
    assert_eq!(error.kind(), trunkline_core::ErrorKind::Config);
    assert!(error.to_string().contains("users-archive"), "{error}");
    // It never asks anybody else.
    trunkline_http::HttpClient::from_config(config).unwrap();
}
