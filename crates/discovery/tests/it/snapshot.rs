//! A process that starts while the registry is down begins with what an earlier one knew.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_core::{ManualClock, Timestamp};
use trunkline_discovery::{Discovery, DiscoveryCacheConfig, PickRequest};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

fn over(scripted: &Scripted, file: &Path, clock: &Arc<ManualClock>) -> Discovery {
    let mut cache = DiscoveryCacheConfig::default();
    cache.snapshot_file = Some(file.to_owned());
    Discovery::builder()
        .resolver(scripted.clone())
        .cache(cache)
        .clock(clock.clone())
        .build()
}

async fn run_once(scripted: &Scripted, file: &Path, clock: &Arc<ManualClock>) {
    let discovery = over(scripted, file, clock);
    let soon = Instant::now() + Duration::from_secs(5);
    discovery.instances(&name()).ready(soon).await.unwrap();
    let later = Instant::now() + Duration::from_secs(5);
    discovery.shutdown(later).await.unwrap();
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(Timestamp::from_unix_millis(
        1_700_000_000_000,
    )))
}

#[tokio::test(start_paused = true)]
async fn it_starts_with_what_was_known_and_says_how_old_that_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services.json");
    let clock = clock();
    let scripted = Scripted::with(vec![instance("a"), instance("b")]);
    run_once(&scripted, &file, &clock).await;

    clock.advance(Duration::from_secs(3600));
    scripted.set_away(true);
    let discovery = over(&scripted, &file, &clock);
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    let set = users.snapshot();
    assert_eq!(set.len(), 2);
    assert!(set.is_stale());
    assert!(set.last_error().unwrap().contains("away"), "{set:?}");
    assert!(users.pick(&PickRequest::any()).is_ok());

    scripted.change_unnoticed(vec![instance("c")]);
    scripted.set_away(false);
    sleep(Duration::from_secs(11)).await;
    let set = users.snapshot();
    assert!(!set.is_stale());
    assert!(set.instances().all(|it| it.id == "c"), "{set:?}");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_is_waited_for_a_second() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services.json");
    let clock = clock();
    let scripted = Scripted::with(vec![instance("a")]);
    run_once(&scripted, &file, &clock).await;
    scripted.set_hanging(true);
    let discovery = over(&scripted, &file, &clock);
    let begun = Instant::now();
    let users = discovery.instances(&name());
    users.ready(begun + Duration::from_secs(5)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::from_secs(1));
    assert!(users.snapshot().is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_answers_is_believed_and_what_is_too_old_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services.json");
    let clock = clock();
    let scripted = Scripted::with(vec![instance("a")]);
    run_once(&scripted, &file, &clock).await;

    scripted.change_unnoticed(vec![]);
    let discovery = over(&scripted, &file, &clock);
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.resolved(soon).await.unwrap();
    assert!(users.pick(&PickRequest::any()).is_err());
    drop(discovery);

    scripted.change_unnoticed(vec![instance("a")]);
    run_once(&scripted, &file, &clock).await;
    clock.advance(Duration::from_secs(25 * 3600));
    scripted.set_away(true);
    let discovery = over(&scripted, &file, &clock);
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.resolved(soon).await.unwrap_err();
}

/// A process that loses its power writes nothing at the end.
#[tokio::test(start_paused = true)]
async fn what_the_registry_confirms_all_the_time_is_no_older_than_its_last_word() {
    for polls in [false, true] {
        is_no_older(polls).await;
    }
}

async fn is_no_older(polls: bool) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("services.json");
    let clock = clock();
    let scripted = Scripted::with(vec![instance("a")]);
    if polls {
        scripted.set_polling();
    }
    let discovery = over(&scripted, &file, &clock);
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    for _ in 0..48 {
        clock.advance(Duration::from_secs(3600));
        // Longer than the registry is not asked.
        sleep(Duration::from_secs(65)).await;
        assert!(users.pick(&PickRequest::any()).is_ok());
    }
    let after = directory.path().join("found.json");
    std::fs::copy(&file, &after).unwrap();
    scripted.set_away(true);
    let later = over(&scripted, &after, &clock);
    let soon = Instant::now() + Duration::from_secs(5);
    later.instances(&name()).ready(soon).await.unwrap();
    let age = later.instances(&name()).snapshot().age();
    assert!(age <= Duration::from_secs(4 * 3600), "{age:?}");
}
