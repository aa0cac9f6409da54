//! Large payloads beside the broker.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::{Instant, timeout};
use trunkline_core::size::ByteSize;
use trunkline_core::{Clock, ErrorKind, Lifecycle, ManualClock, SystemClock};
use trunkline_messaging::claim::{ClaimCheckConfig, FileStore, ObjectKey, ObjectStore};
use trunkline_messaging::memory::{MemoryBroker, MemoryConfig};
use trunkline_messaging::{
    AnyBroker, Browse, DeadLetter, Destination, LetterFilter, Message, MessageBroker, Messaging,
    Publish,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A broker that takes messages of 2 kB.
async fn broker() -> AnyBroker {
    let mut config = MemoryConfig::default();
    config.max_message_size = ByteSize::new(2_000);
    let broker = MemoryBroker::new(config).unwrap().erase();
    broker.connect().await.unwrap();
    broker
}

fn messaging(broker: &AnyBroker, directory: &Path) -> Messaging {
    let config = ClaimCheckConfig::new(directory).with_above(ByteSize::new(500));
    let config = config.with_largest(ByteSize::new(50_000));
    let builder = Messaging::builder(broker.clone()).service("shop");
    builder.claim_check(&config).unwrap().build()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let (folders, mut found): (Vec<_>, Vec<_>) = paths.partition(|path| path.is_dir());
    found.extend(folders.iter().flat_map(|folder| files(folder)));
    found
}

async fn letter(messaging: &Messaging) -> DeadLetter {
    let letters = messaging.dead_letters();
    let wait = async {
        loop {
            let page = letters.list("shop", &LetterFilter::default(), 0, 1).await;
            if let Some(letter) = page.ok().and_then(|mut page| page.letters.pop()) {
                letters
                    .purge("shop", &LetterFilter::default())
                    .await
                    .unwrap();
                return letter;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), wait)
        .await
        .expect("a dead letter")
}

#[tokio::test]
async fn a_payload_that_the_broker_would_not_take_arrives() {
    let (directory, broker) = (TempDir::new().unwrap(), broker().await);
    let messaging = messaging(&broker, directory.path());
    let (sender, mut got) = unbounded_channel();
    let handler = move |text: String, message: Message| {
        sender.send((text, message)).unwrap();
        async {}
    };
    messaging.subscribe("orders").handle(handler).await.unwrap();
    messaging.ready().await.unwrap();
    let large = "ä".repeat(10_000);
    messaging.publish("orders", &large).await.unwrap();
    messaging.publish("orders", "small").await.unwrap();
    let mut arrived = Vec::new();
    for _ in 0..2 {
        let next = timeout(Duration::from_secs(60), got.recv()).await;
        let (text, message) = next.unwrap().unwrap();
        assert_eq!(message.content_type.as_deref(), Some("application/json"));
        assert!(message.headers.get("trunkline-claim").is_none());
        arrived.push(text);
    }
    arrived.sort_by_key(String::len);
    assert_eq!(arrived, ["small".to_owned(), large.clone()]);
    assert_eq!(
        files(directory.path()).len(),
        1,
        "the small one is not stored"
    );
    let error = messaging
        .publish("orders", &large.repeat(3))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// What is missing, changed, longer than it says, or no claim at all is told as what it is, at once.
#[tokio::test]
async fn what_cannot_be_redeemed_is_a_dead_letter_at_once() {
    let (directory, broker) = (TempDir::new().unwrap(), broker().await);
    let messaging = messaging(&broker, directory.path());
    let ignore = |_: String| async {};
    messaging
        .publish("orders", &"a".repeat(1_000))
        .await
        .unwrap();
    let topic = Destination::Topic("orders".parse().unwrap());
    let page = broker.browse(Browse::new(topic.clone())).await.unwrap();
    let genuine = page.messages.into_iter().next().unwrap().message;
    let path = files(directory.path()).pop().unwrap();
    let subscribing = messaging.subscribe("orders").max_attempts(9);
    subscribing.handle(ignore).await.unwrap();
    messaging.ready().await.unwrap();
    let send = async |payload: &str| {
        let mut message = genuine.clone();
        message.payload = payload.to_owned().into();
        let publish = Publish::new(topic.clone(), message);
        broker.publish(publish).await.unwrap();
        let letter = letter(&messaging).await;
        assert_eq!(
            (letter.reason.as_str(), letter.attempts),
            ("undecodable", 1)
        );
        letter.error
    };
    let claim = String::from_utf8(genuine.payload.to_vec()).unwrap();
    std::fs::write(&path, "b".repeat(1_002)).unwrap();
    assert!(send(&claim).await.contains("another one"));
    std::fs::write(&path, "a".repeat(100_000)).unwrap();
    assert!(send(&claim).await.contains("another one"));
    std::fs::remove_file(&path).unwrap();
    assert!(send(&claim).await.contains("not in the store"));
    assert!(
        send(&claim.replace("1002", "1002000"))
            .await
            .contains("more than")
    );
    // A file outside of the store is not to be had by its name.
    let outside = directory.path().join("secret");
    std::fs::write(&outside, "secret").unwrap();
    for name in ["../secret", "/etc/passwd", "secret", ""] {
        let text = format!(
            r#"{{"key":"{name}","size":6,"sha256":"2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"}}"#
        );
        assert!(send(&text).await.contains("cannot be read"), "{name}");
    }
    assert!(send("{}").await.contains("cannot be read"));
    // Who has no store says so.
    let other = Messaging::builder(broker.clone()).service("other").build();
    other.subscribe("orders").handle(ignore).await.unwrap();
    other.ready().await.unwrap();
    broker
        .publish(Publish::new(topic.clone(), genuine))
        .await
        .unwrap();
    let wait = async {
        loop {
            let letters = other.dead_letters();
            let page = letters.list("other", &LetterFilter::default(), 0, 1).await;
            if let Some(letter) = page.ok().and_then(|mut page| page.letters.pop()) {
                return letter.error;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let error = timeout(Duration::from_secs(60), wait).await.unwrap();
    assert!(error.contains("claim_check"), "{error}");
    for one in [messaging, other] {
        one.drain(Instant::now() + DAY).await.unwrap();
    }
}

#[tokio::test]
async fn objects_expire_and_nothing_else_does() {
    let directory = TempDir::new().unwrap();
    let clock = ManualClock::new(SystemClock.now());
    let store = FileStore::with_clock(directory.path(), DAY, Arc::new(clock.clone()));
    let (old, new) = (ObjectKey::unique(), ObjectKey::unique());
    store.put(&old, "old".into()).await.unwrap();
    clock.advance(DAY * 2);
    // It is gone for readers before it is removed.
    assert_eq!(store.get(&old, 10).await.unwrap(), None);
    let left = files(directory.path()).len() as u64;
    assert_eq!(store.sweep().await.unwrap(), left);
    assert!(files(directory.path()).is_empty());
    clock.set(SystemClock.now());
    store.put(&new, "new".into()).await.unwrap();
    assert_eq!(store.sweep().await.unwrap(), 0);
    assert_eq!(
        store.get(&new, 3).await.unwrap().as_deref(),
        Some(&b"new"[..])
    );
    assert_eq!(
        store.get(&new, 2).await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
    assert!(store.remove(&new).await.unwrap());
    assert!(!store.remove(&new).await.unwrap());
    assert_eq!(store.get(&new, 3).await.unwrap(), None);
}

#[cfg(unix)]
#[tokio::test]
async fn a_store_that_does_not_work_is_unavailable_and_leaves_no_parts() {
    let directory = TempDir::new().unwrap();
    let blocked = directory.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let store = FileStore::new(&blocked, DAY);
    let error = store
        .put(&ObjectKey::unique(), "x".into())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let store = FileStore::new(directory.path().join("store"), DAY);
    store.put(&ObjectKey::unique(), "x".into()).await.unwrap();
    let path = files(&directory.path().join("store")).pop().unwrap();
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(files(&directory.path().join("store")).len(), 1);
}
