//! Many at once: nobody skips, nobody repeats, exactly one wins.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use trunkline_core::{Error, ErrorKind, task};
use trunkline_events::{
    AnyEventStore, Event, EventStore, ExpectedVersion, ReadAll, ReadStream, VersionConflict,
};

use crate::Scope;
use crate::store::StoreUnderTest;
use crate::store::fixture::{event, events, numbers, stream, versions};

const WRITERS: u64 = 64;
const EACH: u64 = 10;

/// Reads forwards without pause until so many events have come, remembering ids in the order in which they came.
async fn catch_up(store: AnyEventStore, mut at: u64, count: usize) -> Result<Vec<String>, Error> {
    let mut changes = store.changes();
    let mut seen = Vec::new();
    while seen.len() < count {
        changes.mark_unchanged();
        let page = store.read_all(ReadAll::after(at).with_limit(7)).await?;
        if page.is_empty() {
            // The signal never misses the last one, so this needs no second look.
            drop(changes.changed().await);
        }
        for event in page {
            assert!(
                event.position > at,
                "positions grow in the order of reading"
            );
            at = event.position;
            seen.push(event.event.event_id);
        }
    }
    Ok(seen)
}

/// Readers that catch up while 64 tasks write see each event once, all in the same order, and skip none.
pub async fn no_reader_skips_an_event(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let total = (WRITERS * EACH) as usize;
    let readers: Vec<_> = (0..4)
        .map(|_| task::spawn("reader", catch_up(subject.store.clone(), 0, total)))
        .collect();
    let writers = (0..WRITERS).map(|writer| {
        let (store, stream) = (subject.store.clone(), stream(scope, &format!("w{writer}")));
        task::spawn("writer", async move {
            for number in 0..EACH {
                store
                    .append(&stream, ExpectedVersion::Exact(number), vec![event(number)])
                    .await?;
            }
            Ok::<(), Error>(())
        })
    });
    for outcome in join_all(writers).await {
        outcome
            .expect("no writer panics")
            .expect("every append succeeds");
    }
    let mut orders = Vec::new();
    for reader in readers {
        let seen = scope.within("a reader that sees everything", reader).await;
        orders.push(seen.expect("no reader panics").expect("reading succeeds"));
    }
    let truth = subject.all(ReadAll::after(0).with_limit(usize::MAX)).await;
    let truth: Vec<String> = truth.into_iter().map(|it| it.event.event_id).collect();
    assert_eq!(truth.len(), total);
    assert_eq!(truth.iter().collect::<HashSet<_>>().len(), total);
    for order in orders {
        assert_eq!(order, truth);
    }
    for writer in 0..WRITERS {
        let recorded = subject.whole(&stream(scope, &format!("w{writer}"))).await;
        assert!(numbers(&recorded).into_iter().eq(0..EACH));
    }
}

/// Of many that expect the same version exactly one wins; the others learn the version that it has now.
pub async fn exactly_one_wins(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    for round in 0..10 {
        let tasks = (0..32).map(|number| {
            let (store, stream) = (subject.store.clone(), stream.clone());
            task::spawn("writer", async move {
                store
                    .append(&stream, ExpectedVersion::Exact(round), vec![event(number)])
                    .await
            })
        });
        let mut winners = 0;
        for outcome in join_all(tasks).await {
            match outcome.expect("no writer panics") {
                Ok(outcome) => {
                    assert_eq!((outcome.version, outcome.repeated), (round + 1, false));
                    winners += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", error.report());
                    let conflict = error
                        .find::<VersionConflict>()
                        .expect("it tells the versions");
                    assert_eq!(conflict.actual, round + 1);
                }
            }
        }
        assert_eq!(winners, 1, "round {round}");
    }
    assert!(
        versions(&subject.whole(&stream).await)
            .into_iter()
            .eq(1..=10)
    );
}

/// Writers that expect any version share a stream without a gap, and an append of several stays together.
pub async fn appends_to_one_stream_stay_whole(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let tasks = (0..WRITERS).map(|writer| {
        let (store, stream) = (subject.store.clone(), stream.clone());
        task::spawn("writer", async move {
            let batch = events(writer * 5..writer * 5 + 5);
            store.append(&stream, ExpectedVersion::Any, batch).await
        })
    });
    for outcome in join_all(tasks).await {
        outcome
            .expect("no writer panics")
            .expect("every append succeeds");
    }
    let recorded = subject.whole(&stream).await;
    assert!(versions(&recorded).into_iter().eq(1..=WRITERS * 5));
    for together in numbers(&recorded).chunks(5) {
        let first = together[0];
        assert_eq!(first % 5, 0);
        assert!(together.iter().copied().eq(first..first + 5));
    }
}

/// A reader of a stream never sees a part of an append.
pub async fn an_append_is_seen_whole(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let done = Arc::new(AtomicBool::new(false));
    let (store, name, end) = (subject.store.clone(), stream.clone(), Arc::clone(&done));
    let reader = task::spawn("reader", async move {
        while !end.load(Ordering::SeqCst) {
            let read = ReadStream::new(name.clone()).with_limit(usize::MAX);
            let of_stream = store.read_stream(read).await?.len();
            assert_eq!(
                of_stream % 7,
                0,
                "a part of an append was seen in its stream"
            );
            let of_all = store
                .read_all(ReadAll::after(0).with_limit(usize::MAX))
                .await?
                .len();
            assert_eq!(of_all % 7, 0, "a part of an append was seen among all");
        }
        Ok::<(), Error>(())
    });
    for _ in 0..100 {
        subject.append(&stream, events(0..7)).await;
    }
    done.store(true, Ordering::SeqCst);
    let read = scope.within("the reader", reader).await;
    read.expect("no part was seen").expect("reading succeeds");
}

/// The same decision from many tasks at once happens once.
pub async fn concurrent_repetitions_happen_once(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let decision: Vec<Event> = events(0..3);
    let tasks = (0..WRITERS).map(|_| {
        let (store, stream, decision) = (subject.store.clone(), stream.clone(), decision.clone());
        task::spawn("writer", async move {
            store
                .append(&stream, ExpectedVersion::NoStream, decision)
                .await
        })
    });
    let mut first = 0;
    for outcome in join_all(tasks).await {
        let outcome = outcome
            .expect("no writer panics")
            .expect("every one succeeds");
        assert_eq!(outcome.version, 3);
        first += u64::from(!outcome.repeated);
    }
    assert_eq!(first, 1);
    assert_eq!(numbers(&subject.whole(&stream).await), [0, 1, 2]);
}

/// Of two that take the same id for different events, in different streams, one wins.
pub async fn an_id_is_taken_once(subject: &StoreUnderTest<'_>, scope: &Scope) {
    for round in 0..20 {
        let id = format!("{}-{round}", scope.unique());
        let tasks = (0..8).map(|number| {
            let (store, stream) = (
                subject.store.clone(),
                stream(scope, &format!("{round}-{number}")),
            );
            let event = event(number).with_id(id.clone());
            task::spawn("writer", async move {
                store
                    .append(&stream, ExpectedVersion::Any, vec![event])
                    .await
            })
        });
        let outcomes = join_all(tasks).await;
        let taken = outcomes
            .into_iter()
            .filter_map(|it| it.expect("no writer panics").ok());
        assert_eq!(taken.count(), 1);
    }
}

/// Checkpoints saved from many tasks at once end up with the highest.
pub async fn concurrent_checkpoints_keep_the_highest(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let reader = scope.name("reader");
    let saves = (1..=WRITERS).map(|position| {
        let (store, reader) = (subject.store.clone(), reader.clone());
        task::spawn("save", async move {
            store.save_checkpoint(&reader, position).await
        })
    });
    for outcome in join_all(saves).await {
        outcome
            .expect("no task panics")
            .expect("every one is saved");
    }
    let kept = subject
        .store
        .checkpoint(&reader)
        .await
        .expect("it can be read");
    assert_eq!(kept, WRITERS);
}

/// An append that is given up, at any moment, has happened whole or not at all, and can be repeated.
pub async fn an_append_that_is_given_up_can_be_repeated(
    subject: &StoreUnderTest<'_>,
    scope: &Scope,
) {
    let stream = stream(scope, "a");
    for round in 0..40_u64 {
        let decision = events(round * 3..round * 3 + 3);
        let appending = subject
            .store
            .append(&stream, ExpectedVersion::Any, decision.clone());
        // Given up at whatever await it has come to by then.
        drop(tokio::time::timeout(Duration::from_micros(round * 13), appending).await);
        subject.append(&stream, decision).await;
    }
    let recorded = subject.whole(&stream).await;
    assert!(numbers(&recorded).into_iter().eq(0..120));
    assert!(versions(&recorded).into_iter().eq(1..=120));
}

/// Giving up a read, at any moment, disturbs nobody.
pub async fn reads_are_cancel_safe(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    subject.append(&stream, events(0..100)).await;
    for round in 0..100_u64 {
        let patience = Duration::from_micros(round * 5);
        let all = subject.store.read_all(ReadAll::after(0));
        drop(tokio::time::timeout(patience, all).await);
        let one = subject.store.read_stream(ReadStream::new(stream.clone()));
        drop(tokio::time::timeout(patience, one).await);
    }
    assert_eq!(subject.whole(&stream).await.len(), 100);
}
