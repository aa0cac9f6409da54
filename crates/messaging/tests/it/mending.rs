//! Dead letters that are changed and replayed.

use std::time::Duration;

use tokio::sync::mpsc::unbounded_channel;
use tokio::time::timeout;
use trunkline_core::{ErrorKind, Lifecycle};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{
    DeadLetter, DeadLetters, Destination, Edit, LetterFilter, Message, MessageBroker, Messaging,
    Publish, Replay,
};

async fn only(letters: &DeadLetters) -> DeadLetter {
    let wait = async {
        loop {
            let page = letters.list("shop", &LetterFilter::default(), 0, 9).await;
            if let Some(letter) = page.ok().and_then(|mut page| page.letters.pop()) {
                return letter;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), wait)
        .await
        .expect("a dead letter")
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_mended_and_handled() {
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    let messaging = Messaging::builder(broker.clone()).service("shop").build();
    let (sender, mut got) = unbounded_channel();
    let handler = move |amount: u64, message: Message| {
        sender.send((amount, message)).unwrap();
        async {}
    };
    messaging.subscribe("orders").handle(handler).await.unwrap();
    messaging.ready().await.unwrap();
    let topic = Destination::Topic("orders".parse().unwrap());
    let message = Message::new("\"seven\"").with_id("the-id").with_key("k");
    let message = message.with_content_type("application/json");
    let message = message.with_header("tenant", "a").with_header("noise", "x");
    broker
        .publish(Publish::new(topic.clone(), message))
        .await
        .unwrap();
    let letters = messaging.dead_letters();
    let old = only(&letters).await;
    for (edit, what) in [
        (Edit::default(), "nothing"),
        (Edit::default().with_payload("seven"), "to be JSON"),
        (
            Edit::default().with_header("Trunkline-Attempts", "0"),
            "stays as it is",
        ),
        (
            Edit::default().without_header("trunkline-dead-letter-source"),
            "stays as it is",
        ),
    ] {
        let error = letters.edit("shop", old.position, &edit).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error.report().to_string().contains(what),
            "{}",
            error.report()
        );
    }
    let edit = Edit::default().with_payload("7");
    let edit = edit.with_header("tenant", "b").without_header("noise");
    letters.edit("shop", old.position, &edit).await.unwrap();
    let new = only(&letters).await;
    assert_ne!(new.position, old.position);
    assert_eq!((&new.reason, new.attempts), (&old.reason, old.attempts));
    let gone = letters.edit("shop", old.position, &edit).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    let report = letters.replay("shop", &Replay::default()).await.unwrap();
    assert_eq!(report.replayed, 1);
    let (amount, message) = got.recv().await.unwrap();
    assert_eq!((amount, message.id.as_str()), (7, "the-id"));
    assert_eq!(message.key_text(), Some("k"));
    assert_eq!(message.headers.get("tenant"), Some("b"));
    assert!(!message.headers.contains("noise"));

    // What is signed would not be trusted any more.
    let signed = Message::new("x").with_header("trunkline-signature", "ed25519;k;;");
    broker.publish(Publish::new(topic, signed)).await.unwrap();
    let letter = only(&letters).await;
    let error = letters
        .edit("shop", letter.position, &edit)
        .await
        .unwrap_err();
    assert!(error.message().contains("signed"), "{}", error.report());
}

#[cfg(feature = "compression")]
#[tokio::test(start_paused = true)]
async fn a_compressed_letter_is_mended_as_it_can_be_read() {
    use trunkline_messaging::compression::{CompressionAlgorithm, CompressionConfig};
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    let compression = CompressionConfig::default()
        .with_above(trunkline_core::size::ByteSize::new(10))
        .with_algorithm(CompressionAlgorithm::Gzip);
    let messaging = Messaging::builder(broker.clone())
        .service("shop")
        .compression(&compression)
        .unwrap()
        .build();
    let (sender, mut got) = unbounded_channel();
    let handler = move |text: String, message: Message| {
        sender.send((text.clone(), message)).unwrap();
        async move {
            match text.starts_with("good") {
                true => Ok(()),
                false => Err(trunkline_messaging::HandlerError::dead_letter("bad")),
            }
        }
    };
    messaging.subscribe("orders").handle(handler).await.unwrap();
    messaging.ready().await.unwrap();
    let long = |word: &str| word.repeat(100);
    messaging.publish("orders", &long("bad")).await.unwrap();
    assert_eq!(got.recv().await.unwrap().0, long("bad"));
    let letters = messaging.dead_letters();
    let letter = only(&letters).await;
    assert_eq!(letter.message.headers.get("content-encoding"), Some("gzip"));
    // The payload stays, as does what says how to read it.
    let edit = Edit::default().with_header("note", "seen");
    letters.edit("shop", letter.position, &edit).await.unwrap();
    let letter = only(&letters).await;
    assert_eq!(letter.message.headers.get("content-encoding"), Some("gzip"));
    for edit in [
        Edit::default().without_header("Content-Encoding"),
        Edit::default().with_header("content-encoding", "zstd"),
    ] {
        let error = letters.edit("shop", letter.position, &edit).await;
        let error = error.unwrap_err();
        assert!(error.message().contains("compressed"), "{}", error.report());
    }
    let new = format!("{:?}", long("good"));
    let edit = Edit::default().with_payload(new);
    letters.edit("shop", letter.position, &edit).await.unwrap();
    let letter = only(&letters).await;
    assert!(!letter.message.headers.contains("content-encoding"));
    letters.replay("shop", &Replay::default()).await.unwrap();
    let (text, message) = got.recv().await.unwrap();
    assert_eq!(text, long("good"));
    assert_eq!(message.headers.get("note"), Some("seen"));
}
