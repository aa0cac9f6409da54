//! A service that nobody uses for long is not watched, and known anew when it is used again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_discovery::{Discovery, Instances, NoInstanceReason, PickRequest};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// Long enough that nobody watches it any more.
async fn unused(scripted: &Scripted) {
    sleep(Duration::from_secs(1201)).await;
    assert_eq!(scripted.watches_open(), 0);
}

async fn asleep() -> (Scripted, Discovery, Instances) {
    let scripted = Scripted::with(vec![instance("old")]);
    let discovery = Discovery::builder().resolver(scripted.clone()).build();
    let users = discovery.instances(&name());
    users.ready(soon()).await.unwrap();
    unused(&scripted).await;
    scripted.change_unnoticed(vec![instance("new")]);
    (scripted, discovery, users)
}

fn current(users: &Instances) -> Result<String, NoInstanceReason> {
    let picked = users.pick(&PickRequest::any().by_a_current_list());
    picked
        .map(|it| it.instance().id.clone())
        .map_err(|none| none.reason)
}

const NOT_YET: Result<String, NoInstanceReason> = Err(NoInstanceReason::NotResolved(None));

#[tokio::test(start_paused = true)]
async fn who_can_wait_is_not_sent_by_the_list_of_the_last_use() {
    let (_scripted, _discovery, users) = asleep().await;
    assert_eq!(current(&users), NOT_YET);
    users.resolved(soon()).await.unwrap();
    assert_eq!(current(&users).unwrap(), "new");
}

#[tokio::test(start_paused = true)]
async fn one_instance_is_chosen_by_a_current_list() {
    let (_scripted, discovery, users) = asleep().await;
    let found = discovery.service_instance(&name()).await.unwrap();
    assert_eq!(found.id, "new");
    drop(users);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_is_away_is_not_waited_for() {
    let (scripted, _discovery, users) = asleep().await;
    scripted.set_away(true);
    assert_eq!(current(&users), NOT_YET);
    let began = Instant::now();
    users.resolved(soon()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(current(&users).unwrap(), "old");
    assert!(users.snapshot().is_stale());
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_hangs_is_waited_for_a_second_once() {
    let (scripted, _discovery, users) = asleep().await;
    scripted.set_hanging(true);
    let began = Instant::now();
    users.ready(soon()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1));
    assert_eq!(current(&users).unwrap(), "old");
    users.resolved(soon()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn who_has_less_time_goes_by_what_is_known_when_it_is_over() {
    let (scripted, _discovery, users) = asleep().await;
    scripted.set_hanging(true);
    let deadline = Instant::now() + Duration::from_millis(200);
    users.ready(deadline).await.unwrap();
    assert_eq!(Instant::now(), deadline);
    assert!(users.pick(&PickRequest::any()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_discovery_what_is_known_stays_good() {
    let (scripted, discovery, users) = asleep().await;
    drop(discovery);
    unused(&scripted).await;
    users.resolved(soon()).await.unwrap();
    assert!(current(&users).is_ok());
}

#[tokio::test(start_paused = true)]
async fn to_look_on_is_no_use() {
    let scripted = Scripted::with(vec![instance("a")]);
    let discovery = Discovery::builder().resolver(scripted.clone()).build();
    let users = discovery.instances(&name());
    let mut looking = users.onlooker();
    let first = looking.next().await.unwrap();
    assert!(first.len() == 1 && !first.is_stale());
    unused(&scripted).await;
    assert!(looking.next().await.unwrap().is_stale(), "nobody watches");
    scripted.change_unnoticed(vec![]);
    users.ready(soon()).await.unwrap_err();
    assert_eq!(looking.next().await.unwrap().len(), 0);
    discovery.shutdown(soon()).await.unwrap();
    assert!(looking.next().await.is_none());
    // Nor does it keep the service known.
    let discovery = Discovery::builder().resolver(scripted.clone()).build();
    let mut looking = discovery.instances(&name()).onlooker();
    assert!(looking.next().await.is_some());
    while looking.next().await.is_some() {}
    assert_eq!(discovery.cached_services(), 0);
}
