//! Time: how long a call may take, and what the next hop is told about it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use tokio::time::Instant;
use trunkline_core::Context;
use trunkline_http::{EnhancedHttpClient, HttpClient, HttpClientConfig, ServiceError};

use crate::rig::{SOON, Server, eventually, status, text};

fn left(request: &Request<Incoming>) -> u64 {
    request.headers()["x-request-timeout-ms"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[tokio::test]
async fn a_call_ends_with_its_total_time() {
    let server = Server::start(|_| std::future::pending()).await;
    for total in [50, 200] {
        let total = Duration::from_millis(total);
        let client = HttpClient::builder()
            .base_url(server.url())
            .timeout(total)
            .build()
            .unwrap();
        let began = Instant::now();
        let error = client.get("/").await.unwrap_err();
        assert!(
            matches!(error, ServiceError::ServiceTimeout(_)),
            "{error:?}"
        );
        assert!(began.elapsed() >= total);
    }
}

#[tokio::test]
async fn the_total_includes_every_attempt_and_wait() {
    let server = Server::start(|_| std::future::pending()).await;
    let mut config = HttpClientConfig::new(server.url()).with_timeout(Duration::from_millis(700));
    config.request_timeout = Some(Duration::from_millis(200));
    config.retry.delay = Some(Duration::from_millis(100));
    config.retry.backoff = Some(1.0);
    config.retry.max_attempts = Some(100);
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let began = Instant::now();
    let error = client.get("/").await.unwrap_err();
    assert!(
        matches!(error, ServiceError::ServiceTimeout(_)),
        "{error:?}"
    );
    // Without the total it would be a quarter of a minute at least.
    assert!(began.elapsed() < Duration::from_secs(12));
    let attempts = error.retry_exhausted().unwrap().attempts;
    assert!((2..=4).contains(&attempts), "{attempts}");
}

#[tokio::test]
async fn the_callers_deadline_bounds_a_call_and_is_handed_on() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let server = Server::start(move |request| {
        heard.lock().unwrap().push(left(&request));
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            status(503)
        }
    })
    .await;
    let mut config = HttpClientConfig::new(server.url());
    config.retry.delay = Some(Duration::from_millis(200));
    config.retry.jitter = Some(false);
    config.retry.backoff = Some(1.0);
    config.retry.max_attempts = Some(10);
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let context = Context::new().with_timeout(Duration::from_secs(1));
    let deadline = context.deadline().unwrap();
    // The last answer, or the word that there was none in time.
    drop(client.get("/").context(context).await);
    assert!(Instant::now() < deadline + Duration::from_secs(10));
    // Each attempt is told what is left then, not what was left at first.
    let told = told.lock().unwrap().clone();
    assert!((2..=4).contains(&told.len()), "{told:?}");
    assert!(told[0] <= 1000, "{told:?}");
    for pair in told.windows(2) {
        assert!(pair[1] + 300 <= pair[0], "{told:?}");
    }
}

#[tokio::test]
async fn nothing_is_sent_when_no_time_is_left() {
    let server = Server::start(|_| async { text("hello") }).await;
    let client = EnhancedHttpClient::new(server.url()).unwrap();
    let late = Context::new().with_timeout(Duration::ZERO);
    let error = client.get("/").context(late).await.unwrap_err();
    assert!(
        matches!(error, ServiceError::ServiceTimeout(_)),
        "{error:?}"
    );
    assert_eq!(server.count.total(), 0);
}

#[tokio::test]
async fn one_call_may_take_less_or_more_time() {
    let server = Server::start(|_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        text("hello")
    })
    .await;
    let total = Duration::from_millis(200);
    let client = HttpClient::builder()
        .base_url(server.url())
        .timeout(total)
        .build()
        .unwrap();
    assert!(matches!(
        client.get("/").await,
        Err(ServiceError::ServiceTimeout(_))
    ));
    let attempt = client
        .get("/")
        .timeout(SOON)
        .request_timeout(Duration::from_millis(50));
    assert!(matches!(
        attempt.await,
        Err(ServiceError::ServiceTimeout(_))
    ));
    let patient = client.get("/").timeout(SOON).await.unwrap();
    assert_eq!(patient.text().await.unwrap(), "hello");
}

#[tokio::test]
async fn a_dropped_call_frees_what_it_held() {
    let server = Server::start(|_| std::future::pending()).await;
    let mut config = HttpClientConfig::new(server.url()).with_max_connections(1);
    config.bulkhead.max_concurrent = Some(1);
    let client = EnhancedHttpClient::from_config(config).unwrap();
    for round in 1..=3 {
        let caller = client.clone();
        let call = crate::rig::spawn(async move { caller.get("/").await });
        eventually("it is sent", || server.count.requests() == round).await;
        call.abort();
        assert!(call.await.unwrap_err().is_cancelled());
        assert_eq!(client.transport().stats().open, 0);
        let bulkheads = client.policies().bulkhead_states();
        assert!(
            bulkheads.iter().all(|one| one.occupancy.running == 0),
            "{bulkheads:?}"
        );
    }
}
