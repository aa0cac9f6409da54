//! What happens after shutdown.

use trunkline_core::{ErrorKind, task};
use trunkline_events::{EventStore, ExpectedVersion, ReadAll, ReadStream};

use crate::Scope;
use crate::store::StoreUnderTest;
use crate::store::fixture::{assert_kind, event, events, stream};

/// After shutdown every call fails as cancelled.
pub async fn calls_after_shutdown_are_cancelled(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    subject.append(&stream, events(0..1)).await;
    subject.shutdown().await;
    let (store, cancelled) = (&subject.store, ErrorKind::Cancelled);
    let any = ExpectedVersion::Any;
    assert_kind(
        store.append(&stream, any, events(1..2)).await,
        cancelled,
        "append",
    );
    assert_kind(
        store.append_event(&stream, event(1)).await,
        cancelled,
        "append_event",
    );
    assert_kind(
        store.read_stream(ReadStream::new(stream)).await,
        cancelled,
        "read_stream",
    );
    assert_kind(
        store.read_all(ReadAll::after(0)).await,
        cancelled,
        "read_all",
    );
    assert_kind(store.checkpoint("x").await, cancelled, "checkpoint");
    assert_kind(
        store.save_checkpoint("x", 1).await,
        cancelled,
        "save_checkpoint",
    );
    assert_kind(store.health_check().await, cancelled, "health_check");
}

/// Shutting down with appends under way ends them, one way or the other.
pub async fn appends_under_way_end_at_shutdown(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let appends = (0..50).map(|number| {
        let (store, stream) = (subject.store.clone(), stream(scope, &format!("{number}")));
        task::spawn("append", async move {
            store
                .append(&stream, ExpectedVersion::Any, vec![event(number)])
                .await
        })
    });
    let appends: Vec<_> = appends.collect();
    subject.shutdown().await;
    for append in appends {
        match scope
            .within("an append under way", append)
            .await
            .expect("no task panics")
        {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{}", error.report()),
        }
    }
}

/// Erasing what is erased changes nothing.
pub async fn erasing_twice_is_erasing_once(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    subject.append(&stream, events(0..1)).await;
    let again = subject.store.clone().erase().erase();
    assert_eq!(again.kind(), subject.store.kind());
    let read = again
        .read_stream(ReadStream::new(stream))
        .await
        .expect("it can be read");
    assert_eq!(read.len(), 1);
}
