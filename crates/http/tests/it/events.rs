//! Server-sent events over connections that end.

use std::time::Duration;

use serde_json::json;
use trunkline_core::Context;
use trunkline_http::{
    AddressDenied, BodyTooLarge, EnhancedHttpClient, HttpClientConfig, ServiceError,
};

use crate::rig::{Raw, Server, enhanced, in_time};

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n";

/// Answers each connection with the next of these texts, and says with which id it was asked.
async fn server(
    answers: &'static [&'static str],
) -> (Server, tokio::sync::mpsc::UnboundedReceiver<Option<String>>) {
    let (sender, asked) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::scripted(move |number, mut raw: Raw| {
        let sender = sender.clone();
        async move {
            let request = raw.request().await.unwrap();
            assert!(request.contains("accept: text/event-stream"), "{request}");
            let id = request
                .lines()
                .find_map(|line| line.strip_prefix("last-event-id: "));
            // Whoever does not ask is not asked.
            drop(sender.send(id.map(str::to_owned)));
            match answers.get(number) {
                Some(answer) => raw.write(answer.as_bytes()).await,
                None => raw.write("HTTP/1.1 204 No Content\r\n\r\n").await,
            }
        }
    })
    .await;
    (server, asked)
}

fn answer(events: &str) -> &'static str {
    Box::leak(format!("{HEAD}{events}").into_boxed_str())
}

fn answers(texts: &[&'static str]) -> &'static [&'static str] {
    Box::leak(texts.to_vec().into_boxed_slice())
}

#[tokio::test]
async fn a_stream_goes_on_where_it_was() {
    let (server, mut asked) = server(answers(&[
        answer("retry: 1\nid: 1\ndata: {\"n\":1}\n\nid: 2é\nevent: two\ndata: 2\n\nid: 3\ndata: cut off"),
        // Some failures on the way, over which it goes on.
        "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 O",
        answer(": nothing new\n\n"),
        answer("data: three\n\n"),
    ]))
    .await;
    let client = EnhancedHttpClient::builder()
        .base_url(server.url())
        .retry_enabled(false)
        .build()
        .unwrap();
    let mut events = client.get("/events").events().unwrap();
    let first = in_time(events.next()).await.unwrap().unwrap();
    assert_eq!(
        first.json::<serde_json::Value>().unwrap(),
        json!({ "n": 1 })
    );
    assert_eq!((first.event.as_str(), first.id.as_str()), ("message", "1"));
    let second = in_time(events.next()).await.unwrap().unwrap();
    assert_eq!((second.event.as_str(), second.data.as_str()), ("two", "2"));
    assert_eq!(events.last_event_id(), "2é");
    let third = in_time(events.next()).await.unwrap().unwrap();
    assert_eq!((third.data.as_str(), third.id.as_str()), ("three", "2é"));
    assert!(in_time(events.next()).await.is_none(), "204 ends it");
    let mut ids = Vec::new();
    while let Ok(id) = asked.try_recv() {
        ids.push(id);
    }
    let two = || Some("2é".to_owned());
    assert_eq!(ids, [None, two(), two(), two(), two(), two()]);
    assert!(in_time(events.next()).await.is_none());
}

#[tokio::test]
async fn what_connecting_again_would_not_mend_ends_it() {
    for (text, what) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}",
            "application/json",
        ),
    ] {
        let (server, _asked) = server(answers(&[text])).await;
        let client = enhanced(server.url());
        let mut events = client.get("/events").events().unwrap();
        let error = in_time(events.next()).await.unwrap().unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(in_time(events.next()).await.is_none());
        assert_eq!(server.count.requests(), 1);
    }
}

#[tokio::test]
async fn what_is_forbidden_or_too_late_ends_it() {
    let (server, _asked) = server(answers(&[])).await;
    let mut config = HttpClientConfig::new(server.url());
    config.deny_private_addresses = true;
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let mut events = client.get("/events").events().unwrap();
    let error = trunkline_core::Error::from(in_time(events.next()).await.unwrap().unwrap_err());
    assert!(error.find::<AddressDenied>().is_some(), "{error}");
    assert!(in_time(events.next()).await.is_none());

    let late = Context::new().with_timeout(Duration::ZERO);
    let client = enhanced(server.url());
    let request = client.get("/events").context(late);
    let mut events = request.events().unwrap();
    let error = in_time(events.next()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, ServiceError::ServiceTimeout(_)),
        "{error:?}"
    );
    assert!(in_time(events.next()).await.is_none());
    assert_eq!(server.count.requests(), 0);
}

#[tokio::test]
async fn an_event_larger_than_allowed_is_an_error_and_not_kept() {
    let (server, _asked) = server(answers(&[answer(Box::leak(
        format!("data: {}\n\n", "x".repeat(5000)).into_boxed_str(),
    ))]))
    .await;
    let mut config = HttpClientConfig::new(server.url());
    config.max_response_size = trunkline_core::size::ByteSize::new(1000);
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let mut events = client.get("/events").events().unwrap();
    let error = in_time(events.next()).await.unwrap().unwrap_err();
    let error = trunkline_core::Error::from(error);
    assert_eq!(error.find::<BodyTooLarge>().unwrap().limit, 1000);
}

#[tokio::test]
async fn a_connection_that_falls_silent_is_replaced() {
    let server = Server::scripted(|number, mut raw: Raw| async move {
        raw.request().await.unwrap();
        raw.write(format!("{HEAD}retry: 1\nid: {number}\ndata: {number}\n\n"))
            .await;
        raw.until_closed().await;
    })
    .await;
    let mut config = HttpClientConfig::new(server.url());
    config.timeout.read = Some(Duration::from_millis(50));
    config.timeout.total = Some(Duration::from_secs(20));
    let client = EnhancedHttpClient::from_config(config).unwrap();
    let mut events = client.get("/events").events().unwrap();
    for number in 0..3 {
        let event = in_time(events.next()).await.unwrap().unwrap();
        assert_eq!(event.data, number.to_string());
    }
}

#[tokio::test]
async fn waiting_for_an_event_can_be_given_up_and_taken_up_again() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let server = Server::scripted(move |_, mut raw: Raw| {
        let mut gone = gone.clone();
        async move {
            raw.request().await.unwrap();
            raw.write(format!("{HEAD}data: zero\n\ndata: on")).await;
            gone.wait_for(|gone| *gone).await.unwrap();
            raw.write("e\n\n").await;
            raw.until_closed().await;
        }
    })
    .await;
    let client = enhanced(server.url());
    let mut events = client.get("/events").events().unwrap();
    let event = in_time(events.next()).await.unwrap().unwrap();
    assert_eq!(event.data, "zero");
    for _ in 0..10 {
        tokio::select! {
            biased;
            event = events.next() => panic!("{event:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    go.send(true).unwrap();
    let event = in_time(events.next()).await.unwrap().unwrap();
    assert_eq!(event.data, "one");
    assert_eq!(server.count.requests(), 1);
}

#[tokio::test]
async fn what_cannot_be_asked_again_is_refused() {
    let client = enhanced("http://localhost:1");
    let body = futures_util::stream::empty::<Result<bytes::Bytes, trunkline_core::Error>>();
    let request = client
        .post("/events")
        .body(trunkline_http::Body::stream(body));
    let error = request.events().unwrap_err();
    assert!(matches!(error, ServiceError::Validation(_)), "{error:?}");
}

/// A POST may do something each time: the end of what it streams is the end.
#[tokio::test]
async fn what_may_do_something_is_not_asked_again() {
    let (server, _asked) = server(answers(&[
        answer("retry: 1\ndata: one\n\n"),
        answer("retry: 1\ndata: two\n\n"),
    ]))
    .await;
    let client = enhanced(server.url());
    let mut events = client.post("/complete").json(&1).events().unwrap();
    let event = in_time(events.next()).await.unwrap().unwrap();
    assert_eq!(event.data, "one");
    assert!(in_time(events.next()).await.is_none());
    assert_eq!(server.count.requests(), 1);
    for events in [
        client.post("/complete").json(&1).idempotency_key("k"),
        client.post("/complete").json(&1).idempotent(true),
    ] {
        let mut events = events.events().unwrap();
        while in_time(events.next()).await.is_some() {}
    }
    assert!(server.count.requests() > 3, "{}", server.count.requests());
}

#[tokio::test]
async fn what_may_have_been_done_ends_in_the_error_that_it_met() {
    for text in [
        "HTTP/1.1 200 O",
        "HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99\r\n\r\ndata: cut off",
    ] {
        let (server, _asked) = server(answers(&[text])).await;
        let client = enhanced(server.url());
        let mut events = client.post("/complete").json(&1).events().unwrap();
        let error = in_time(events.next()).await.unwrap().unwrap_err();
        assert_eq!(
            error.kind(),
            trunkline_core::ErrorKind::Unavailable,
            "{text}"
        );
        assert!(in_time(events.next()).await.is_none());
        assert_eq!(server.count.requests(), 1, "{text}");
    }
}
