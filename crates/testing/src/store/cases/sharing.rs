//! Several processes, one store. Skipped where stores are not shared.

use trunkline_core::{Error, task};
use trunkline_events::{EventStore, ExpectedVersion, ReadAll};

use crate::Scope;
use crate::store::StoreUnderTest;
use crate::store::fixture::{assert_conflict_at, event, events, numbers, stream};

/// What was appended is there when the store is opened again.
pub async fn what_was_appended_survives_a_restart(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let Some(first) = subject.another(scope).await else {
        return;
    };
    let stream = stream(scope, "a");
    let decision = events(0..3);
    let outcome = first.append(&stream, decision.clone()).await;
    let reader = scope.name("reader");
    first
        .store
        .save_checkpoint(&reader, outcome.position)
        .await
        .expect("it can be saved");
    first.shutdown().await;
    let Some(second) = subject.another(scope).await else {
        return;
    };
    assert_eq!(numbers(&second.whole(&stream).await), [0, 1, 2]);
    let checkpoint = second
        .store
        .checkpoint(&reader)
        .await
        .expect("it can be read");
    assert_eq!(checkpoint, outcome.position);
    assert!(second.append(&stream, decision).await.repeated);
    assert_eq!(second.append(&stream, events(3..4)).await.version, 4);
    second.shutdown().await;
}

/// What one appends, the other reads and is told of.
pub async fn others_see_what_is_appended(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let Some(other) = subject.another(scope).await else {
        return;
    };
    let stream = stream(scope, "a");
    let mut changes = other.store.changes();
    for number in 0..20 {
        let position = subject.append(&stream, vec![event(number)]).await.position;
        assert_eq!(other.whole(&stream).await.len() as u64, number + 1);
        let told = scope
            .within("a change", changes.wait_for(|at| *at >= position))
            .await;
        drop(told.expect("the store is open"));
    }
    let stale = ExpectedVersion::Exact(3);
    assert_conflict_at(other.store.append(&stream, stale, events(0..1)).await, 20);
    other.shutdown().await;
}

/// A reader in one process skips nothing that two processes write at once.
pub async fn no_reader_skips_what_others_write(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let Some(other) = subject.another(scope).await else {
        return;
    };
    let (each, writers) = (25_u64, 8_u64);
    let total = (each * writers * 2) as usize;
    let mut tasks = Vec::new();
    for (process, store) in [&subject.store, &other.store].into_iter().enumerate() {
        for writer in 0..writers {
            let (store, stream) = (store.clone(), stream(scope, &format!("{process}-{writer}")));
            tasks.push(task::spawn("writer", async move {
                for number in 0..each {
                    store
                        .append(&stream, ExpectedVersion::Exact(number), vec![event(number)])
                        .await?;
                }
                Ok::<(), Error>(())
            }));
        }
    }
    let (mut at, mut seen) = (0, Vec::new());
    let mut changes = other.store.changes();
    let reading = async {
        while seen.len() < total {
            changes.mark_unchanged();
            let page = other.all(ReadAll::after(at).with_limit(5)).await;
            if page.is_empty() {
                changes.changed().await.expect("the store is open");
            }
            for event in page {
                assert!(event.position > at);
                at = event.position;
                seen.push(event.event.event_id);
            }
        }
    };
    scope.within("every event", reading).await;
    for task in tasks {
        task.await
            .expect("no writer panics")
            .expect("every append succeeds");
    }
    let truth = subject.all(ReadAll::after(0).with_limit(usize::MAX)).await;
    assert!(truth.into_iter().map(|it| it.event.event_id).eq(seen));
    other.shutdown().await;
}
