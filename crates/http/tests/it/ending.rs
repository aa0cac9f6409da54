//! Answers whose head is good and whose body is judged by how it ends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use trunkline_discovery::{
    BalanceStrategy, EjectionConfig, Instances, LoadBalancerConfig, ServiceName,
};
use trunkline_http::{Body, ClientBuilder, EnhancedHttpClient, HttpClientConfig};
use trunkline_resilience::breaker::{CircuitPer, State};
use trunkline_telemetry::{Format, Metrics};

use crate::rig::{Raw, SOON, Server, eventually, in_time, instance, spawn};

const BEGIN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello";

/// Begins every answer; how it goes on is said by the number of the request.
async fn begins<F, Fut>(go_on: F) -> Server
where
    F: Fn(usize, Raw) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    Server::scripted(move |number, mut raw| {
        let go_on = go_on.clone();
        async move {
            if raw.request().await.is_some() {
                raw.write(BEGIN).await;
                go_on(number, raw).await;
            }
        }
    })
    .await
}

/// The second half comes, and the connection is closed, when the test says so.
async fn when_told(told: &Arc<Notify>, whole: bool) -> Server {
    let told = Arc::clone(told);
    begins(move |_, mut raw| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            if whole {
                raw.write("world").await;
            }
        }
    })
    .await
}

fn builder(recovery: Duration, url: &str) -> ClientBuilder<EnhancedHttpClient> {
    builder_per(CircuitPer::Endpoint, recovery, url)
}

fn builder_per(
    per: CircuitPer,
    recovery: Duration,
    url: &str,
) -> ClientBuilder<EnhancedHttpClient> {
    let mut config = HttpClientConfig::new(url);
    config.circuit_breaker.per = Some(per);
    config.retry.enabled = Some(false);
    config.circuit_breaker.failure_threshold = Some(2);
    config.circuit_breaker.success_threshold = Some(1);
    config.circuit_breaker.recovery_timeout = Some(recovery);
    EnhancedHttpClient::builder().config(config)
}

const LONG: Duration = Duration::from_secs(600);

fn state(client: &EnhancedHttpClient) -> State {
    client.circuit_states()[0].circuit.state
}

fn failures(client: &EnhancedHttpClient) -> u32 {
    client.circuit_states()[0].circuit.failure_count
}

#[tokio::test]
async fn a_body_that_breaks_off_is_a_failure() {
    for per in [CircuitPer::Endpoint, CircuitPer::Instance] {
        let told = Arc::new(Notify::new());
        let server = when_told(&told, false).await;
        let metrics = Metrics::new();
        metrics.set_detailed(true);
        let mut config = HttpClientConfig::new(server.url());
        config.retry.enabled = Some(false);
        config.circuit_breaker.per = Some(per);
        config.circuit_breaker.failure_threshold = Some(2);
        let client = EnhancedHttpClient::builder().config(config);
        let client = client.metrics(&metrics).build().unwrap();
        for before in 0..2 {
            let answer = in_time(client.get("/").send()).await.unwrap();
            assert_eq!(answer.status(), 200);
            assert_eq!(failures(&client), before, "nothing is known yet");
            told.notify_one();
            in_time(answer.text()).await.unwrap_err();
        }
        assert_eq!(state(&client), State::Open, "{per:?}");
        assert!(
            in_time(client.get("/").send())
                .await
                .unwrap_err()
                .circuit_open()
                .is_some()
        );
        assert_eq!(server.count.requests(), 2);
        let shown = metrics.render(Format::Prometheus).unwrap();
        for counted in [
            format!(r#"instance="{}",outcome="failure"}} 2"#, server.address),
            r#"http_response_status_code="",error_type="unavailable"} 2"#.to_owned(),
        ] {
            assert!(shown.contains(&counted), "{counted} is not in\n{shown}");
        }
    }
}

#[tokio::test]
async fn a_body_that_comes_whole_is_a_success() {
    // Every second answer breaks off.
    let server = begins(|number, mut raw| async move {
        if number % 2 == 1 {
            raw.write("world").await;
        }
    })
    .await;
    let client = builder(LONG, &server.url()).build().unwrap();
    for number in 0..8 {
        let read = in_time(client.get("/").send()).await.unwrap().text().await;
        assert_eq!(read.is_ok(), number % 2 == 1);
        assert_eq!(state(&client), State::Closed, "never two in a row");
    }
}

#[tokio::test]
async fn whoever_hangs_up_while_waiting_says_nothing_unless_some_of_it_had_come() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    // The first breaks off, the second is silent after its head, the third after the first half.
    let server = Server::scripted(|number, mut raw| async move {
        if raw.request().await.is_some() {
            raw.write(if number == 1 { HEAD } else { BEGIN }).await;
            if number > 0 {
                raw.until_closed().await;
            }
        }
    })
    .await;
    let client = builder(LONG, &server.url()).build().unwrap();
    let answer = in_time(client.get("/").send()).await.unwrap();
    in_time(answer.text()).await.unwrap_err();
    assert_eq!(failures(&client), 1);
    let answer = in_time(client.get("/").send()).await.unwrap();
    let mut pieces = Box::pin(answer.stream());
    assert!(pieces.next().now_or_never().is_none(), "more is waited for");
    drop(pieces);
    assert_eq!(failures(&client), 1, "it says nothing");
    let answer = in_time(client.get("/").send()).await.unwrap();
    let mut pieces = Box::pin(answer.stream());
    assert!(in_time(pieces.next()).await.unwrap().is_ok());
    assert!(pieces.next().now_or_never().is_none(), "more is waited for");
    drop(pieces);
    assert_eq!(failures(&client), 0, "it speaks for the service");
}

#[tokio::test]
async fn a_body_without_an_end_closes_a_circuit_that_is_half_open() {
    for per in [CircuitPer::Endpoint, CircuitPer::Instance] {
        // The first two break off, the others have no end.
        let server = begins(|number, mut raw| async move {
            if number > 1 {
                raw.until_closed().await;
            }
        })
        .await;
        let client = builder_per(per, Duration::from_millis(20), &server.url());
        let client = client.build().unwrap();
        for _ in 0..2 {
            let answer = in_time(client.get("/").send()).await.unwrap();
            in_time(answer.text()).await.unwrap_err();
        }
        assert_eq!(state(&client), State::Open, "{per:?}");
        let until = Instant::now() + SOON;
        let mut held = Vec::new();
        while state(&client) != State::Closed {
            assert!(Instant::now() < until, "{per:?}: it never closes");
            match in_time(client.get("/").send()).await {
                Ok(answer) => held.push(answer),
                Err(_) => tokio::task::yield_now().await,
            }
        }
        assert_eq!(held.len(), 1, "{per:?}: its body is still to come");
    }
}

#[tokio::test]
async fn whoever_comes_to_read_when_the_time_is_over_says_nothing() {
    // The first breaks off, the next are silent and break off after the first half.
    let breaks = Arc::new(Notify::new());
    let told = Arc::clone(&breaks);
    let server = begins(move |number, mut raw| {
        let told = Arc::clone(&told);
        async move {
            match number {
                0 => {}
                1 => raw.until_closed().await,
                _ => told.notified().await,
            }
        }
    })
    .await;
    let client = builder(LONG, &server.url()).build().unwrap();
    let answer = in_time(client.get("/").send()).await.unwrap();
    in_time(answer.text()).await.unwrap_err();
    for silent in [true, false] {
        let time = Duration::from_millis(200);
        let answer = in_time(client.get("/").timeout(time).send()).await.unwrap();
        let mut pieces = Box::pin(answer.stream());
        assert!(in_time(pieces.next()).await.unwrap().is_ok());
        tokio::time::sleep(time).await;
        if !silent {
            breaks.notify_one();
            eventually("it is closed", || server.count.open() <= 1).await;
        }
        assert!(in_time(pieces.next()).await.unwrap().is_err());
        assert_eq!(failures(&client), 1, "silent: {silent}");
    }
}

#[tokio::test]
async fn an_upload_that_fails_on_this_side_is_no_failure_of_the_service() {
    // It answers before it has read the request, and waits for the rest of it.
    let server = begins(|_, mut raw| async move { raw.until_closed().await }).await;
    let client = builder(LONG, &server.url()).build().unwrap();
    for _ in 0..3 {
        let fails = Arc::new(Notify::new());
        let told = Arc::clone(&fails);
        let first = futures_util::stream::iter([Ok(Bytes::from_static(b"first"))]);
        let second = futures_util::stream::once(async move {
            told.notified().await;
            Err(trunkline_core::Error::cancelled("the source has gone"))
        });
        let upload = Body::stream(first.chain(second));
        let answer = in_time(client.post("/").body(upload).send()).await.unwrap();
        let mut pieces = Box::pin(answer.stream());
        assert!(in_time(pieces.next()).await.unwrap().is_ok());
        assert!(pieces.next().now_or_never().is_none(), "more is waited for");
        fails.notify_one();
        assert!(in_time(pieces.next()).await.unwrap().is_err());
        assert_eq!(failures(&client), 0);
    }
}

#[tokio::test]
async fn whoever_looks_at_heads_alone_closes_a_circuit_as_well() {
    let server = begins(|number, mut raw| async move {
        if number > 1 {
            raw.until_closed().await;
        }
    })
    .await;
    let client = builder(Duration::from_millis(20), &server.url());
    let client = client.build().unwrap();
    for _ in 0..2 {
        let answer = in_time(client.get("/").send()).await.unwrap();
        in_time(answer.text()).await.unwrap_err();
    }
    assert_eq!(state(&client), State::Open);
    let until = Instant::now() + SOON;
    while state(&client) != State::Closed {
        assert!(Instant::now() < until, "it never closes");
        if let Ok(answer) = in_time(client.get("/").send()).await {
            drop(answer);
        }
    }
}

#[tokio::test]
async fn bodies_that_break_off_with_one_process_are_the_matter_of_ejection() {
    let (told, fine) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let dies = when_told(&told, false).await;
    let lives = when_told(&fine, true).await;
    let ejection = EjectionConfig::default()
        .with_consecutive_failures(1)
        .with_max_percent(50);
    let balance = LoadBalancerConfig::new(BalanceStrategy::RoundRobin).with_ejection(ejection);
    let list = [&dies, &lives].map(|server| instance("users", server));
    let name = ServiceName::new("users").unwrap();
    let instances = Instances::fixed_with(name, list.to_vec(), &balance);
    let mut config = HttpClientConfig::default();
    config.retry.enabled = Some(false);
    config.circuit_breaker.failure_threshold = Some(2);
    let client = EnhancedHttpClient::builder()
        .config(config)
        .instances(instances.clone())
        .build()
        .unwrap();
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            spawn(async move { client.get("/").send().await?.text().await })
        })
        .collect();
    eventually("all are asked", || {
        dies.count.requests() + lives.count.requests() == 8
    })
    .await;
    dies.stop().await;
    eventually("it is out", || {
        instances.snapshot().in_rotation().count() == 1
    })
    .await;
    let until = Instant::now() + SOON;
    let mut ended = Vec::new();
    for call in calls {
        while !call.is_finished() {
            assert!(Instant::now() < until, "it hangs");
            fine.notify_waiters();
            tokio::task::yield_now().await;
        }
        ended.push(call.await.unwrap().is_ok());
    }
    assert_eq!(ended.iter().filter(|whole| **whole).count(), 4);
    assert_eq!(state(&client), State::Closed);
}
