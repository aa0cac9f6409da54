//! What the application wants to be told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use trunkline_core::{Error, ErrorKind, Result, Status};
use trunkline_messaging::MessageBrokerConfig;

use crate::scripted::{Log, Scripted, config, in_memory, optional_orders, orders, with_scripted};

#[tokio::test]
async fn man7_startup_and_shutdown_callbacks_in_the_order_of_addition() {
    let manager = in_memory();
    let log = Log::default();
    for name in ["one", "two"] {
        let heard = log.clone();
        manager.add_startup_callback(move |manager| {
            let heard = heard.clone();
            async move {
                let components = manager.health_status().components.len();
                heard.add(format!("{name}: started with {components} components"));
            }
        });
        let heard = log.clone();
        manager.add_shutdown_callback(move |manager| {
            let heard = heard.clone();
            async move {
                // Everything still works.
                manager
                    .publish_message("default", "last.words", name)
                    .await?;
                heard.add(format!("{name}: shutting down"));
                Ok::<(), Error>(())
            }
        });
    }
    manager.initialize().await.unwrap();
    manager.shutdown().await.unwrap();
    manager.shutdown().await.unwrap();
    assert_eq!(
        log.lines(),
        [
            "one: started with 3 components",
            "two: started with 3 components",
            "one: shutting down",
            "two: shutting down",
        ]
    );
}

async fn panics() {
    tokio::task::yield_now().await;
    panic!("it panicked")
}

#[tokio::test(start_paused = true)]
async fn man7_a_callback_that_fails_panics_or_hangs_harms_nothing() {
    let manager = in_memory();
    let log = Log::default();
    manager.add_startup_callback(|_| async { Err("it failed") });
    manager.add_startup_callback(|_| panics());
    manager.add_startup_callback(|_| -> std::future::Ready<()> { panic!("before its future") });
    manager.add_startup_callback(|_| std::future::pending::<()>());
    let heard = log.clone();
    manager.add_startup_callback(move |_| {
        heard.add("the last one");
        async {}
    });
    manager.initialize().await.unwrap();
    assert!(manager.is_initialized());
    assert_eq!(log.lines(), ["the last one"]);

    manager.add_shutdown_callback(|_| async { Err("it failed") });
    manager.add_shutdown_callback(|_| panics());
    manager.add_shutdown_callback(|_| std::future::pending::<()>());
    let began = Instant::now();
    manager.shutdown().await.unwrap();
    assert!(
        began.elapsed() <= Duration::from_secs(30),
        "callbacks may not outlast the stop"
    );
}

#[tokio::test(start_paused = true)]
async fn man7_a_callback_may_shut_down() {
    let manager = in_memory();
    manager.add_startup_callback(|manager| async move { manager.shutdown().await });
    let stopped = manager.initialize().await.unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    assert!(manager.is_shutdown());
    manager.shutdown().await.unwrap();

    let manager = in_memory();
    manager.add_shutdown_callback(|manager| async move { manager.shutdown().await });
    manager.initialize().await.unwrap();
    timeout(Duration::from_secs(1), manager.shutdown())
        .await
        .unwrap()
        .unwrap();

    let broker = Scripted::default();
    let manager = orders(&broker);
    let asked = manager.clone();
    manager.add_health_check_callback(move |_, _| {
        let asked = asked.clone();
        async move { asked.shutdown().await }
    });
    manager.initialize().await.unwrap();
    broker.leave();
    let began = Instant::now();
    while !manager.is_shutdown() {
        sleep(Duration::from_millis(100)).await;
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "it never stopped"
        );
    }
}

/// Notes every report as `key status`.
fn noting(
    log: &Log,
) -> impl Fn(String, trunkline_core::ComponentStatus) -> std::future::Ready<()> + use<> {
    let log = log.clone();
    move |key, status| {
        log.add(format!("{key} {}", status.status));
        std::future::ready(())
    }
}

#[tokio::test(start_paused = true)]
async fn man7_x20_x21_health_callbacks_get_the_key_and_fire_on_changes_only() {
    let broker = Scripted::default();
    let manager = orders(&broker);
    let log = Log::default();
    manager.add_health_check_callback(noting(&log));
    manager.initialize().await.unwrap();
    sleep(Duration::from_secs(120)).await;
    assert!(log.lines().is_empty(), "nothing changed: {:?}", log.lines());
    broker.leave();
    sleep(Duration::from_secs(300)).await;
    broker.come_back();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(
        log.lines(),
        [
            "message_broker_orders unhealthy",
            "message_broker_orders healthy"
        ]
    );
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn x21_and_on_every_failed_check_when_asked() {
    let broker = Scripted::default();
    let mut built = config()
        .message_broker("orders", MessageBrokerConfig::new("scripted"))
        .build()
        .unwrap();
    built.health.on_every_failure = true;
    let manager = with_scripted(built.into_builder(), &broker).build();
    let log = Log::default();
    manager.add_health_check_callback(noting(&log));
    manager.initialize().await.unwrap();
    broker.leave();
    for _ in 0..3 {
        manager.health_check().await;
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(log.lines(), ["message_broker_orders unhealthy"; 3]);
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn man7_what_does_not_work_at_the_start_is_told_too() {
    let broker = Scripted::default();
    broker.leave();
    let manager = optional_orders(&broker);
    let log = Log::default();
    manager.add_health_check_callback(noting(&log));
    manager.initialize().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(log.lines(), ["message_broker_orders unhealthy"]);
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn man7_a_listener_too_slow_for_every_report_is_told_the_last_state() {
    let manager = in_memory();
    let part = manager
        .health()
        .register("custom", "custom", "custom", false);
    part.mark_healthy();
    let log = Log::default();
    let heard = log.clone();
    manager.add_health_check_callback(move |_, status| {
        let heard = heard.clone();
        async move {
            heard.add(status.status.as_str());
            sleep(Duration::from_secs(5)).await;
        }
    });
    manager.initialize().await.unwrap();
    let error = Error::unavailable("away");
    part.mark_unhealthy(&error);
    sleep(Duration::from_secs(1)).await;
    for _ in 0..300 {
        part.mark_healthy();
        part.mark_unhealthy(&error);
    }
    part.mark_healthy();
    sleep(Duration::from_secs(3600)).await;
    let lines = log.lines();
    assert_eq!(
        (lines[0].as_str(), lines.last().unwrap().as_str()),
        ("unhealthy", "healthy")
    );
    manager.shutdown().await.unwrap();
}

/// The guide's own callback: alert, then try to recover, the name taken from the key.
async fn monitor_health(
    manager: trunkline_manager::CommunicationManager,
    component: String,
    status: trunkline_core::ComponentStatus,
    log: Log,
) -> Result<()> {
    if status.status == Status::Unhealthy {
        log.add(format!("Component {component} is down"));
        if let Some(broker) = component.strip_prefix("message_broker_") {
            assert_eq!(broker, status.name);
            if manager.reconnect_message_broker(broker).await? {
                log.add(format!("Successfully reconnected {broker}"));
            }
        }
    }
    Ok(())
}

fn monitored(
    broker: &Scripted,
    every_failure: bool,
) -> (trunkline_manager::CommunicationManager, Log) {
    let settings = MessageBrokerConfig::new("scripted").with_required(false);
    let mut built = config().message_broker("orders", settings).build().unwrap();
    built.health.on_every_failure = every_failure;
    let manager = with_scripted(built.into_builder(), broker).build();
    let log = Log::default();
    let (weak, heard) = (manager.clone(), log.clone());
    manager.add_health_check_callback(move |component, status| {
        monitor_health(weak.clone(), component, status, heard.clone())
    });
    (manager, log)
}

#[tokio::test(start_paused = true)]
async fn x21_reconnecting_in_a_callback_does_not_deadlock() {
    let broker = Scripted::default();
    broker.refuse(1);
    let (manager, log) = monitored(&broker, false);
    manager.initialize().await.unwrap();
    let began = Instant::now();
    while log.lines().len() < 2 {
        sleep(Duration::from_millis(10)).await;
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            log.lines()
        );
    }
    assert_eq!(
        log.lines(),
        [
            "Component message_broker_orders is down",
            "Successfully reconnected orders"
        ]
    );
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn x21_it_recovers_also_when_the_first_reconnect_fails() {
    for every_failure in [false, true] {
        let broker = Scripted::default();
        broker.refuse(3);
        let (manager, log) = monitored(&broker, every_failure);
        manager.initialize().await.unwrap();
        let began = Instant::now();
        while !manager.list_message_brokers()[0].connected {
            sleep(Duration::from_millis(10)).await;
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{:?}",
                log.lines()
            );
        }
        manager
            .publish_message("orders", "orders", "1")
            .await
            .unwrap();
        assert!(!log.lines().is_empty());
        manager.shutdown().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn x21_a_callback_that_reconnects_in_vain_does_not_call_itself_without_a_pause() {
    for every_failure in [false, true] {
        for ill in [false, true] {
            let broker = Scripted::default();
            let (manager, log) = monitored(&broker, every_failure);
            manager.initialize().await.unwrap();
            if ill {
                broker.fall_ill();
            } else {
                broker.leave();
            }
            sleep(Duration::from_secs(600)).await;
            let told = log.lines().len();
            // Checks at 0.5, 1, 2 … 30 s: some 40 in ten minutes.
            let most = if every_failure { 80 } else { 1 };
            assert!(
                (1..=most).contains(&told),
                "{told} times, every failure: {every_failure}, ill: {ill}"
            );
            manager.shutdown().await.unwrap();
        }
    }
}

#[tokio::test]
async fn man7_callbacks_do_not_keep_a_manager_alive_that_was_shut_down() {
    let manager = in_memory();
    let held = Arc::new(AtomicU32::new(0));
    let (cycle, inside) = (manager.clone(), Arc::clone(&held));
    manager.add_health_check_callback(move |_, _| {
        let _both = (&cycle, &inside);
        async {}
    });
    manager.initialize().await.unwrap();
    manager.shutdown().await.unwrap();
    assert_eq!(Arc::strong_count(&held), 1);
    held.fetch_add(1, Ordering::Relaxed);
}
