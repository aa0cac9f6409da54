//! The routes that every service has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use tokio::time::{Instant, sleep};
use trunkline_core::{Error, Health, Propagation, Result};
use trunkline_messaging::{
    AnyBroker, Capabilities, Destination, MessageBroker, Publish, Receipt, Routed, Subscribe,
    Subscription,
};
use trunkline_server::PublishRouteConfig;
use trunkline_server::routes::{BrokerSource, health_routes, metrics_routes, publish_routes};
use trunkline_telemetry::Metrics;

use crate::client::{ask, json, post, problem};

fn get(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_health_document_is_the_seeds() {
    let health = Health::default();
    let router = health_routes("/health", &health);
    let broker = health.register(
        "message_broker_rabbitmq",
        "rabbitmq",
        "message_broker_rabbitmq",
        true,
    );
    let cache = health.register("http_client_users", "users", "http_client", false);
    assert_eq!(ask(&router, get("/health")).await.status(), 503);
    broker.mark_healthy();
    let response = ask(&router, get("/health")).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let document = json(&response);
    assert_eq!(document["overall_status"], "degraded");
    let keys: Vec<&String> = document["components"]["message_broker_rabbitmq"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    let mut expected = [
        "name",
        "type",
        "status",
        "last_health_check",
        "error_count",
        "last_error",
        "metadata",
    ];
    expected.sort_unstable();
    let mut keys: Vec<&str> = keys.into_iter().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(keys, expected);
    cache.mark_healthy();
    assert_eq!(
        json(&ask(&router, get("/health")).await)["overall_status"],
        "healthy"
    );
}

#[tokio::test]
async fn ready_tells_why_not() {
    let health = Health::default();
    let gate = health.gate("http_server", "starting");
    let router = health_routes("/health", &health);
    let response = ask(&router, get("/health/ready")).await;
    assert_eq!(response.status(), 503);
    assert_eq!(json(&response)["reasons"][0], "http_server: starting");
    assert_eq!(ask(&router, get("/health/live")).await.status(), 200);
    gate.open();
    let response = ask(&router, get("/health/ready")).await;
    assert_eq!(
        (response.status().as_u16(), &json(&response)["ready"]),
        (200, &true.into())
    );
}

#[tokio::test]
async fn metrics_come_in_the_format_asked_for() {
    let router = metrics_routes("/metrics", &Metrics::new());
    let plain = ask(&router, get("/metrics")).await;
    assert_eq!(
        plain.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let mut request = get("/metrics");
    request.headers_mut().insert(
        "accept",
        "application/openmetrics-text; version=1.0.0"
            .parse()
            .unwrap(),
    );
    let open = ask(&router, request).await;
    assert!(
        open.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(open.body().ends_with(b"# EOF\n"));
}

/// A broker that keeps what it confirms, and can be made to fail or to hang.
#[derive(Clone, Default)]
struct Recording(Arc<Mutex<(Vec<Publish>, &'static str)>>);

impl MessageBroker for Recording {
    fn kind(&self) -> &'static str {
        "recording"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    async fn connect(&self) -> Result<()> {
        Ok(())
    }

    async fn disconnect(&self, _: Instant) -> Result<()> {
        Ok(())
    }

    async fn health_check(&self) -> Result<()> {
        Ok(())
    }

    async fn publish(&self, publish: Publish) -> Result<Receipt> {
        let mode = self.0.lock().unwrap().1;
        match mode {
            "down" => return Err(Error::unavailable("not connected")),
            "timeout" => return Err(Error::timeout("no confirm")),
            "hang" => sleep(Duration::from_secs(1000)).await,
            _ => {}
        }
        let id = publish.message.id.clone();
        self.0.lock().unwrap().0.push(publish);
        Ok(Receipt::new(id, Routed::Yes))
    }

    async fn declare(&self, _: Destination) -> Result<()> {
        Ok(())
    }

    async fn subscribe(&self, _: Subscribe) -> Result<Subscription> {
        Err(Error::unsupported("publishes only"))
    }
}

fn publishing(broker: &Recording) -> Router {
    let mut config = PublishRouteConfig::default();
    config.enabled = true;
    config.topics = vec!["user.*".to_owned()];
    let brokers: HashMap<String, AnyBroker> =
        [("default".to_owned(), AnyBroker::new(broker.clone()))].into();
    publish_routes(&config, Arc::new(brokers), Propagation::default()).unwrap()
}

#[tokio::test]
async fn a_message_is_published() {
    let broker = Recording::default();
    let mut request = post("/publish/default/user.created", r#"{"id": 1}"#);
    request
        .headers_mut()
        .insert("content-type", "application/json".parse().unwrap());
    let context = trunkline_core::Context::new();
    let response = context
        .scope(async { ask(&publishing(&broker), request).await })
        .await;
    assert_eq!(&response.body()[..], br#"{"status":"published"}"#);
    let published = broker.0.lock().unwrap().0.clone();
    assert_eq!(published.len(), 1);
    assert_eq!(published[0].destination.name().as_str(), "user.created");
    assert_eq!(published[0].message.payload, r#"{"id": 1}"#);
    assert_eq!(
        published[0].message.content_type.as_deref(),
        Some("application/json")
    );
    let headers = &published[0].message.headers;
    assert_eq!(
        headers.get("x-correlation-id"),
        Some(context.correlation_id().as_str())
    );
    // What every message carries, whoever publishes it.
    assert_eq!(headers.get("ce-type"), Some("user.created"), "{headers:?}");
}

#[tokio::test]
async fn publishing_is_refused_by_the_rules() {
    let broker = Recording::default();
    let router = publishing(&broker);
    for (path, body, status) in [
        ("/publish/nobody/user.created", "{}", 404),
        ("/publish/default/order.created", "{}", 403),
        ("/publish/default/user.created.twice", "{}", 403),
        ("/publish/default/user.*", "{}", 422),
        ("/publish/default/user..x", "{}", 422),
        ("/publish/default/%FF", "{}", 422),
        ("/publish/default/user.created", "{", 422),
        ("/publish/default/user.created", "", 422),
    ] {
        let document = problem(&ask(&router, post(path, body)).await);
        assert_eq!(document["status"], status, "{path} {body}: {document}");
    }
    let unknown = problem(&ask(&router, post("/publish/nobody/user.created", "{}")).await);
    assert!(
        unknown["detail"]
            .as_str()
            .unwrap()
            .contains("there are: default")
    );
    assert!(broker.0.lock().unwrap().0.is_empty());
}

#[tokio::test]
async fn only_named_brokers_are_open() {
    let broker = Recording::default();
    let mut config = PublishRouteConfig::default();
    config.topics = vec!["#".to_owned()];
    config.brokers = vec!["public".to_owned()];
    let any = AnyBroker::new(broker);
    let publisher = trunkline_messaging::Publisher::new(any);
    let source = move |_: &str| Ok(publisher.clone());
    let router = publish_routes(&config, Arc::new(source), Propagation::default()).unwrap();
    assert_eq!(
        ask(&router, post("/publish/internal/a", "1"))
            .await
            .status(),
        404
    );
    assert_eq!(
        ask(&router, post("/publish/public/a", "1")).await.status(),
        200
    );
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_confirm_is_503() {
    for mode in ["down", "timeout", "hang"] {
        let broker = Recording::default();
        broker.0.lock().unwrap().1 = mode;
        let document = problem(
            &ask(
                &publishing(&broker),
                post("/publish/default/user.created", "{}"),
            )
            .await,
        );
        assert_eq!(document["status"], 503, "{mode}");
    }
}

#[test]
fn a_pattern_that_is_none_is_found_when_it_is_built() {
    let mut config = PublishRouteConfig::default();
    config.topics = vec!["user.cre*".to_owned()];
    let brokers: Arc<dyn BrokerSource> = Arc::new(HashMap::<String, AnyBroker>::new());
    let error = publish_routes(&config, brokers, Propagation::default()).unwrap_err();
    assert!(
        error
            .message()
            .starts_with("server.publish.topics: `user.cre*`"),
        "{error}"
    );
}
