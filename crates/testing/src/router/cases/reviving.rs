//! Dead letters: looking, trying again, removing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trunkline_core::ErrorKind;
use trunkline_core::names::message_header as header;
use trunkline_messaging::{
    AnyBroker, Attempt, DeadLetter, Destination, HandlerError, LetterFilter, Message,
    MessageBroker, Messaging, Replay, Source, TopicName,
};

use crate::Scope;
use crate::router::fixture::{Dead, Order, Seen, end, has, messaging, publish, ready, topic};

fn able(broker: &AnyBroker, scope: &Scope) -> bool {
    let capabilities = broker.capabilities();
    let looks = capabilities.browse || capabilities.peek;
    let able = capabilities.groups && capabilities.queues && looks;
    has(scope, able, "browse or peek")
}

/// A handler of one topic that fails until it is switched on.
struct Shop {
    messaging: Messaging,
    name: TopicName,
    group: String,
    seen: Seen<u64>,
    works: Arc<AtomicBool>,
}

impl Shop {
    async fn open(broker: &AnyBroker, scope: &Scope) -> Self {
        let shop = Self {
            messaging: messaging(broker, scope),
            name: topic(scope, "orders"),
            group: scope.name("mail"),
            seen: Seen::new(),
            works: Arc::default(),
        };
        let source = Source::Topics(shop.name.clone().into());
        shop.handle(source, Some(&shop.group)).await;
        ready(&shop.messaging, scope).await;
        shop
    }

    async fn handle(&self, source: Source, group: Option<&str>) {
        let (record, works) = (self.seen.clone(), Arc::clone(&self.works));
        let handler = move |order: Order| {
            let works = works.load(Ordering::SeqCst);
            if works {
                record.push(order.id);
            }
            async move {
                match works {
                    true => Ok(()),
                    false => Err(HandlerError::dead_letter(format!(
                        "order {} failed",
                        order.id
                    ))),
                }
            }
        };
        let subscribing = self.messaging.subscribe(source).concurrency(1);
        let subscribing = match group {
            Some(group) => subscribing.group(group),
            None => subscribing,
        };
        subscribing.handle(handler).await.expect("it begins");
    }

    async fn letters(&self, scope: &Scope, owner: &str, count: usize) -> Vec<DeadLetter> {
        let there = async {
            loop {
                let filter = LetterFilter::default();
                let letters = self.messaging.dead_letters();
                match letters.list(owner, &filter, 0, 100).await {
                    Ok(page) if page.letters.len() == count => return page.letters,
                    Ok(_) => {}
                    // The handler makes the queue while it takes messages already.
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        scope.within("the dead letters", there).await
    }

    async fn replay(&self, owner: &str, replay: &Replay) -> u64 {
        let report = self.messaging.dead_letters().replay(owner, replay).await;
        let report = report.expect("replayed");
        assert!(report.failed.is_empty(), "{:?}", report.failed);
        report.replayed
    }
}

/// Dead letters are listed with what is known of them, page by page, and shown one by one.
pub async fn dead_letters_are_listed_and_shown(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let shop = Shop::open(broker, scope).await;
    for id in 1..=3 {
        publish(&shop.messaging, scope, &shop.name, id).await;
    }
    let all = shop.letters(scope, &shop.group, 3).await;
    let (letters, everything) = (shop.messaging.dead_letters(), LetterFilter::default());
    let first = letters
        .list(&shop.group, &everything, 0, 2)
        .await
        .expect("listed");
    assert_eq!(first.letters, all[..2]);
    let next = first.next.expect("there is more");
    let second = letters
        .list(&shop.group, &everything, next, 2)
        .await
        .expect("listed");
    assert_eq!((second.letters.as_slice(), second.next), (&all[2..], None));
    let letter = letters
        .show(&shop.group, all[1].position)
        .await
        .expect("shown");
    assert_eq!(letter.reason, "handler");
    assert_eq!(letter.error, "order 2 failed");
    assert_eq!((letter.attempts, letter.replays), (1, 0));
    assert_eq!(letter.group.as_deref(), Some(shop.group.as_str()));
    assert_eq!(letter.origin, Some(format!("topic {}", shop.name)));
    let own = letters
        .list(&format!("{}.dlq", shop.group), &everything, 0, 9)
        .await;
    assert_eq!(own.expect("by its own name").letters, all);
    if broker.capabilities().browse {
        let queues = letters.queues().await.expect("listed");
        let found = queues
            .iter()
            .find(|queue| queue.name.as_str() == format!("{}.dlq", shop.group));
        assert_eq!(found.expect("the queue is there").messages, 3);
    }
    let missing = letters.show(&shop.group, all[2].position + 1000).await;
    assert_eq!(missing.expect_err("not there").kind(), ErrorKind::NotFound);
    let nobody = letters.list(&scope.name("nobody"), &everything, 0, 9).await;
    assert_eq!(nobody.expect_err("not there").kind(), ErrorKind::NotFound);
    end(&shop.messaging).await;
}

/// A replayed letter goes to the handler that gave it up; other groups of the topic see nothing of it.
pub async fn a_replayed_letter_goes_to_its_handler_alone(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let shop = Shop::open(broker, scope).await;
    let (others, raw) = (Seen::new(), Seen::<(Destination, Message)>::new());
    let record = others.clone();
    let other = move |order: Order| {
        record.push(order.id);
        async {}
    };
    let subscribing = shop
        .messaging
        .subscribe(shop.name.clone())
        .group(scope.name("audit"));
    subscribing.handle(other).await.expect("it begins");
    let record = raw.clone();
    let see = move |to: Destination, message: Message| {
        record.push((to, message));
        async { Err::<(), _>(HandlerError::dead_letter("look at it later")) }
    };
    let look = scope.name("look");
    let subscribing = shop.messaging.subscribe(shop.name.clone()).group(&look);
    subscribing.handle(see).await.expect("it begins");
    ready(&shop.messaging, scope).await;
    publish(&shop.messaging, scope, &shop.name, 1).await;
    shop.letters(scope, &shop.group, 1).await;
    shop.letters(scope, &look, 1).await;
    shop.works.store(true, Ordering::SeqCst);
    assert_eq!(shop.replay(&shop.group, &Replay::default()).await, 1);
    assert_eq!(shop.seen.wait_for(scope, 1).await, [1]);
    shop.letters(scope, &shop.group, 0).await;
    assert_eq!(shop.replay(&look, &Replay::default()).await, 1);
    let twice = raw.wait_for(scope, 2).await;
    let (before, after) = (&twice[0], &twice[1]);
    assert_eq!(
        before.0, after.0,
        "the handler sees the topic of the first time"
    );
    assert_eq!(before.1.id, after.1.id);
    assert_eq!(before.1.payload, after.1.payload);
    assert!(!after.1.headers.contains("trunkline-dead-letter-error"));
    others.stays(scope, 1).await;
    shop.seen.stays(scope, 1).await;
    end(&shop.messaging).await;
}

/// Dead letters of a queue's consumer go back into the queue.
pub async fn letters_of_a_queue_go_back_to_it(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let shop = Shop::open(broker, scope).await;
    let queue = topic(scope, "work");
    shop.handle(Source::Queue(queue.clone()), None).await;
    ready(&shop.messaging, scope).await;
    let to = Destination::Queue(queue.clone());
    shop.messaging
        .publish(to, &Order { id: 5 })
        .await
        .expect("published");
    let letter = shop.letters(scope, queue.as_str(), 1).await.remove(0);
    assert_eq!(letter.source, Some(Source::Queue(queue.clone())));
    shop.works.store(true, Ordering::SeqCst);
    assert_eq!(shop.replay(queue.as_str(), &Replay::default()).await, 1);
    assert_eq!(shop.seen.wait_for(scope, 1).await, [5]);
    end(&shop.messaging).await;
}

/// Letters are tried again in their order; those that the filter leaves out stay.
pub async fn replay_keeps_order_and_obeys_its_filter(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let shop = Shop::open(broker, scope).await;
    for id in 1..=6 {
        let outgoing = shop.messaging.to(&shop.name).key("k");
        outgoing.send(&Order { id }).await.expect("published");
    }
    let all = shop.letters(scope, &shop.group, 6).await;
    shop.works.store(true, Ordering::SeqCst);
    let mut filter = LetterFilter::default();
    filter.positions = Some(vec![all[1].position, all[3].position]);
    let some = Replay::default().with_filter(filter);
    assert_eq!(shop.replay(&shop.group, &some).await, 2);
    assert_eq!(shop.seen.wait_for(scope, 2).await, [2, 4]);
    let few = Replay::default().with_limit(2);
    assert_eq!(shop.replay(&shop.group, &few).await, 2);
    assert_eq!(shop.seen.wait_for(scope, 4).await, [2, 4, 1, 3]);
    let slowly = Replay::default().with_rate(50.0);
    let began = tokio::time::Instant::now();
    assert_eq!(shop.replay(&shop.group, &slowly).await, 2);
    assert!(began.elapsed() >= Duration::from_millis(20));
    assert_eq!(shop.seen.wait_for(scope, 6).await, [2, 4, 1, 3, 5, 6]);
    shop.letters(scope, &shop.group, 0).await;
    let wrong = Replay::default().with_rate(0.0);
    let refused = shop
        .messaging
        .dead_letters()
        .replay(&shop.group, &wrong)
        .await;
    assert_eq!(refused.expect_err("no rate").kind(), ErrorKind::Invalid);
    end(&shop.messaging).await;
}

/// A letter that fails again is a dead letter again, counted from the beginning, and one replay does not chase it.
pub async fn a_letter_that_fails_again_comes_back(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let shop = Shop::open(broker, scope).await;
    publish(&shop.messaging, scope, &shop.name, 1).await;
    let first = shop.letters(scope, &shop.group, 1).await.remove(0);
    assert_eq!(shop.replay(&shop.group, &Replay::default()).await, 1);
    let back = async {
        loop {
            let second = shop.letters(scope, &shop.group, 1).await.remove(0);
            if second.position != first.position {
                return second;
            }
        }
    };
    let second = scope.within("coming back", back).await;
    assert_eq!((second.attempts, second.replays), (1, 1));
    assert_eq!(second.message.id, first.message.id);
    assert_eq!(second.origin, first.origin);
    assert_eq!(second.source, first.source);
    shop.works.store(true, Ordering::SeqCst);
    assert_eq!(shop.replay(&shop.group, &Replay::default()).await, 1);
    assert_eq!(shop.seen.wait_for(scope, 1).await, [1]);
    end(&shop.messaging).await;
}

/// Purged letters are gone; those that the filter leaves out stay.
pub async fn purged_letters_are_gone(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let shop = Shop::open(broker, scope).await;
    for id in 1..=4 {
        publish(&shop.messaging, scope, &shop.name, id).await;
    }
    let all = shop.letters(scope, &shop.group, 4).await;
    let letters = shop.messaging.dead_letters();
    let mut filter = LetterFilter::default();
    filter.error = Some("ORDER 3".to_owned());
    let purged = letters.purge(&shop.group, &filter).await.expect("purged");
    assert_eq!(purged, 1);
    let left = shop.letters(scope, &shop.group, 3).await;
    assert!(left.iter().all(|letter| letter.error != "order 3 failed"));
    let by_id = LetterFilter::default();
    let mut by_id = by_id;
    by_id.id = Some(all[0].message.id.clone());
    assert_eq!(letters.purge(&shop.group, &by_id).await.expect("purged"), 1);
    let everything = LetterFilter::default();
    let purged = letters
        .purge(&shop.group, &everything)
        .await
        .expect("purged");
    assert_eq!(purged, 2);
    shop.letters(scope, &shop.group, 0).await;
    end(&shop.messaging).await;
}

/// A handler of dead letters has all its attempts, however many the message had before it became one.
pub async fn who_handles_dead_letters_begins_anew(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    let able = capabilities.groups && capabilities.queues && capabilities.redelivery;
    if !has(scope, able, "queues with redelivery") {
        return;
    }
    let messaging = messaging(broker, scope);
    let (name, group) = (topic(scope, "orders"), scope.name("mail"));
    let letters = TopicName::new(format!("{group}.dlq")).expect("a valid name");
    let mut last = Dead::of(broker, scope, letters.as_str()).await;
    let failing = |_: Order| async { Err::<(), _>(HandlerError::retry("failed")) };
    let subscribing = messaging
        .subscribe(name.clone())
        .group(group)
        .max_attempts(4);
    let subscribing = subscribing.retry_delay(Duration::ZERO);
    subscribing.handle(failing).await.expect("it begins");
    let seen = Seen::<u32>::new();
    let record = seen.clone();
    let handler = move |attempt: Attempt| {
        record.push(attempt.0);
        async { Err::<(), _>(HandlerError::retry("failed again")) }
    };
    let subscribing = messaging
        .subscribe(Source::Queue(letters.clone()))
        .max_attempts(2);
    let subscribing = subscribing.retry_delay(Duration::ZERO);
    subscribing.handle(handler).await.expect("it begins");
    ready(&messaging, scope).await;
    publish(&messaging, scope, &name, 1).await;
    let letter = last.next(scope).await;
    assert_eq!(seen.all(), [1, 2]);
    let get = |name: &str| letter.headers.get(name).unwrap_or_default().to_owned();
    assert_eq!(get(header::DEAD_REASON), "attempts");
    assert_eq!(get(header::ATTEMPTS), "2");
    assert_eq!(get(header::ORIGIN), format!("topic {name}"));
    assert_eq!(get(header::DEAD_SOURCE), format!("queue {letters}"));
    assert!(!letter.headers.contains(header::COPY));
    end(&messaging).await;
}
