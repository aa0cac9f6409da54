//! Clients that are not ours, here the bare driver: what they say in properties, and asking both ways.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions,
};
use lapin::protocol::basic::AMQPProperties;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use tokio::time::Instant;
use trunkline_core::Lifecycle as _;
use trunkline_messaging::inbox::{InboxStore as _, MemoryInbox};
use trunkline_messaging::{
    Destination, HandlerError, MessageBroker as _, Messaging, Source, Subscribe,
};
use trunkline_rabbitmq::RabbitMqBroker;
use trunkline_testing::servers::Server;

use crate::fixture::{
    LONG, attached, config, connected, disconnect, name, until, with_server, within,
};

struct Foreign {
    _connection: Connection,
    channel: Channel,
}

impl Foreign {
    async fn connect(server: &Server) -> Self {
        let properties = ConnectionProperties::default();
        let connection = Connection::connect(&server.url(), properties).await;
        let connection = connection.unwrap();
        let channel = connection.create_channel().await.unwrap();
        Self {
            _connection: connection,
            channel,
        }
    }

    async fn send(&self, queue: &str, properties: AMQPProperties, payload: &[u8]) {
        let options = BasicPublishOptions::default();
        let sent =
            self.channel
                .basic_publish("".into(), queue.into(), options, payload, properties);
        sent.await.unwrap();
    }

    async fn consume(&self, queue: &str) -> Consumer {
        let options = BasicConsumeOptions {
            no_ack: true,
            ..BasicConsumeOptions::default()
        };
        let consumer = self.channel.basic_consume(
            queue.into(),
            "foreign".into(),
            options,
            FieldTable::default(),
        );
        consumer.await.unwrap()
    }
}

async fn next(consumer: &mut Consumer) -> lapin::message::Delivery {
    within("a delivery", consumer.next())
        .await
        .unwrap()
        .unwrap()
}

async fn messaging(server: &Server) -> Messaging {
    let broker = RabbitMqBroker::new(config(&server.url())).unwrap().erase();
    until("connecting", async || broker.connect().await.is_ok()).await;
    Messaging::builder(broker)
        .service(name("service").as_str())
        .build()
}

async fn end(messaging: Messaging) {
    let deadline = Instant::now() + LONG;
    messaging.drain(deadline).await.unwrap();
    messaging.requester().shutdown(deadline).await;
    messaging.broker().disconnect(deadline).await.unwrap();
}

#[test]
fn a_foreign_question_is_answered() {
    with_server(async |server| {
        let messaging = messaging(server).await;
        let queue = name("double");
        let respond = |n: u64| async move { Ok::<_, HandlerError>(n * 2) };
        messaging
            .subscribe(Source::Queue(queue.clone()))
            .respond(respond)
            .await
            .unwrap();
        within("attaching", messaging.ready()).await.unwrap();
        let foreign = Foreign::connect(server).await;
        let options = QueueDeclareOptions {
            exclusive: true,
            ..QueueDeclareOptions::default()
        };
        let own = foreign
            .channel
            .queue_declare("".into(), options, FieldTable::default());
        let own = own.await.unwrap().name().to_string();
        // A queue of its own, and the server's direct answers, whose address is no name of a topic.
        for address in [own.as_str(), "amq.rabbitmq.reply-to"] {
            let mut answers = foreign.consume(address).await;
            let properties = AMQPProperties::default()
                .with_reply_to(address.into())
                .with_correlation_id("one two".into())
                .with_content_type("application/json".into());
            foreign.send(queue.as_str(), properties, b"21").await;
            let answer = next(&mut answers).await;
            assert_eq!(answer.data, b"42");
            let correlation = answer.properties.correlation_id();
            assert_eq!(correlation.as_ref().unwrap().as_str(), "one two");
            let tag = answers.tag();
            foreign
                .channel
                .basic_cancel(tag, Default::default())
                .await
                .unwrap();
        }
        end(messaging).await;
    });
}

#[test]
fn a_foreign_responder_is_asked() {
    with_server(async |server| {
        let messaging = messaging(server).await;
        let queue = name("triple");
        let broker = messaging.broker();
        broker
            .declare(Destination::Queue(queue.clone()))
            .await
            .unwrap();
        let foreign = Foreign::connect(server).await;
        let mut questions = foreign.consume(queue.as_str()).await;
        let respond = async {
            let question = next(&mut questions).await;
            let properties = &question.properties;
            let address = properties.reply_to().clone().unwrap();
            // As pika's tutorial has it: this and nothing else.
            let answer = AMQPProperties::default()
                .with_correlation_id(properties.correlation_id().clone().unwrap());
            foreign.send(address.as_str(), answer, b"63").await;
            address.to_string()
        };
        let question = messaging.request::<_, u64, _>(Destination::Queue(queue.clone()), &21);
        let (answer, address) = within(
            "an answer",
            Box::pin(async { tokio::join!(question, respond) }),
        )
        .await;
        assert_eq!(answer.unwrap(), 63);
        // What a requester leaves behind.
        end(messaging).await;
        let other = connected(server).await;
        other.queue_status(&address).await.unwrap_err();
        disconnect(&other).await;
    });
}

#[test]
fn a_message_without_an_id_keeps_the_one_that_it_is_given() {
    with_server(async |server| {
        let broker = connected(server).await;
        let queue = name("work");
        let mut subscription = broker
            .subscribe(Subscribe::queue(queue.clone()))
            .await
            .unwrap();
        attached(&subscription).await;
        let foreign = Foreign::connect(server).await;
        foreign
            .send(queue.as_str(), AMQPProperties::default(), b"1")
            .await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            let delivery = within("a delivery", subscription.next()).await.unwrap();
            ids.push(delivery.message().id.clone());
            delivery.nack(None).await.unwrap();
        }
        assert!(!ids[0].is_empty());
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        drop(subscription);
        disconnect(&broker).await;
    });
}

/// Two equal messages are two, unless it is said that they are one.
#[test]
fn an_inbox_drops_no_equal_message_of_somebody_without_ids() {
    with_server(async |server| {
        let foreign = Foreign::connect(server).await;
        for (recognise, expected) in [(false, 3), (true, 2)] {
            let mut own = config(&server.url());
            own.recognise_equal = recognise;
            let broker = RabbitMqBroker::new(own).unwrap().erase();
            until("connecting", async || broker.connect().await.is_ok()).await;
            let messaging = Messaging::builder(broker)
                .service("tally")
                .inbox(MemoryInbox::default().erase())
                .build();
            let queue = name("work");
            let seen = Arc::new(Mutex::new(Vec::new()));
            let record = Arc::clone(&seen);
            let handler = move |n: u64| {
                record.lock().unwrap().push(n);
                async {}
            };
            let subscribing = messaging.subscribe(Source::Queue(queue.clone()));
            subscribing.concurrency(1).handle(handler).await.unwrap();
            within("attaching", messaging.ready()).await.unwrap();
            for payload in [b"1", b"1", b"2"] {
                foreign
                    .send(queue.as_str(), AMQPProperties::default(), payload)
                    .await;
            }
            until("the last", async || seen.lock().unwrap().contains(&2)).await;
            assert_eq!(seen.lock().unwrap().len(), expected);
            end(messaging).await;
        }
    });
}

#[test]
fn what_properties_say_goes_both_ways() {
    with_server(async |server| {
        let broker = connected(server).await;
        let queue = name("work");
        let destination = Destination::Queue(queue.clone());
        broker.declare(destination.clone()).await.unwrap();
        let foreign = Foreign::connect(server).await;
        let said = AMQPProperties::default()
            .with_message_id("m".into())
            .with_content_type("text/plain".into())
            .with_content_encoding("utf-8".into())
            .with_correlation_id("c".into())
            .with_type("greeting".into())
            .with_app_id("shop".into())
            .with_timestamp(1_736_418_600)
            .with_reply_to("answers".into());
        foreign.send(queue.as_str(), said.clone(), b"hello").await;
        let mut subscription = broker
            .subscribe(Subscribe::queue(queue.clone()))
            .await
            .unwrap();
        let delivery = within("a delivery", subscription.next()).await.unwrap();
        let message = delivery.message().clone();
        delivery.ack().await.unwrap();
        drop(subscription);
        assert_eq!(message.headers.get("X-Correlation-ID"), Some("c"));
        let mut questions = foreign.consume(queue.as_str()).await;
        let publish = trunkline_messaging::Publish::new(destination, message);
        broker.publish(publish).await.unwrap();
        let back = next(&mut questions).await;
        let properties = back.properties.clone().with_headers(FieldTable::default());
        let expected = said
            .with_delivery_mode(2)
            .with_headers(FieldTable::default());
        assert_eq!(properties, expected);
        back.acker.ack(BasicAckOptions::default()).await.ok();
        disconnect(&broker).await;
    });
}
