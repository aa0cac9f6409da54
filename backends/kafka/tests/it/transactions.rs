//! Acknowledging and publishing in one step, whoever dies, hangs or joins in between.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::JoinSet;
use trunkline_core::ErrorKind;
use trunkline_kafka::{KafkaBroker, KafkaConfig, TopicPlan};
use trunkline_messaging::{
    Delivery, Destination, HandlerError, Message, MessageBroker, MessageBrokerConfig, Messaging,
    Publish, Settlement, Start, Subscribe, Subscription, SubscriptionState, Topic,
};

use crate::place::{Place, attached, close, eventually, insist, soon, to_topic, topic};

const SOURCE: &str = "order.created";
const TARGET: &str = "order.moved";
const AUDIT: &str = "order.audited";
const KEYS: usize = 7;
/// Said by the other process when it has its first message.
const READY: &str = "is a member";

fn config(url: &str) -> KafkaConfig {
    let neutral = MessageBrokerConfig::from_url(url).unwrap();
    let mut config = KafkaConfig::from_neutral(&neutral).unwrap();
    config.producer_config.linger_ms = 1;
    config.topic_refresh = Duration::from_millis(500);
    config.transactions = true;
    config.partitions = Some(2);
    let config = config.with_setting("session.timeout.ms", "6000");
    match config.transactional_id {
        // Only a successor ends what is open.
        Some(_) => config.with_setting("transaction.timeout.ms", "600000"),
        None => config.with_setting("transaction.timeout.ms", "5000"),
    }
}

fn broker(place: &Place) -> KafkaBroker {
    KafkaBroker::new(config(&place.server.url())).unwrap()
}

async fn member(broker: &KafkaBroker) -> Subscription {
    let wanted = Subscribe::topics(topic(SOURCE))
        .with_group("mail")
        .with_start(Start::Earliest)
        .with_prefetch(10);
    broker.subscribe(wanted).await.unwrap()
}

/// Two messages in place of one.
fn moved(delivery: &Delivery) -> Settlement {
    let to = |name| Publish::new(Destination::Topic(topic(name)), delivery.message().clone());
    Settlement::ForwardAll(vec![to(TARGET), to(AUDIT)])
}

/// So many more messages, `key/number`, and all that there are.
async fn fill(broker: &KafkaBroker, wanted: &mut BTreeSet<String>, count: usize) {
    for number in wanted.len()..wanted.len() + count {
        let key = number % KEYS;
        let mut publish = to_topic(SOURCE, &format!("{key}/{number:04}"));
        publish.message = publish.message.with_key(key.to_string());
        insist(broker, publish).await;
        wanted.insert(format!("{key}/{number:04}"));
    }
}

/// Forwards what comes, several at a time, until it is told to stop. What fails comes again.
async fn forward(subscription: &mut Subscription, until: impl AsyncFn() -> bool) {
    let mut running = JoinSet::new();
    let mut told = Box::pin(async {
        while !until().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    soon("everything", async {
        loop {
            tokio::select! {
                () = &mut told => return,
                delivery = subscription.next() => {
                    let delivery = delivery.expect("the stream goes on");
                    let settlement = moved(&delivery);
                    running.spawn(delivery.settle(settlement));
                }
                Some(_) = running.join_next() => {}
            }
        }
    })
    .await;
}

/// What a reader that is not ours finds in a topic, in the order of its partitions.
fn read(place: &Place, name: &str, isolation: &str) -> Vec<String> {
    read_at(place.server.address(), name, isolation)
}

fn read_at(server: SocketAddr, name: &str, isolation: &str) -> Vec<String> {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server.to_string())
        .set("group.id", "reader")
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset(name, partition, Offset::Beginning)
            .unwrap();
    }
    client.assign(&list).unwrap();
    let mut found: [Vec<String>; 2] = Default::default();
    let mut ends = BTreeSet::new();
    while ends.len() < 2 {
        match client.poll(Duration::from_secs(5)) {
            Some(Ok(message)) => {
                let text = String::from_utf8(message.payload().unwrap().to_vec()).unwrap();
                found[usize::try_from(message.partition()).unwrap()].push(text);
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                ends.insert(partition);
            }
            // Perhaps the topic is not there yet.
            Some(Err(_)) | None => break,
        }
    }
    found.concat()
}

/// What has been moved, as who reads what is committed sees it.
async fn arrived(place: &Place) -> BTreeSet<String> {
    let server = place.server.address();
    let found = tokio::task::spawn_blocking(move || read_at(server, TARGET, "read_committed"));
    found.await.unwrap().into_iter().collect()
}

async fn all_there(place: &Place, wanted: &BTreeSet<String>) -> bool {
    arrived(place).await == *wanted
}

/// Each once, in both topics, and those of a key in their order.
fn exactly_once(place: &Place, wanted: &BTreeSet<String>) {
    for name in [TARGET, AUDIT] {
        let found = read(place, name, "read_committed");
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        for text in &found {
            let (key, number) = text.split_once('/').unwrap();
            let before = last.insert(key, number);
            assert!(
                before.is_none_or(|before| before < number),
                "{name}: {before:?} before {text}"
            );
        }
        assert_eq!(found.len(), wanted.len(), "{name}: some are there twice");
        assert_eq!(
            found.into_iter().collect::<BTreeSet<_>>(),
            *wanted,
            "{name}"
        );
    }
}

/// A process that forwards, and is killed with all it has.
struct Other(Child);

impl Other {
    fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "transactions::the_other_process"])
            .args(["--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{url}").unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let said = lines.map_while(Result::ok).any(|line| line.contains(READY));
        assert!(said, "the other process ended: {}", child.wait().unwrap());
        Self(child)
    }

    fn signal(&self, name: &str) {
        let told = Command::new("kill")
            .args([name, &self.0.id().to_string()])
            .status();
        assert!(told.unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process that another test starts"]
async fn the_other_process() {
    let mut url = String::new();
    std::io::stdin().read_line(&mut url).unwrap();
    let broker = KafkaBroker::new(config(url.trim_end())).unwrap();
    broker.connect().await.unwrap();
    let mut subscription = member(&broker).await;
    let first = subscription.next().await.unwrap();
    println!("{READY}");
    drop(first);
    loop {
        forward(&mut subscription, async || false).await;
    }
}

/// How far the logs of where messages go have come, what is not committed included.
fn marks(place: &Place, name: &str) -> i64 {
    let client: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", place.server.address().to_string())
        .create()
        .unwrap();
    let span = Duration::from_secs(5);
    let marks = (0..2).filter_map(|partition| client.fetch_watermarks(name, partition, span).ok());
    marks.map(|(_, high)| high).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_not_committed_is_seen_by_nobody_and_done_again() {
    killed("").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_by_name_ends_what_a_killed_process_left_open() {
    killed("?transactions=true&transactional_id=orders").await;
}

async fn killed(options: &str) {
    const ROUNDS: usize = 12;
    let Some(place) = Place::new() else {
        return;
    };
    let url = place.server.url() + options;
    let own = KafkaBroker::new(config(&url)).unwrap();
    own.connect().await.unwrap();
    let mut wanted = BTreeSet::new();
    let mut open = 0;
    for round in 0..ROUNDS {
        fill(&own, &mut wanted, 60).await;
        let url = url.clone();
        let before = marks(&place, TARGET);
        let other = tokio::task::spawn_blocking(move || Other::start(&url));
        let other = soon("the other process", other).await.unwrap();
        // As soon as something is written, committed or not.
        soon("something is written", async {
            while marks(&place, TARGET) == before {
                tokio::task::yield_now().await;
            }
        })
        .await;
        drop(other);
        let all = read(&place, TARGET, "read_uncommitted").len();
        let committed = read(&place, TARGET, "read_committed").len();
        open = open.max(all - committed);
        if all > committed && round >= 2 {
            break;
        }
    }
    assert!(open > 0, "no process was killed in a transaction");
    let mut subscription = member(&own).await;
    forward(&mut subscription, async || all_there(&place, &wanted).await).await;
    exactly_once(&place, &wanted);
    let all = read(&place, TARGET, "read_uncommitted").len();
    assert!(all > wanted.len(), "nothing was ever aborted: {all}");
    close(&own).await;
}

/// It is believed dead while it hangs, and goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_that_hung_forwards_too_late_is_refused() {
    let Some(place) = Place::new() else {
        return;
    };
    let own = broker(&place);
    own.connect().await.unwrap();
    let mut wanted = BTreeSet::new();
    fill(&own, &mut wanted, 60).await;
    let url = place.server.url();
    let before = marks(&place, TARGET);
    let other = tokio::task::spawn_blocking(move || Other::start(&url));
    let other = soon("the other process", other).await.unwrap();
    soon("something is written", async {
        while marks(&place, TARGET) == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    other.signal("-STOP");
    fill(&own, &mut wanted, 60).await;
    let mut subscription = member(&own).await;
    forward(&mut subscription, async || all_there(&place, &wanted).await).await;
    other.signal("-CONT");
    // It finds out, joins again and takes its share.
    eventually("two members", async || {
        (place.members("mail@order.created") == Some(2)).then_some(())
    })
    .await;
    fill(&own, &mut wanted, 60).await;
    forward(&mut subscription, async || all_there(&place, &wanted).await).await;
    exactly_once(&place, &wanted);
    close(&own).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a defect that is open: after the death of a server forwards sometimes stand still until the group is joined anew"]
async fn members_come_and_go_and_servers_die_in_the_midst_of_transactions() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let first = broker(&place);
    first.connect().await.unwrap();
    let mut wanted = BTreeSet::new();
    fill(&first, &mut wanted, 80).await;
    let mut its = member(&first).await;
    let enough = |count: usize| {
        let place = &place;
        async move || arrived(place).await.len() >= count
    };
    forward(&mut its, enough(10)).await;
    // The server dies with transactions on their way.
    fill(&first, &mut wanted, 40).await;
    let mut running = JoinSet::new();
    for _ in 0..8 {
        let delivery = soon("a delivery", its.next()).await.unwrap();
        let settlement = moved(&delivery);
        running.spawn(delivery.settle(settlement));
    }
    drop(soon("an outcome", running.join_next()).await);
    place.server.kill().unwrap();
    place.server.restart().unwrap();
    while soon("an outcome", running.join_next()).await.is_some() {}
    fill(&first, &mut wanted, 80).await;
    let second = broker(&place);
    second.connect().await.unwrap();
    let mut others = member(&second).await;
    // Both at once, while partitions move from one to the other.
    let done = async || all_there(&place, &wanted).await;
    tokio::join!(forward(&mut its, done), forward(&mut others, done));
    drop(its);
    close(&first).await;
    fill(&second, &mut wanted, 80).await;
    forward(&mut others, async || all_there(&place, &wanted).await).await;
    exactly_once(&place, &wanted);
    close(&second).await;
}

/// One of several that are forwarded together is refused by the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_refused_leaves_nothing_and_harms_no_other() {
    let Some(place) = Place::new() else {
        return;
    };
    let mut config = config(&place.server.url());
    config.producer_config.compression_type = "none".to_owned();
    let own = KafkaBroker::new(config).unwrap();
    own.connect().await.unwrap();
    let small = Destination::Topic(topic("small"));
    let plan = TopicPlan::default().with_config("max.message.bytes", "500");
    own.declare_topic(small.clone(), plan).await.unwrap();
    let mut wanted = BTreeSet::new();
    fill(&own, &mut wanted, 10).await;
    let mut subscription = member(&own).await;
    let mut held = Vec::new();
    for _ in 0..KEYS {
        held.push(soon("a delivery", subscription.next()).await.unwrap());
    }
    let bad = held.remove(2);
    let large = Publish::new(small, Message::new(vec![b'x'; 5000]));
    let to = Publish::new(Destination::Topic(topic(TARGET)), bad.message().clone());
    let mut refused = JoinSet::new();
    refused.spawn(bad.settle(Settlement::ForwardAll(vec![to, large])));
    let mut running = JoinSet::new();
    for delivery in held {
        let settlement = moved(&delivery);
        running.spawn(delivery.settle(settlement));
    }
    let refused = soon("an answer", refused.join_next()).await.unwrap();
    let refused = refused.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{}", refused.report());
    while let Some(outcome) = soon("an outcome", running.join_next()).await {
        outcome.unwrap().unwrap();
    }
    assert_eq!(read(&place, TARGET, "read_committed").len(), KEYS - 1);
    forward(&mut subscription, async || all_there(&place, &wanted).await).await;
    exactly_once(&place, &wanted);
    close(&own).await;
}

/// What a handler's message becomes: a copy that waits, then a dead letter, each in one step with the end of the one before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retries_and_dead_letters_are_written_in_transactions() {
    const ORDERS: Topic<String> = Topic::new(SOURCE);
    let Some(place) = Place::new() else {
        return;
    };
    let broker = broker(&place).erase();
    broker.connect().await.unwrap();
    let messaging = Messaging::new(broker.clone());
    let failing = async |_: String| Err::<(), _>(HandlerError::retry("not today"));
    let subscribing = messaging.subscribe(ORDERS).group("mail");
    let subscribing = subscribing
        .max_attempts(3)
        .retry_delay(Duration::from_millis(300));
    let handler = subscribing.handle(failing).await.unwrap();
    soon("attaching", handler.attached()).await.unwrap();
    for number in 0..10 {
        messaging
            .publish(ORDERS, &number.to_string())
            .await
            .unwrap();
    }
    let letters = messaging.dead_letters();
    let queue = eventually("ten letters", async || {
        let queues = letters.queues().await.ok()?;
        queues.into_iter().find(|queue| queue.messages >= 10)
    })
    .await;
    assert_eq!(queue.messages, 10);
    // Written by transactions, the one or the other.
    let queue = format!("queues.{}", queue.name);
    eventually("marks of transactions", async || {
        (marks(&place, &queue) > 10).then_some(())
    })
    .await;
    drop(handler);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    broker.disconnect(deadline).await.unwrap();
}

/// Two processes under one name: one of them stands aside, says why, and goes on when the other is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_fenced_again_and_again_says_so_and_comes_back() {
    let Some(place) = Place::new() else {
        return;
    };
    let mut config = config(&place.server.url());
    config.transactional_id = Some("orders".to_owned());
    let [first, second] = [&config; 2].map(|config| KafkaBroker::new(config.clone()).unwrap());
    first.connect().await.unwrap();
    second.connect().await.unwrap();
    let mut wanted = BTreeSet::new();
    let mut its = member(&first).await;
    let mut others = member(&second).await;
    attached(&its).await;
    attached(&others).await;
    eventually("two members", async || {
        (place.members("mail@order.created") == Some(2)).then_some(())
    })
    .await;
    let mut states = [its.state(), others.state()];
    let [one, other] = &mut states;
    let is_aside = |state: &SubscriptionState| matches!(state, SubscriptionState::Detached { reason } if reason.contains("fenced"));
    let found = Cell::new(None);
    let watched = async {
        let at = tokio::select! {
            state = one.wait_for(is_aside) => { drop(state.unwrap()); 0 }
            state = other.wait_for(is_aside) => { drop(state.unwrap()); 1 }
        };
        found.set(Some(at));
    };
    // What was begun is finished: else it would not be known what is there.
    let rivalry = Box::pin(async {
        while found.get().is_none() {
            fill(&first, &mut wanted, 10).await;
            let done = async || found.get().is_some() || all_there(&place, &wanted).await;
            tokio::join!(forward(&mut its, done), forward(&mut others, done));
        }
    });
    soon("one stands aside", async { tokio::join!(watched, rivalry) }).await;
    let loser = found.get().unwrap();
    let [lost, kept] = if loser == 0 {
        [&first, &second]
    } else {
        [&second, &first]
    };
    let told = lost.health_check().await.unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Conflict, "{}", told.report());
    assert!(
        told.message().contains("orders.mail@order.created"),
        "{told}"
    );
    close(kept).await;
    let left = if loser == 0 { &mut its } else { &mut others };
    forward(left, async || all_there(&place, &wanted).await).await;
    // The other may have done all of it while this one stood aside.
    eventually("it comes back", async || lost.health_check().await.ok()).await;
    exactly_once(&place, &wanted);
    close(lost).await;
}
