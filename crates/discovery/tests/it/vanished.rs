//! A registry that loses what it knew, or lets leases run out that nobody could renew, does not empty a pool.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use trunkline_discovery::{
    Discovery, DiscoveryCacheConfig, InstanceStatus, Instances, NoInstanceReason, PickRequest,
    ServiceInstance,
};

use crate::balance::{instance, name};
use crate::scripted::{Recording, Scripted};

async fn settle() {
    sleep(Duration::from_millis(1)).await;
}

async fn watched(scripted: &Scripted) -> (Discovery, Instances) {
    let discovery = Discovery::builder().resolver(scripted.clone()).build();
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    (discovery, users)
}

fn nobody(users: &Instances) -> bool {
    users
        .pick(&PickRequest::any())
        .is_err_and(|none| none.reason == NoInstanceReason::None)
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_suddenly_empty_is_believed_after_a_while() {
    let scripted = Scripted::with(vec![instance("a"), instance("b")]);
    let (discovery, users) = watched(&scripted).await;
    scripted.change(vec![]);
    settle().await;
    // What the registry says is told as it says it.
    assert!(users.snapshot().is_empty());
    assert!(!users.snapshot().is_healthy());
    assert!(
        discovery
            .discover_services(&name())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(users.snapshot().in_rotation().len(), 2);
    assert!(users.pick(&PickRequest::any()).is_ok());
    sleep(Duration::from_secs(31)).await;
    assert!(nobody(&users));
}

#[tokio::test(start_paused = true)]
async fn one_that_vanished_and_cannot_be_connected_to_is_gone() {
    let scripted = Scripted::with(vec![instance("a"), instance("b")]);
    let (_discovery, users) = watched(&scripted).await;
    scripted.change(vec![]);
    settle().await;
    let mut first = users.pick(&PickRequest::any()).unwrap();
    assert!(first.is_dispensable() && !first.is_out(), "there are two");
    first.unreachable();
    assert!(first.is_out());
    let mut last = users.pick(&PickRequest::any()).unwrap();
    assert!(!last.is_dispensable());
    last.unreachable();
    assert!(nobody(&users));
}

#[tokio::test(start_paused = true)]
async fn who_took_no_requests_any_more_has_left() {
    let scripted = Scripted::with(vec![instance("a")]);
    let (_discovery, users) = watched(&scripted).await;
    scripted.change(vec![instance("a").with_status(InstanceStatus::Draining)]);
    settle().await;
    scripted.change(vec![]);
    settle().await;
    assert!(nobody(&users));
}

#[tokio::test(start_paused = true)]
async fn leases_that_run_out_one_after_the_other_empty_nothing() {
    let scripted = Scripted::with(vec![instance("a"), instance("b"), instance("c")]);
    let (_discovery, users) = watched(&scripted).await;
    for left in [
        vec![instance("b"), instance("c")],
        vec![instance("c")],
        vec![],
    ] {
        scripted.change(left);
        sleep(Duration::from_secs(5)).await;
    }
    // The last one has gone indeed.
    loop {
        let mut picked = users.pick(&PickRequest::any()).unwrap();
        if picked.instance().id == "c" {
            picked.unreachable();
            break;
        }
    }
    assert_eq!(users.snapshot().in_rotation().len(), 2);
    // Each is given up when its own time is over.
    sleep(Duration::from_secs(17)).await;
    let set = users.snapshot();
    assert!(set.in_rotation().all(|it| it.id == "b"), "{set:?}");
    sleep(Duration::from_secs(5)).await;
    assert!(nobody(&users));
}

#[tokio::test(start_paused = true)]
async fn it_can_be_switched_off() {
    let scripted = Scripted::with(vec![instance("a")]);
    let mut cache = DiscoveryCacheConfig::default();
    cache.keep_vanished = Duration::ZERO;
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .cache(cache)
        .build();
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    scripted.change(vec![]);
    settle().await;
    assert!(nobody(&users));
}

#[tokio::test(start_paused = true)]
async fn who_is_missing_after_an_outage_is_asked_last() {
    let scripted = Scripted::with(vec![instance("a"), instance("b"), instance("c")]);
    let (_discovery, users) = watched(&scripted).await;
    scripted.set_away(true);
    scripted.break_watches();
    sleep(Duration::from_secs(1)).await;
    // It has lost its memory, and one has announced itself again.
    scripted.change_unnoticed(vec![instance("b")]);
    scripted.set_away(false);
    sleep(Duration::from_secs(11)).await;
    let b = users.pick(&PickRequest::any()).unwrap();
    for _ in 0..20 {
        let any = users.pick(&PickRequest::any()).unwrap();
        assert_eq!(any.instance().id, "b");
        let tried = [b.instance().clone()];
        let other = users.pick(&PickRequest::excluding(&tried)).unwrap();
        assert_ne!(other.instance().id, "b");
    }
    scripted.change(vec![instance("a"), instance("b"), instance("c")]);
    settle().await;
    assert_eq!(users.snapshot().in_rotation().len(), 3);
    // In quiet times who is missing is gone.
    scripted.change(vec![instance("b")]);
    settle().await;
    let tried = [b.instance().clone()];
    let only = users.pick(&PickRequest::excluding(&tried)).unwrap();
    assert_eq!(only.instance().id, "b");
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_begins_to_hang_while_it_is_asked_is_noticed_as_soon() {
    let scripted = Scripted::with(vec![instance("a")]);
    let registry = Recording::default();
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .registry(registry.clone())
        .request_timeout(Duration::from_secs(60))
        .build();
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    scripted.end_watches();
    scripted.set_hanging(true);
    // The watch breaks, and is being opened again.
    sleep(Duration::from_millis(500)).await;
    scripted.change(vec![]);
    registry.set_hanging(true);
    let before = users.snapshot().last_error().map(str::to_owned);
    sleep(Duration::from_secs(5)).await;
    let error = users.snapshot().last_error().map(str::to_owned);
    assert_ne!(error, before);
    assert!(error.unwrap().contains("how it is"));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_is_noticed_in_seconds_and_asked_at_once_when_it_is_back() {
    let scripted = Scripted::with(vec![instance("a")]);
    let registry = Recording::default();
    let discovery = Discovery::builder()
        .resolver(scripted.clone())
        .registry(registry.clone())
        .build();
    let users = discovery.instances(&name());
    let soon = Instant::now() + Duration::from_secs(5);
    users.ready(soon).await.unwrap();
    let me = discovery.register(instance("me")).unwrap();
    me.registered(soon).await.unwrap();
    // Nothing breaks: the watch merely hears nothing any more.
    scripted.set_hanging(true);
    registry.set_hanging(true);
    sleep(Duration::from_secs(5)).await;
    assert!(users.snapshot().is_stale());
    assert!(users.pick(&PickRequest::any()).is_ok());
    sleep(Duration::from_secs(120)).await;
    scripted.change_unnoticed(vec![instance("b")]);
    registry.take();
    scripted.set_hanging(false);
    registry.set_hanging(false);
    sleep(Duration::from_secs(2)).await;
    let set = users.snapshot();
    assert!(!set.is_stale());
    assert!(set.instances().all(|it| it.id == "b"), "{set:?}");
    assert!(!registry.take().is_empty(), "the announcement may be gone");
}

#[tokio::test(start_paused = true)]
async fn who_is_asked_for_want_of_others_leaves_when_given_up() {
    let scripted = Scripted::with(vec![instance("a"), instance("b"), instance("c")]);
    let (_discovery, users) = watched(&scripted).await;
    let mut departures = users.departures();
    let ids = |left: Option<Vec<std::sync::Arc<ServiceInstance>>>| -> Vec<String> {
        left.unwrap().iter().map(|it| it.id.clone()).collect()
    };
    let at_once = Duration::from_millis(10);
    // One that leaves while others are listed leaves at once.
    scripted.change(vec![instance("a"), instance("b")]);
    let left = timeout(at_once, departures.next()).await.unwrap();
    assert_eq!(ids(left), ["c"]);
    sleep(Duration::from_secs(40)).await;
    // Who may be asked has not left.
    scripted.change(vec![]);
    assert!(timeout(at_once, departures.next()).await.is_err());
    assert_eq!(users.snapshot().in_rotation().len(), 2);
    scripted.change(vec![instance("a")]);
    assert!(timeout(at_once, departures.next()).await.is_err());
    let left = timeout(Duration::from_secs(31), departures.next()).await;
    assert_eq!(ids(left.unwrap()), ["b"]);
    // Under another id it is still there.
    let same = instance("a");
    scripted.change(vec![instance("a").with_id("other")]);
    assert!(timeout(at_once, departures.next()).await.is_err());
    assert_eq!(users.snapshot().instances().next().unwrap().host, same.host);
}
