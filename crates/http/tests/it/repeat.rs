//! A stream that is sent again while the sending before has not ended.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use trunkline_core::Error;
use trunkline_http::{Body, EnhancedHttpClient, HttpClientConfig, Transport, TransportConfig};
use trunkline_resilience::config::RetryConfig;
use trunkline_resilience::{EffectivePolicy, Observer, PolicyRegistry, Target};

use crate::rig::{Server, enhanced, eventually, in_time, spawn};

/// A stream that wakes everybody who has asked it, as a stream may.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    pieces: VecDeque<&'static str>,
    ended: bool,
    askers: Vec<Waker>,
}

impl Pieces {
    fn push(&self, piece: &'static str) {
        self.change(|state| state.pieces.push_back(piece));
    }

    fn end(&self) {
        self.change(|state| state.ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap();
        change(&mut state);
        let askers = std::mem::take(&mut state.askers);
        drop(state);
        askers.iter().for_each(Waker::wake_by_ref);
    }
}

impl Stream for Pieces {
    type Item = Result<Bytes, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut state = self.0.lock().unwrap();
        if let Some(piece) = state.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Bytes::from(piece))));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.askers.push(cx.waker().clone());
        Poll::Pending
    }
}

/// Sends the pieces by an idempotent method and reads the text of the answer.
fn put(client: &EnhancedHttpClient, pieces: &Pieces) -> tokio::task::JoinHandle<(u16, String)> {
    let (client, body) = (client.clone(), Body::stream(pieces.clone()));
    spawn(async move {
        let response = client.request(Method::PUT, "/").body(body).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    })
}

/// The first request is refused at once and read on; the second is answered with what came in it.
async fn refuses_once_and_reads_on() -> Server {
    Server::scripted(|number, mut raw| async move {
        let _head = raw.request().await;
        if number == 0 {
            raw.write("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
                .await;
            raw.until_closed().await;
        } else {
            let whole = raw.chunks().await;
            raw.answer(&whole).await;
        }
    })
    .await
}

#[tokio::test]
async fn pieces_that_come_late_go_to_the_last_sending_alone() {
    let server = refuses_once_and_reads_on().await;
    let pieces = Pieces::default();
    let client = enhanced(server.url());
    let sent = put(&client, &pieces);
    eventually("it is sent again", || server.count.requests() == 2).await;
    for piece in ["a", "b", "c"] {
        pieces.push(piece);
        tokio::task::yield_now().await;
    }
    pieces.end();
    assert_eq!(in_time(sent).await.unwrap(), (200, "abc".to_owned()));
    eventually("the first connection is given up", || {
        server.count.open() == 0
    })
    .await;
}

/// All of it comes when the call has decided to try again, and before it does.
struct Meanwhile(Pieces);

impl Observer for Meanwhile {
    fn retrying(&self, _: &Target, _: u32, _: Duration) {
        for piece in ["abc", "def", "ghi"] {
            self.0.push(piece);
        }
        self.0.end();
    }
}

#[tokio::test]
async fn pieces_that_come_between_two_sendings_are_left_for_the_second() {
    let server = refuses_once_and_reads_on().await;
    let pieces = Pieces::default();
    let observer = Arc::new(Meanwhile(pieces.clone()));
    let policies = PolicyRegistry::builder().observer(observer).build();
    let mut policy = EffectivePolicy::default();
    policy.retry.delay = Duration::from_millis(50);
    let policy = Arc::new(policy);
    // It is more than may be kept.
    let client = EnhancedHttpClient::builder()
        .base_url(server.url())
        .policies(&policies, move |_| Arc::clone(&policy))
        .replay_limit(4)
        .build()
        .unwrap();
    let sent = put(&client, &pieces);
    assert_eq!(in_time(sent).await.unwrap(), (200, "abcdefghi".to_owned()));
}

#[tokio::test]
async fn an_upload_that_is_not_repeated_after_all_goes_on() {
    let whole = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&whole);
    let server = Server::scripted(move |_, mut raw| {
        let seen = Arc::clone(&seen);
        async move {
            let _head = raw.request().await;
            raw.write("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
                .await;
            *seen.lock().unwrap() = Some(raw.chunks().await);
        }
    })
    .await;
    let mut retry = RetryConfig::default();
    retry.max_attempts = Some(1);
    let config = HttpClientConfig::new(server.url()).with_retry(retry);
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let pieces = Pieces::default();
    pieces.push("a");
    assert_eq!(in_time(put(&client, &pieces)).await.unwrap().0, 503);
    pieces.push("b");
    pieces.end();
    eventually("the server gets the whole", || {
        whole.lock().unwrap().is_some()
    })
    .await;
    assert_eq!(whole.lock().unwrap().as_deref(), Some("ab"));
}

#[tokio::test]
async fn over_http2_too_the_last_sending_gets_the_whole() {
    let bodies = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&bodies);
    let server = Server::start_with(move |request: Request<Incoming>| {
        let kept = Arc::clone(&kept);
        async move {
            let first = kept.lock().unwrap().is_empty();
            if !first {
                let whole = request.into_body().collect().await.unwrap().to_bytes();
                return Response::new(Body::from(whole));
            }
            kept.lock().unwrap().push(());
            // Reads on for as long as anything comes.
            spawn(async move { drop(request.into_body().collect().await) });
            Response::builder().status(503).body(Body::empty()).unwrap()
        }
    })
    .await;
    let mut config = TransportConfig::default();
    config.http2_prior_knowledge = true;
    let mut retry = RetryConfig::default();
    retry.delay = Some(Duration::from_millis(1));
    let client = EnhancedHttpClient::builder()
        .config(HttpClientConfig::new(server.url()).with_retry(retry))
        .transport(Transport::new(&config).unwrap())
        .build()
        .unwrap();
    let pieces = Pieces::default();
    let sent = put(&client, &pieces);
    eventually("it is sent again", || server.count.requests() == 2).await;
    for piece in ["a", "b", "c"] {
        pieces.push(piece);
        tokio::task::yield_now().await;
    }
    pieces.end();
    assert_eq!(in_time(sent).await.unwrap(), (200, "abc".to_owned()));
}
