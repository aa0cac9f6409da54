//! A disk that is full: a small file system in memory, mounted where only this test sees it.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use tokio::time::{Instant, timeout};
use trunkline_core::{ErrorKind, Retry};
use trunkline_messaging::{Destination, Message, MessageBroker, Publish, Subscribe, TopicName};
use trunkline_sqlite::{DiskFull, EmbeddedBroker, EmbeddedBrokerConfig};
use trunkline_testing::{Missing, Scope, skip};

use crate::directory::temporary;
use crate::process::{Process, tell};

/// What `TRUNKLINE_REQUIRE_LIVE` calls a machine on which mounts can be made.
const MOUNTS: &str = "unshare";
const MOUNT: &str = "mount -t tmpfs -o size=24m none \"$TRUNKLINE_TEST_MOUNT\" && exec \"$@\"";

/// How a mount that only one process sees can be made here, if it can.
fn unshare() -> Option<Vec<&'static str>> {
    let ways = [
        vec!["unshare", "--mount"],
        vec!["unshare", "--user", "--map-root-user", "--mount"],
    ];
    ways.into_iter().find(|way| {
        let probe = Command::new(way[0])
            .args(&way[1..])
            .args(["sh", "-c", "mount -t tmpfs none /mnt"])
            .output();
        probe.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn a_full_disk_is_told_and_survived() {
    let Some(mut program) = unshare() else {
        let scope = Scope::new("a_full_disk_is_told_and_survived");
        skip(&scope, Missing::Server(MOUNTS));
        return;
    };
    let directory = temporary();
    let mount = format!(
        "TRUNKLINE_TEST_MOUNT={}",
        directory.path().to_str().unwrap()
    );
    program.extend(["env", &mount, "sh", "-c", MOUNT, "sh"]);
    let child = Process::start_by(&program, "disk", directory.path());
    child.expect("full");
    child.expect("freed");
    child.expect("whole");
    assert!(child.end());
}

/// The test above on a machine without the programs it needs.
fn without_programs(required: &str) -> Output {
    Command::new(std::env::current_exe().unwrap())
        .args(["disk::a_full_disk_is_told_and_survived", "--exact"])
        .env("PATH", "/nowhere")
        .env("TRUNKLINE_REQUIRE_LIVE", required)
        .output()
        .unwrap()
}

#[test]
fn where_no_mount_can_be_made_the_full_disk_is_skipped_aloud() {
    let output = without_programs("");
    assert!(output.status.success());
    let told = String::from_utf8(output.stderr).unwrap();
    let skipped = "SKIP a_full_disk_is_told_and_survived: ";
    assert!(told.lines().any(|line| line.starts_with(skipped)), "{told}");
}

#[test]
fn where_everything_is_required_the_full_disk_is_not_skipped() {
    assert!(!without_programs("all").status.success());
}

fn message() -> Publish {
    let queue = TopicName::new("work").unwrap();
    Publish::new(Destination::Queue(queue), Message::new(vec![7; 20_000]))
}

/// The role of the child.
pub(crate) async fn fill_and_free(directory: &str) {
    let directory = Path::new(directory);
    let ballast = directory.join("ballast");
    // More than half of the disk: what was in the log alone until now must fit in beside it when this is gone.
    std::fs::write(&ballast, vec![1; 14 << 20]).unwrap();
    let broker = EmbeddedBroker::new(EmbeddedBrokerConfig::new(directory.join("data")));
    broker.connect().await.unwrap();
    let queue = TopicName::new("work").unwrap();
    broker
        .declare(Destination::Queue(queue.clone()))
        .await
        .unwrap();
    let mut confirmed = 0;
    let error = loop {
        match broker.publish(message()).await {
            Ok(_) => confirmed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{}", error.report());
    assert!(error.find::<DiskFull>().is_some(), "{}", error.report());
    assert_eq!(error.retry(), Retry::Safe);
    let health = broker.health_check().await.unwrap_err();
    assert_eq!(health.kind(), ErrorKind::Exhausted, "{}", health.report());
    tell("full");
    std::fs::remove_file(ballast).unwrap();
    let healthy = async {
        // The check itself tries a write, so it need not wait for the next message.
        while broker.health_check().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), healthy)
        .await
        .expect("it recovers");
    broker.publish(message()).await.unwrap();
    confirmed += 1;
    tell("freed");
    let mut consumer = broker.subscribe(Subscribe::queue(queue)).await.unwrap();
    for _ in 0..confirmed {
        let delivery = timeout(Duration::from_secs(20), consumer.next())
            .await
            .unwrap();
        delivery.unwrap().ack().await.unwrap();
    }
    let more = timeout(Duration::from_millis(300), consumer.next()).await;
    assert!(more.is_err(), "what was refused is not there");
    broker
        .disconnect(Instant::now() + Duration::from_secs(10))
        .await
        .unwrap();
    tell("whole");
}
