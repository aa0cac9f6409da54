//! Declarations that the server refuses stop what depends on them, and nothing else.

use std::time::Duration;

use trunkline_core::{Context, ErrorKind, Retry};
use trunkline_messaging::{Destination, Message, MessageBroker as _, Publish, TopicName};
use trunkline_rabbitmq::{Exchange, ExchangeKind, Queue, RabbitMqBroker, Refused};
use trunkline_testing::servers::{Server, rabbitmq};

use crate::fixture::{
    attached, config, connected, cut, disconnect, group, name, publish, receive, to_topic, until,
    with_server,
};

/// Publishes to a queue until it is confirmed.
async fn send(broker: &RabbitMqBroker, queue: &TopicName) {
    until("a message to a queue", async || {
        let publish = Publish::new(Destination::Queue(queue.clone()), Message::new("1"));
        let context = Context::new().with_timeout(Duration::from_secs(20));
        context.scope(broker.publish(publish)).await.is_ok()
    })
    .await;
}

async fn declared(broker: &RabbitMqBroker, what: &str) -> TopicName {
    let queue = name(what);
    let destination = Destination::Queue(queue.clone());
    broker.declare(destination).await.unwrap();
    queue
}

#[test]
fn a_recorded_queue_that_is_another_now_stops_nothing_else() {
    with_server(async |server| {
        let (broker, other) = (connected(server).await, connected(server).await);
        let (theirs, topic) = (name("theirs"), name("orders"));
        broker
            .declare_queue(Queue::new(theirs.as_str()))
            .await
            .unwrap();
        let work = declared(&broker, "work").await;
        let mut subscription = broker.subscribe(group(&topic)).await.unwrap();
        attached(&subscription).await;
        // Somebody else has other ideas of it.
        other.delete_queue(theirs.as_str()).await.unwrap();
        let different = || Queue::new(theirs.as_str()).with_argument("x-max-length", 5);
        other.declare_queue(different()).await.unwrap();
        cut(server);
        let error = loop {
            send(&broker, &work).await;
            publish(&broker, &topic, "one").await;
            match broker.health_check().await {
                Err(error) if error.find::<Refused>().is_some() => break error,
                _ => {}
            }
        };
        receive(&mut subscription).await;
        let refused = error.find::<Refused>().unwrap();
        assert_eq!(refused.what, format!("queue {theirs}"));
        assert_eq!((refused.code, refused.virtual_host.as_str()), (406, "/"));
        assert!(refused.says.contains("x-max-length"), "{refused}");
        assert!(refused.remedy.contains("declare it as it is"), "{refused}");
        assert_eq!(error.kind(), ErrorKind::Conflict);

        // It comes right by itself when the other one goes.
        other.delete_queue(theirs.as_str()).await.unwrap();
        until("health", async || broker.health_check().await.is_ok()).await;
        broker.queue_status(theirs.as_str()).await.unwrap();

        // Or when another declaration takes the place of the first, or it is withdrawn.
        for withdraw in [false, true] {
            other.delete_queue(theirs.as_str()).await.unwrap();
            let length = if withdraw { 7 } else { 6 };
            let new = Queue::new(theirs.as_str()).with_argument("x-max-length", length);
            other.declare_queue(new.clone()).await.unwrap();
            cut(server);
            until("red health", async || {
                let health = broker.health_check().await;
                health.is_err_and(|error| error.find::<Refused>().is_some())
            })
            .await;
            if withdraw {
                broker.delete_queue(theirs.as_str()).await.unwrap();
            } else {
                broker.declare_queue(new).await.unwrap();
            }
            broker.health_check().await.unwrap();
        }
        disconnect(&broker).await;
        disconnect(&other).await;
    });
}

#[test]
fn an_exchange_of_another_kind_stops_topics_alone() {
    with_server(async |server| {
        let other = connected(server).await;
        let events = name("events").to_string();
        let fanout = Exchange::new(&events).with_kind(ExchangeKind::Fanout);
        other.declare_exchange(fanout).await.unwrap();
        let own = config(&server.url()).with_exchange(&events);
        let broker = RabbitMqBroker::new(own).unwrap();
        until("connecting", async || broker.connect().await.is_ok()).await;
        let work = declared(&broker, "work").await;
        send(&broker, &work).await;
        let topic = name("orders");
        let context = Context::new().with_timeout(Duration::from_secs(60));
        let error = context.scope(broker.publish(to_topic(&topic, "one"))).await;
        let error = error.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry()),
            (ErrorKind::Conflict, Retry::Never),
            "{}",
            error.report()
        );
        assert_eq!(
            error.find::<Refused>().unwrap().what,
            format!("exchange {events}")
        );
        assert!(broker.health_check().await.is_err());
        send(&broker, &work).await;
        other.delete_exchange(&events).await.unwrap();
        until("health", async || broker.health_check().await.is_ok()).await;
        publish(&broker, &topic, "two").await;
        disconnect(&broker).await;
        disconnect(&other).await;
    });
}

/// A user of its own who may not configure anything.
fn bound_user(server: &Server) -> String {
    let user = name("user").to_string();
    let control = |words: &[&str]| rabbitmq::control(server.site(), words).unwrap();
    control(&["add_user", &user, "secret"]);
    control(&["set_permissions", &user, "^$", ".*", ".*"]);
    user
}

#[test]
fn who_may_not_declare_uses_what_is_there() {
    with_server(async |server| {
        let other = connected(server).await;
        let topic = name("orders");
        let mut subscription = other.subscribe(group(&topic)).await.unwrap();
        attached(&subscription).await;
        let work = declared(&other, "work").await;
        let user = bound_user(server);
        let mut bound = config(&server.url());
        bound.connection.username = Some(user.clone());
        bound.connection.password = Some("secret".to_owned().into());
        let broker = RabbitMqBroker::new(bound).unwrap();
        until("connecting", async || broker.connect().await.is_ok()).await;
        publish(&broker, &topic, "one").await;
        assert_eq!(receive(&mut subscription).await, "one");
        send(&broker, &work).await;
        let exchange = name("new").to_string();
        let error = broker.declare_exchange(Exchange::new(&exchange)).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
        let refused = error.find::<Refused>().unwrap();
        assert_eq!(
            (refused.code, &refused.what),
            (403, &format!("exchange {exchange}"))
        );
        assert!(refused.remedy.contains(&user), "{refused}");
        // Who asked knows; nothing depends on it.
        broker.health_check().await.unwrap();
        disconnect(&broker).await;
        disconnect(&other).await;
        rabbitmq::control(server.site(), &["delete_user", &user]).unwrap();
    });
}
