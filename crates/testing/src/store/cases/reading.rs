//! Reading one stream or all, forwards and backwards, and remembering how far.

use trunkline_events::{EventStore, ReadAll, ReadStream, RecordedEvent};

use crate::Scope;
use crate::store::StoreUnderTest;
use crate::store::fixture::{event, events, numbers, stream, stream_in, typed, versions};

/// A stream that does not exist has no events, which is no error.
pub async fn an_unknown_stream_is_empty(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let read = ReadStream::new(stream(scope, "nobody"));
    assert!(subject.read(read.clone()).await.is_empty());
    assert!(subject.read(read.backwards()).await.is_empty());
}

/// Forwards from a version, inclusive; 0 and 1 are the beginning.
pub async fn a_stream_is_read_forwards(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    subject.append(&stream, events(0..5)).await;
    let from = async |version| {
        let read = ReadStream::new(stream.clone()).from_version(version);
        versions(&subject.read(read).await)
    };
    assert_eq!(from(0).await, [1, 2, 3, 4, 5]);
    assert_eq!(from(1).await, [1, 2, 3, 4, 5]);
    assert_eq!(from(4).await, [4, 5]);
    assert!(from(6).await.is_empty());
    assert!(from(u64::MAX).await.is_empty());
}

/// Backwards from a version, inclusive; 0, and whatever is beyond the end, is the end.
pub async fn a_stream_is_read_backwards(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    subject.append(&stream, events(0..5)).await;
    let from = async |version| {
        let read = ReadStream::new(stream.clone())
            .from_version(version)
            .backwards();
        versions(&subject.read(read).await)
    };
    assert_eq!(from(0).await, [5, 4, 3, 2, 1]);
    assert_eq!(from(3).await, [3, 2, 1]);
    assert_eq!(from(1).await, [1]);
    assert_eq!(from(u64::MAX).await, [5, 4, 3, 2, 1]);
}

/// At most as many as asked for, and fewer only at the end.
pub async fn a_stream_is_read_in_pages(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    subject.append(&stream, events(0..25)).await;
    let mut seen = Vec::new();
    loop {
        let next = seen.len() as u64 + 1;
        let read = ReadStream::new(stream.clone())
            .from_version(next)
            .with_limit(10);
        let page = numbers(&subject.read(read).await);
        let last = page.len() < 10;
        assert!(page.len() <= 10);
        seen.extend(page);
        if last {
            break;
        }
    }
    assert!(seen.into_iter().eq(0..25));
    let read = ReadStream::new(stream.clone());
    assert!(subject.read(read.clone().with_limit(0)).await.is_empty());
    assert_eq!(
        subject
            .read(read.clone().with_limit(usize::MAX))
            .await
            .len(),
        25
    );
    assert_eq!(
        versions(&subject.read(read.backwards().with_limit(2)).await),
        [25, 24]
    );
}

/// All streams in the order of positions, which is the order of appends.
pub async fn everything_is_read_in_order(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let (a, b) = (stream(scope, "a"), stream(scope, "b"));
    let start = head(subject).await;
    for number in 0..20 {
        let stream = if number % 3 == 0 { &a } else { &b };
        subject.append(stream, vec![event(number)]).await;
    }
    let forwards = subject.all(ReadAll::after(start)).await;
    assert!(numbers(&forwards).into_iter().eq(0..20));
    assert!(
        forwards
            .windows(2)
            .all(|pair| pair[0].position < pair[1].position)
    );
    let mut backwards = subject
        .all(ReadAll::after(0).backwards().with_limit(20))
        .await;
    backwards.reverse();
    assert_eq!(backwards, forwards);
}

/// Forwards behind a position, backwards before one; both leave it out.
pub async fn everything_is_read_from_a_position(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    subject.append(&stream, events(0..10)).await;
    let recorded = subject.whole(&stream).await;
    let fourth = recorded[3].position;
    let after = subject.all(ReadAll::after(fourth)).await;
    assert_eq!(numbers(&after), [4, 5, 6, 7, 8, 9]);
    let before = subject
        .all(ReadAll::after(fourth).backwards().with_limit(3))
        .await;
    assert_eq!(numbers(&before), [2, 1, 0]);
    let last = recorded[9].position;
    assert!(subject.all(ReadAll::after(last)).await.is_empty());
    assert!(
        subject
            .all(ReadAll::after(i64::MAX as u64))
            .await
            .is_empty()
    );
    assert!(subject.all(ReadAll::after(u64::MAX)).await.is_empty());
    assert!(
        subject
            .all(ReadAll::after(0).with_limit(0))
            .await
            .is_empty()
    );
}

/// Pages of everything, one behind the other, miss nothing and repeat nothing.
pub async fn everything_is_read_in_pages(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let start = head(subject).await;
    subject.append(&stream, events(0..103)).await;
    let (mut at, mut seen) = (start, Vec::new());
    loop {
        let page = subject.all(ReadAll::after(at).with_limit(10)).await;
        let Some(last) = page.last() else {
            break;
        };
        at = last.position;
        seen.extend(numbers(&page));
    }
    assert!(seen.into_iter().eq(0..103));
}

/// Only events of some types; the limit counts what is given.
pub async fn types_can_be_chosen(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let start = head(subject).await;
    let types = [
        "order.created",
        "order.paid",
        "order.create",
        "order.created.v2",
    ];
    let mixed = (0..40).map(|n| typed(types[n as usize % 4], n));
    subject.append(&stream, mixed.collect()).await;
    let created = ReadAll::after(start).with_type("order.created");
    let read = subject.all(created.clone()).await;
    assert!(numbers(&read).into_iter().eq((0..40).step_by(4)));
    assert_eq!(
        numbers(&subject.all(created.clone().with_limit(3)).await),
        [0, 4, 8]
    );
    let two = created.clone().with_type("order.paid");
    assert_eq!(subject.all(two).await.len(), 20);
    let last = subject.all(created.backwards().with_limit(2)).await;
    assert_eq!(numbers(&last), [36, 32]);
    assert!(
        subject
            .all(ReadAll::after(start).with_type("order"))
            .await
            .is_empty()
    );
}

/// Only streams of one category: the part before the first dash.
pub async fn a_category_can_be_chosen(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let one = stream_in(scope, "order", "1");
    let two = stream_in(scope, "order", "2-b");
    // Another category that begins alike.
    let other = stream_in(scope, "order", "3");
    let other = trunkline_events::StreamName::new(other.as_str().replacen('-', "x-", 1));
    let other = other.expect("a sound name");
    let start = head(subject).await;
    for number in 0..12 {
        let stream = [&one, &other, &two][number as usize % 3];
        subject.append(stream, vec![event(number)]).await;
    }
    let read = ReadAll::after(start).in_category(one.category());
    assert_eq!(
        numbers(&subject.all(read.clone()).await),
        [0, 2, 3, 5, 6, 8, 9, 11]
    );
    assert_eq!(
        numbers(&subject.all(read.clone().with_limit(3)).await),
        [0, 2, 3]
    );
    let typed = read.with_type("order.changed").backwards().with_limit(2);
    assert_eq!(numbers(&subject.all(typed).await), [11, 9]);
}

/// Checkpoints are kept by name and never go back.
pub async fn checkpoints_never_go_back(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let store = &subject.store;
    let (one, other) = (scope.name("reader ☂"), scope.name("reader"));
    let at = async |name: &str| store.checkpoint(name).await.expect("it can be read");
    assert_eq!(at(&one).await, 0);
    for (saved, kept) in [(5, 5), (3, 5), (5, 5), (9, 9), (0, 9)] {
        store
            .save_checkpoint(&one, saved)
            .await
            .expect("it can be saved");
        assert_eq!(at(&one).await, kept);
    }
    assert_eq!(at(&other).await, 0);
    store
        .save_checkpoint(&other, 1)
        .await
        .expect("it can be saved");
    assert_eq!((at(&one).await, at(&other).await), (9, 1));
}

/// The signal tells the present position at once and every last one after.
pub async fn changes_are_told(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let first = subject.append(&stream, events(0..1)).await.position;
    let mut changes = subject.store.changes();
    let told = scope.within("the present position", changes.wait_for(|at| *at >= first));
    assert_eq!(*told.await.expect("the store is open"), first);
    for number in 1..20 {
        let position = subject.append(&stream, vec![event(number)]).await.position;
        let told = scope.within("the next position", changes.wait_for(|at| *at >= position));
        assert_eq!(*told.await.expect("the store is open"), position);
    }
}

/// What the signal tells can be read.
pub async fn what_is_told_can_be_read(subject: &StoreUnderTest<'_>, scope: &Scope) {
    let stream = stream(scope, "a");
    let mut changes = subject.store.changes();
    let mut at = head(subject).await;
    let writer = async {
        for number in 0..100 {
            subject.append(&stream, vec![event(number)]).await;
        }
    };
    let reader = async {
        let mut seen = Vec::new();
        while seen.len() < 100 {
            let told = *changes.borrow_and_update();
            let page: Vec<RecordedEvent> = subject.all(ReadAll::after(at)).await;
            let last = page.last().map_or(at, |event| event.position);
            assert!(last >= told, "told {told}, read up to {last}");
            at = last;
            seen.extend(numbers(&page));
            if page.is_empty() {
                changes.changed().await.expect("the store is open");
            }
        }
        seen
    };
    let ((), seen) = tokio::join!(writer, scope.within("every event", reader));
    assert!(seen.into_iter().eq(0..100));
}

async fn head(subject: &StoreUnderTest<'_>) -> u64 {
    let last = subject
        .all(ReadAll::after(0).backwards().with_limit(1))
        .await;
    last.first().map_or(0, |event| event.position)
}
