//! The store suite over the embedded event store, and what only it promises.

use trunkline_core::ErrorKind;
use trunkline_events::{Event, EventStore, ExpectedVersion, StreamName};
use trunkline_sqlite::EmbeddedEventStore;
use trunkline_testing::Scope;
use trunkline_testing::store::{OpenStore, StoreHarness};

use crate::directory::named;

struct Embedded;

impl StoreHarness for Embedded {
    async fn open(&self, scope: &Scope) -> Option<OpenStore> {
        let store = EmbeddedEventStore::new(named(scope.unique()), "orders").unwrap();
        let closing = store.clone();
        Some(OpenStore::new(store, async move || closing.shutdown()))
    }

    fn is_shared(&self) -> bool {
        true
    }
}

mod embedded {
    trunkline_testing::store_conformance!(super::Embedded);
}

#[tokio::test]
async fn whoever_only_listens_is_told_too() {
    let directory = tempfile::tempdir().unwrap();
    let listener = EmbeddedEventStore::new(directory.path(), "orders").unwrap();
    let mut changes = listener.changes();
    let writer = EmbeddedEventStore::new(directory.path(), "orders").unwrap();
    let stream = StreamName::of("order", "1").unwrap();
    let event = Event::new("order.created", "1", &1).unwrap();
    writer
        .append(&stream, ExpectedVersion::Any, vec![event])
        .await
        .unwrap();
    changes.wait_for(|position| *position == 1).await.unwrap();
}

#[tokio::test]
async fn stores_of_one_directory_are_apart() {
    let directory = tempfile::tempdir().unwrap();
    let orders = EmbeddedEventStore::new(directory.path(), "orders").unwrap();
    let users = EmbeddedEventStore::new(directory.path(), "users").unwrap();
    let stream = StreamName::of("order", "1").unwrap();
    for store in [&orders, &users] {
        let event = Event::new("order.created", "1", &1).unwrap();
        let outcome = store
            .append(&stream, ExpectedVersion::NoStream, vec![event])
            .await
            .unwrap();
        assert_eq!(outcome.position, 1);
    }
}

#[test]
fn a_name_that_is_no_file_name_is_refused() {
    for name in ["", "../up", "a b"] {
        let error = EmbeddedEventStore::new("/nowhere", name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name}");
    }
}
