//! A member of a group that dies, and what the others go through until the servers believe it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use trunkline_kafka::{KafkaBroker, KafkaConfig};
use trunkline_messaging::{MessageBroker, MessageBrokerConfig, Subscribe, Subscription};
use trunkline_testing::faults::Relay;
use trunkline_testing::servers::kafka;

use crate::place::{
    MOST_CONNECTIONS, Place, attached, close, eventually, insist, settled, soon, to_topic, topic,
};

const GROUP: &str = "mail@order.created";
/// Said by the other process when it has messages.
const READY: &str = "is a member";

fn broker(url: &str) -> KafkaBroker {
    let neutral = MessageBrokerConfig::from_url(url).unwrap();
    KafkaBroker::new(KafkaConfig::from_neutral(&neutral).unwrap()).unwrap()
}

async fn member(broker: &KafkaBroker) -> Subscription {
    let wanted = Subscribe::topics(topic("order.created")).with_group("mail");
    let subscription = broker.subscribe(wanted).await.unwrap();
    broker.connect().await.unwrap();
    attached(&subscription).await;
    subscription
}

/// Killed with its process, as it would not be if it were a part of this one.
struct Other(Child);

impl Other {
    fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crashes::the_other_process"])
            .args(["--ignored", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.as_mut().unwrap();
        writeln!(input, "{url}").unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        let said = lines.map_while(Result::ok).any(|line| line.contains(READY));
        assert!(said, "the other process ended: {}", child.wait().unwrap());
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
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
    let broker = broker(url.trim_end());
    let mut subscription = member(&broker).await;
    let first = subscription.next().await.unwrap();
    println!("{READY}");
    // Held until the process is killed.
    drop(std::io::stdin().read_to_end(&mut Vec::new()));
    drop(first);
}

/// What is acknowledged while the servers wait for a member that is dead stands behind the question that they have not
/// answered yet, on one connection. To give that connection up begins everything anew: the servers do not look at it before
/// they have answered, and wait for the dead member all the longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_while_the_servers_wait_for_a_dead_member() {
    let Some(mut place) = Place::new() else {
        return;
    };
    let link = Relay::to(place.server.address()).unwrap();
    place.server.stop().unwrap();
    kafka::advertise(place.server.site(), link.address()).unwrap();
    place.server.restart().unwrap();
    let [direct, relayed] = [place.server.address(), link.address()].map(|at| at.to_string());
    let url = place.server.url().replace(&direct, &relayed) + "?partitions=8&topic_refresh=1s";
    let broker = broker(&url);
    let mut own = member(&broker).await;
    let starting = {
        let url = url.clone();
        tokio::task::spawn_blocking(move || Other::start(&url))
    };
    // Until both have some: of eight partitions, each has its share.
    let mut number = 0_u64;
    let mut wanted = BTreeSet::new();
    let mut more = async |wanted: &mut BTreeSet<String>| {
        for key in 0..50 {
            let text = format!("{key}/{number}");
            let mut publish = to_topic("order.created", &text);
            publish.message = publish.message.with_key(key.to_string());
            insist(&broker, publish).await;
            wanted.insert(text);
        }
        number += 1;
    };
    let mut taken = BTreeSet::new();
    while !starting.is_finished() {
        more(&mut wanted).await;
        take_some(&mut own, &mut taken).await;
    }
    let mut other = starting.await.unwrap();
    eventually("two members", async || {
        (place.members(GROUP) == Some(2)).then_some(())
    })
    .await;
    other.kill();
    // One that comes now makes the group ask all of its members to join again, the dead one too.
    let before = link.accepted();
    let third = self::broker(&url);
    let wish = Subscribe::topics(topic("order.created")).with_group("mail");
    let mut its = third.subscribe(wish).await.unwrap();
    third.connect().await.unwrap();
    more(&mut wanted).await;
    let orphans = wanted.clone();
    // Acknowledging all the while; what is of the other's partitions comes when the servers believe its death.
    soon("taking over", async {
        while !orphans.is_subset(&taken) {
            more(&mut wanted).await;
            take_some(&mut own, &mut taken).await;
            take_some(&mut its, &mut taken).await;
        }
    })
    .await;
    let anew = link.accepted() - before;
    assert!(
        anew <= MOST_CONNECTIONS,
        "{anew} connections were made anew"
    );
    close(&third).await;
    close(&broker).await;
}

/// Takes and acknowledges what comes until nothing does for a while.
async fn take_some(subscription: &mut Subscription, taken: &mut BTreeSet<String>) {
    let pause = std::time::Duration::from_millis(300);
    while let Ok(delivery) = tokio::time::timeout(pause, subscription.next()).await {
        let delivery = delivery.unwrap();
        let text = String::from_utf8(delivery.message().payload.to_vec()).unwrap();
        taken.insert(text);
        settled(soon("an acknowledgement", delivery.ack()).await);
    }
}
