//! Requests, the event bus, and environments that share a broker.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use trunkline_core::names::message_header as header;
use trunkline_core::{Context, Error, ErrorKind, Origin};
use trunkline_messaging::{
    AnyBroker, Destination, Envelope, HandlerError, Message, MessageBroker, Messaging, Prefix,
    Publish, TopicName,
};

use crate::Scope;
use crate::router::fixture::{Order, Seen, builder, end, has, messaging, ready, topic};

fn able(broker: &AnyBroker, scope: &Scope) -> bool {
    has(scope, broker.capabilities().groups, "groups")
}

async fn ask(
    messaging: &Messaging,
    scope: &Scope,
    to: &Destination,
    id: u64,
) -> Result<u64, Error> {
    let asked = messaging.request(to.clone(), &Order { id });
    scope.within("an answer", asked).await
}

/// Where questions go: a queue where there are queues, else a topic.
fn questions(broker: &AnyBroker, scope: &Scope) -> Destination {
    let name = topic(scope, "questions");
    match broker.capabilities().queues {
        true => Destination::Queue(name),
        false => Destination::Topic(name),
    }
}

fn source(destination: &Destination) -> trunkline_messaging::Source {
    match destination {
        Destination::Topic(name) => trunkline_messaging::Source::Topics(name.clone().into()),
        Destination::Queue(name) => trunkline_messaging::Source::Queue(name.clone()),
    }
}

/// A question is answered with a value, also when the first attempt of the responder fails.
pub async fn a_question_is_answered(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, to) = (messaging(broker, scope), questions(broker, scope));
    let seen = Seen::new();
    let record = seen.clone();
    let responder = move |order: Order, context: Context| {
        let count = record.push(context.correlation_id().clone());
        async move {
            match count {
                1 => Err(HandlerError::retry_after(
                    "not yet",
                    Duration::from_millis(10),
                )),
                _ => Ok(order.id * 2),
            }
        }
    };
    messaging
        .subscribe(source(&to))
        .respond(responder)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    let context = Context::new();
    let answer = context.scope(ask(&messaging, scope, &to, 21)).await;
    assert_eq!(answer.expect("answered"), 42);
    assert!(seen.all().iter().all(|id| id == context.correlation_id()));
    end(&messaging).await;
}

/// A question to a place where nobody listens fails, where the broker can tell at once.
pub async fn a_question_that_nobody_hears_fails(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.mandatory && capabilities.queues,
        "mandatory",
    ) {
        return;
    }
    let messaging = messaging(broker, scope);
    for to in [
        Destination::Queue(topic(scope, "nobody")),
        Destination::Topic(topic(scope, "nobody")),
    ] {
        let error = ask(&messaging, scope, &to, 1)
            .await
            .expect_err("nobody is there");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report());
    }
    end(&messaging).await;
}

/// A question that is not answered fails at its deadline.
pub async fn an_unanswered_question_times_out(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, to) = (messaging(broker, scope), questions(broker, scope));
    let seen = Seen::new();
    let record = seen.clone();
    let responder = move |order: Order| {
        record.push(order.id);
        std::future::pending::<Result<u64, HandlerError>>()
    };
    messaging
        .subscribe(source(&to))
        .respond(responder)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    let context = Context::new().with_timeout(Duration::from_secs(3));
    let error = context.scope(ask(&messaging, scope, &to, 1)).await;
    let error = error.expect_err("nobody answers");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{}", error.report());
    assert_eq!(seen.all(), [1]);
    // The responder was told the deadline, so it is over there as well.
    end(&messaging).await;
}

/// What the responder says instead of an answer comes back as an error.
pub async fn an_error_comes_back(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, to) = (messaging(broker, scope), questions(broker, scope));
    let responder = |order: Order| async move {
        match order.id {
            1 => Err::<u64, _>(HandlerError::reject("there is no order 1")),
            _ => Err(HandlerError::retry("the database is away")),
        }
    };
    let subscribing = messaging.subscribe(source(&to)).max_attempts(2);
    let subscribing = subscribing.retry_delay(Duration::from_millis(10));
    subscribing.respond(responder).await.expect("it begins");
    ready(&messaging, scope).await;
    for (id, kind, text) in [
        (1, ErrorKind::Invalid, "there is no order 1"),
        (2, ErrorKind::Unavailable, "the database is away"),
    ] {
        let error = ask(&messaging, scope, &to, id).await.expect_err("an error");
        assert_eq!(error.kind(), kind, "{}", error.report());
        assert_eq!(error.origin(), Origin::Remote);
        assert!(error.message().contains(text), "{}", error.report());
    }
    end(&messaging).await;
}

/// An answer that nobody waits for any more, and a second one, are counted and hurt nobody.
pub async fn a_late_answer_is_dropped(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, to) = (messaging(broker, scope), questions(broker, scope));
    let seen = Seen::<Message>::new();
    let record = seen.clone();
    let responder = move |order: Order, question: Message| {
        record.push(question);
        async move { Ok::<_, HandlerError>(order.id) }
    };
    messaging
        .subscribe(source(&to))
        .respond(responder)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    ask(&messaging, scope, &to, 1).await.expect("answered");
    let question = seen.all().remove(0);
    let address = question.headers.get(header::REPLY_TO).expect("an address");
    let address = TopicName::new(address).expect("a name");
    for _ in 0..2 {
        let second = Message::new("7").with_header(header::IN_REPLY_TO, &question.id);
        let publish = Publish::new(Destination::Topic(address.clone()), second);
        broker.publish(publish).await.expect("published");
    }
    let counted = async {
        while messaging.requester().dropped_answers() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    scope.within("counting", counted).await;
    let answer = ask(&messaging, scope, &to, 5).await;
    assert_eq!(answer.expect("answered"), 5);
    end(&messaging).await;
}

/// Many questions at once get each their own answer.
pub async fn many_questions_at_once_do_not_mix(broker: &AnyBroker, scope: &Scope) {
    if !able(broker, scope) {
        return;
    }
    let (messaging, to) = (messaging(broker, scope), questions(broker, scope));
    let responder = |order: Order| async move { Ok::<_, HandlerError>(order.id * 2) };
    let subscribing = messaging.subscribe(source(&to)).concurrency(16);
    subscribing.respond(responder).await.expect("it begins");
    ready(&messaging, scope).await;
    let asked = (0..200).map(|id| ask(&messaging, scope, &to, id));
    for (id, answer) in join_all(asked).await.into_iter().enumerate() {
        assert_eq!(answer.expect("answered"), id as u64 * 2);
    }
    end(&messaging).await;
}

/// Handlers of the event bus get the data, whichever way an event is written.
pub async fn the_event_bus_reads_both_envelopes(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.wildcards,
        "wildcards",
    ) {
        return;
    }
    let messaging = messaging(broker, scope);
    let (plain, unique) = (messaging.event_bus(), scope.name("e"));
    let wrapped = messaging.event_bus().with_envelope(Envelope::Wrapped);
    let seen = Seen::new();
    let record = seen.clone();
    let handler = move |data: Value, raw: Message| {
        record.push((data, raw.payload));
        async {}
    };
    plain
        .on(&format!("{unique}.*"), handler)
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    let name = format!("{unique}.created");
    plain
        .emit(&name, &json!({"id": 1}))
        .await
        .expect("published");
    seen.wait_for(scope, 1).await;
    wrapped
        .emit(&name, &json!({"id": 2}))
        .await
        .expect("published");
    let all = seen.wait_for(scope, 2).await;
    assert_eq!(all[0].0, json!({"id": 1}));
    assert_eq!(all[1].0, json!({"id": 2}));
    end(&messaging).await;
    // On the wire the second one looks as other services of seed 003 expect it.
    let mut listener = crate::broker::subscribe(
        broker,
        scope,
        trunkline_messaging::Subscribe::topics(TopicName::new(&name).expect("a name")),
    )
    .await;
    wrapped
        .emit(&name, &json!({"id": 3}))
        .await
        .expect("published");
    let delivery = crate::broker::next(scope, &mut listener).await;
    let body: Value = serde_json::from_slice(&delivery.message().payload).expect("JSON");
    assert_eq!(body["eventName"], name.as_str());
    assert_eq!(body["data"], json!({"id": 3}));
    assert!(body["timestamp"].is_string());
}

/// Handlers of one service share its group, each with a copy of its own; what nobody handles is nobody's.
pub async fn events_reach_every_handler(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.wildcards,
        "wildcards",
    ) {
        return;
    }
    let messaging = messaging(broker, scope);
    let (bus, unique, seen) = (
        messaging.event_bus(),
        scope.name("e"),
        Seen::<&'static str>::new(),
    );
    let record = |name: &'static str| {
        let seen = seen.clone();
        move || {
            seen.push(name);
            async {}
        }
    };
    let created = format!("{unique}.created");
    bus.on(&created, record("exact")).await.expect("it begins");
    bus.on(&format!("{unique}.#"), record("wild"))
        .await
        .expect("it begins");
    let second = bus.on(&created, record("second")).await;
    assert_eq!(
        second.expect_err("it needs a name").kind(),
        ErrorKind::Config
    );
    bus.on_as("second", &created, record("second"))
        .await
        .expect("it begins");
    ready(&messaging, scope).await;
    bus.emit(&created, &json!({})).await.expect("published");
    let mut all = seen.wait_for(scope, 3).await;
    all.sort_unstable();
    assert_eq!(all, ["exact", "second", "wild"]);
    // Only what somebody handles is bound: the event of nobody reaches nobody, and is no error.
    let unheard = scope.name("unheard");
    bus.emit(&unheard, &json!({})).await.expect("published");
    seen.stays(scope, 3).await;
    end(&messaging).await;
}

/// Two environments on one broker do not see each other: not their topics, wildcards, groups, requests or dead letters.
pub async fn a_prefix_keeps_environments_apart(broker: &AnyBroker, scope: &Scope) {
    let capabilities = broker.capabilities();
    if !has(
        scope,
        capabilities.groups && capabilities.wildcards,
        "wildcards",
    ) {
        return;
    }
    let seen = Seen::<(&'static str, u64, String)>::new();
    let mut environments = Vec::new();
    for name in ["staging", "production"] {
        let prefix: Prefix = format!("{}.", scope.name(name)).parse().expect("a prefix");
        let messaging = builder(broker, scope).prefix(&prefix).build();
        let record = seen.clone();
        let handler = move |order: Order, to: Destination| {
            record.push((name, order.id, to.name().to_string()));
            async move {
                match order.id {
                    9 => Err(HandlerError::dead_letter("never")),
                    _ => Ok(()),
                }
            }
        };
        messaging
            .subscribe("order.#")
            .group("mail")
            .handle(handler)
            .await
            .expect("it begins");
        let responder = move |_: Order| async move { Ok::<_, HandlerError>(name.to_owned()) };
        let subscribing = messaging.subscribe("question").group("answer");
        subscribing.respond(responder).await.expect("it begins");
        ready(&messaging, scope).await;
        environments.push((name, messaging));
    }
    for (id, (_, messaging)) in (1_u64..).zip(&environments) {
        messaging
            .publish("order.created", &Order { id })
            .await
            .expect("published");
    }
    let mut all = seen.wait_for(scope, 2).await;
    seen.stays(scope, 2).await;
    all.sort();
    let created = || "order.created".to_owned();
    assert_eq!(
        all,
        [("production", 2, created()), ("staging", 1, created())]
    );
    for (name, messaging) in &environments {
        let answer: String = messaging
            .request("question", &Order { id: 1 })
            .await
            .expect("answered");
        assert_eq!(answer, *name);
    }
    if capabilities.browse || capabilities.peek {
        let (_, staging) = &environments[0];
        staging
            .publish("order.bad", &Order { id: 9 })
            .await
            .expect("published");
        seen.wait_for(scope, 3).await;
        letters_of(staging, scope, "mail", 1).await;
        letters_of(&environments[1].1, scope, "mail", 0).await;
        // The operator who knows nothing of prefixes sees the whole name.
        let whole = format!("{}.mail", scope.name("staging"));
        letters_of(&messaging(broker, scope), scope, &whole, 1).await;
        let report = messaging(broker, scope)
            .dead_letters()
            .replay(&whole, &trunkline_messaging::Replay::default())
            .await
            .expect("replayed");
        assert_eq!(report.replayed, 1, "{report:?}");
        seen.wait_for(scope, 4).await;
    }
    for (_, messaging) in &environments {
        end(messaging).await;
    }
}

async fn letters_of(messaging: &Messaging, scope: &Scope, owner: &str, count: usize) {
    let letters = messaging.dead_letters();
    let there = async {
        loop {
            let filter = trunkline_messaging::LetterFilter::default();
            let page = letters.list(owner, &filter, 0, 10).await.expect("listed");
            if page.letters.len() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    scope.within("the dead letters", there).await;
}
