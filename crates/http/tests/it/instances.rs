//! Which of several instances a call goes to, seen from the servers.

use std::time::Duration;

use trunkline_discovery::{
    BalanceStrategy, Instances, LoadBalancerConfig, ServiceInstance, ServiceName,
};
use trunkline_http::{EnhancedHttpClient, HttpClientConfig};

use crate::rig::{Server, status, text};

fn instances(servers: &[&Server]) -> Instances {
    instances_with(servers, &LoadBalancerConfig::default())
}

fn instances_with(servers: &[&Server], balance: &LoadBalancerConfig) -> Instances {
    let name = ServiceName::new("users").unwrap();
    let all = servers
        .iter()
        .map(|server| ServiceInstance::new(name.clone(), "127.0.0.1", server.address.port()))
        .collect();
    Instances::fixed_with(name, all, balance)
}

fn balanced(servers: &[&Server]) -> EnhancedHttpClient {
    let mut config = HttpClientConfig::default();
    config.retry.delay = Some(Duration::from_millis(1));
    EnhancedHttpClient::builder()
        .config(config)
        .instances(instances(servers))
        .build()
        .unwrap()
}

/// One that never answers slowly would otherwise be everybody's choice.
#[tokio::test]
async fn an_instance_that_http_cannot_call_draws_no_calls() {
    let server = Server::start(|_| async { text("hello") }).await;
    let name = ServiceName::new("users").unwrap();
    let at = |host: &str| ServiceInstance::new(name.clone(), host, server.address.port());
    let all = vec![
        at("127.0.0.1"),
        at("127.0.0.1").with_id("shouts").with_protocol("HTTP"),
        at("127.0.0.1").with_id("stranger").with_protocol("grpc"),
        at("no host").with_id("nowhere"),
    ];
    let mut config = HttpClientConfig::default();
    config.retry.enabled = Some(false);
    let instances = Instances::fixed_with(name, all, &LoadBalancerConfig::default());
    let client = EnhancedHttpClient::builder()
        .config(config)
        .instances(instances);
    let client = client.build().unwrap();
    for _ in 0..50 {
        client.get("/").await.unwrap();
    }
    assert_eq!(server.count.requests(), 50);
}

#[tokio::test]
async fn only_instances_that_http_cannot_call_are_named_in_the_error() {
    let name = ServiceName::new("users").unwrap();
    let only = ServiceInstance::new(name.clone(), "127.0.0.1", 1).with_protocol("grpc");
    let instances = Instances::fixed_with(name, vec![only], &LoadBalancerConfig::default());
    let client = EnhancedHttpClient::builder().instances(instances);
    let error = client.build().unwrap().get("/").await.unwrap_err();
    assert!(error.to_string().contains("`grpc`"), "{error}");
}

#[tokio::test]
async fn a_retry_asks_another_instance() {
    let bad = Server::start(|_| async { status(503) }).await;
    let good = Server::start(|_| async { text("hello") }).await;
    let client = balanced(&[&bad, &good]);
    for _ in 0..4 {
        assert_eq!(client.get("/").await.unwrap().status(), 200);
    }
    assert!(bad.count.requests() <= 4 && good.count.requests() == 4);
}

#[tokio::test]
async fn what_could_not_be_sent_is_sent_to_another_instance_though_nothing_is_retried() {
    let good = Server::start(|_| async { text("hello") }).await;
    let name = ServiceName::new("users").unwrap();
    // A rack of them.
    let mut all: Vec<_> = (0..12)
        .map(|_| ServiceInstance::new(name.clone(), "127.0.0.1", unused_port()))
        .collect();
    all.push(ServiceInstance::new(
        name.clone(),
        "127.0.0.1",
        good.address.port(),
    ));
    for _ in 0..20 {
        let client = EnhancedHttpClient::builder()
            .instances(Instances::fixed(name.clone(), all.clone()))
            .retry_enabled(false)
            .build()
            .unwrap();
        let answer = client.post("/").body("once").send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(good.count.requests(), 20);
    all.pop();
    let client = EnhancedHttpClient::builder()
        .instances(Instances::fixed(name, all))
        .retry_enabled(false)
        .build()
        .unwrap();
    let error = client.get("/").await.unwrap_err();
    assert!(error.to_string().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn calls_about_the_same_user_go_to_the_same_instance() {
    let servers = [
        Server::start(|_| async { text("1") }).await,
        Server::start(|_| async { text("2") }).await,
        Server::start(|_| async { text("3") }).await,
    ];
    let balance = LoadBalancerConfig::new(BalanceStrategy::ConsistentHash);
    let all: Vec<&Server> = servers.iter().collect();
    let client = EnhancedHttpClient::builder()
        .instances(instances_with(&all, &balance))
        .build()
        .unwrap();
    let mut asked = std::collections::BTreeSet::new();
    for user in 0..20 {
        let call = || async {
            let request = client.get("/").affinity(format!("user-{user}"));
            request.send().await.unwrap().text().await.unwrap()
        };
        let first = call().await;
        assert_eq!(call().await, first);
        asked.insert(first);
    }
    assert!(asked.len() > 1, "{asked:?}");
}

#[tokio::test]
async fn an_instance_that_says_when_it_is_to_be_asked_again_is_not_asked_before() {
    let busy = Server::start(|_| async {
        let mut answer = status(503);
        answer.headers_mut().insert("retry-after", 600.into());
        answer
    })
    .await;
    let good = Server::start(|_| async { text("hello") }).await;
    let client = balanced(&[&busy, &good]);
    let mut refused = 0;
    for _ in 0..20 {
        // It asks for more time than a retry has.
        refused += usize::from(client.get("/").await.unwrap().status() == 503);
    }
    assert!(refused <= 1, "{refused}");
    assert_eq!(busy.count.requests(), refused);
    assert_eq!(good.count.requests(), 20 - refused);
}

/// A port that nobody listens at.
fn unused_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn an_instance_that_is_gone_is_not_asked_again() {
    let gone = Server::start(|_| async { text("hello") }).await;
    let good = Server::start(|_| async { text("hello") }).await;
    gone.stop().await;
    let client = balanced(&[&gone, &good]);
    // POST too: what could not be connected to was not sent.
    for _ in 0..20 {
        assert_eq!(client.post("/").json(&1).await.unwrap().status(), 200);
    }
    assert_eq!(good.count.requests(), 20);
}

#[tokio::test]
async fn requests_are_spread_over_the_instances() {
    let servers = [
        Server::start(|_| async { text("1") }).await,
        Server::start(|_| async { text("2") }).await,
    ];
    let balance = LoadBalancerConfig::new(BalanceStrategy::RoundRobin);
    let instances = instances_with(&[&servers[0], &servers[1]], &balance);
    let client = EnhancedHttpClient::builder()
        .instances(instances)
        .build()
        .unwrap();
    for _ in 0..40 {
        client.get("/").await.unwrap().text().await.unwrap();
    }
    for server in &servers {
        assert_eq!(server.count.requests(), 20);
    }
}

/// Answers one request on its first connection and closes it at the next one, as a server does that saw it unused.
async fn closes_its_first_connection() -> Server {
    Server::scripted(|number, mut raw| async move {
        raw.request().await;
        raw.answer("hello").await;
        while raw.request().await.is_some() && number > 0 {
            raw.answer("hello").await;
        }
    })
    .await
}

fn by_rule(servers: &[&Server], rule: BalanceStrategy) -> EnhancedHttpClient {
    EnhancedHttpClient::builder()
        .instances(instances_with(servers, &LoadBalancerConfig::new(rule)))
        .build()
        .unwrap()
}

#[tokio::test]
async fn what_a_closed_connection_did_not_carry_goes_to_another_instance() {
    let closes = closes_its_first_connection().await;
    let other = Server::start(|_| async { text("hello") }).await;
    let client = by_rule(&[&closes, &other], BalanceStrategy::RoundRobin);
    while closes.count.requests() < 2 {
        let before = other.count.requests();
        assert_eq!(client.get("/").await.unwrap().status(), 200);
        if closes.count.requests() > 1 {
            assert_eq!(other.count.requests(), before + 1);
            assert_eq!(closes.count.requests(), 2, "it was not asked once more");
        }
    }
    // Where there is no other, it is asked once more, as before.
    let only = closes_its_first_connection().await;
    let client = by_rule(&[&only], BalanceStrategy::RoundRobin);
    for _ in 0..2 {
        assert_eq!(client.get("/").await.unwrap().status(), 200);
    }
    assert_eq!(only.count.requests(), 3);
}

#[tokio::test]
async fn a_closed_connection_moves_no_call_with_a_key() {
    let (one, two) = (
        closes_its_first_connection().await,
        closes_its_first_connection().await,
    );
    let client = by_rule(&[&one, &two], BalanceStrategy::ConsistentHash);
    for _ in 0..2 {
        let answer = client.get("/").affinity("user-7").await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let mut requests = [one.count.requests(), two.count.requests()];
    requests.sort_unstable();
    assert_eq!(requests, [0, 3]);
}
