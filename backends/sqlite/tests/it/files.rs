//! Files that are not what they should be.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use trunkline_core::{Error, ErrorKind};
use trunkline_messaging::{Destination, Message, MessageBroker, Publish};
use trunkline_sqlite::{
    Connection, DamagedFile, EmbeddedBroker, EmbeddedBrokerConfig, SchemaTooNew,
};

use crate::directory::temporary;
use crate::roles::{connect, message};

async fn refused(directory: &tempfile::TempDir) -> Error {
    let broker = EmbeddedBroker::new(EmbeddedBrokerConfig::new(directory.path()));
    broker.connect().await.unwrap_err()
}

async fn make(directory: &tempfile::TempDir) {
    let broker = connect(directory.path().to_str().unwrap()).await;
    broker.publish(message("kept")).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    broker.disconnect(deadline).await.unwrap();
}

fn set_version(directory: &tempfile::TempDir, version: u32) {
    let connection = Connection::open(directory.path().join("broker.db")).unwrap();
    connection
        .pragma_update(None, "user_version", version)
        .unwrap();
}

#[tokio::test]
async fn a_file_of_a_distant_release_is_refused() {
    let directory = temporary();
    make(&directory).await;
    set_version(&directory, 9);
    let error = refused(&directory).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.find::<SchemaTooNew>().unwrap().found, 9);
}

#[tokio::test]
async fn a_file_of_the_next_release_is_shared() {
    let directory = temporary();
    make(&directory).await;
    set_version(&directory, 2);
    let broker = connect(directory.path().to_str().unwrap()).await;
    broker.publish(message("more")).await.unwrap();
    let connection = Connection::open(directory.path().join("broker.db")).unwrap();
    let version: u32 = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 2, "it is left as it is");
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let directory = temporary();
    std::fs::write(directory.path().join("broker.db"), vec![7; 8192]).unwrap();
    let error = refused(&directory).await;
    assert!(error.find::<DamagedFile>().is_some(), "{}", error.report());
}

#[tokio::test]
async fn a_database_of_another_program_is_refused() {
    let directory = temporary();
    let theirs = Connection::open(directory.path().join("broker.db")).unwrap();
    theirs.execute_batch("CREATE TABLE theirs(x)").unwrap();
    let error = refused(&directory).await;
    assert!(error.find::<DamagedFile>().is_some(), "{}", error.report());
}

#[tokio::test]
async fn a_directory_that_vanishes_is_noticed() {
    let directory = temporary();
    let path = directory.path().join("data");
    let broker = connect(path.to_str().unwrap()).await;
    broker.publish(message("a")).await.unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    let error = broker.publish(message("b")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    assert_eq!(
        broker.health_check().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
}

#[tokio::test]
async fn two_brokers_of_one_process_close_apart() {
    let directory = temporary();
    let path = directory.path().to_str().unwrap();
    let (one, other) = (connect(path).await, connect(path).await);
    let mut subscription = other.subscribe(crate::roles::member()).await.unwrap();
    one.publish(message("a")).await.unwrap();
    let delivery = timeout(Duration::from_secs(20), subscription.next())
        .await
        .unwrap();
    delivery.unwrap().ack().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    one.disconnect(deadline).await.unwrap();
    other.publish(message("b")).await.unwrap();
    other.disconnect(deadline).await.unwrap();
}

#[tokio::test]
async fn an_unknown_queue_names_what_to_do() {
    let directory = temporary();
    let broker = connect(directory.path().to_str().unwrap()).await;
    let queue = Destination::Queue("missing".parse().unwrap());
    let error = broker
        .publish(Publish::new(queue, Message::new("x")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().contains("declare"), "{error}");
}
