//! What is easily forgotten.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use trunkline_core::names::message_header as header;
use trunkline_core::size::ByteSize;
use trunkline_core::{ErrorKind, Lifecycle};
use trunkline_messaging::memory::{MemoryBroker, MemoryConfig};
use trunkline_messaging::{
    AnyBroker, Browse, Destination, HandlerError, LetterFilter, Message, MessageBroker,
    MessageBrokerConfig, Messaging, Publish, StoredMessage,
};
use trunkline_testing::broker::RestrictedBroker;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

async fn shop(broker: &AnyBroker) -> Messaging {
    broker.connect().await.unwrap();
    let messaging = Messaging::builder(broker.clone()).service("shop").build();
    let fail = || async { Err::<(), _>(HandlerError::dead_letter("x".repeat(5_000))) };
    messaging.subscribe("orders").handle(fail).await.unwrap();
    messaging.ready().await.unwrap();
    messaging
}

async fn letter(broker: &AnyBroker) -> StoredMessage {
    let queue = Browse::new(Destination::Queue("shop.dlq".parse().unwrap()));
    loop {
        if let Ok(page) = broker.browse(queue.clone()).await
            && let Some(letter) = page.messages.into_iter().next()
        {
            return letter;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A limited broker that publishes a dead letter first and takes the acknowledgement then.
fn without_forward(largest: u64) -> AnyBroker {
    RestrictedBroker::new(limited(largest), |able| able.atomic_forward = false).erase()
}

fn limited(largest: u64) -> AnyBroker {
    let mut config = MemoryConfig::default();
    config.max_message_size = ByteSize::new(largest);
    MemoryBroker::new(config).unwrap().erase()
}

/// A message that fills what the broker takes has no room for the reason; it is kept all the same.
#[tokio::test(start_paused = true)]
async fn a_message_as_large_as_may_be_becomes_a_dead_letter() {
    let cases = [
        (3_000, true, true),
        (600, true, true),
        (120, false, true),
        (0, false, false),
    ];
    let brokers: [fn(u64) -> AnyBroker; 2] = [limited, without_forward];
    for (broker, (spare, has_error, has_source)) in brokers
        .into_iter()
        .flat_map(|broker| cases.map(|case| (broker, case)))
    {
        let broker = broker(10_000);
        let messaging = shop(&broker).await;
        let mut message = Message::new("");
        let room = 10_000 - message.size() - spare;
        message.payload = vec![b'x'; room].into();
        let orders = Destination::Topic("orders".parse().unwrap());
        broker
            .publish(Publish::new(orders, message.clone()))
            .await
            .unwrap();
        let letter = timeout(Duration::from_secs(60), letter(&broker));
        let letter = letter.await.expect("it is kept").message;
        assert_eq!(letter.payload, message.payload);
        assert_eq!(
            letter.headers.contains(header::DEAD_ERROR),
            has_error,
            "{spare}"
        );
        assert_eq!(
            letter.headers.contains(header::DEAD_SOURCE),
            has_source,
            "{spare}"
        );
        messaging.shutdown(soon()).await.unwrap();
    }
}

/// Where the broker does not count attempts a copy carries the count. A message that leaves no room for that is counted
/// here, and not tried for ever.
#[tokio::test(start_paused = true)]
async fn attempts_of_a_message_as_large_as_may_be_are_counted() {
    let broker = RestrictedBroker::new(limited(10_000), |able| able.attempts = false).erase();
    broker.connect().await.unwrap();
    let messaging = Messaging::builder(broker.clone()).service("shop").build();
    let attempts = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&attempts);
    let fail = move || {
        count.fetch_add(1, Ordering::SeqCst);
        async { Err::<(), _>(HandlerError::retry("no")) }
    };
    let subscribing = messaging.subscribe("orders").max_attempts(3);
    subscribing.handle(fail).await.unwrap();
    messaging.ready().await.unwrap();
    let mut message = Message::new("");
    message.payload = vec![b'x'; 10_000 - message.size()].into();
    let orders = Destination::Topic("orders".parse().unwrap());
    broker
        .publish(Publish::new(orders, message.clone()))
        .await
        .unwrap();
    let letter = timeout(Duration::from_secs(600), letter(&broker));
    let letter = letter.await.expect("it is given up").message;
    assert_eq!(letter.payload, message.payload);
    assert_eq!(attempts.load(Ordering::SeqCst), 3);
    messaging.shutdown(soon()).await.unwrap();
}

/// A letter that does not say whose it is cannot be tried again, and says so; it stays.
#[tokio::test(start_paused = true)]
async fn a_letter_of_nobody_stays() {
    let broker = limited(10_000);
    let messaging = shop(&broker).await;
    let queue = Destination::Queue("shop.dlq".parse().unwrap());
    broker.declare(queue.clone()).await.unwrap();
    broker
        .publish(Publish::new(queue, Message::new("by hand")))
        .await
        .unwrap();
    let letters = messaging.dead_letters();
    let report = letters
        .replay("shop", &trunkline_messaging::Replay::default())
        .await
        .unwrap();
    assert_eq!((report.replayed, report.failed.len()), (0, 1));
    assert_eq!(report.failed[0].1.kind(), ErrorKind::Invalid);
    let page = letters
        .list("shop", &LetterFilter::default(), 0, 10)
        .await
        .unwrap();
    assert_eq!(page.letters[0].reason, "unknown");
    messaging.shutdown(soon()).await.unwrap();
}

/// When the last handle of a router is gone, its handlers take nothing new, and their tasks end.
#[tokio::test]
async fn a_dropped_router_leaves_no_task() {
    let broker = MemoryBroker::default().erase();
    let metrics = tokio::runtime::Handle::current().metrics();
    let messaging = shop(&broker).await;
    let nobody = messaging.request::<_, u32, _>("nobody", &1_u32).await;
    assert_eq!(nobody.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(metrics.num_alive_tasks() > 0);
    drop(messaging);
    let ended = async {
        while metrics.num_alive_tasks() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), ended).await.unwrap();
}

/// The options of the in-memory broker, as files and URLs write them, and what is wrong with them.
#[test]
fn options_of_the_memory_broker_are_read_and_checked() {
    let config = MessageBrokerConfig::from_url("memory://?max_messages=7&max_bytes=1MiB").unwrap();
    let config = config.with_option("max_message_size", 1024);
    assert!(MemoryBroker::from_config(&config).is_ok());
    let read = MemoryConfig::from_options(&config.options).unwrap();
    assert_eq!(read.max_messages, 7);
    assert_eq!(read.max_bytes, ByteSize::mib(1));
    assert_eq!(read.max_message_size, ByteSize::kib(1));
    for (name, value, word) in [
        ("max_mesages", serde_json::json!(1), "max_mesages"),
        ("max_messages", serde_json::json!("many"), "many"),
        ("max_messages", serde_json::json!(0), "max_messages"),
        ("max_bytes", serde_json::json!("1KiB"), "max_message_size"),
    ] {
        let config = MessageBrokerConfig::memory().with_option(name, value);
        let error = MemoryBroker::from_config(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error.report().to_string().contains(word),
            "{}",
            error.report()
        );
    }
}

/// The broker in memory is bounded in bytes as well as in messages, and gives way where nobody needs a message any more.
#[tokio::test(start_paused = true)]
async fn what_is_kept_for_replay_makes_room() {
    let mut config = MemoryConfig::default();
    config.max_bytes = ByteSize::kib(64);
    config.max_message_size = ByteSize::kib(32);
    config.retain_bytes = ByteSize::kib(64);
    config.publish_timeout = Duration::from_secs(1);
    let broker = MemoryBroker::new(config).unwrap().erase();
    broker.connect().await.unwrap();
    let orders = || Destination::Topic("orders".parse().unwrap());
    let work = || Destination::Queue("work".parse().unwrap());
    broker.declare(work()).await.unwrap();
    let big = || Message::new(vec![7_u8; 20 * 1024]);
    // Nobody subscribes: each is kept for replay until the next one needs its room.
    for _ in 0..10 {
        broker.publish(Publish::new(orders(), big())).await.unwrap();
    }
    for _ in 0..3 {
        broker.publish(Publish::new(work(), big())).await.unwrap();
    }
    let error = broker
        .publish(Publish::new(work(), big()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    // What nobody needs is no reason to refuse.
    broker.publish(Publish::new(orders(), big())).await.unwrap();
    broker.disconnect(soon()).await.unwrap();
}

/// A message that expires makes room for a publisher that waits.
#[tokio::test(start_paused = true)]
async fn an_expired_message_makes_room() {
    let mut config = MemoryConfig::default();
    config.max_messages = 2;
    let broker = MemoryBroker::new(config).unwrap().erase();
    broker.connect().await.unwrap();
    let work = || Destination::Queue("work".parse().unwrap());
    broker.declare(work()).await.unwrap();
    let span = Duration::from_secs(3);
    for _ in 0..2 {
        let short = Publish::new(work(), Message::new("short")).with_expiry(span);
        broker.publish(short).await.unwrap();
    }
    let began = Instant::now();
    broker
        .publish(Publish::new(work(), Message::new("next")))
        .await
        .unwrap();
    assert!(began.elapsed() >= span && began.elapsed() < span * 2);
}

/// Brokers that keep headers by name need no word on their order then. Whoever wants another order has it.
#[tokio::test(start_paused = true)]
async fn headers_go_in_the_order_of_their_names_unless_the_caller_has_another() {
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    let work = Destination::Queue("work".parse().unwrap());
    broker.declare(work.clone()).await.unwrap();
    let messaging = Messaging::builder(broker.clone()).service("shop").build();
    let plain = Message::new("").with_header("tenant", "a");
    let mut twice = Message::new("").with_header("zone", "z");
    twice.headers.append("zone", "y");
    let own = Message::new("").with_header("b", "").with_header("a", "");
    for message in [plain, twice, own] {
        let publish = Publish::new(work.clone(), message);
        messaging.publisher().send(publish).await.unwrap();
    }
    let page = broker.browse(Browse::new(work)).await.unwrap();
    let headers = page.messages.iter().map(|stored| &stored.message.headers);
    let names: Vec<Vec<&str>> = headers
        .clone()
        .map(|headers| headers.iter().map(|(name, _)| name).collect())
        .collect();
    let [plain, twice, own] = names.as_slice() else {
        panic!("{names:?}");
    };
    assert!(plain.is_sorted() && plain.contains(&"tenant") && plain.contains(&header::CE_ID));
    assert!(twice.is_sorted());
    let zones = headers.flat_map(|headers| headers.all("zone"));
    let zones: Vec<&[u8]> = zones.map(trunkline_core::MetadataValue::as_bytes).collect();
    assert_eq!(zones, [b"z", b"y"]);
    assert_eq!(own.get(..2), Some(["b", "a"].as_slice()));
}
