//! `trunkline dlq`, over dead letters that a service made with the library.

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;
use trunkline::messaging::{HandlerError, LetterFilter};
use trunkline::telemetry::{Install, LoggingConfig};
use trunkline::{CommunicationConfig, CommunicationManager};

use crate::place::{Place, SOON, eventually, keys};

const GROUP: &str = "mailer";

/// The service whose handler gives up, or takes, what comes to the group `mailer`.
async fn service(place: &Place) -> CommunicationManager {
    let config = CommunicationConfig::builder()
        .service_name("mail-service")
        .embedded_path(place.data())
        .logging(LoggingConfig::default().with_install(Install::Never))
        .build()
        .unwrap();
    let manager = CommunicationManager::new(config);
    manager.initialize().await.unwrap();
    manager
}

/// A place where the group gave up these messages: topic and reason.
async fn graveyard(letters: &[(&str, &str)]) -> Place {
    let place = Place::new();
    let manager = service(&place).await;
    let messaging = manager.messaging().unwrap();
    let refuse = async |reason: String| Err::<(), _>(HandlerError::dead_letter(reason));
    let subscribing = messaging.subscribe("user.*").group(GROUP).handle(refuse);
    subscribing.await.unwrap();
    for (done, (topic, reason)) in letters.iter().enumerate() {
        messaging
            .publish(*topic, &(*reason).to_owned())
            .await
            .unwrap();
        // One after the other, so that their order is known.
        eventually(async || {
            let page = messaging.dead_letters();
            let page = page.list(GROUP, &LetterFilter::default(), 0, 10).await;
            // The first one makes the queue.
            page.is_ok_and(|page| page.letters.len() > done)
                .then_some(())
        })
        .await;
    }
    manager.shutdown().await.unwrap();
    place
}

/// What the same service handles when it is run again.
async fn handled(place: &Place, count: usize) -> Vec<String> {
    let manager = service(place).await;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let take = move |text: String| {
        let sent = sender.send(text).map_err(HandlerError::retry);
        async move { sent }
    };
    let messaging = manager.messaging().unwrap();
    let subscribing = messaging
        .subscribe("user.*")
        .group(GROUP)
        .concurrency(1)
        .handle(take);
    subscribing.await.unwrap();
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(timeout(SOON, receiver.recv()).await.unwrap().unwrap());
    }
    manager.shutdown().await.unwrap();
    taken
}

async fn listed(place: &Place, filter: &[&str]) -> Vec<Value> {
    let url = place.url();
    let args = [&["dlq", "list", &url, GROUP, "--output", "json"], filter].concat();
    place.run(&args).await.done().json()
}

async fn payloads(place: &Place, filter: &[&str]) -> Vec<String> {
    let letters = listed(place, filter).await;
    let payloads = letters
        .iter()
        .map(|letter| letter["payload"].as_str().unwrap().to_owned());
    payloads.collect()
}

#[tokio::test]
async fn letters_are_listed_oldest_first_and_by_filter() {
    let place = graveyard(&[
        ("user.created", "no address"),
        ("user.deleted", "no such user"),
        ("user.created", "no mail server"),
    ])
    .await;
    assert_eq!(
        payloads(&place, &[]).await,
        ["no address", "no such user", "no mail server"]
    );
    let created = payloads(&place, &["--topic", "user.created"]).await;
    assert_eq!(created, ["no address", "no mail server"]);
    assert_eq!(
        payloads(&place, &["--reason", "such user"]).await,
        ["no such user"]
    );
    assert_eq!(
        payloads(&place, &["--limit", "2"]).await,
        ["no address", "no such user"]
    );
    let letters = listed(&place, &[]).await;
    let id = |at: usize| letters[at]["id"].as_str().unwrap();
    let two = payloads(&place, &["--id", id(2), "--id", id(0)]).await;
    assert_eq!(two, ["no address", "no mail server"]);
    assert!(payloads(&place, &["--id", "unknown"]).await.is_empty());

    let url = place.url();
    let table = place.run(&["dlq", "list", &url, GROUP]).await.done();
    assert_eq!(table.text().lines().count(), 4, "{}", table.text());
    let row = table.text().lines().nth(2).unwrap();
    for word in [id(1), "user.deleted", "handler", "no such user"] {
        assert!(row.contains(word), "{word}: {row}");
    }
}

#[tokio::test]
async fn one_letter_is_shown_whole() {
    let place = graveyard(&[("user.created", "no address")]).await;
    let url = place.url();
    let letter = listed(&place, &[]).await.remove(0);
    assert_eq!(
        keys(&letter),
        [
            "at",
            "attempt",
            "attempts",
            "content_type",
            "error",
            "group",
            "handler",
            "headers",
            "id",
            "key",
            "payload",
            "position",
            "reason",
            "replays",
            "topic",
        ]
    );
    assert_eq!(
        (&letter["attempts"], &letter["replays"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        (&letter["group"], &letter["topic"]),
        (&json!(GROUP), &json!("user.created"))
    );

    let id = letter["id"].as_str().unwrap();
    let shown = place.run(&["dlq", "show", &url, GROUP, id]).await.done();
    for line in [
        format!("id        {id}"),
        "topic     user.created".to_owned(),
        "attempts  1".to_owned(),
        "payload\n  no address".to_owned(),
    ] {
        assert!(shown.text().contains(&line), "{line}: {}", shown.text());
    }
    let args = ["dlq", "show", &url, GROUP, id, "--output", "json"];
    assert_eq!(place.run(&args).await.done().json::<Value>(), letter);
    let unknown = ["dlq", "show", &url, GROUP, "unknown"];
    place
        .run(&unknown)
        .await
        .refused(1, "has no dead letter unknown");
}

#[tokio::test]
async fn replayed_letters_go_back_to_their_group_in_their_order() {
    let place = graveyard(&[("user.a", "1"), ("user.b", "2"), ("user.c", "3")]).await;
    let url = place.url();
    let args = ["dlq", "replay", &url, GROUP, "--id", "unknown"];
    assert_eq!(
        place.run(&args).await.done().text(),
        "replayed 0 letter(s)\n"
    );
    let args = [
        "dlq", "replay", &url, GROUP, "--limit", "1", "--output", "json",
    ];
    let report: Value = place.run(&args).await.done().json();
    assert_eq!(report, json!({ "replayed": 1, "failed": [] }));
    assert_eq!(payloads(&place, &[]).await, ["2", "3"]);
    let args = ["dlq", "replay", &url, GROUP, "--rate", "100"];
    assert_eq!(
        place.run(&args).await.done().text(),
        "replayed 2 letter(s)\n"
    );
    assert!(listed(&place, &[]).await.is_empty());

    assert_eq!(handled(&place, 3).await, ["1", "2", "3"]);
}

#[tokio::test]
async fn nothing_is_dropped_unless_it_is_said_what() {
    let place = graveyard(&[("user.a", "1"), ("user.b", "2"), ("user.c", "3")]).await;
    let url = place.url();
    let purge = ["dlq", "purge", &url, GROUP];
    place.run(&purge).await.refused(2, "--all");
    assert_eq!(payloads(&place, &[]).await, ["1", "2", "3"]);

    let args = [&purge[..], &["--topic", "user.b"]].concat();
    assert_eq!(
        place.run(&args).await.done().text(),
        "dropped 1 letter(s)\n"
    );
    assert_eq!(payloads(&place, &[]).await, ["1", "3"]);
    let args = [&purge[..], &["--limit", "1", "--output", "json"]].concat();
    assert_eq!(
        place.run(&args).await.done().json::<Value>(),
        json!({ "purged": 1 })
    );
    assert_eq!(payloads(&place, &[]).await, ["3"]);
    let args = [&purge[..], &["--all"]].concat();
    assert_eq!(
        place.run(&args).await.done().text(),
        "dropped 1 letter(s)\n"
    );
    assert!(listed(&place, &[]).await.is_empty());
}

#[tokio::test]
async fn a_group_without_letters_is_exit_1_and_said_once() {
    let place = Place::new();
    let url = place.url();
    for args in [
        &["dlq", "list", &url, "nobody"][..],
        &["dlq", "show", &url, "nobody", "1"],
        &["dlq", "replay", &url, "nobody"],
        &["dlq", "purge", &url, "nobody", "--all"],
    ] {
        let refused = place
            .run(args)
            .await
            .refused(1, "`nobody` has no dead letters");
        assert_eq!(
            refused.stderr.matches("there is no queue").count(),
            1,
            "{}",
            refused.stderr
        );
    }
    let args = ["dlq", "list", &url, "nobody", "--output", "json"];
    assert_eq!(place.run(&args).await.ended(1).error()["kind"], "not_found");
}

#[tokio::test]
async fn what_is_typed_wrong_is_exit_2() {
    let place = Place::new();
    let url = place.url();
    for (args, says) in [
        (&["dlq", "list", "pigeons://x", GROUP][..], "pigeons"),
        (&["dlq", "list", "no url", GROUP], "not a connection URL"),
        (&["dlq", "list", &url], "<GROUP>"),
        (
            &["dlq", "list", &url, GROUP, "--topic", "a..b"],
            "is no topic pattern",
        ),
        (&["dlq", "list", &url, GROUP, "--limit", "many"], "--limit"),
        (&["dlq", "replay", &url, GROUP, "--rate", "0"], "--rate"),
    ] {
        place.run(args).await.refused(2, says);
    }
}

#[tokio::test]
async fn an_edited_letter_is_handled_as_it_is_now() {
    let place = graveyard(&[("user.created", "wrong")]).await;
    let (url, letters) = (place.url(), listed(&place, &[]).await);
    let id = letters[0]["id"].as_str().unwrap();
    let edit = ["dlq", "edit", &url, GROUP, id];
    for wrong in [&[][..], &["--payload", "no JSON"], &["--header", "nothing"]] {
        let failed = place.run(&[&edit, wrong].concat()).await;
        assert_ne!(failed.code, Some(0), "{wrong:?}");
    }
    let change = ["--payload", "\"mended\"", "--header", "note=by hand"];
    let told = place.run(&[&edit[..], &change].concat()).await.done();
    assert_eq!(told.text(), format!("changed letter {id}\n"));
    let shown = place.run(&["dlq", "show", &url, GROUP, id]).await.done();
    assert!(shown.text().contains("note: by hand"), "{}", shown.text());
    place.run(&["dlq", "replay", &url, GROUP]).await.done();
    assert_eq!(handled(&place, 1).await, ["mended"]);
}
