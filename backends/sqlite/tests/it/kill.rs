//! Processes that are killed in the middle of their work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use trunkline_core::Lifecycle;
use trunkline_discovery::{Resolver, ServiceName};
use trunkline_events::{EventStore, ReadAll};
use trunkline_messaging::inbox::{Claim, InboxStore};
use trunkline_messaging::{MessageBroker, Routed, Start, Subscription};
use trunkline_sqlite::{Connection, EmbeddedEventStore, EmbeddedInbox, EmbeddedRegistry};

use crate::directory::temporary;
use crate::process::Process;
use crate::roles::{HOUR, TOPIC, claimed, connect, member, message, messaging};

const PATIENCE: Duration = Duration::from_secs(60);
/// Long enough for what is there to come.
const SILENCE: Duration = Duration::from_secs(1);

/// Everything that comes until nothing more does, with its attempt; acknowledged.
async fn drain(subscription: &mut Subscription) -> Vec<(String, u32)> {
    let mut seen = Vec::new();
    while let Ok(Some(delivery)) = timeout(SILENCE, subscription.next()).await {
        seen.push((delivery.message().id.clone(), delivery.attempt()));
        delivery.ack().await.unwrap();
    }
    seen
}

fn check_integrity(directory: &Path, file: &str) {
    let connection = Connection::open(directory.join(file)).unwrap();
    let answer: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(answer, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_the_hands_of_a_killed_process_go_to_others() {
    let directory = temporary();
    let path = directory.path().to_str().unwrap();
    let broker = connect(path).await;
    drop(broker.subscribe(member()).await.unwrap());
    for id in ["a", "b", "c"] {
        broker.publish(message(id)).await.unwrap();
    }
    let holder = Process::start("hold", directory.path(), &["3"]);
    let held: BTreeSet<String> = (0..3).map(|_| holder.line().unwrap()).collect();
    assert_eq!(held, ["a", "b", "c"].map(str::to_owned).into());
    holder.kill();
    // Their lease would have run for an hour.
    let mut other = broker.subscribe(member()).await.unwrap();
    for _ in 0..3 {
        let delivery = timeout(PATIENCE, other.next()).await.unwrap().unwrap();
        assert_eq!(delivery.attempt(), 2);
        delivery.ack().await.unwrap();
    }
    assert!(drain(&mut other).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_a_killed_process_was_handling_are_handled_by_others() {
    const MESSAGES: u32 = 10;
    let directory = temporary();
    let path = directory.path().to_str().unwrap();
    let messaging = messaging(path).await;
    drop(messaging.broker().subscribe(member()).await.unwrap());
    for number in 0..MESSAGES {
        let outgoing = messaging.to(TOPIC).id(number.to_string());
        outgoing.send(&number).await.unwrap();
    }
    let victim = Process::start("handle", directory.path(), &[]);
    let handling: BTreeSet<String> = (0..MESSAGES).map(|_| victim.line().unwrap()).collect();
    assert_eq!(handling.len(), MESSAGES as usize);
    victim.kill();
    // Neither the lease of its messages nor that of its claims would run out in time.
    let (send, mut handled) = mpsc::unbounded_channel();
    let handler = move |number: u32| {
        send.send(number).unwrap();
        async {}
    };
    let subscribing = messaging.subscribe(TOPIC).lease(HOUR);
    subscribing.handle(handler).await.unwrap();
    let mut numbers = BTreeSet::new();
    for _ in 0..MESSAGES {
        let number = timeout(PATIENCE, handled.recv()).await;
        let number = number.expect("others go on").unwrap();
        assert!(numbers.insert(number), "{number} was handled twice");
    }
    drop(messaging.shutdown(Instant::now() + PATIENCE).await);
    assert!(handled.recv().await.is_none(), "none is handled twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_ends_with_its_process() {
    let directory = temporary();
    let inbox = EmbeddedInbox::new(directory.path());
    let owner = Process::start("claim", directory.path(), &[]);
    owner.expect("claimed");
    let claim = inbox.claim(claimed()).await.unwrap();
    assert!(matches!(claim, Claim::InProgress { .. }), "{claim:?}");
    owner.kill();
    let Claim::Granted(token) = inbox.claim(claimed()).await.unwrap() else {
        panic!("its owner is dead")
    };
    let kept = Duration::from_secs(60);
    inbox.complete(token, "done".into(), kept).await.unwrap();
    let claim = inbox.claim(claimed()).await.unwrap();
    assert_eq!(claim, Claim::Done("done".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_publisher_was_told_is_there() {
    let directory = temporary();
    let broker = connect(directory.path().to_str().unwrap()).await;
    let wanted = member().with_start(Start::Earliest).with_prefetch(1000);
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    for round in 0..4 {
        let publisher = Process::start("publish", directory.path(), &[]);
        let mut confirmed: BTreeSet<String> = (0..50 + round * 70)
            .map(|_| publisher.line().unwrap())
            .collect();
        confirmed.extend(publisher.kill());
        let seen = drain(&mut subscription).await;
        let distinct: BTreeSet<&String> = seen.iter().map(|(id, _)| id).collect();
        assert_eq!(distinct.len(), seen.len(), "none is doubled");
        let lost: Vec<&String> = confirmed
            .iter()
            .filter(|id| !distinct.contains(id))
            .collect();
        assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
    }
    check_integrity(directory.path(), "broker.db");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_go_on_when_others_are_killed() {
    let directory = temporary();
    let broker = connect(directory.path().to_str().unwrap()).await;
    let wanted = member().with_start(Start::Earliest).with_prefetch(1000);
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    let start = || Process::start("publish", directory.path(), &[]);
    let mut publishers: Vec<Process> = (0..3).map(|_| start()).collect();
    let mut confirmed = BTreeSet::new();
    for round in 0..6 {
        // Whoever is killed may be in the middle of a write; the others must get their turn.
        for publisher in &publishers {
            confirmed.extend((0..20).map(|_| publisher.line().unwrap()));
        }
        let victim = publishers.remove(round % 3);
        confirmed.extend(victim.kill());
        publishers.push(start());
    }
    for publisher in publishers {
        confirmed.extend(publisher.kill());
    }
    let seen: BTreeSet<String> = drain(&mut subscription)
        .await
        .into_iter()
        .map(|(id, _)| id)
        .collect();
    let lost: Vec<&String> = confirmed.difference(&seen).collect();
    assert!(lost.is_empty(), "confirmed and lost: {lost:?}");
    check_integrity(directory.path(), "broker.db");
}

#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_are_killed_lose_nothing() {
    const MESSAGES: usize = 1000;
    let directory = temporary();
    let broker = connect(directory.path().to_str().unwrap()).await;
    drop(broker.subscribe(member()).await.unwrap());
    let batch = (0..MESSAGES).map(|number| {
        let mut publish = message(&number.to_string());
        publish.message = publish.message.with_key((number % 7).to_string());
        publish
    });
    for outcome in broker.publish_batch(batch.collect()).await {
        outcome.unwrap();
    }
    let start = || Process::start("consume", directory.path(), &[]);
    let mut consumers: Vec<Process> = (0..3).map(|_| start()).collect();
    let mut story = Story::default();
    for round in 0..6 {
        // They work for a while; how far they get does not matter.
        tokio::time::sleep(Duration::from_millis(200)).await;
        for consumer in &consumers {
            consumer
                .lines()
                .into_iter()
                .for_each(|line| story.hear(&line));
        }
        let victim = consumers.remove(round % 3);
        victim.kill().into_iter().for_each(|line| story.hear(&line));
        consumers.push(start());
    }
    let finished = async {
        loop {
            for consumer in &consumers {
                consumer
                    .lines()
                    .into_iter()
                    .for_each(|line| story.hear(&line));
            }
            let statistics = broker.statistics().await.unwrap();
            let group = &statistics[0].groups[0];
            if group.waiting + group.unsettled == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, finished).await.expect("all is settled");
    for consumer in consumers {
        consumer
            .kill()
            .into_iter()
            .for_each(|line| story.hear(&line));
    }
    assert_eq!(story.attempts.len(), MESSAGES, "every message was got");
    check_integrity(directory.path(), "broker.db");
}

/// What consumers said of each message.
#[derive(Default)]
struct Story {
    attempts: BTreeMap<String, u32>,
    done: BTreeSet<String>,
}

impl Story {
    fn hear(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["got", id, attempt] => {
                let attempt: u32 = attempt.parse().unwrap();
                let before = self.attempts.insert((*id).to_owned(), attempt);
                // What one process tells may be read before what another told earlier.
                assert_ne!(before, Some(attempt), "{id} was given twice at once");
            }
            ["done", id] => assert!(self.done.insert((*id).to_owned()), "{id} was done twice"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_subscriber_without_a_group_is_forgotten() {
    let directory = temporary();
    let broker = connect(directory.path().to_str().unwrap()).await;
    // Somebody must be there to notice.
    let _own = broker
        .subscribe(trunkline_messaging::Subscribe::queue(
            "other".parse().unwrap(),
        ))
        .await
        .unwrap();
    let listener = Process::start("listen", directory.path(), &[]);
    listener.expect("ready");
    let receipt = broker.publish(message("a")).await.unwrap();
    assert_eq!(receipt.routed, Routed::Yes);
    listener.kill();
    let forgotten = async {
        while broker.publish(message("b")).await.unwrap().routed == Routed::Yes {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, forgotten).await.expect("it is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instances_of_a_killed_process_disappear() {
    let directory = temporary();
    let registry = EmbeddedRegistry::new(directory.path());
    let users = ServiceName::new("users").unwrap();
    let mut watch = registry.watch(&users).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
    let service = Process::start("register", directory.path(), &["users"]);
    service.expect("ready");
    let there = timeout(PATIENCE, watch.next()).await.unwrap();
    assert_eq!(there.unwrap().unwrap().instances.len(), 1);
    service.kill();
    // Its lease would have run for an hour.
    let gone = timeout(PATIENCE, watch.next()).await.unwrap();
    assert!(gone.unwrap().unwrap().instances.is_empty());
    assert!(registry.resolve(&users).await.unwrap().instances.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_skips_nothing_while_writers_are_killed() {
    let directory = temporary();
    let store = EmbeddedEventStore::new(directory.path(), "orders").unwrap();
    let mut told = BTreeSet::new();
    let mut writers = Vec::new();
    for number in 0..6 {
        let stream = format!("order-{number}");
        writers.push(Process::start(
            "append",
            directory.path(),
            &[stream.as_str()],
        ));
        if writers.len() == 3 {
            let positions = writers
                .iter()
                .flat_map(|writer| (0..10).map(|_| writer.line().unwrap()));
            told.extend(positions.map(|position| position.parse::<u64>().unwrap()));
            let victim = writers.remove(0);
            told.extend(
                victim
                    .kill()
                    .iter()
                    .map(|position| position.parse::<u64>().unwrap()),
            );
        }
    }
    for writer in writers {
        told.extend(
            writer
                .kill()
                .iter()
                .map(|position| position.parse::<u64>().unwrap()),
        );
    }
    let events = store
        .read_all(ReadAll::after(0).with_limit(usize::MAX))
        .await
        .unwrap();
    let positions: BTreeSet<u64> = events.iter().map(|event| event.position).collect();
    assert!(told.is_subset(&positions), "told and lost");
    assert_eq!(
        positions.len() as u64,
        *positions.last().unwrap(),
        "no gaps"
    );
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for event in events {
        let last = versions.entry(event.stream.to_string()).or_default();
        assert_eq!(event.version, *last + 1);
        *last = event.version;
    }
}
