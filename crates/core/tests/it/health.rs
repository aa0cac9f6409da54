use trunkline_core::{Error, Health, HealthDocument, ManualClock, Status};

/// The structure printed in the CommunicationManager document, with its comment taken out.
const SEED_DOCUMENT: &str = r#"{
    "overall_status": "healthy",
    "components": {
        "message_broker_rabbitmq": {
            "name": "rabbitmq",
            "type": "message_broker_rabbitmq",
            "status": "healthy",
            "last_health_check": "2025-01-09T10:30:00Z",
            "error_count": 0,
            "last_error": null,
            "metadata": {
                "connection_url": "amqp://localhost:5672",
                "type": "rabbitmq",
                "pool_size": 10
            }
        }
    },
    "timestamp": "2025-01-09T10:30:00Z"
}"#;

fn at(time: &str) -> Health {
    Health::new(std::sync::Arc::new(ManualClock::new(time.parse().unwrap())))
}

#[test]
fn man5_the_document_equals_the_seeds_field_for_field() {
    let health = at("2025-01-09T10:30:00.75Z");
    let broker = health.register(
        "message_broker_rabbitmq",
        "rabbitmq",
        "message_broker_rabbitmq",
        true,
    );
    broker.set_metadata("connection_url", "amqp://localhost:5672");
    broker.set_metadata("type", "rabbitmq");
    broker.set_metadata("pool_size", 10);
    broker.mark_healthy();
    let ours = serde_json::to_value(health.document()).unwrap();
    let seed: serde_json::Value = serde_json::from_str(SEED_DOCUMENT).unwrap();
    assert_eq!(ours, seed);
    // The order of the fields is the seed's too.
    let mut rest = serde_json::to_string(&health.document()).unwrap();
    for field in [
        "overall_status",
        "components",
        "name",
        "type",
        "status",
        "last_health_check",
        "error_count",
        "last_error",
        "metadata",
        "connection_url",
        "pool_size",
        "timestamp",
    ] {
        let at = rest
            .find(&format!("\"{field}\""))
            .unwrap_or_else(|| panic!("{field} in order"));
        rest = rest.split_off(at + 1);
    }
    let back: HealthDocument = serde_json::from_str(SEED_DOCUMENT).unwrap();
    assert_eq!(back, health.document());
}

#[test]
fn x21_required_parts_decide_and_optional_ones_degrade() {
    let health = Health::default();
    assert_eq!(health.document().overall_status, Status::Healthy);
    let required = health.register("a", "a", "t", true);
    let optional = health.register("b", "b", "t", false);
    assert_eq!(
        health.document().overall_status,
        Status::Unhealthy,
        "not checked yet"
    );
    required.mark_healthy();
    assert_eq!(health.document().overall_status, Status::Degraded);
    optional.mark_healthy();
    assert!(health.document().is_healthy());
    required.mark_degraded("slow");
    assert_eq!(health.document().overall_status, Status::Degraded);
    required.mark_unhealthy(&Error::unavailable("gone"));
    assert_eq!(health.document().overall_status, Status::Unhealthy);
    health.unregister("a");
    assert!(health.document().is_healthy());
}

#[test]
fn x21_the_error_count_runs_on_and_the_last_error_is_cleared() {
    let health = Health::default();
    let part = health.register("a", "a", "t", true);
    part.mark_unhealthy(&Error::unavailable("one"));
    part.mark_unhealthy(&Error::unavailable("two"));
    part.mark_healthy();
    let status = part.status().unwrap();
    assert_eq!((status.error_count, status.last_error), (2, None));
}

#[tokio::test]
async fn listeners_see_every_report_and_which_of_them_are_changes() {
    let health = Health::default();
    let part = health.register("a", "a", "t", true);
    let mut reports = health.subscribe();
    part.mark_healthy();
    part.mark_healthy();
    part.mark_unhealthy(&Error::unavailable("gone"));
    part.mark_unhealthy(&Error::unavailable("gone"));
    let mut seen = Vec::new();
    for _ in 0..4 {
        let report = reports.recv().await.unwrap();
        seen.push((report.is_change(), report.failed));
    }
    assert_eq!(
        seen,
        [(true, false), (false, false), (true, true), (false, true)]
    );
}

#[test]
fn readiness_asks_for_open_gates_as_well() {
    let health = Health::default();
    let gate = health.gate("subscription orders", "not attached yet");
    let part = health.register("a", "a", "t", true);
    part.mark_healthy();
    assert_eq!(
        health.readiness().reasons,
        ["subscription orders: not attached yet"]
    );
    gate.open();
    assert!(health.readiness().ready);
    gate.close("broker is away");
    assert!(!health.readiness().ready);
    drop(gate);
    assert!(health.readiness().ready);
    part.mark_unhealthy(&Error::unavailable("gone"));
    assert_eq!(health.readiness().reasons, ["a: gone"]);
}

#[test]
fn reports_arrive_in_the_order_in_which_they_were_made() {
    let health = Health::default();
    let component = health.register("users", "users", "http_client", false);
    let mut reports = health.subscribe();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..50 {
                    component.mark_healthy();
                    component.mark_unhealthy(&Error::unavailable("gone"));
                }
            });
        }
    });
    let mut last = None;
    while let Ok(report) = reports.try_recv() {
        assert!(last.is_none_or(|last| last == report.previous));
        last = Some(report.status.status);
    }
    let now = health.component_status("users").map(|status| status.status);
    assert_eq!(last, now);
}
