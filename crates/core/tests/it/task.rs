use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::{Context, ErrorKind, task};

#[tokio::test(start_paused = true)]
async fn a_scope_waits_for_those_who_listen_and_ends_those_who_do_not() {
    let scope = task::Scope::new();
    let stop = scope.token();
    scope.spawn("polite", async move { stop.cancelled().await });
    scope.spawn("deaf", pending());
    assert_eq!(scope.len(), 2);
    let begun = Instant::now();
    assert_eq!(scope.shutdown(begun + Duration::from_secs(5)).await, 1);
    assert_eq!(begun.elapsed(), Duration::from_secs(5));
    assert!(scope.is_empty());
    assert_eq!(
        scope.shutdown(Instant::now()).await,
        0,
        "a second time does nothing"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_blocks_its_thread_does_not_hold_up_the_end() {
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let (begun, running) = tokio::sync::oneshot::channel();
    let scope = task::Scope::new();
    scope.spawn("blocks", async move {
        begun.send(()).unwrap();
        assert!(blocked.recv().is_err(), "released");
    });
    running.await.unwrap();
    let ending = scope.shutdown(Instant::now() + Duration::from_millis(10));
    let ended = tokio::time::timeout(Duration::from_secs(20), ending).await;
    assert_eq!((ended, scope.len()), (Ok(1), 1), "it runs still");
    drop(release);
}

#[tokio::test]
async fn a_panic_ends_its_own_task_alone() {
    let scope = task::Scope::new();
    scope.spawn("broken", async { panic!("boom") });
    let (sent, got) = tokio::sync::oneshot::channel();
    scope.spawn("fine", async move { sent.send(()).unwrap() });
    got.await.unwrap();
    assert_eq!(
        scope
            .shutdown(Instant::now() + Duration::from_secs(5))
            .await,
        0
    );
}

#[tokio::test]
async fn a_caught_panic_is_an_error_that_tells_its_message() {
    let error = task::catch_panic(async { panic!("no {}", "way") })
        .await
        .map(|(): ()| ())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(error.message(), "panicked: no way");
    assert_eq!(task::catch_panic(async { 7 }).await.unwrap(), 7);
}

#[tokio::test]
async fn what_an_owner_keeps_running_has_no_deadline_of_who_began_it() {
    let scope = task::Scope::new();
    let (tell, told) = tokio::sync::oneshot::channel();
    let call = Context::new().with_timeout(Duration::from_secs(1));
    call.scope(async {
        scope.spawn(
            "for long",
            async move { tell.send(Context::current()).unwrap() },
        );
        let part_of_the_call = task::spawn("now", async { Context::current() });
        assert!(
            part_of_the_call
                .await
                .unwrap()
                .unwrap()
                .deadline()
                .is_some()
        );
    })
    .await;
    assert!(told.await.unwrap().is_none());
}
