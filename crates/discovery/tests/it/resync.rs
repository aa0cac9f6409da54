//! The whole list is fetched now and then, should a watch have missed something.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_discovery::{
    Discovery, DiscoveryCacheConfig, Instances, PickRequest, Resolver, Several,
};

use crate::balance::{instance, name};
use crate::scripted::{Recording, Scripted};

async fn over(scripted: &Scripted) -> (Discovery, Instances) {
    let discovery = Discovery::builder().resolver(scripted.clone()).build();
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    (discovery, users)
}

/// Waits for a condition, and uses the service meanwhile.
async fn until(users: &Instances, what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(300), "{what}");
        drop(users.pick(&PickRequest::any()));
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_has_missed_something_begins_anew() {
    let scripted = Scripted::with(vec![instance("a")]);
    let (_discovery, users) = over(&scripted).await;
    until(&users, "asked", || scripted.resolves() >= 3).await;
    assert_eq!(scripted.watches_opened(), 1, "nothing was missed");
    scripted.change_unnoticed(vec![instance("b")]);
    let listed = |id| users.snapshot().instances().all(|it| it.id == id);
    until(&users, "found", || listed("b")).await;
    // It would not say that all is as it was when it spoke last.
    until(&users, "anew", || {
        scripted.watches_open() == 1 && scripted.watches_opened() == 2
    })
    .await;
    assert!(!users.snapshot().is_stale());
}

#[tokio::test(start_paused = true)]
async fn one_question_that_is_not_answered_breaks_no_watch() {
    let scripted = Scripted::with(vec![instance("a")]);
    let (_discovery, users) = over(&scripted).await;
    scripted.set_hanging(true);
    until(&users, "asked", || scripted.resolves() == 1).await;
    scripted.set_hanging(false);
    until(&users, "asked once more", || scripted.resolves() == 2).await;
    sleep(Duration::from_secs(1)).await;
    assert!(!users.snapshot().is_stale());
    assert_eq!(scripted.watches_opened(), 1);
    // Two in succession while the watch says nothing do.
    scripted.set_hanging(true);
    until(&users, "given up", || users.snapshot().is_stale()).await;
    assert_eq!(scripted.resolves(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_speaks_while_questions_fail_is_well() {
    let scripted = Scripted::with(vec![instance("a")]);
    let (_discovery, users) = over(&scripted).await;
    scripted.set_hanging(true);
    for n in 1..200 {
        sleep(Duration::from_secs(2)).await;
        scripted.change(vec![instance(&n.to_string())]);
    }
    sleep(Duration::from_millis(1)).await;
    assert!(scripted.resolves() > 5);
    assert_eq!(scripted.watches_opened(), 1);
    assert!(!users.snapshot().is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_registry_whose_watches_ask_by_themselves_is_asked_for_nothing_else() {
    let scripted = Scripted::with(vec![instance("a")]);
    scripted.set_polling();
    let several = Several::builder()
        .member("one", Recording::default(), scripted.clone())
        .build();
    for discovery in [
        Discovery::builder().resolver(scripted.clone()).build(),
        Discovery::builder().resolver(several).build(),
    ] {
        let users = discovery.instances(&name());
        let soon = Instant::now() + Duration::from_secs(5);
        users.ready(soon).await.unwrap();
        for _ in 0..20 {
            sleep(Duration::from_secs(60)).await;
            assert!(users.pick(&PickRequest::any()).is_ok());
        }
        assert_eq!(scripted.resolves(), 0);
    }
}

/// None of them is a time that has come; before, some ended the watch by a panic.
#[tokio::test(start_paused = true)]
async fn spans_of_any_length_are_taken() {
    for span in [Duration::MAX, Duration::ZERO] {
        let mut cache = DiscoveryCacheConfig::default();
        cache.idle_expiry = span;
        cache.resync_interval = span;
        cache.keep_vanished = span;
        cache.snapshot_max_age = span;
        let scripted = Scripted::with(vec![instance("a")]);
        let registry = Recording::default();
        let discovery = Discovery::builder()
            .resolver(scripted.clone())
            .registry(registry)
            .cache(cache)
            .request_timeout(span.max(Duration::from_millis(1)))
            .lease_ttl(span)
            .build();
        discovery.service_instance(&name()).await.unwrap();
        let registration = discovery.register(instance("b")).unwrap();
        let soon = Instant::now() + Duration::from_secs(5);
        registration.registered(soon).await.unwrap();
        let users = discovery.instances(&name());
        scripted.change(vec![instance("c")]);
        let listed = |id| users.snapshot().instances().all(|it| it.id == id);
        until(&users, "told", || listed("c")).await;
        discovery.shutdown(soon).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_those_that_poll_are_not_asked_besides_the_others_are() {
    let (polls, other) = (
        Scripted::with(vec![instance("a")]),
        Scripted::with(vec![instance("b")]),
    );
    polls.set_polling();
    polls.count_nothing();
    let several = Several::builder()
        .member("polls", Recording::default(), polls.clone())
        .member("other", Recording::default(), other.clone())
        .build();
    let discovery = Discovery::builder().resolver(several.clone()).build();
    let users = discovery.instances(&name());
    let listed = || -> Vec<String> {
        let set = users.snapshot();
        set.instances().map(|it| it.id.clone()).collect()
    };
    until(&users, "both", || listed() == ["a", "b"]).await;
    // It answers with these or those, as servers of names do.
    polls.change_unnoticed(vec![instance("c")]);
    until(&users, "asked", || other.resolves() >= 3).await;
    assert_eq!(polls.resolves(), 0);
    assert_eq!((polls.watches_opened(), other.watches_opened()), (1, 1));
    assert_eq!(listed(), ["a", "b"]);
    // What the other one's watch has missed is found.
    other.change_unnoticed(vec![instance("d")]);
    until(&users, "found", || listed().contains(&"d".to_owned())).await;
    // One whose watch broke is asked.
    polls.set_away(true);
    polls.break_watches();
    until(&users, "broken", || polls.watches_open() == 0).await;
    drop(several.resolve(&name()).await);
    assert!(polls.resolves() > 0);
}
