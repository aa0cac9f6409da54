//! What is appended is published: at least once, in order, whatever breaks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use trunkline_core::{
    Context, CorrelationId, Error, ErrorKind, Health, Lifecycle, Propagation, Result, Status,
};
use trunkline_events::{
    AppendOutcome, ChangeSignal, Event, EventStore, ExpectedVersion, MemoryEventStore, ReadAll,
    ReadStream, RecordedEvent, Relay, RelayConfig, StreamName,
};
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::{
    AnyBroker, Capabilities, Destination, Message, MessageBroker, Publish, Receipt, Routed, Start,
    Subscribe, Subscription, TopicName, TopicPattern,
};
use trunkline_telemetry::{Format, Metrics};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn stream(aggregate: &str) -> StreamName {
    StreamName::of("order", aggregate).unwrap()
}

fn event(aggregate: &str, number: u64) -> Event {
    Event::new("order.changed", aggregate, &json!({ "number": number })).unwrap()
}

async fn append(store: &impl EventStore, aggregate: &str, number: u64) -> Event {
    let event = event(aggregate, number);
    store
        .append_event(&stream(aggregate), event.clone())
        .await
        .unwrap();
    event
}

/// Takes everything that is published, and fails as told.
#[derive(Clone, Default)]
struct Scripted(Arc<Script>);

#[derive(Default)]
struct Script {
    taken: Mutex<Vec<Message>>,
    away: AtomicBool,
    /// Refuses every so manyeth message of a batch, in turn.
    moody: AtomicU32,
    asked: AtomicU32,
    batches: AtomicU32,
    refused: Mutex<Option<String>>,
    hangs: AtomicBool,
    panics: AtomicBool,
}

impl Scripted {
    fn taken(&self) -> Vec<Message> {
        self.0.taken.lock().unwrap().clone()
    }

    fn ids(&self) -> Vec<String> {
        self.taken().into_iter().map(|message| message.id).collect()
    }

    fn set_away(&self, away: bool) {
        self.0.away.store(away, Ordering::SeqCst);
    }

    fn refuse(&self, id: Option<&str>) {
        *self.0.refused.lock().unwrap() = id.map(str::to_owned);
    }

    fn asked(&self) -> u32 {
        self.0.asked.load(Ordering::SeqCst)
    }

    fn take(&self, publish: Publish) -> Result<Receipt> {
        let asked = self.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let moody = self.0.moody.load(Ordering::SeqCst);
        if self.0.away.load(Ordering::SeqCst) || (moody > 0 && asked.is_multiple_of(moody)) {
            return Err(Error::unavailable("the broker is away"));
        }
        let message = publish.message;
        if self.0.refused.lock().unwrap().as_deref() == Some(message.id.as_str()) {
            return Err(Error::invalid("the message is too large"));
        }
        let receipt = Receipt::new(message.id.clone(), Routed::Yes);
        self.0.taken.lock().unwrap().push(message);
        Ok(receipt)
    }
}

impl MessageBroker for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    async fn connect(&self) -> Result<()> {
        Ok(())
    }

    async fn disconnect(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    async fn health_check(&self) -> Result<()> {
        Ok(())
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        sleep(Duration::from_millis(1)).await;
        self.take(publish)
    }

    async fn publish_batch(&self, batch: Vec<Publish>) -> Vec<Result<Receipt>> {
        self.0.batches.fetch_add(1, Ordering::SeqCst);
        if self.0.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        let panics = self.0.panics.load(Ordering::SeqCst);
        assert!(!panics, "a fault of the broker");
        sleep(Duration::from_millis(1)).await;
        batch
            .into_iter()
            .map(|publish| self.take(publish))
            .collect()
    }

    async fn declare(&self, _: Destination) -> Result<()> {
        Ok(())
    }

    async fn subscribe(&self, _: Subscribe) -> Result<Subscription> {
        Err(Error::unsupported("nobody subscribes here"))
    }
}

/// A store whose checkpoints fail as told.
#[derive(Clone)]
struct Forgetful {
    store: MemoryEventStore,
    broken: Arc<AtomicBool>,
    signal: Signal,
}

/// How a store tells of changes.
#[derive(Clone)]
enum Signal {
    Works,
    /// Nobody is left who could tell.
    Gone,
    /// It says nothing, as if every change were missed.
    Silent(Arc<tokio::sync::watch::Sender<u64>>),
}

impl Forgetful {
    fn over(store: &MemoryEventStore) -> Self {
        Self {
            store: store.clone(),
            broken: Arc::new(AtomicBool::new(false)),
            signal: Signal::Works,
        }
    }

    fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Error::unavailable("the store is away"));
        }
        Ok(())
    }
}

impl EventStore for Forgetful {
    fn kind(&self) -> &'static str {
        "forgetful"
    }

    async fn append(
        &self,
        stream: &StreamName,
        expected: ExpectedVersion,
        events: Vec<Event>,
    ) -> Result<AppendOutcome> {
        self.store.append(stream, expected, events).await
    }

    async fn read_stream(&self, read: ReadStream) -> Result<Vec<RecordedEvent>> {
        self.store.read_stream(read).await
    }

    async fn read_all(&self, read: ReadAll) -> Result<Vec<RecordedEvent>> {
        self.store.read_all(read).await
    }

    fn changes(&self) -> ChangeSignal {
        match &self.signal {
            Signal::Works => self.store.changes(),
            Signal::Gone => tokio::sync::watch::channel(0).1,
            Signal::Silent(sender) => sender.subscribe(),
        }
    }

    async fn checkpoint(&self, reader: &str) -> Result<u64> {
        self.store.checkpoint(reader).await
    }

    async fn save_checkpoint(&self, reader: &str, position: u64) -> Result<()> {
        self.check()?;
        self.store.save_checkpoint(reader, position).await
    }

    async fn health_check(&self) -> Result<()> {
        self.check()
    }
}

async fn started(store: impl EventStore, broker: impl MessageBroker) -> Relay {
    let relay = Relay::new(store, broker, &RelayConfig::default()).unwrap();
    relay.start().await.unwrap();
    relay
}

fn order_of(messages: &[Message], aggregate: &str) -> Vec<u64> {
    let of = messages
        .iter()
        .filter(|message| message.key_text() == Some(aggregate));
    let number = |message: &Message| {
        let data: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        data["number"].as_u64().unwrap()
    };
    of.map(number).collect()
}

#[tokio::test(start_paused = true)]
async fn events_are_published_as_messages_that_say_everything() {
    let store = MemoryEventStore::new();
    let broker = MemoryBroker::default();
    broker.connect().await.unwrap();
    let all = Subscribe::topics("order.#".parse::<TopicPattern>().unwrap()).with_group("all");
    let mut messages = broker.subscribe(all).await.unwrap();
    let relay = Relay::new(store.clone(), broker.clone(), &RelayConfig::default())
        .unwrap()
        .with_propagation(Propagation::default().with_service("orders"));
    relay.start().await.unwrap();

    let context = Context::with_id(CorrelationId::accept("checkout-7").unwrap());
    let appended = context.scope(append(&store, "42", 5)).await;
    let delivery = timeout(Duration::from_secs(5), messages.next())
        .await
        .unwrap()
        .unwrap();
    let message = delivery.message().clone();
    assert_eq!(message.id, appended.event_id);
    assert_eq!(message.key_text(), Some("42"));
    assert_eq!(message.content_type.as_deref(), Some("application/json"));
    assert_eq!(message.payload, r#"{"number":5}"#);
    let topic = TopicName::new("order.changed").unwrap();
    assert_eq!(delivery.info().destination, Destination::Topic(topic));
    let expected = [
        ("X-Correlation-ID", "checkout-7"),
        ("X-Service-Name", "orders"),
        ("service", "orders"),
        ("ce-id", appended.event_id.as_str()),
        ("ce-type", "order.changed"),
        ("ce-subject", "42"),
        ("ce-source", "orders"),
        ("ce-specversion", "1.0"),
        ("trunkline-aggregate-version", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(message.headers.get(name), Some(value), "{name}");
    }
    assert_eq!(
        message.headers.get("ce-time").unwrap(),
        appended.timestamp.to_string()
    );
    assert_eq!(
        message.headers.get("traceparent").unwrap(),
        context.trace().traceparent()
    );
    assert_eq!(
        message.headers.get("X-Request-Timeout-Ms"),
        None,
        "nobody waits any more"
    );
    delivery.ack().await.unwrap();
    relay.flush(soon()).await.unwrap();
    assert_eq!(store.checkpoint("relay").await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_appended_before_the_start_is_published_too_and_only_once() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    for number in 0..250 {
        append(&store, &format!("{}", number % 7), number).await;
    }
    let relay = started(store.clone(), broker.clone()).await;
    relay.flush(soon()).await.unwrap();
    assert_eq!(broker.taken().len(), 250);
    relay.shutdown(soon()).await.unwrap();
    let again = started(store.clone(), broker.clone()).await;
    append(&store, "x", 1).await;
    again.flush(soon()).await.unwrap();
    assert_eq!(broker.taken().len(), 251, "the checkpoint is kept");
    assert_eq!(again.progress().published, 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_event_wakes_the_relay_at_once() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    let relay = started(store.clone(), broker.clone()).await;
    sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    append(&store, "1", 1).await;
    relay.flush(soon()).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_millis(100),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_says_nothing_costs_no_event() {
    let silent = Signal::Silent(Arc::new(tokio::sync::watch::Sender::new(0)));
    for signal in [Signal::Gone, silent] {
        let (store, broker) = (MemoryEventStore::new(), Scripted::default());
        let mut mute = Forgetful::over(&store);
        mute.signal = signal;
        let relay = started(mute, broker.clone()).await;
        sleep(Duration::from_secs(5)).await;
        append(&store, "1", 1).await;
        sleep(Duration::from_millis(2500)).await;
        assert_eq!(broker.taken().len(), 1);
        relay.shutdown(soon()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_confirmed_before_a_failure_is_remembered_at_once() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    append(&store, "1", 1).await;
    append(&store, "2", 2).await;
    let refused = append(&store, "3", 3).await;
    append(&store, "4", 4).await;
    broker.refuse(Some(&refused.event_id));
    let relay = started(store.clone(), broker.clone()).await;
    sleep(Duration::from_millis(50)).await;
    // Up to the gap, not beyond it.
    assert_eq!(store.checkpoint("relay").await.unwrap(), 2);
    assert_eq!(relay.progress().published, 2);
    drop(relay);
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_publish_and_checkpoint_publishes_again_under_the_same_ids() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    let forgetful = Forgetful::over(&store);
    forgetful.set_broken(true);
    let mut appended = Vec::new();
    for number in 0..5 {
        appended.push(append(&store, "1", number).await.event_id);
    }
    let crashing = started(forgetful.clone(), broker.clone()).await;
    while broker.taken().len() < 5 {
        sleep(Duration::from_millis(10)).await;
    }
    // It dies with everything confirmed and nothing remembered.
    crashing.shutdown(soon()).await.unwrap();
    assert_eq!(store.checkpoint("relay").await.unwrap(), 0);

    let next = started(store.clone(), broker.clone()).await;
    next.flush(soon()).await.unwrap();
    let ids = broker.ids();
    assert_eq!(ids[..5], appended);
    assert_eq!(ids[5..], appended, "the same again, in the same order");
}

#[tokio::test(start_paused = true)]
async fn a_stop_amid_a_batch_remembers_what_was_confirmed() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    for number in 0..100 {
        append(&store, "1", number).await;
    }
    let relay = started(store.clone(), broker.clone()).await;
    while broker.taken().len() < 30 {
        sleep(Duration::from_millis(1)).await;
    }
    relay.shutdown(soon()).await.unwrap();
    let confirmed = broker.taken().len() as u64;
    let kept = store.checkpoint("relay").await.unwrap();
    assert!(confirmed < 100);
    assert!(
        kept >= 29 && kept <= confirmed && confirmed - kept <= 1,
        "{kept} of {confirmed}"
    );
    let next = started(store.clone(), broker.clone()).await;
    next.flush(soon()).await.unwrap();
    assert!(order_of(&broker.taken(), "1").len() <= 101);
}

#[tokio::test(start_paused = true)]
async fn order_within_an_aggregate_survives_failures() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    broker.0.moody.store(3, Ordering::SeqCst);
    for number in 0..400 {
        append(&store, &format!("{}", number % 5), number).await;
    }
    let relay = started(store.clone(), broker.clone()).await;
    relay
        .flush(Instant::now() + Duration::from_secs(36_000))
        .await
        .unwrap();
    let taken = broker.taken();
    for aggregate in 0..5 {
        let order = order_of(&taken, &aggregate.to_string());
        let expected = (0..400).filter(|number| number % 5 == aggregate);
        assert!(order.iter().copied().eq(expected), "{aggregate}: {order:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn aggregates_are_published_together() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    for number in 0..100 {
        append(&store, &format!("{number}"), number).await;
    }
    let relay = started(store.clone(), broker.clone()).await;
    relay.flush(soon()).await.unwrap();
    assert_eq!(
        broker.0.batches.load(Ordering::SeqCst),
        1,
        "one batch, one round trip"
    );
}

#[tokio::test(start_paused = true)]
async fn while_the_broker_is_away_it_tries_again_and_says_so() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    let health = Health::default();
    let metrics = Metrics::new();
    let component = health.register("relay_relay", "relay", "event_relay", true);
    let relay = Relay::new(store.clone(), broker.clone(), &RelayConfig::default())
        .unwrap()
        .with_component(component)
        .with_metrics(metrics.clone());
    relay.start().await.unwrap();
    sleep(Duration::from_millis(10)).await;
    let status = || health.component_status("relay_relay").unwrap();
    assert_eq!(status().status, Status::Healthy);

    broker.set_away(true);
    for number in 0..3 {
        append(&store, "1", number).await;
    }
    sleep(Duration::from_secs(600)).await;
    assert_eq!(status().status, Status::Degraded);
    assert!(status().last_error.unwrap().contains("the broker is away"));
    let asked = broker.asked();
    assert!((60..=140).contains(&asked), "{asked} times in ten minutes");
    let progress = relay.progress();
    assert_eq!((progress.position, progress.lag), (0, 3));
    assert!(progress.error.unwrap().contains("the broker is away"));
    let text = metrics.render(Format::Prometheus).unwrap();
    assert!(
        text.contains(r#"trunkline_events_relay_lag{relay="relay"} 3"#),
        "{text}"
    );
    let error = relay
        .flush(Instant::now() + Duration::from_secs(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("3 events left"), "{error}");
    assert!(error.to_string().contains("the broker is away"), "{error}");

    broker.set_away(false);
    relay.flush(soon()).await.unwrap();
    sleep(Duration::from_millis(10)).await;
    assert_eq!(order_of(&broker.taken(), "1"), [0, 1, 2]);
    assert_eq!(status().status, Status::Healthy);
    let text = metrics.render(Format::Prometheus).unwrap();
    assert!(
        text.contains(r#"trunkline_events_relay_lag{relay="relay"} 0"#),
        "{text}"
    );
    assert!(
        text.contains(r#"trunkline_events_relay_age_seconds{relay="relay"} 0.0"#),
        "{text}"
    );
    assert!(
        text.contains(r#"trunkline_events_relayed_total{relay="relay"} 3"#),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_refused_is_never_skipped_and_turns_health_red() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    let health = Health::default();
    let component = health.register("relay_relay", "relay", "event_relay", true);
    let refused = append(&store, "1", 1).await;
    append(&store, "1", 2).await;
    append(&store, "2", 3).await;
    broker.refuse(Some(&refused.event_id));
    let relay = Relay::new(store.clone(), broker.clone(), &RelayConfig::default())
        .unwrap()
        .with_component(component);
    relay.start().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        order_of(&broker.taken(), "1"),
        Vec::<u64>::new(),
        "what comes after it waits"
    );
    assert_eq!(
        order_of(&broker.taken(), "2"),
        [3],
        "other aggregates do not"
    );
    assert_eq!(store.checkpoint("relay").await.unwrap(), 0);
    let status = health.component_status("relay_relay").unwrap();
    assert_eq!(status.status, Status::Unhealthy);
    assert!(status.last_error.unwrap().contains(&refused.event_id));

    broker.refuse(None);
    relay.flush(soon()).await.unwrap();
    assert_eq!(order_of(&broker.taken(), "1"), [1, 2]);
    assert_eq!(
        order_of(&broker.taken(), "2"),
        [3],
        "what was confirmed is not repeated"
    );
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_panics_stops_its_event_and_nothing_else() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    let health = Health::default();
    let component = health.register("relay_relay", "relay", "event_relay", true);
    let broken = Arc::new(AtomicBool::new(true));
    let panics = Arc::clone(&broken);
    let relay = Relay::new(store.clone(), broker.clone(), &RelayConfig::default())
        .unwrap()
        .with_topic_of(move |recorded| {
            let is_broken = panics.load(Ordering::SeqCst) && recorded.event.aggregate_id == "1";
            assert!(!is_broken, "no topic for this");
            TopicName::new("order.changed")
        })
        .with_component(component);
    relay.start().await.unwrap();
    let stuck = append(&store, "1", 1).await;
    append(&store, "2", 2).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(order_of(&broker.taken(), "2"), [2]);
    let status = health.component_status("relay_relay").unwrap();
    assert_eq!(status.status, Status::Unhealthy);
    let error = status.last_error.unwrap();
    assert!(error.contains("no topic for this"), "{error}");
    assert!(error.contains(&stuck.event_id), "{error}");

    broken.store(false, Ordering::SeqCst);
    relay.flush(soon()).await.unwrap();
    assert_eq!(order_of(&broker.taken(), "1"), [1]);
    sleep(Duration::from_millis(10)).await;
    let status = health.component_status("relay_relay").unwrap();
    assert_eq!(status.status, Status::Healthy);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_panics_is_asked_again() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    let health = Health::default();
    let component = health.register("relay_relay", "relay", "event_relay", true);
    broker.0.panics.store(true, Ordering::SeqCst);
    append(&store, "1", 1).await;
    let relay = Relay::new(store.clone(), broker.clone(), &RelayConfig::default())
        .unwrap()
        .with_component(component);
    relay.start().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let status = health.component_status("relay_relay").unwrap();
    assert_eq!(status.status, Status::Unhealthy);
    assert!(status.last_error.unwrap().contains("a fault of the broker"));
    assert!(relay.progress().error.is_some());

    broker.0.panics.store(false, Ordering::SeqCst);
    relay.flush(soon()).await.unwrap();
    assert_eq!(order_of(&broker.taken(), "1"), [1]);
    relay.shutdown(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_never_answers_is_given_up_on() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    broker.0.hangs.store(true, Ordering::SeqCst);
    append(&store, "1", 1).await;
    let relay = started(store.clone(), broker.clone()).await;
    sleep(Duration::from_secs(31)).await;
    assert!(
        relay
            .progress()
            .error
            .unwrap()
            .contains("no answer within 30s")
    );
    broker.0.hangs.store(false, Ordering::SeqCst);
    relay
        .flush(Instant::now() + Duration::from_secs(60))
        .await
        .unwrap();
    relay.shutdown(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_broker_that_never_answers() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    broker.0.hangs.store(true, Ordering::SeqCst);
    append(&store, "1", 1).await;
    let relay = started(store.clone(), broker.clone()).await;
    sleep(Duration::from_millis(10)).await;
    let begun = Instant::now();
    relay
        .shutdown(Instant::now() + Duration::from_secs(5))
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(
        relay.start().await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    assert_eq!(
        relay.flush(soon()).await.unwrap_err().kind(),
        ErrorKind::Cancelled
    );
    relay.shutdown(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn starting_twice_publishes_once() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    let relay = started(store.clone(), broker.clone()).await;
    relay.start().await.unwrap();
    append(&store, "1", 1).await;
    relay.drain(soon()).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    assert_eq!(broker.taken().len(), 1);
    let never = Relay::new(store, broker, &RelayConfig::default()).unwrap();
    never.drain(soon()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn relays_of_one_name_share_the_work_and_those_of_others_do_not() {
    let store = MemoryEventStore::new();
    let (one, other, third) = (
        Scripted::default(),
        Scripted::default(),
        Scripted::default(),
    );
    let first = started(store.clone(), one.clone()).await;
    for number in 0..50 {
        append(&store, "1", number).await;
    }
    first.flush(soon()).await.unwrap();
    let second = started(store.clone(), other.clone()).await;
    sleep(Duration::from_secs(5)).await;
    assert!(other.taken().is_empty(), "the checkpoint is ahead");
    let config = RelayConfig::default()
        .with_name("audit")
        .with_topic("audit");
    let audit = Relay::new(store.clone(), third.clone(), &config).unwrap();
    audit.start().await.unwrap();
    audit.flush(soon()).await.unwrap();
    assert_eq!(third.taken().len(), 50);
    drop(second);
}

#[tokio::test(start_paused = true)]
async fn topics_can_be_chosen_by_hand() {
    let store = MemoryEventStore::new();
    let broker = MemoryBroker::default();
    broker.connect().await.unwrap();
    let relay = Relay::new(store.clone(), broker.clone(), &RelayConfig::default())
        .unwrap()
        .with_topic_of(|recorded| TopicName::new(format!("events.{}", recorded.stream.category())));
    relay.start().await.unwrap();
    append(&store, "1", 1).await;
    relay.flush(soon()).await.unwrap();
    let topic = TopicName::new("events.order").unwrap();
    let earlier = Subscribe::topics(topic)
        .with_group("g")
        .with_start(Start::Earliest);
    let mut messages = broker.subscribe(earlier).await.unwrap();
    let delivery = timeout(Duration::from_secs(5), messages.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        delivery.message().headers.get("ce-type"),
        Some("order.changed")
    );
}

#[tokio::test(start_paused = true)]
async fn wrong_settings_are_refused_and_named() {
    let refused = |change: fn(&mut RelayConfig)| {
        let mut config = RelayConfig::default();
        change(&mut config);
        let relay = Relay::new(MemoryEventStore::new(), Scripted::default(), &config);
        let error = relay.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    };
    assert!(refused(|config| config.name.clear()).starts_with("relay.name: "));
    assert!(refused(|config| config.batch_size = 0).starts_with("relay.batch_size: "));
    assert!(refused(|config| config.poll_interval = Duration::ZERO).starts_with("relay.poll_"));
    assert!(refused(|config| config.topic = Some("a b".into())).starts_with("relay.topic: "));
}

/// Writers, a broker that is moody, and a relay that is stopped and started: everything arrives, in order, and what
/// arrives twice has the same id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_whatever_happens() {
    let (store, broker) = (MemoryEventStore::new(), Scripted::default());
    broker.0.moody.store(97, Ordering::SeqCst);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let store = store.clone();
            trunkline_core::task::spawn("writer", async move {
                for number in 0..100 {
                    append(&store, &writer.to_string(), number).await;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..10 {
        let relay = started(store.clone(), broker.clone()).await;
        sleep(Duration::from_millis(5)).await;
        relay.shutdown(soon()).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
    broker.0.moody.store(0, Ordering::SeqCst);
    let relay = started(store.clone(), broker.clone()).await;
    relay.drain(soon()).await.unwrap();
    relay.shutdown(soon()).await.unwrap();
    let mut first_seen: HashMap<String, Vec<u64>> = HashMap::new();
    let mut ids = std::collections::HashSet::new();
    for message in broker.taken() {
        // A consumer that remembers ids.
        if ids.insert(message.id.clone()) {
            let key = message.key_text().unwrap().to_owned();
            let numbers = order_of(std::slice::from_ref(&message), &key);
            first_seen.entry(key).or_default().extend(numbers);
        }
    }
    assert_eq!(ids.len(), 800);
    for (writer, numbers) in first_seen {
        assert!(
            numbers.iter().copied().eq(0..100),
            "writer {writer}: {numbers:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn erased_handles_serve_as_well() {
    let store = MemoryEventStore::new().erase();
    let broker: AnyBroker = Scripted::default().erase();
    let relay = started(store.clone(), broker).await;
    append(&store, "1", 1).await;
    relay.flush(soon()).await.unwrap();
    assert_eq!(relay.progress().position, 1);
}
