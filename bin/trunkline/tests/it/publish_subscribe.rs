//! `trunkline publish` and `trunkline subscribe`.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place::{Place, Running, eventually, keys};

/// Everything of a topic since its beginning.
async fn all_of(place: &Place, topic: &str, count: &str) -> Vec<Value> {
    let url = place.url();
    let args = [
        "subscribe",
        &url,
        topic,
        "--from",
        "earliest",
        "--count",
        count,
        "--timeout",
        "20s",
        "--output",
        "json",
    ];
    place.run(&args).await.done().json_lines()
}

/// Publishes until somebody subscribes.
async fn reach(place: &Place, topic: &str, payload: &str) {
    let url = place.url();
    eventually(async || {
        let sent = place
            .run(&["publish", &url, topic, payload, "--mandatory"])
            .await;
        (sent.code == Some(0)).then_some(())
    })
    .await;
}

async fn attached(place: &Place, args: &[&str]) -> Running {
    let mut subscriber = place.start(args);
    subscriber.remark("subscribed to").await;
    subscriber
}

#[tokio::test]
async fn a_message_is_one_object_of_exactly_the_documented_fields() {
    let place = Place::new();
    let url = place.url();
    let published = place
        .run(&[
            "publish",
            &url,
            "order.created",
            r#"{"id":1}"#,
            "--key",
            "customer-7",
            "--header",
            "tenant=a",
            "--header",
            "note=x=y",
        ])
        .await
        .done();
    assert!(published.text().starts_with("published "), "{published:?}");
    assert!(published.text().contains("topic order.created"));

    let seen = all_of(&place, "order.created", "1").await;
    assert_eq!(
        keys(&seen[0]),
        [
            "attempt",
            "content_type",
            "headers",
            "key",
            "payload",
            "topic"
        ]
    );
    assert_eq!(seen[0]["topic"], "order.created");
    assert_eq!(seen[0]["key"], "customer-7");
    assert_eq!(seen[0]["headers"]["tenant"], "a");
    assert_eq!(seen[0]["headers"]["note"], "x=y");
    assert_eq!(seen[0]["content_type"], "application/json");
    assert_eq!(seen[0]["payload"], json!({ "id": 1 }));
    assert_eq!(seen[0]["attempt"], 1);
}

#[tokio::test]
async fn a_confirm_as_json_says_what_became_of_the_message() {
    let place = Place::new();
    let url = place.url();
    let confirm: Value = place
        .run(&["publish", &url, "a.b", "1", "--output", "json"])
        .await
        .done()
        .json();
    assert_eq!(keys(&confirm), ["destination", "id", "position", "routed"]);
    assert_eq!(confirm["destination"], "topic a.b");
    assert_eq!(confirm["routed"], false);
    assert!(confirm["position"].is_u64(), "{confirm}");
}

#[tokio::test]
async fn a_payload_comes_from_stdin_byte_for_byte() {
    let place = Place::new();
    let url = place.url();
    for (args, input) in [
        (&["publish", &url, "in", "-"][..], &b"from a dash\n"[..]),
        (&["publish", &url, "in"], b"from nothing"),
        (&["publish", &url, "in", "-"], b"\x00\xff\xfe"),
        (&["publish", &url, "in", "-"], b""),
        (
            &["publish", &url, "in", "-", "--content-type", "image/png"],
            b"{}",
        ),
    ] {
        place.feed(args, input).await.done();
    }
    let seen = all_of(&place, "in", "5").await;
    let told: Vec<_> = seen
        .iter()
        .map(|line| (line["content_type"].as_str().unwrap(), &line["payload"]))
        .collect();
    assert_eq!(
        told,
        [
            ("text/plain; charset=utf-8", &json!("from a dash\n")),
            ("text/plain; charset=utf-8", &json!("from nothing")),
            ("application/octet-stream", &json!("0x00fffe")),
            ("text/plain; charset=utf-8", &json!("")),
            ("image/png", &json!("{}")),
        ]
    );
}

#[tokio::test]
async fn people_read_topic_key_and_payload() {
    let place = Place::new();
    let url = place.url();
    place
        .run(&["publish", &url, "t", "hello", "--key", "k"])
        .await
        .done();
    let seen = place
        .run(&["subscribe", &url, "t", "--from", "earliest", "--count", "1"])
        .await
        .done();
    assert_eq!(seen.text(), "t key=k hello\n");
}

#[tokio::test]
async fn a_pattern_takes_the_topics_that_fit_and_only_what_comes_from_now_on() {
    let place = Place::new();
    let url = place.url();
    place
        .run(&["publish", &url, "order.created", "0"])
        .await
        .done();
    let mut one = attached(&place, &["subscribe", &url, "order.*"]).await;
    let mut many = attached(&place, &["subscribe", &url, "order.#", "--from", "latest"]).await;
    for (topic, payload) in [
        ("order.created.eu", "1"),
        ("other", "2"),
        ("order.paid", "3"),
    ] {
        place.run(&["publish", &url, topic, payload]).await.done();
    }
    assert_eq!(one.line().await, "order.paid 3");
    assert_eq!(many.line().await, "order.created.eu 1");
    assert_eq!(many.line().await, "order.paid 3");
    one.stop(Signal::INT).await.done();
    many.stop(Signal::TERM).await.done();
}

#[tokio::test]
async fn members_of_a_group_go_on_where_it_was() {
    let place = Place::new();
    let url = place.url();
    for payload in ["1", "2", "3"] {
        place.run(&["publish", &url, "t", payload]).await.done();
    }
    let read = async |group: &str, count: &str| {
        let args = [
            "subscribe",
            &url,
            "t",
            "--group",
            group,
            "--from",
            "earliest",
            "--count",
            count,
        ];
        place.run(&args).await.done().text().to_owned()
    };
    assert_eq!(read("a", "2").await, "t 1\nt 2\n");
    assert_eq!(read("a", "1").await, "t 3\n");
    assert_eq!(read("b", "3").await, "t 1\nt 2\nt 3\n");
}

#[tokio::test]
async fn members_of_a_group_share_its_messages() {
    let place = Place::new();
    let url = place.url();
    let args = ["subscribe", &url, "t", "--group", "g", "--timeout", "2s"];
    let (one, two) = (attached(&place, &args).await, attached(&place, &args).await);
    for payload in ["1", "2", "3", "4"] {
        place.run(&["publish", &url, "t", payload]).await.done();
    }
    let (one, two) = tokio::join!(one.end(), two.end());
    let (one, two) = (one.done(), two.done());
    let mut seen: Vec<_> = one.text().lines().chain(two.text().lines()).collect();
    seen.sort_unstable();
    assert_eq!(seen, ["t 1", "t 2", "t 3", "t 4"]);
}

#[tokio::test]
async fn a_queue_keeps_its_messages_for_one_reader() {
    let place = Place::new();
    let url = place.url();
    let args = [
        "subscribe",
        &url,
        "work",
        "--queue",
        "--count",
        "1",
        "--timeout",
        "300ms",
    ];
    let send = ["publish", &url, "work", "1", "--queue"];
    place.run(&send).await.refused(1, "there is no queue work");
    // The first reader makes the queue.
    place.run(&args).await.refused(3, "0 of 1 messages");
    place.run(&send).await.done();
    assert_eq!(place.run(&args).await.done().text(), "work 1\n");
    place.run(&args).await.refused(3, "0 of 1 messages");
}

#[tokio::test]
async fn silence_ends_a_subscriber_and_a_count_not_reached_is_exit_3() {
    let place = Place::new();
    let url = place.url();
    let quiet = ["subscribe", &url, "t", "--timeout", "100ms"];
    assert_eq!(place.run(&quiet).await.done().text(), "");
    let counting = ["subscribe", &url, "t", "--timeout", "100ms", "--count", "2"];
    place
        .run(&counting)
        .await
        .refused(3, "0 of 2 messages, then none for 100ms");
    let as_json = [
        "--output",
        "json",
        "subscribe",
        &url,
        "t",
        "--timeout",
        "100ms",
        "--count",
        "2",
    ];
    let error = place.run(&as_json).await.ended(3).error();
    assert_eq!(error["kind"], "timeout");
}

#[tokio::test]
async fn no_confirm_in_time_is_exit_3() {
    let place = Place::new();
    let url = place.url();
    place.run(&["publish", &url, "t", "1"]).await.done();
    // Who writes passes this gate first.
    let gate = std::fs::File::open(place.data().join("broker.gate")).unwrap();
    gate.lock().unwrap();
    let args = ["publish", &url, "t", "2", "--timeout", "300ms"];
    place.run(&args).await.refused(3, "within 300ms");
    let as_json = [&args[..], &["--output", "json"]].concat();
    assert_eq!(
        place.run(&as_json).await.ended(3).error()["kind"],
        "timeout"
    );
    gate.unlock().unwrap();
    place.run(&["publish", &url, "t", "3"]).await.done();
}

#[tokio::test]
async fn a_mandatory_message_needs_a_subscriber() {
    let place = Place::new();
    let url = place.url();
    place
        .run(&["publish", &url, "t", "lost", "--mandatory"])
        .await
        .refused(1, "nobody subscribes");
    let mut subscriber = attached(&place, &["subscribe", &url, "t"]).await;
    reach(&place, "t", "found").await;
    assert_eq!(subscriber.line().await, "t found");
    subscriber.stop(Signal::INT).await.done();
}

#[tokio::test]
async fn a_delayed_message_comes_after_those_that_are_not() {
    let place = Place::new();
    let url = place.url();
    let mut subscriber = attached(&place, &["subscribe", &url, "t"]).await;
    let late = ["publish", &url, "t", "late", "--delay", "1s"];
    place.run(&late).await.done();
    place.run(&["publish", &url, "t", "now"]).await.done();
    assert_eq!(subscriber.line().await, "t now");
    assert_eq!(subscriber.line().await, "t late");
    subscriber.stop(Signal::INT).await.done();
}

#[tokio::test]
async fn what_is_typed_wrong_is_exit_2() {
    let place = Place::new();
    let url = place.url();
    for (args, says) in [
        (&["publish", "no url", "t", "1"][..], "not a connection URL"),
        (&["publish", "pigeons://x", "t", "1"], "pigeons"),
        (&["publish", &url, "order.*", "1"], "is no topic name"),
        (
            &["publish", &url, "t", "1", "--header", "x"],
            "write NAME=VALUE",
        ),
        (
            &["publish", &url, "t", "1", "--header", "=x"],
            "write NAME=VALUE",
        ),
        (
            &["publish", &url, "t", "1", "--delay", "soon"],
            "is not a duration",
        ),
        (&["subscribe", &url, "a..b"], "is no topic pattern"),
        (&["subscribe", &url, "t", "--count", "0"], "--count"),
        (&["subscribe", &url, "t", "--from", "middle"], "earliest"),
        (
            &["subscribe", &url, "t", "--queue", "--group", "g"],
            "cannot be used with",
        ),
    ] {
        place.run(args).await.refused(2, says);
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_is_exit_1() {
    let place = Place::new();
    let url = "embedded:///proc/nowhere";
    for args in [&["publish", url, "t", "1"][..], &["subscribe", url, "t"]] {
        place
            .run(args)
            .await
            .refused(1, "cannot connect to embedded:///");
    }
}

#[tokio::test]
async fn a_subscriber_whose_reader_left_ends_and_keeps_nothing_from_the_group() {
    let place = Place::new();
    let url = place.url();
    let args = ["subscribe", &url, "t", "--group", "g"];
    let mut subscriber = place.command(&args).spawn().unwrap();
    drop(subscriber.stdout.take());
    reach(&place, "t", "1").await;
    let ended = crate::place::Outcome::end_of(subscriber).await.done();
    assert!(!ended.stderr.contains("error"), "{}", ended.stderr);
    let next = place
        .run(&["subscribe", &url, "t", "--group", "g", "--count", "1"])
        .await
        .done();
    assert!(next.text().ends_with(" 1\n"), "{}", next.text());
}
