//! The ways to a server: as a user of its own, encrypted, behind sentinels, in a cluster.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::ErrorKind;
use trunkline_messaging::{Destination, Message, MessageBroker, Publish, Subscribe, TopicName};
use trunkline_redis::{RedisBroker, RedisConfig};
use trunkline_testing::servers::{self, REDIS, REDIS_SERVER, Server, Site, System, redis};

use crate::place::{SOON, soon};

fn broker(url: &str) -> RedisBroker {
    RedisBroker::new(RedisConfig::from_url(url).unwrap()).unwrap()
}

/// A message goes there and comes back, by a topic, a pattern and a queue.
async fn works(broker: &RedisBroker) {
    let topic = TopicName::new("order.created").unwrap();
    let queue = TopicName::new("work").unwrap();
    let pattern = trunkline_messaging::TopicPattern::new("order.#").unwrap();
    let mut mail = broker
        .subscribe(Subscribe::topics(topic.clone()).with_group("mail"))
        .await
        .unwrap();
    let mut all = broker.subscribe(Subscribe::topics(pattern)).await.unwrap();
    let mut worker = broker
        .subscribe(Subscribe::queue(queue.clone()))
        .await
        .unwrap();
    for destination in [Destination::Topic(topic), Destination::Queue(queue)] {
        let publish = Publish::new(destination, Message::new("one"));
        soon(broker.publish(publish)).await.unwrap();
    }
    for subscription in [&mut mail, &mut all, &mut worker] {
        let delivery = soon(subscription.next()).await.unwrap();
        assert_eq!(delivery.message().payload, "one");
        soon(delivery.ack()).await.unwrap();
    }
}

async fn close(broker: RedisBroker) {
    let deadline = Instant::now() + Duration::from_secs(10);
    broker.disconnect(deadline).await.unwrap();
}

fn ask(server: &Server, words: &[&str]) {
    redis::call(server.address(), words).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_the_rights_that_the_guide_names() {
    let Some(server) = servers::own(&REDIS) else {
        return;
    };
    let rights = [
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">secret",
        "~{trunkline}:*",
        "&{trunkline}:*",
        "+@stream",
        "+@hash",
        "+@set",
        "+@sortedset",
        "+@list",
        "+@string",
        "+@pubsub",
        "+@scripting",
        "+@connection",
        "+exists",
        "+del",
        "+time",
    ];
    ask(&server, &rights);
    let port = server.address().port();
    let right = broker(&format!("redis://app:secret@127.0.0.1:{port}"));
    soon(right.connect()).await.unwrap();
    works(&right).await;
    close(right).await;
    let wrong = broker(&format!("redis://app:guess@127.0.0.1:{port}"));
    let error = soon(wrong.connect()).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unauthenticated,
        "{}",
        error.report()
    );
    assert!(!error.report().to_string().contains("guess"));
    close(wrong).await;
}

/// A node of a cluster, which talks to others on a second port.
static NODE: System = System {
    name: "redis",
    program: &REDIS_SERVER,
    ports: 2,
    ready_within: Duration::from_secs(20),
    stop_within: Duration::from_secs(10),
    prepare: |_| Ok(()),
    command: |site, command| {
        command.args([
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--cluster-enabled",
            "yes",
        ]);
        command.args(["--port", &site.port().to_string()]);
        command.args(["--cluster-port", &site.ports()[1].to_string()]);
        command.arg("--dir").arg(site.directory());
    },
    probe: pong,
    url: |site| format!("redis://{}", site.address()),
};

fn pong(site: &Site) -> Result<(), String> {
    match redis::call(site.address(), &["PING"]) {
        Ok(Some(reply)) if reply == "PONG" => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_of_a_cluster_that_has_our_slot() {
    let Some(server) = servers::own(&NODE) else {
        return;
    };
    ask(&server, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let broker = broker(&format!("{}?cluster=true", server.url()));
    soon(async {
        // A new cluster takes a moment to know itself.
        while broker.connect().await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    soon(async {
        let queue = Destination::Queue(TopicName::new("first").unwrap());
        while broker.declare(queue.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    works(&broker).await;
    close(broker).await;
}

/// A sentinel, which is the same program.
static SENTINEL: System = System {
    name: "redis",
    program: &REDIS_SERVER,
    ports: 1,
    ready_within: Duration::from_secs(20),
    stop_within: Duration::from_secs(10),
    prepare: |_| Ok(()),
    command: |site, command| {
        let file = site.directory().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\n",
            site.port(),
            site.directory().display()
        );
        std::fs::write(&file, text).unwrap();
        command.arg(file).arg("--sentinel");
    },
    probe: pong,
    url: |site| format!("redis://{}", site.address()),
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_that_sentinels_name_also_after_it_has_changed() {
    let (Some(first), Some(second)) = (servers::own(&REDIS), servers::own(&REDIS)) else {
        return;
    };
    let sentinel = servers::own(&SENTINEL).unwrap();
    let watch = |server: &Server| {
        let port = server.address().port().to_string();
        ask(
            &sentinel,
            &["SENTINEL", "MONITOR", "orders", "127.0.0.1", &port, "1"],
        );
    };
    watch(&first);
    let url = format!("{}?sentinel_master=orders&heartbeat=1s", sentinel.url());
    let broker = broker(&url);
    soon(broker.connect()).await.unwrap();
    works(&broker).await;
    // The sentinel names another one, and the first takes no writes any more.
    ask(&sentinel, &["SENTINEL", "REMOVE", "orders"]);
    watch(&second);
    let port = second.address().port().to_string();
    ask(&first, &["REPLICAOF", "127.0.0.1", &port]);
    let topic = Destination::Topic(TopicName::new("order.moved").unwrap());
    let deadline = Instant::now() + SOON;
    loop {
        let publish = Publish::new(topic.clone(), Message::new("one"));
        if broker.publish(publish).await.is_ok() {
            break;
        }
        assert!(Instant::now() < deadline, "it never finds the new master");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stored = redis::call(second.address(), &["XLEN", "{trunkline}:topic:order.moved"]);
    assert_eq!(stored.unwrap().as_deref(), Some("1"));
    close(broker).await;
    let unknown = RedisBroker::new(
        RedisConfig::from_url(&format!("{}?sentinel_master=nobody", sentinel.url())).unwrap(),
    )
    .unwrap();
    let error = soon(unknown.connect()).await.unwrap_err();
    assert!(error.message().contains("`nobody`"), "{}", error.report());
    close(unknown).await;
}

/// A server that speaks TLS alone, with a certificate that its directory has.
static ENCRYPTED: System = System {
    name: "redis",
    program: &REDIS_SERVER,
    ports: 1,
    ready_within: Duration::from_secs(20),
    stop_within: Duration::from_secs(10),
    prepare: |_| Ok(()),
    command: encrypted,
    probe: |site| {
        TcpStream::connect(site.address())
            .map(drop)
            .map_err(|error| error.to_string())
    },
    url: |site| format!("rediss://localhost:{}", site.port()),
};

fn encrypted(site: &Site, command: &mut Command) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (
        site.directory().join("cert.pem"),
        site.directory().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    command.args(["--bind", "127.0.0.1", "--port", "0", "--save", ""]);
    command.args(["--tls-auth-clients", "no"]);
    command.args(["--tls-port", &site.port().to_string()]);
    command.arg("--tls-cert-file").arg(&cert);
    command.arg("--tls-key-file").arg(&key);
    command.arg("--tls-ca-cert-file").arg(&cert);
    command.arg("--dir").arg(site.directory());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_server_whose_certificate_is_checked() {
    let Some(server) = servers::own(&ENCRYPTED) else {
        return;
    };
    let cert = server.directory().join("cert.pem");
    let url = format!("{}?tls_ca_file={}", server.url(), cert.display());
    let trusting = broker(&url);
    soon(trusting.connect()).await.unwrap();
    works(&trusting).await;
    close(trusting).await;
    // Another certificate does not make it somebody else's.
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = server.directory().join("other.pem");
    std::fs::write(&file, other.cert.pem()).unwrap();
    let doubting = broker(&format!("{}?tls_ca_file={}", server.url(), file.display()));
    let error = soon(doubting.connect()).await.unwrap_err();
    assert!(
        error.report().to_string().contains("TLS"),
        "{}",
        error.report()
    );
    close(doubting).await;
}
