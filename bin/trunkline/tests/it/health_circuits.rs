//! `trunkline health` and `trunkline circuits`.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Value, json};

use crate::gateway::Gateway;
use crate::place::{Place, keys};
use crate::upstream::{Nobody, Upstream};

#[tokio::test]
async fn a_gateway_tells_its_health() {
    let upstream = Upstream::talkative().await;
    let gateway = Gateway::before(&upstream.url()).await;
    let url = gateway.url();
    let document: Value = gateway
        .place
        .run(&["health", &url, "--output", "json"])
        .await
        .done()
        .json();
    assert_eq!(
        keys(&document),
        ["components", "overall_status", "timestamp"]
    );
    assert_eq!(document["overall_status"], "healthy");
    let components = document["components"].as_object().unwrap();
    assert!(!components.is_empty());
    for component in components.values() {
        assert_eq!(
            keys(component),
            [
                "error_count",
                "last_error",
                "last_health_check",
                "metadata",
                "name",
                "status",
                "type"
            ]
        );
    }

    let shown = gateway.place.run(&["health", &url]).await.done();
    let mut lines = shown.text().lines();
    assert!(
        lines.next().unwrap().starts_with("healthy at 20"),
        "{}",
        shown.text()
    );
    assert!(lines.next().unwrap().contains("COMPONENT"));
    assert_eq!(lines.count(), components.len());
}

#[tokio::test]
async fn an_open_circuit_is_told() {
    let nobody = Nobody::new();
    let gateway = Gateway::before(&nobody.url()).await;
    let url = gateway.url();
    let circuits = ["circuits", &url, "--output", "json"];
    // Three attempts each; the fifth failure opens it.
    for _ in 0..2 {
        assert_eq!(gateway.get("/api/v1/users").await.status().as_u16(), 503);
    }
    let told: Vec<Value> = gateway.place.run(&circuits).await.done().json();
    let fields = [
        "control",
        "endpoint",
        "failure_count",
        "instance",
        "last_failure_time",
        "retry_after_ms",
        "service",
        "state",
    ];
    assert_eq!(keys(&told[0]), fields);
    assert_eq!(
        (&told[0]["service"], &told[0]["state"]),
        (&json!("user-service"), &json!("open"))
    );
    assert_eq!(told[0]["control"], "automatic");
    assert_eq!(told[0]["failure_count"], 5);
    assert!(told[0]["last_failure_time"].is_string(), "{}", told[0]);
    assert!(told[0]["retry_after_ms"].as_u64().unwrap() > 1000);

    let table = gateway.place.run(&["circuits", &url]).await.done();
    let row = table.text().lines().nth(1).unwrap();
    for word in ["user-service", "open", "5", " ms"] {
        assert!(row.contains(word), "{word}: {row}");
    }
}

#[tokio::test]
async fn a_circuit_that_an_operator_holds_open_refuses_and_is_told_as_such() {
    let answers = Upstream::of(Router::new().fallback(async || "served")).await;
    let place = Place::new();
    place.file(
        "gateway.yaml",
        &format!(
            "gateway:\n  circuits: true\n  services:\n    user-service: {{ url: \"{}\", circuit_breaker: {{ force: open }} }}\n",
            answers.url()
        ),
    );
    let gateway = Gateway::start(place, &["-c", "gateway.yaml"]).await;
    assert_eq!(gateway.get("/api/v1/users").await.status().as_u16(), 503);
    let args = ["circuits", &gateway.url()];
    let table = gateway.place.run(&args).await.done();
    let row = table.text().lines().nth(1).unwrap();
    assert!(row.contains("open (forced_open)"), "{row}");
}

#[tokio::test]
async fn an_unhealthy_service_is_shown_and_is_exit_1() {
    let document = json!({
        "overall_status": "unhealthy",
        "components": { "message_broker_default": {
            "name": "default", "type": "message_broker", "status": "unhealthy",
            "last_health_check": "2026-01-05T10:00:00Z", "error_count": 3,
            "last_error": "no route to host", "metadata": {}
        } },
        "timestamp": "2026-01-05T10:00:03Z"
    });
    let told = document.to_string();
    let answer = get(async || (StatusCode::SERVICE_UNAVAILABLE, told));
    let upstream = Upstream::of(Router::new().route("/health", answer)).await;
    let (place, url) = (Place::new(), upstream.url());
    let shown = place.run(&["health", &url]).await.ended(1);
    assert!(
        shown
            .text()
            .starts_with("unhealthy at 2026-01-05T10:00:03Z\n")
    );
    let row = shown.text().lines().last().unwrap();
    for word in [
        "message_broker_default",
        "unhealthy",
        "3",
        "no route to host",
    ] {
        assert!(row.contains(word), "{word}: {row}");
    }
    let args = ["health", &url, "--output", "json"];
    assert_eq!(place.run(&args).await.ended(1).json::<Value>(), document);
}

#[tokio::test]
async fn who_cannot_be_reached_or_understood_is_exit_1() {
    let (place, nobody, other) = (Place::new(), Nobody::new(), Upstream::talkative().await);
    for command in ["health", "circuits"] {
        place
            .run(&[command, &nobody.url()])
            .await
            .refused(1, "cannot connect to 127.0.0.1");
        let args = [command, &nobody.url(), "--output", "json"];
        assert_eq!(
            place.run(&args).await.ended(1).error()["kind"],
            "unavailable"
        );
        place
            .run(&[command, &other.url()])
            .await
            .refused(1, "cannot be read");
    }
    let missing = format!("{}/missing", other.url());
    place
        .run(&["health", &missing])
        .await
        .refused(1, "cannot be read");
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_exit_3() {
    let (place, stuck) = (Place::new(), Upstream::stuck().await);
    for command in ["health", "circuits"] {
        let args = [command, &stuck.url(), "--timeout", "100ms"];
        place
            .run(&args)
            .await
            .refused(3, "the total timeout ran out");
    }
}

#[tokio::test]
async fn what_is_typed_wrong_is_exit_2() {
    let place = Place::new();
    for command in ["health", "circuits"] {
        place
            .run(&[command, "nowhere"])
            .await
            .refused(2, "write http://host:port");
        place
            .run(&[command, "--timeout", "soon"])
            .await
            .refused(2, "is not a duration");
    }
}
