//! Messages that only their receivers can read, and of which they know who wrote them.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;
use trunkline_core::{ErrorKind, Lifecycle};
use trunkline_messaging::cloudevents::CloudEventsMode;
use trunkline_messaging::memory::MemoryBroker;
use trunkline_messaging::protection::{
    EncryptionAlgorithm, EncryptionConfig, EncryptionKey, SignatureAlgorithm, SigningConfig,
    SigningKey, Untrusted,
};
use trunkline_messaging::{
    AnyBroker, Browse, Destination, LetterFilter, Message, MessageBroker, Messaging,
    MessagingBuilder, Publish, Replay, Source,
};

const FIRST: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const SECOND: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const TOPIC: &str = "payments.made";

fn encryption(algorithm: EncryptionAlgorithm) -> EncryptionConfig {
    let key = EncryptionKey::new(FIRST).with_algorithm(algorithm);
    let config = EncryptionConfig::default().with_key("k1", key);
    config.with_current("k1").with_topics(["payments.#"])
}

fn signing(algorithm: SignatureAlgorithm) -> SigningConfig {
    let config = SigningConfig::default().with_key("s1", SigningKey::new(algorithm, SECOND));
    config.with_current("s1").with_topics(["payments.#"])
}

fn ed25519() -> SigningConfig {
    signing(SignatureAlgorithm::Ed25519)
}

fn aes() -> EncryptionConfig {
    encryption(EncryptionAlgorithm::Aes256Gcm)
}

fn builder(broker: &AnyBroker) -> MessagingBuilder {
    Messaging::builder(broker.clone()).service("bank")
}

async fn broker() -> AnyBroker {
    let broker = MemoryBroker::default().erase();
    broker.connect().await.unwrap();
    broker
}

async fn end(messaging: &Messaging) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    messaging.drain(deadline).await.unwrap();
}

type Got = UnboundedReceiver<(u64, Message)>;

async fn listening(messaging: &Messaging) -> Got {
    let (sender, got) = unbounded_channel();
    let handler = move |amount: u64, message: Message| {
        sender.send((amount, message)).unwrap();
        async {}
    };
    let subscribing = messaging.subscribe(TOPIC).group("bank").max_attempts(9);
    subscribing.handle(handler).await.unwrap();
    messaging.ready().await.unwrap();
    got
}

async fn next(got: &mut Got) -> (u64, Message) {
    let next = timeout(Duration::from_secs(60), got.recv());
    next.await.expect("a message comes").unwrap()
}

/// What is stored: the last message of the topic.
async fn stored(broker: &AnyBroker) -> Message {
    let topic = Destination::Topic(TOPIC.parse().unwrap());
    let page = broker.browse(Browse::new(topic)).await.unwrap();
    page.messages.into_iter().next_back().unwrap().message
}

async fn put(broker: &AnyBroker, message: Message) {
    let topic = Destination::Topic(TOPIC.parse().unwrap());
    broker.publish(Publish::new(topic, message)).await.unwrap();
}

/// The error of the one dead letter there is, which is then removed. It is one after a single attempt.
async fn untrusted(messaging: &Messaging) -> String {
    let wait = async {
        loop {
            let letters = messaging.dead_letters();
            let page = letters.list("bank", &LetterFilter::default(), 0, 9).await;
            if let Some(letter) = page.ok().and_then(|page| page.letters.into_iter().next()) {
                assert_eq!((letter.reason.as_str(), letter.attempts), ("untrusted", 1));
                letters
                    .purge("bank", &LetterFilter::default())
                    .await
                    .unwrap();
                return letter.error;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(60), wait)
        .await
        .expect("it becomes a dead letter")
}

#[tokio::test(start_paused = true)]
async fn only_a_receiver_with_the_key_reads_a_message() {
    use EncryptionAlgorithm::{Aes256Gcm, ChaCha20Poly1305};
    use SignatureAlgorithm::{Ed25519, HmacSha256};
    for (algorithm, signature) in [(Aes256Gcm, Ed25519), (ChaCha20Poly1305, HmacSha256)] {
        for mode in [CloudEventsMode::Binary, CloudEventsMode::Structured] {
            let broker = broker().await;
            let messaging = builder(&broker)
                .cloudevents(mode)
                .encryption(&encryption(algorithm))
                .and_then(|builder| builder.signing(&signing(signature)))
                .unwrap()
                .build();
            let mut got = listening(&messaging).await;
            let outgoing = messaging.to(TOPIC).key("7").header("tenant", "a");
            outgoing.send(&4_711_471_147_114_711_u64).await.unwrap();
            let on_wire = stored(&broker).await;
            let text = String::from_utf8_lossy(&on_wire.payload).into_owned();
            assert!(!text.contains("4711471147114711"), "{text}");
            let (amount, message) = next(&mut got).await;
            assert_eq!(amount, 4_711_471_147_114_711);
            assert_eq!(message.headers.get("tenant"), Some("a"));
            assert_eq!(message.content_type.as_deref(), Some("application/json"));
            // What is not named by a pattern is left alone.
            messaging.publish("weather", &1_u64).await.unwrap();
        }
    }
}

/// Every part that matters is covered: payload, id, key, content type, headers, and what is added on the way.
#[tokio::test(start_paused = true)]
async fn what_was_changed_on_the_way_is_a_dead_letter_at_once() {
    type Change = fn(&mut Message);
    let changes: [(&str, Change); 9] = [
        ("payload", |message| {
            let mut payload = message.payload.to_vec();
            *payload.last_mut().unwrap() ^= 1;
            message.payload = payload.into();
        }),
        ("payload", |message| message.payload = bytes(b"7")),
        ("payload", |message| message.id.push('x')),
        ("payload", |message| message.key = Some(bytes(b"8"))),
        ("payload", |message| message.content_type = None),
        ("payload", |message| message.headers.insert("tenant", "b")),
        ("payload", |message| {
            message.headers.insert("ce-source", "me")
        }),
        ("trunkline-reply-to", |message| {
            message.headers.insert("trunkline-reply-to", "me");
        }),
        ("ce-admin", |message| {
            message.headers.insert("ce-admin", "1")
        }),
    ];
    let broker = broker().await;
    let builders: [fn(&AnyBroker) -> MessagingBuilder; 2] = [
        |broker| builder(broker).encryption(&aes()).unwrap(),
        |broker| builder(broker).signing(&ed25519()).unwrap(),
    ];
    for make in builders {
        let messaging = make(&broker).build();
        let sent = messaging.to(TOPIC).key("7").header("tenant", "a");
        sent.send(&100_u64).await.unwrap();
        let genuine = stored(&broker).await;
        let mut got = listening(&messaging).await;
        for (named, change) in changes {
            let mut message = genuine.clone();
            change(&mut message);
            put(&broker, message).await;
            let error = untrusted(&messaging).await;
            assert!(error.contains(named), "{named}: {error}");
        }
        // What brokers and traces change is not covered.
        let mut message = genuine.clone();
        message.headers.insert("traceparent", "00-1-2-01");
        message.headers.insert("x-hop", "3");
        put(&broker, message).await;
        assert_eq!(next(&mut got).await.0, 100);
        end(&messaging).await;
    }
}

fn bytes(bytes: &'static [u8]) -> bytes::Bytes {
    bytes::Bytes::from_static(bytes)
}

/// What was said in one place is not said in another.
#[tokio::test(start_paused = true)]
async fn a_message_is_genuine_where_it_was_published_alone() {
    let builders: [fn(&AnyBroker) -> MessagingBuilder; 2] = [
        |broker| builder(broker).encryption(&aes()).unwrap(),
        |broker| builder(broker).signing(&ed25519()).unwrap(),
    ];
    for make in builders {
        let broker = broker().await;
        let messaging = make(&broker).build();
        let (sender, mut got) = unbounded_channel();
        let handler = move |amount: u64, message: Message| {
            sender.send((amount, message)).unwrap();
            async {}
        };
        let refunded = "payments.refunded";
        let subscribing = messaging.subscribe(refunded).group("bank").max_attempts(9);
        subscribing.handle(handler).await.unwrap();
        messaging.ready().await.unwrap();
        messaging.to(TOPIC).send(&100_u64).await.unwrap();
        let genuine = stored(&broker).await;
        let topic = Destination::Topic(refunded.parse().unwrap());
        let retries = Destination::Queue(format!("bank.retry.{refunded}").parse().unwrap());
        let origin = |origin: &str| {
            let message = genuine.clone();
            message.with_header("trunkline-origin", origin)
        };
        for (to, message) in [
            (&topic, genuine.clone()),
            (&topic, origin("topic payments.made")),
            (&retries, origin("topic payments.made")),
            (&retries, origin("topic payments.refunded")),
        ] {
            broker
                .publish(Publish::new(to.clone(), message))
                .await
                .unwrap();
            let error = untrusted(&messaging).await;
            assert!(error.contains("destination"), "{error}");
        }
        // A copy of what was published there is believed.
        messaging.to(refunded).send(&5_u64).await.unwrap();
        let (amount, _) = next(&mut got).await;
        assert_eq!(amount, 5);
        let page = broker.browse(Browse::new(topic)).await.unwrap();
        let own = page.messages.into_iter().next_back().unwrap().message;
        let own = own.with_header("trunkline-origin", "topic payments.refunded");
        broker.publish(Publish::new(retries, own)).await.unwrap();
        assert_eq!(next(&mut got).await.0, 5);
        // And so are dead letters, by who handles them.
        let (sender, mut letters) = unbounded_channel();
        let handler = move |amount: u64, message: Message| {
            sender.send((amount, message)).unwrap();
            async {}
        };
        let queue = Source::Queue("bank.dlq".parse().unwrap());
        let letter = origin("topic payments.made");
        let dead = Destination::Queue("bank.dlq".parse().unwrap());
        broker.publish(Publish::new(dead, letter)).await.unwrap();
        messaging.subscribe(queue).handle(handler).await.unwrap();
        assert_eq!(next(&mut letters).await.0, 100);
        end(&messaging).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_be_protected_and_is_not_is_a_dead_letter_at_once() {
    let broker = broker().await;
    let plain = builder(&broker).build();
    let messaging = builder(&broker).encryption(&aes()).unwrap().build();
    let _got = listening(&messaging).await;
    plain.publish(TOPIC, &1_u64).await.unwrap();
    assert!(untrusted(&messaging).await.contains("not encrypted"));
    end(&messaging).await;
    let messaging = builder(&broker).signing(&ed25519()).unwrap().build();
    let _got = listening(&messaging).await;
    plain.publish(TOPIC, &1_u64).await.unwrap();
    assert!(untrusted(&messaging).await.contains("not signed"));
    // A copy that claims to be of a topic that is not protected is not believed.
    let queue = broker.queues().await.unwrap();
    let retries = queue
        .into_iter()
        .find(|queue| !queue.name.as_str().ends_with(".dlq"));
    let forged = Message::new("1").with_header("trunkline-origin", "topic weather");
    let forged = forged.with_content_type("application/json");
    let to = Destination::Queue(retries.unwrap().name);
    broker.publish(Publish::new(to, forged)).await.unwrap();
    assert!(untrusted(&messaging).await.contains("not signed"));
    end(&messaging).await;
    // Where it is not required, what is not signed passes.
    let lenient = ed25519().with_required(false);
    let messaging = builder(&broker).signing(&lenient).unwrap().build();
    let mut got = listening(&messaging).await;
    plain.publish(TOPIC, &2_u64).await.unwrap();
    assert_eq!(next(&mut got).await.0, 2);
}

#[tokio::test(start_paused = true)]
async fn keys_change_while_messages_are_under_way() {
    let broker = broker().await;
    let old = builder(&broker)
        .encryption(&aes())
        .and_then(|builder| builder.signing(&ed25519()))
        .unwrap()
        .build();
    let encryption = aes()
        .with_key("k2", EncryptionKey::new(SECOND))
        .with_current("k2");
    let hmac = SigningKey::new(SignatureAlgorithm::HmacSha256, FIRST);
    let signing = ed25519().with_key("s2", hmac).with_current("s2");
    let new = builder(&broker)
        .encryption(&encryption)
        .and_then(|builder| builder.signing(&signing))
        .unwrap()
        .build();
    let mut got = listening(&new).await;
    old.publish(TOPIC, &1_u64).await.unwrap();
    new.publish(TOPIC, &2_u64).await.unwrap();
    let header = stored(&broker).await.headers;
    let said = |name| header.get(name).unwrap_or_default();
    assert!(said("trunkline-encryption").starts_with("aes-256-gcm;k2;"));
    assert!(said("trunkline-signature").starts_with("hmac-sha256;s2;"));
    assert_eq!((next(&mut got).await.0, next(&mut got).await.0), (1, 2));
    end(&new).await;
    // Who was not told of the new keys yet keeps the messages until it is.
    let mut got = listening(&old).await;
    new.publish(TOPIC, &3_u64).await.unwrap();
    let letters = old.dead_letters();
    let wait = async {
        loop {
            let page = letters.list("bank", &LetterFilter::default(), 0, 1).await;
            if let Some(letter) = page.ok().and_then(|mut page| page.letters.pop()) {
                return letter;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let letter = timeout(Duration::from_secs(60), wait).await.unwrap();
    assert!(
        letter.error.contains("signing key `s2`"),
        "{}",
        letter.error
    );
    assert!(got.try_recv().is_err());
    end(&old).await;
    let new = builder(&broker)
        .encryption(&encryption)
        .and_then(|builder| builder.signing(&signing))
        .unwrap()
        .build();
    let mut got = listening(&new).await;
    let report = new.dead_letters().replay("bank", &Replay::default()).await;
    assert_eq!(report.unwrap().replayed, 1);
    assert_eq!(next(&mut got).await.0, 3);
}

/// Verifying takes the public key alone, which cannot sign; a key of the same name that is another one does not verify.
#[tokio::test(start_paused = true)]
async fn a_public_key_verifies_and_cannot_sign() {
    // Of the seed `fedcba98…`, as PEM, made by OpenSSL.
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAtiDepEtZFQVZ3d0fQjWOVWYncXSfHJc1QD9tlv6ya50=\n-----END PUBLIC KEY-----\n";
    let broker = broker().await;
    let sender = builder(&broker).signing(&ed25519()).unwrap().build();
    let verifying = |key: &str| {
        let config = SigningConfig::default().with_key("s1", SigningKey::public(key));
        builder(&broker)
            .signing(&config.with_topics(["payments.#"]))
            .unwrap()
            .build()
    };
    let receiver = verifying(public);
    let mut got = listening(&receiver).await;
    sender.publish(TOPIC, &1_u64).await.unwrap();
    assert_eq!(next(&mut got).await.0, 1);
    end(&receiver).await;
    let other = verifying("11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
    let _got = listening(&other).await;
    sender.publish(TOPIC, &1_u64).await.unwrap();
    assert!(untrusted(&other).await.contains("key `s1`"));
    let config = SigningConfig::default()
        .with_key("s1", SigningKey::public(public))
        .with_current("s1");
    let error = builder(&broker).signing(&config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[tokio::test(start_paused = true)]
async fn questions_and_answers_are_protected_alike() {
    let broker = broker().await;
    let messaging = builder(&broker)
        .encryption(&aes())
        .and_then(|builder| builder.signing(&ed25519()))
        .unwrap()
        .build();
    let double = |amount: u64| async move { Ok::<_, trunkline_core::Error>(amount * 2) };
    messaging
        .subscribe(TOPIC)
        .group("bank")
        .respond(double)
        .await
        .unwrap();
    messaging.ready().await.unwrap();
    let answer: u64 = messaging.request(TOPIC, &21_u64).await.unwrap();
    assert_eq!(answer, 42);
    // An answer by somebody who has no keys is not believed.
    let mut questions = broker
        .subscribe(trunkline_messaging::Subscribe::topics(
            TOPIC.parse::<trunkline_messaging::TopicName>().unwrap(),
        ))
        .await
        .unwrap();
    end(&messaging).await;
    let forge = async {
        let question = questions.next().await.unwrap();
        let headers = &question.message().headers;
        let to = headers.get("trunkline-reply-to").unwrap().parse().unwrap();
        let answer = Message::new("43")
            .with_content_type("application/json")
            .with_header("trunkline-in-reply-to", &question.message().id);
        broker
            .publish(Publish::new(Destination::Topic(to), answer))
            .await
            .unwrap();
    };
    let (answer, ()) = tokio::join!(messaging.request::<_, u64, _>(TOPIC, &21_u64), forge);
    let error = answer.unwrap_err();
    assert_eq!(error.find::<Untrusted>(), Some(&Untrusted::Unsigned));
}

#[test]
fn every_mistake_of_keys_is_told_and_no_key_is() {
    let mut encryption = EncryptionConfig::default()
        .with_current("k9")
        .with_topics(["a..b"])
        .with_key("k 1", EncryptionKey::new("c2hvcnQ="));
    encryption
        .keys
        .insert("k2".into(), EncryptionKey::new("not base64 at all"));
    let told = format!("{:?}", encryption.problems());
    for what in [
        "keys.k 1.key",
        "keys.k 1\"",
        "k9",
        "topics.0",
        "keys.k2.key",
        "Base64",
    ] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert!(!told.contains("c2hvcnQ=") && !told.contains("not base64 at all"));
    let signing = SigningConfig::default()
        .with_key(
            "a",
            SigningKey::new(SignatureAlgorithm::HmacSha256, "c2hvcnQ="),
        )
        .with_key("b", SigningKey::default());
    let told = format!("{:?}", signing.problems());
    assert!(
        told.contains("keys.a.key") && told.contains("keys.b.key"),
        "{told}"
    );
    assert!(!format!("{encryption:?}{signing:?}").contains("c2hvcnQ="));
}
