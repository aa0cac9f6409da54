//! Start and stop.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use trunkline_core::{AnyLifecycle, Error, ErrorKind, Lifecycle, Result, Status};
use trunkline_manager::{CommunicationManager, Stage};
use trunkline_messaging::MessageBrokerConfig;

use crate::scripted::{Log, Scripted, config, in_memory, optional_orders, orders, with_scripted};

#[tokio::test]
async fn man1_the_lifecycle_of_the_quick_start() {
    let manager = in_memory();
    assert!(!manager.is_initialized() && !manager.is_shutdown());
    manager.initialize().await.unwrap();
    assert!(manager.is_initialized() && !manager.is_shutdown());
    assert_eq!(manager.health_status().overall_status, Status::Healthy);
    let order = json!({ "order_id": "123" });
    manager
        .publish_message("default", "orders", &order)
        .await
        .unwrap();
    manager.shutdown().await.unwrap();
    assert!(!manager.is_initialized() && manager.is_shutdown());
}

#[tokio::test]
async fn man1_a_second_call_does_nothing() {
    let broker = Scripted::default();
    let manager = orders(&broker);
    let (one, other) = tokio::join!(manager.initialize(), manager.initialize());
    one.and(other).unwrap();
    manager.initialize().await.unwrap();
    assert_eq!(broker.connects(), 1);
    let (one, other) = tokio::join!(manager.shutdown(), manager.shutdown());
    one.and(other).unwrap();
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn x46_after_a_shutdown_it_cannot_be_started_again() {
    for started in [false, true] {
        let manager = in_memory();
        if started {
            manager.initialize().await.unwrap();
        }
        manager.shutdown().await.unwrap();
        assert!(manager.is_shutdown());
        let error = manager.initialize().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert!(error.message().contains("make a new one"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn man1_a_failed_start_undoes_what_it_started() {
    let (log, away) = (Log::default(), Scripted::default());
    let good = Scripted::logging(&log);
    away.leave();
    let config = config()
        .message_broker("good", MessageBrokerConfig::new("scripted"))
        .message_broker("away", MessageBrokerConfig::new("other"))
        .startup_timeout(Duration::from_secs(2));
    let manager = with_scripted(config, &good)
        .broker("other", move |_| {
            Ok(trunkline_messaging::AnyBroker::new(away.clone()))
        })
        .build();
    let store = manager.event_store().unwrap();
    manager.initialize().await.unwrap_err();
    assert_eq!(log.lines().first().unwrap(), "broker connected");
    assert_eq!(log.lines().last().unwrap(), "broker closed");
    assert!(!manager.is_initialized() && manager.is_shutdown());
    assert!(!manager.health().readiness().ready);
    let gone = trunkline_events::EventStore::health_check(&store)
        .await
        .unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Cancelled);
    // Whoever waits for the stop is not left waiting.
    timeout(Duration::from_secs(1), manager.until_shutdown())
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn x21_a_start_waits_for_required_parts_until_its_timeout() {
    let broker = Scripted::default();
    broker.leave();
    let manager = orders(&broker);
    let began = Instant::now();
    let comes = async {
        sleep(Duration::from_secs(27)).await;
        broker.come_back();
    };
    let (started, ()) = tokio::join!(manager.initialize(), comes);
    started.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(27));
    manager.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn x21_then_it_fails_though_a_connect_hangs() {
    let broker = Scripted::default();
    broker.hang();
    let manager = orders(&broker);
    let began = Instant::now();
    let error = manager.initialize().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(30) && took < Duration::from_secs(40),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn man9_a_required_part_that_is_away_is_one_error_with_what_where_and_how() {
    let broker = Scripted::default();
    broker.leave();
    let mut settings = MessageBrokerConfig::from_url("amqp://guest:secret@mq.example.com").unwrap();
    settings.kind = "scripted".to_owned();
    let manager = with_scripted(config().message_broker("orders", settings), &broker).build();
    let began = Instant::now();
    let error = manager.initialize().await.unwrap_err();
    assert!(began.elapsed() >= Duration::from_secs(30));
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.component(), Some("message_broker_orders"));
    let text = error.to_string();
    for part in [
        "message_broker_orders at scripted://mq.example.com",
        "connection refused",
        "start it",
        "`message_brokers.orders`",
        "`message_brokers.orders.required` to false",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!format!("{} {error:?}", error.report()).contains("secret"));
}

#[tokio::test(start_paused = true)]
async fn man1_a_shutdown_gives_up_a_start_that_waits() {
    let broker = Scripted::default();
    broker.hang();
    let manager = orders(&broker);
    let began = Instant::now();
    let stops = async {
        sleep(Duration::from_secs(1)).await;
        manager.shutdown().await
    };
    let (started, _) = tokio::join!(manager.initialize(), stops);
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(manager.is_shutdown());
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn man1_a_shutdown_that_is_dropped_goes_on() {
    let log = Log::default();
    let manager = orders(&Scripted::logging(&log));
    manager.initialize().await.unwrap();
    manager.attach(
        "slow",
        Stage::Intake,
        AnyLifecycle::new(Slow(Duration::from_secs(3))),
    );
    assert!(
        timeout(Duration::from_secs(1), manager.shutdown())
            .await
            .is_err()
    );
    manager.shutdown().await.unwrap();
    assert!(manager.is_shutdown());
    assert_eq!(log.lines().last().unwrap(), "broker closed");
}

#[tokio::test(start_paused = true)]
async fn man1_a_part_that_hangs_does_not_keep_the_others_from_closing() {
    let log = Log::default();
    let hanging = Scripted::default();
    let behind = hanging.clone();
    let config = config()
        .message_broker("good", MessageBrokerConfig::new("scripted"))
        .message_broker("hanging", MessageBrokerConfig::new("other"));
    let manager = with_scripted(config, &Scripted::logging(&log))
        .broker("other", move |_| {
            Ok(trunkline_messaging::AnyBroker::new(behind.clone()))
        })
        .build();
    manager.initialize().await.unwrap();
    hanging.hang();
    let began = Instant::now();
    let error = manager.shutdown().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(began.elapsed() <= Duration::from_secs(30));
    assert_eq!(log.lines().last().unwrap(), "broker closed");
    assert!(manager.is_shutdown());
}

/// Notes what happens to it, and what works meanwhile.
struct Noted {
    name: &'static str,
    log: Log,
    manager: CommunicationManager,
}

impl Lifecycle for Noted {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn drain(&self, _: Instant) -> Result<()> {
        assert!(!self.manager.health().readiness().ready, "still ready");
        self.manager
            .publish_message("orders", "last.words", self.name)
            .await?;
        self.log.add(format!("{} drained", self.name));
        Ok(())
    }

    async fn shutdown(&self, _: Instant) -> Result<()> {
        self.log.add(format!("{} stopped", self.name));
        Ok(())
    }
}

#[tokio::test]
async fn man1_a_stop_drains_the_intake_then_the_egress_then_closes_components() {
    let log = Log::default();
    let manager = orders(&Scripted::logging(&log));
    manager.initialize().await.unwrap();
    for (name, stage) in [("relay", Stage::Egress), ("server", Stage::Intake)] {
        let (log, manager) = (log.clone(), manager.clone());
        let noted = Noted {
            name,
            log,
            manager: manager.clone(),
        };
        manager.attach(name, stage, AnyLifecycle::new(noted));
    }
    manager.shutdown().await.unwrap();
    let lines = log.lines();
    assert_eq!(
        lines[..6],
        [
            "broker connected",
            "server drained",
            "relay drained",
            "server stopped",
            "relay stopped",
            "broker closed"
        ],
        "{lines:?}"
    );
}

/// Takes its time to drain.
struct Slow(Duration);

impl Lifecycle for Slow {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn drain(&self, _: Instant) -> Result<()> {
        sleep(self.0).await;
        Ok(())
    }

    async fn shutdown(&self, _: Instant) -> Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn man1_work_that_does_not_end_is_cut_off_and_leaves_time_for_the_egress() {
    let log = Log::default();
    let manager = orders(&Scripted::logging(&log));
    manager.initialize().await.unwrap();
    let relay = Noted {
        name: "relay",
        log: log.clone(),
        manager: manager.clone(),
    };
    manager.attach("relay", Stage::Egress, AnyLifecycle::new(relay));
    let endless = Slow(Duration::from_secs(3600));
    manager.attach("endless", Stage::Intake, AnyLifecycle::new(endless));
    let began = Instant::now();
    let error = manager.shutdown().await.unwrap_err();
    assert_eq!(
        (error.kind(), began.elapsed() <= Duration::from_secs(30)),
        (ErrorKind::Timeout, true)
    );
    assert!(error.message().contains("endless"), "{error}");
    assert!(
        log.lines().contains(&"relay drained".to_owned()),
        "{:?}",
        log.lines()
    );
}

/// Panics whenever it is asked for something.
struct Broken;

impl Lifecycle for Broken {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn drain(&self, _: Instant) -> Result<()> {
        panic!("a bug in drain")
    }

    async fn shutdown(&self, _: Instant) -> Result<()> {
        Err(Error::internal("a bug in shutdown"))
    }
}

#[tokio::test]
async fn man1_a_part_that_panics_does_not_keep_the_others_from_stopping() {
    let log = Log::default();
    let manager = orders(&Scripted::logging(&log));
    manager.initialize().await.unwrap();
    manager.attach("broken", Stage::Intake, AnyLifecycle::new(Broken));
    let error = manager.shutdown().await.unwrap_err();
    assert!(error.message().contains("a bug in drain"), "{error}");
    assert_eq!(log.lines().last().unwrap(), "broker closed");
}

#[tokio::test(start_paused = true)]
async fn man1_handlers_finish_what_they_have_begun() {
    let manager = in_memory();
    manager.initialize().await.unwrap();
    let log = Log::default();
    let (heard, publisher) = (log.clone(), manager.clone());
    manager
        .subscribe_to_topic("default", "orders", move |order| {
            let (heard, publisher) = (heard.clone(), publisher.clone());
            async move {
                heard.add("begun");
                sleep(Duration::from_secs(5)).await;
                // Egress outlives intake.
                publisher
                    .publish_message("default", "shipped", &order)
                    .await?;
                heard.add("done");
                Ok(())
            }
        })
        .await
        .unwrap();
    manager
        .publish_message("default", "orders", "1")
        .await
        .unwrap();
    while log.lines().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    manager.shutdown().await.unwrap();
    assert_eq!(log.lines(), ["begun", "done"]);
}

#[tokio::test(start_paused = true)]
async fn man9_an_optional_part_that_hangs_holds_the_start_up_for_one_check_at_most() {
    let broker = Scripted::default();
    broker.hang();
    let manager = optional_orders(&broker);
    let began = Instant::now();
    manager.initialize().await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(6));
    assert_eq!(manager.health_status().overall_status, Status::Degraded);
    manager.shutdown().await.unwrap_err();
}
