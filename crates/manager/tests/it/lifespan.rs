//! A scope in which the manager runs.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use trunkline_core::{Error, ErrorKind};

use crate::scripted::{Log, Scripted, in_memory, orders};

#[tokio::test]
async fn man2_the_context_manager_of_the_quick_start() {
    let manager = in_memory();
    let published = manager
        .clone()
        .lifespan(async |manager| {
            assert!(manager.is_initialized());
            let mut published = 0;
            for broker in manager.list_message_brokers() {
                if broker.connected {
                    let message = json!({ "message": "Hello World!" });
                    manager
                        .publish_message(&broker.name, "test.topic", &message)
                        .await?;
                    published += 1;
                }
            }
            Ok(published)
        })
        .await
        .unwrap();
    assert_eq!(published, 1);
    assert!(manager.is_shutdown());
}

#[tokio::test]
async fn man2_it_shuts_down_after_an_error_and_hands_it_on() {
    let log = Log::default();
    let manager = orders(&Scripted::logging(&log));
    let ended = manager
        .clone()
        .lifespan(async |_| Err::<(), _>(Error::invalid("no such order")))
        .await;
    assert_eq!(ended.unwrap_err().message(), "no such order");
    assert!(manager.is_shutdown());
    assert_eq!(log.lines().last().unwrap(), "broker closed");
}

#[tokio::test]
async fn man2_it_shuts_down_after_a_panic_and_hands_it_on() {
    for at_once in [true, false] {
        let log = Log::default();
        let manager = orders(&Scripted::logging(&log));
        let running = manager.clone();
        let task = trunkline_core::task::spawn("test", async move {
            running
                .lifespan(move |_| {
                    assert!(!at_once, "before the first await");
                    async { panic!("in the closure") }
                })
                .await
        });
        let ended: Result<trunkline_core::Result<()>, _> = task.await;
        assert!(ended.unwrap_err().is_panic());
        assert!(manager.is_shutdown());
        assert_eq!(log.lines().last().unwrap(), "broker closed");
    }
}

#[tokio::test(start_paused = true)]
async fn man2_a_request_to_stop_lets_the_closure_end_while_its_egress_works() {
    let manager = in_memory();
    let asked = manager.clone();
    let asks = async move {
        while !asked.is_initialized() {
            sleep(Duration::from_millis(10)).await;
        }
        asked.request_shutdown();
        assert!(!asked.health().readiness().ready);
    };
    let lives = manager.clone().lifespan(async |manager| {
        manager.until_shutdown().await;
        sleep(Duration::from_secs(10)).await;
        manager
            .publish_message("default", "last.words", "bye")
            .await
    });
    let (ended, ()) = tokio::join!(lives, asks);
    ended.unwrap();
    assert!(manager.is_shutdown());
}

#[tokio::test(start_paused = true)]
async fn man2_the_drain_deadline_drops_a_closure_that_does_not_end() {
    let manager = in_memory();
    let began = Instant::now();
    let ended = manager.clone().lifespan(async |manager| {
        manager.request_shutdown();
        std::future::pending::<()>().await;
        Ok(())
    });
    let error = ended.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert!(error.message().contains("until_shutdown"), "{error}");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(25) && took <= Duration::from_secs(30),
        "{took:?}"
    );
    assert!(manager.is_shutdown());
}

#[tokio::test]
async fn man2_a_start_that_fails_does_not_run_the_closure() {
    let manager = in_memory();
    manager.shutdown().await.unwrap();
    let ended = manager.lifespan(async |_| -> trunkline_core::Result<()> { panic!("it ran") });
    assert_eq!(ended.await.unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn man2_a_long_running_service_processes_until_it_is_asked_to_stop() {
    let manager = in_memory();
    let rounds = manager
        .lifespan(async |manager| {
            let mut rounds = 0;
            while tokio::time::timeout(Duration::from_secs(1), manager.until_shutdown())
                .await
                .is_err()
            {
                rounds += 1;
                if rounds == 3 {
                    manager.request_shutdown();
                }
            }
            Ok(rounds)
        })
        .await
        .unwrap();
    assert_eq!(rounds, 3);
}
