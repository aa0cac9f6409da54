//! Several registries as one, when one of them is slow, hangs, or comes back.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use trunkline_discovery::{Registry, ResolveRule, Resolver, Several};

use crate::balance::{instance, name};
use crate::scripted::{Asked, Recording, Scripted};
use crate::several::{announcing, at, finding, found, next, settle};

const TTL: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_question_that_hangs_moves_nothing_while_the_watch_stands() {
    let one = Scripted::with(vec![at("a", 1)]);
    let two = Scripted::with(vec![at("b", 2)]);
    let several = finding(ResolveRule::Ordered, &one, &two);
    let mut watch = several.watch(&name()).await.unwrap();
    assert_eq!(next(&mut watch).await, ["a"]);
    one.set_hanging(true);
    assert_eq!(found(&several).await, ["a"]);
    let moved = timeout(Duration::from_secs(50), watch.next()).await;
    assert!(moved.is_err(), "{moved:?}");
    assert_eq!(found(&several).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_takes_no_news_back() {
    let one = Scripted::with(vec![at("a", 1)]);
    let two = Scripted::with(vec![]);
    one.count_nothing();
    let several = finding(ResolveRule::Merged, &one, &two);
    let mut watch = several.watch(&name()).await.unwrap();
    assert_eq!(next(&mut watch).await, ["a"]);
    one.set_taking(Duration::from_millis(500));
    let asking = several.clone();
    let asked = trunkline_core::task::spawn("question", async move { found(&asking).await });
    sleep(Duration::from_millis(50)).await;
    one.change(vec![at("a", 1), at("b", 2)]);
    assert_eq!(next(&mut watch).await, ["a", "b"]);
    asked.await.unwrap();
    sleep(Duration::from_secs(2)).await;
    one.set_taking(Duration::ZERO);
    // Nothing is told again for the answer that was older.
    let moved = timeout(Duration::from_secs(1), watch.next()).await;
    assert!(moved.is_err(), "{moved:?}");
    one.set_hanging(true);
    assert_eq!(found(&several).await, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_is_noticed_and_asked_anew_when_it_is_back() {
    let one = Scripted::with(vec![at("a", 1)]);
    let two = Scripted::with(vec![at("b", 2)]);
    let first = Recording::default();
    let several = Several::builder()
        .rule(ResolveRule::Ordered)
        .member("one", first.clone(), one.clone())
        .member("two", Recording::default(), two.clone())
        .build();
    let mut watch = several.watch(&name()).await.unwrap();
    assert_eq!(next(&mut watch).await, ["a"]);
    // It accepts, and never answers; no connection ends.
    first.set_hanging(true);
    one.set_hanging(true);
    let moved = timeout(Duration::from_secs(5), next(&mut watch)).await;
    assert_eq!(moved.expect("it is noticed"), ["b"]);
    let problem = several.standing()[0].problem.clone().unwrap();
    assert!(problem.starts_with("finding: "), "{problem}");
    assert_eq!(several.standing()[1].problem, None);
    // What happened meanwhile was told to nobody.
    one.change_unnoticed(vec![at("c", 3)]);
    first.set_hanging(false);
    one.set_hanging(false);
    let moved = timeout(Duration::from_secs(2), next(&mut watch)).await;
    assert_eq!(moved.expect("it is asked anew"), ["c"]);
    assert_eq!(several.standing()[0].problem, None);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_known_to_hang_holds_up_no_new_watch() {
    let one = Scripted::with(vec![at("a", 1)]);
    let two = Scripted::with(vec![at("b", 2)]);
    let first = Recording::default();
    first.set_hanging(true);
    one.set_hanging(true);
    let several = Several::builder()
        .member("one", first.clone(), one.clone())
        .member("two", Recording::default(), two.clone())
        .build();
    let mut watch = several.watch(&name()).await.unwrap();
    assert_eq!(next(&mut watch).await, ["b"]);
    sleep(Duration::from_secs(5)).await;
    let asked = Instant::now();
    let mut another = several.watch(&name()).await.unwrap();
    assert_eq!(next(&mut another).await, ["b"]);
    assert!(asked.elapsed() < Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_twice_for_a_slow_one_and_what_it_said_stays_in_use() {
    let one = Scripted::with(vec![at("a", 1)]);
    let two = Scripted::with(vec![at("b", 2)]);
    let several = finding(ResolveRule::Merged, &one, &two);
    assert_eq!(found(&several).await, ["a", "b"]);
    assert_eq!(several.services().await.unwrap(), [name()]);
    one.set_hanging(true);
    assert_eq!(found(&several).await, ["a", "b"]);
    let asked = Instant::now();
    assert_eq!(found(&several).await, ["a", "b"]);
    assert!(asked.elapsed() < Duration::from_millis(200));
    // Names as well as instances.
    two.change(Vec::new());
    assert_eq!(several.services().await.unwrap(), [name()]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_one_answers_for_the_next_time() {
    let one = Scripted::with(vec![at("a", 1)]);
    let two = Scripted::with(vec![at("b", 2)]);
    one.set_taking(Duration::from_secs(3));
    let several = finding(ResolveRule::Merged, &one, &two);
    assert_eq!(found(&several).await, ["b"]);
    sleep(Duration::from_secs(3)).await;
    let asked = Instant::now();
    assert_eq!(found(&several).await, ["a", "b"]);
    assert!(asked.elapsed() < Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn one_slow_health_check_says_nothing_about_the_others() {
    let (one, two) = (Recording::default(), Recording::default());
    one.set_hanging(true);
    let several = announcing(&one, &two);
    let asked = timeout(Duration::from_secs(2), several.health_check()).await;
    asked.expect("it does not wait for long").unwrap();
    let standing = several.standing();
    assert!(
        standing[0].problem.is_some() && standing[1].problem.is_none(),
        "{standing:?}"
    );
    two.set_hanging(true);
    let asked = timeout(Duration::from_secs(2), several.health_check()).await;
    let error = asked.expect("it does not wait for long").unwrap_err();
    assert!(
        error.message().contains("one: ") && error.message().contains("two: "),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn where_announcing_failed_it_is_tried_again_by_itself() {
    let (one, two) = (Recording::default(), Recording::default());
    one.set_away(true);
    let several = announcing(&one, &two);
    let users = instance("a");
    let lease = several.register(users.clone(), TTL).await.unwrap();
    settle().await;
    one.set_away(false);
    one.take();
    // Long before the lease is renewed.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(one.take(), [Asked::Register(users.clone())]);
    assert_eq!(two.take(), [Asked::Register(users.clone())]);
    assert_eq!(several.standing()[0].problem, None);

    // A renewal that fails is tried again as well, with the newest that there is to say.
    one.set_away(true);
    let heavier = users.clone().with_weight(7);
    several.renew(&lease, &heavier).await.unwrap();
    one.set_away(false);
    one.take();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(one.take(), [Asked::Renew(heavier.clone())]);
    assert_eq!(two.take(), [Asked::Renew(heavier)]);

    // What is withdrawn is not announced again.
    one.set_away(true);
    several.renew(&lease, &users).await.unwrap();
    several.deregister(&lease).await.unwrap();
    one.set_away(false);
    one.take();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(one.take(), []);
}
