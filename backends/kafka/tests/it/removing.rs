//! Looking at queues and removing of them, across processes, partitions and crashes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use trunkline_core::ErrorKind;
use trunkline_core::names::message_header as header;
use trunkline_kafka::KafkaBroker;
use trunkline_messaging::{
    Browse, DeadLetters, Destination, Edit, HandlerError, LetterFilter, Message, MessageBroker,
    Messaging, Publish, Queue, Replay, Subscribe, Topic,
};

use crate::place::{Place, attached, close, eventually, insist, settled, soon, topic};

fn to_queue(name: &str, key: usize, text: &str) -> Publish {
    let message = Message::new(text.to_owned()).with_key(key.to_string());
    Publish::new(Destination::Queue(topic(name)), message)
}

fn queue(name: &str) -> Browse {
    Browse::new(Destination::Queue(topic(name)))
}

/// Everything that a look shows, in pages of three: positions and texts.
async fn all(broker: &KafkaBroker, name: &str) -> Vec<(u64, String)> {
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let browse = queue(name).after(after).with_limit(3);
        let page = soon("a look", broker.browse(browse)).await.unwrap();
        for stored in page.messages {
            let text = String::from_utf8(stored.message.payload.to_vec()).unwrap();
            found.push((stored.info.position.unwrap(), text));
        }
        match page.next {
            Some(next) => after = next,
            None => return found,
        }
    }
}

async fn connected(place: &Place) -> KafkaBroker {
    let broker = KafkaBroker::new(place.config().with_partitions(3)).unwrap();
    broker.connect().await.unwrap();
    broker
}

fn texts(found: &[(u64, String)]) -> BTreeSet<String> {
    found.iter().map(|(_, text)| text.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_messages_of_several_partitions_are_removed_for_good() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let broker = connected(&place).await;
    let name = "work";
    broker
        .declare(Destination::Queue(topic(name)))
        .await
        .unwrap();
    let mut confirmed = BTreeSet::new();
    for number in 0..30 {
        let receipt = insist(&broker, to_queue(name, number % 7, &number.to_string())).await;
        confirmed.insert((receipt.position.unwrap(), number.to_string()));
    }
    let found = all(&broker, name).await;
    assert!(found.is_sorted());
    assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), confirmed);
    // Every third, wherever it lies.
    let (mut gone, mut left) = (Vec::new(), BTreeSet::new());
    for (at, (position, text)) in found.iter().enumerate() {
        if at % 3 == 1 {
            gone.push(*position);
        } else {
            left.insert(text.clone());
        }
    }
    let removed = broker.remove(topic(name), gone.clone()).await.unwrap();
    assert_eq!(removed, 10);
    assert_eq!(broker.remove(topic(name), gone).await.unwrap(), 0);
    assert_eq!(texts(&all(&broker, name).await), left);
    let queues = broker.queues().await.unwrap();
    assert_eq!((queues.len(), queues[0].messages), (1, 20));
    close(&broker).await;

    place.server.kill().unwrap();
    place.server.restart().unwrap();
    let broker = connected(&place).await;
    assert_eq!(texts(&all(&broker, name).await), left);
    let mut consumer = broker
        .subscribe(Subscribe::queue(topic(name)))
        .await
        .unwrap();
    let mut seen = BTreeSet::new();
    while seen != left {
        let delivery = soon("a delivery", consumer.next()).await.unwrap();
        let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
        assert!(left.contains(&text), "{text} was removed");
        settled(delivery.ack().await);
        seen.insert(text);
    }
    eventually("everything is done", async || {
        all(&broker, name).await.is_empty().then_some(())
    })
    .await;
    close(&broker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_process_consumes_is_seen_and_not_removed() {
    let Some(place) = Place::new() else {
        return;
    };
    let (consuming, looking) = (connected(&place).await, connected(&place).await);
    let name = "work";
    let mut consumer = consuming
        .subscribe(Subscribe::queue(topic(name)))
        .await
        .unwrap();
    attached(&consumer).await;
    for number in 0..3 {
        insist(&looking, to_queue(name, 0, &number.to_string())).await;
    }
    let held = soon("a delivery", consumer.next()).await.unwrap();
    let found = all(&looking, name).await;
    assert_eq!(found.len(), 3);
    let error = looking.remove(topic(name), vec![found[1].0]).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
    assert_eq!(all(&looking, name).await, found);
    // The process that has it can: also what it holds, and what waits behind it.
    let removed = consuming.remove(topic(name), vec![found[0].0, found[2].0]);
    assert_eq!(removed.await.unwrap(), 2);
    let late = held.ack().await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict, "{}", late.report());
    assert_eq!(all(&looking, name).await, [found[1].clone()]);
    drop(consumer);
    close(&consuming).await;
    let removed = looking.remove(topic(name), vec![found[1].0]);
    assert_eq!(removed.await.unwrap(), 1);
    close(&looking).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_behind_an_open_message_does_not_come_again_after_a_crash() {
    let Some(place) = Place::new() else {
        return;
    };
    let mut config = place.config();
    config.confirmed_acks = true;
    let broker = KafkaBroker::new(config).unwrap();
    broker.connect().await.unwrap();
    let name = "work";
    let wanted = || Subscribe::queue(topic(name)).with_prefetch(20);
    let mut consumer = broker.subscribe(wanted()).await.unwrap();
    attached(&consumer).await;
    let mut open = Vec::new();
    for number in 0..10 {
        insist(&broker, to_queue(name, number, &number.to_string())).await;
        let delivery = soon("a delivery", consumer.next()).await.unwrap();
        if number % 4 == 0 {
            open.push(delivery);
        } else {
            soon("an acknowledgement", delivery.ack()).await.unwrap();
        }
    }
    // Without a farewell, as if the process had died.
    drop(broker);
    drop((consumer, open));
    let broker = place.broker();
    broker.connect().await.unwrap();
    let mut consumer = broker.subscribe(wanted()).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..3 {
        let delivery = soon("a delivery", consumer.next()).await.unwrap();
        seen.push(String::from_utf8(delivery.message().payload.to_vec()).unwrap());
        settled(delivery.ack().await);
    }
    assert_eq!(seen, ["0", "4", "8"]);
    close(&broker).await;
}

/// What `trunkline dlq edit` does, then `replay`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_in_the_midst_is_mended_and_handled_as_it_is_now() {
    const ORDERS: Topic<String> = Topic::new("order.created");
    let Some(place) = Place::new() else {
        return;
    };
    let broker = connected(&place).await.erase();
    let messaging = Messaging::new(broker.clone());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let handler = move |order: String| {
        let is_good = order.starts_with("mended");
        record.lock().unwrap().push(order);
        async move {
            match is_good {
                true => Ok(()),
                false => Err(HandlerError::dead_letter("unreadable")),
            }
        }
    };
    let subscribing = messaging.subscribe(ORDERS).group("mail");
    let handler = subscribing.handle(handler).await.unwrap();
    soon("attaching", handler.attached()).await.unwrap();
    for number in 0..9 {
        let order = messaging.to(ORDERS).key(number.to_string());
        order.send(&format!("order {number}")).await.unwrap();
    }
    let letters = messaging.dead_letters();
    let all = LetterFilter::default();
    let list = async || letters.list("mail", &all, 0, 20).await.unwrap().letters;
    eventually("nine letters", async || {
        (list().await.len() == 9).then_some(())
    })
    .await;
    let before = list().await;
    let chosen = &before[4];
    let edit = Edit::default()
        .with_payload("\"mended\"")
        .with_header("note", "by hand");
    letters.edit("mail", chosen.position, &edit).await.unwrap();
    let gone = letters.show("mail", chosen.position).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{}", gone.report());
    let after = list().await;
    assert_eq!(after.len(), 9);
    let mended: Vec<_> = after
        .iter()
        .filter(|letter| letter.message.headers.get("note") == Some("by hand"))
        .collect();
    assert_eq!(mended.len(), 1);
    assert_eq!(mended[0].message.id, chosen.message.id);
    assert_eq!(mended[0].message.key, chosen.message.key);
    assert_eq!(mended[0].reason, chosen.reason);
    let mut replay = Replay::default();
    replay.filter.positions = Some(vec![mended[0].position]);
    letters.replay("mail", &replay).await.unwrap();
    eventually("it is handled", async || {
        let seen = seen.lock().unwrap();
        seen.iter().any(|order| order == "mended").then_some(())
    })
    .await;
    assert_eq!(list().await.len(), 8);
    assert_eq!(seen.lock().unwrap().len(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_cannot_remove_leaves_the_letter_in_both_places() {
    let Some(place) = Place::new() else {
        return;
    };
    let (consuming, broker) = (connected(&place).await, connected(&place).await.erase());
    let mut letters_there = consuming
        .subscribe(Subscribe::queue(topic("work.dlq")))
        .await
        .unwrap();
    attached(&letters_there).await;
    let work = Destination::Queue(topic("work"));
    broker.declare(work.clone()).await.unwrap();
    let mut letter = to_queue("work.dlq", 1, "poison");
    let source = header::DEAD_SOURCE;
    letter.message.headers.insert(source, "queue work");
    let id = letter.message.id.clone();
    insist(&consuming, letter).await;
    let held = soon("a delivery", letters_there.next()).await.unwrap();
    let letters = DeadLetters::new(broker.clone());
    // What a crash between the two steps does, only that the reason is known.
    let report = letters.replay("work", &Replay::default()).await.unwrap();
    assert_eq!((report.replayed, report.failed.len()), (0, 1));
    let filter = LetterFilter::default();
    let page = letters.list("work", &filter, 0, 10).await.unwrap();
    assert_eq!(page.letters.len(), 1);
    drop((held, letters_there));
    close(&consuming).await;
    let report = letters.replay("work", &Replay::default()).await.unwrap();
    assert_eq!((report.replayed, report.failed.len()), (1, 0));
    let page = letters.list("work", &filter, 0, 10).await.unwrap();
    assert!(page.letters.is_empty());
    let page = broker.browse(Browse::new(work)).await.unwrap();
    let ids: Vec<String> = page
        .messages
        .into_iter()
        .map(|one| one.message.id)
        .collect();
    assert_eq!(ids, [id.clone(), id]);
    let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    broker.disconnect(soon).await.unwrap();
}

/// Each letter comes back behind the others of its partition at once, and is not tried twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_over_several_partitions_ends() {
    const LETTERS: usize = 240;
    const WORK: Queue<String> = Queue::new("work");
    let Some(place) = Place::new() else {
        return;
    };
    let broker = connected(&place).await.erase();
    let work = Destination::Queue(topic("work"));
    broker.declare(work).await.unwrap();
    let messaging = Messaging::new(broker.clone());
    let refuse = async |text: String| Err::<(), _>(HandlerError::dead_letter(text));
    let handler = messaging.subscribe(WORK).handle(refuse).await;
    let handler = handler.unwrap();
    for number in 0..LETTERS {
        let sent = messaging
            .to(WORK)
            .key(number.to_string())
            .send(&number.to_string());
        soon("a confirm", sent).await.unwrap();
    }
    let letters = messaging.dead_letters();
    let count = async |replays: u32| {
        let page = letters
            .list("work", &LetterFilter::default(), 0, 2 * LETTERS)
            .await
            .ok()?;
        let counted = page
            .letters
            .iter()
            .filter(|letter| letter.replays == replays)
            .count();
        (page.letters.len() == LETTERS && counted == LETTERS).then_some(())
    };
    eventually("every message is a dead letter", async || count(0).await).await;
    let replay = Replay::default();
    let report = soon("the replay", letters.replay("work", &replay));
    let report = report.await.unwrap();
    assert_eq!((report.replayed, report.failed.len()), (LETTERS as u64, 0));
    eventually("every one is a dead letter again", async || count(1).await).await;
    drop(handler);
    let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    broker.disconnect(soon).await.unwrap();
}
