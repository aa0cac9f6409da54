//! A broker that goes without a word.

use std::fs::File;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_messaging::MessageBroker;

use crate::directory::temporary;
use crate::roles::{connect, member};

#[tokio::test]
async fn a_dropped_broker_does_not_hold_up_the_runtime() {
    let directory = temporary();
    let broker = connect(directory.path().to_str().unwrap()).await;
    let subscription = broker.subscribe(member()).await.unwrap();
    // Another process has its turn and is stopped: what the broker still has to write waits for it.
    let gate = File::open(directory.path().join("broker.gate")).unwrap();
    gate.lock().unwrap();
    let before = Instant::now();
    drop((broker, subscription));
    let held_up = before.elapsed();
    assert!(held_up < Duration::from_secs(2), "{held_up:?}");
}
