//! The manager behind axum, over real sockets.

#[cfg(feature = "gateway")]
mod access;
#[cfg(feature = "gateway")]
mod forwarded;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};
use trunkline_core::size::ByteSize;
use trunkline_core::{AnyLifecycle, Lifecycle, Result};
use trunkline_discovery::ServiceName;
use trunkline_manager::{CommunicationManager, Stage};
use trunkline_messaging::{HandlerError, MessageBrokerConfig};
use trunkline_server::ServerConfig;

use crate::health::{document_of_the_seed, of_the_seed};
use crate::scripted::{Scripted, config, with_scripted};

const PATIENCE: Duration = Duration::from_secs(20);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// One request over a connection of its own.
async fn ask(address: SocketAddr, request: &str, body: &str) -> Answer {
    ask_with(address, request, "", body).await
}

/// The same with further lines of the head, each with its end.
async fn ask_with(address: SocketAddr, request: &str, headers: &str, body: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{request} HTTP/1.0\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head: head.to_owned(),
        body: body.to_owned(),
    }
}

/// Where a manager that serves has announced itself.
async fn announced(manager: &CommunicationManager) -> SocketAddr {
    let name = ServiceName::new("order-service").unwrap();
    let instances = manager.service_discovery().unwrap().instances(&name);
    instances.ready(Instant::now() + PATIENCE).await.unwrap();
    let set = instances.snapshot();
    let instance = set.instances().next().unwrap();
    format!("{}:{}", instance.host, instance.port)
        .parse()
        .unwrap()
}

fn free_port() -> ServerConfig {
    ServerConfig::default().with_listen("127.0.0.1", 0)
}

/// Serves while the test asks.
async fn served(
    manager: &CommunicationManager,
    router: Router,
    test: impl AsyncFnOnce(SocketAddr),
) {
    manager.initialize().await.unwrap();
    let asks = async {
        let address = announced(manager).await;
        test(address).await;
        manager.request_shutdown();
    };
    let (ended, ()) = tokio::join!(manager.serve(router), asks);
    ended.unwrap();
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man10_x19_health_is_the_document_of_the_seed() {
    let manager = of_the_seed();
    manager.initialize().await.unwrap();
    let app = manager
        .microservice(Router::new())
        .unwrap()
        .config(free_port())
        .build()
        .unwrap();
    let asks = async {
        let began = Instant::now();
        let address = loop {
            if let Some(address) = app.local_addr() {
                break address;
            }
            tokio::task::yield_now().await;
            assert!(began.elapsed() < PATIENCE, "it does not listen");
        };
        let answer = ask(address, "GET /health", "").await;
        assert_eq!(
            (answer.status, answer.json()),
            (200, document_of_the_seed())
        );
        manager.request_shutdown();
    };
    let (ended, ()) = tokio::join!(manager.run_app(app.clone()), asks);
    ended.unwrap();
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man10_x21_health_ready_and_live_tell_apart() {
    for required in [true, false] {
        let broker = Scripted::default();
        let settings = MessageBrokerConfig::new("scripted").with_required(required);
        let config = config()
            .server(free_port())
            .message_broker("orders", settings);
        let manager = with_scripted(config, &broker).build();
        served(&manager, Router::new(), async |address| {
            assert_eq!(ask(address, "GET /health/ready", "").await.status, 200);
            broker.leave();
            manager.health_check().await;
            let health = ask(address, "GET /health", "").await;
            let (status, overall) = if required {
                (503, "unhealthy")
            } else {
                (200, "degraded")
            };
            assert_eq!(
                (health.status, &health.json()["overall_status"]),
                (status, &json!(overall))
            );
            assert_eq!(ask(address, "GET /health/ready", "").await.status, status);
            assert_eq!(ask(address, "GET /health/live", "").await.status, 200);
        })
        .await;
    }
}

#[tokio::test]
async fn man10_messages_are_published_by_http_to_the_topics_allowed() {
    let server = free_port().with_publish_topics(["user.*"]);
    let config = config()
        .server(server)
        .message_broker("redis", MessageBrokerConfig::memory());
    let manager = CommunicationManager::new(config.build().unwrap());
    let (sender, mut heard) = mpsc::unbounded_channel();
    let handler = move |message: Value| {
        let sent = sender.send(message).map_err(HandlerError::retry);
        async move { sent }
    };
    served(&manager, Router::new(), async |address| {
        manager
            .subscribe_to_topic("redis", "user.*", handler)
            .await
            .unwrap();
        let answer = ask(address, "POST /publish/redis/user.created", r#"{"id":7}"#).await;
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({ "status": "published" }))
        );
        assert_eq!(
            timeout(PATIENCE, heard.recv()).await.unwrap().unwrap(),
            json!({ "id": 7 })
        );
        let unknown = ask(address, "POST /publish/kafka/user.created", "{}").await;
        assert_eq!(unknown.status, 404);
        assert!(unknown.body.contains("redis"), "{}", unknown.body);
        let refused = ask(address, "POST /publish/redis/secret.topic", "{}").await;
        assert!((400..500).contains(&refused.status), "{}", refused.body);
    })
    .await;
}

#[tokio::test]
async fn man10_the_publish_route_is_closed_unless_opened() {
    let config = config()
        .server(free_port())
        .message_broker("redis", MessageBrokerConfig::memory());
    let manager = CommunicationManager::new(config.build().unwrap());
    served(&manager, Router::new(), async |address| {
        assert_eq!(
            ask(address, "POST /publish/redis/user.created", "{}")
                .await
                .status,
            404
        );
    })
    .await;
}

#[tokio::test]
async fn man10_metrics_circuits_and_the_own_routes() {
    let manager = CommunicationManager::new(config().server(free_port()).build().unwrap());
    let router = Router::new()
        .route(
            "/orders/{id}",
            get(async |axum::extract::Path(id): axum::extract::Path<u32>| format!("order {id}")),
        )
        .fallback(async || "my fallback");
    served(&manager, router, async |address| {
        let order = ask(address, "GET /orders/7", "").await;
        assert_eq!((order.status, order.body.as_str()), (200, "order 7"));
        assert!(
            order.head.to_ascii_lowercase().contains("x-correlation-id"),
            "{}",
            order.head
        );
        let client = manager.http_client("order-service").unwrap();
        let called = client
            .get("/orders/8")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert_eq!(called, "order 8");
        let circuits = ask(address, "GET /circuits", "").await.json();
        assert!(
            circuits
                .as_array()
                .unwrap()
                .iter()
                .any(
                    |circuit| circuit["service"] == "order-service" && circuit["state"] == "closed"
                ),
            "{circuits}"
        );
        let known = serde_json::to_value(manager.circuits()).unwrap();
        assert_eq!(circuits, known);
        let metrics = ask(address, "GET /metrics", "").await;
        assert_eq!(metrics.status, 200);
        assert!(
            metrics.body.contains("/orders/{id}"),
            "the template is the label: {}",
            metrics.body
        );
        assert!(
            !metrics.body.contains("/orders/7"),
            "a raw path became a label"
        );
        assert_eq!(ask(address, "GET /nowhere", "").await.body, "my fallback");
    })
    .await;
}

#[tokio::test]
async fn man10_a_service_registers_itself_and_deregisters_before_it_stops() {
    let mut built = config()
        .server(free_port())
        .service_version("2.1.0")
        .build()
        .unwrap();
    built.service.zone = Some("eu-1".to_owned());
    built
        .service
        .metadata
        .insert("team".to_owned(), "orders".to_owned());
    let manager = CommunicationManager::new(built);
    let name = ServiceName::new("order-service").unwrap();
    let found = manager.service_discovery().unwrap();
    let begun = Arc::new(Notify::new());
    let entered = Arc::clone(&begun);
    let router = Router::new().route(
        "/slow",
        get(async move || {
            entered.notify_one();
            tokio::time::sleep(Duration::from_millis(500)).await;
            "done"
        }),
    );
    manager.initialize().await.unwrap();
    let asks = async {
        let address = announced(&manager).await;
        let set = found.instances(&name).snapshot();
        let instance = set.instances().next().unwrap();
        assert_eq!(
            (
                instance.version.as_str(),
                instance.zone.as_deref(),
                instance.metadata["team"].as_str()
            ),
            ("2.1.0", Some("eu-1"), "orders")
        );
        let slow = async {
            let answer = ask(address, "GET /slow", "").await;
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, "done"),
                "it was cut off"
            );
        };
        let stops = async {
            timeout(PATIENCE, begun.notified()).await.unwrap();
            manager.request_shutdown();
        };
        tokio::join!(slow, stops);
    };
    let (ended, ()) = tokio::join!(manager.serve(router), asks);
    ended.unwrap();
    // The registry itself, not the last known answer.
    assert!(found.services().await.unwrap().is_empty());
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man10_a_service_with_hooks() {
    let manager = CommunicationManager::new(config().server(free_port()).build().unwrap());
    let log = crate::scripted::Log::default();
    let (up, down) = (log.clone(), log.clone());
    manager.initialize().await.unwrap();
    let app = manager
        .microservice(Router::new())
        .unwrap()
        .on_startup(move || async move {
            up.add("startup");
            Ok(())
        })
        .on_shutdown(move || async move {
            // Takes a moment, which it must be given.
            tokio::time::sleep(Duration::from_millis(50)).await;
            down.add("shutdown");
            Ok(())
        })
        .build()
        .unwrap();
    let asks = async {
        announced(&manager).await;
        manager.request_shutdown();
    };
    let (ended, ()) = tokio::join!(manager.run_app(app), asks);
    ended.unwrap();
    assert_eq!(log.lines(), ["startup", "shutdown"]);
    manager.shutdown().await.unwrap();
}

/// Notes when it is dropped.
struct Over(crate::scripted::Log);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.add("request over");
    }
}

/// Notes when it is drained.
struct Relay(crate::scripted::Log);

impl Lifecycle for Relay {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn drain(&self, _: Instant) -> Result<()> {
        self.0.add("relay drained");
        Ok(())
    }

    async fn shutdown(&self, _: Instant) -> Result<()> {
        Ok(())
    }
}

/// What sends out has the last fifth of the drain time; requests have what is before it.
#[tokio::test]
async fn man10_requests_end_before_the_egress_drains_and_one_cut_off_is_told_by_both() {
    for (seconds, fits) in [(15, true), (22, false), (3600, false)] {
        let manager = CommunicationManager::new(config().server(free_port()).build().unwrap());
        let log = crate::scripted::Log::default();
        manager.initialize().await.unwrap();
        manager.attach(
            "relay",
            Stage::Egress,
            AnyLifecycle::new(Relay(log.clone())),
        );
        let noted = log.clone();
        let slow = get(async move || {
            let _over = Over(noted.clone());
            noted.add("request begun");
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        });
        let asks = async {
            let mut client = TcpStream::connect(announced(&manager).await).await.unwrap();
            let request = b"GET /slow HTTP/1.0\r\nhost: test\r\n\r\n";
            client.write_all(request).await.unwrap();
            while log.lines().is_empty() {
                tokio::task::yield_now().await;
            }
            tokio::time::pause();
            // The app hears of it first, the manager right after.
            manager.request_shutdown();
            tokio::task::yield_now().await;
            (manager.shutdown().await, client)
        };
        let router = Router::new().route("/slow", slow);
        let (served, (stopped, _client)) = tokio::join!(manager.serve(router), asks);
        let expected = ["request begun", "request over", "relay drained"];
        assert_eq!(log.lines(), expected, "{seconds}");
        assert_eq!((served.is_ok(), stopped.is_ok()), (fits, fits), "{seconds}");
        for error in [served, stopped].into_iter().filter_map(Result::err) {
            assert!(error.to_string().contains("cut off"), "{error}");
        }
        tokio::time::resume();
    }
}

#[tokio::test]
async fn man10_serving_after_a_stop_was_asked_for_is_no_error_and_serves_nothing() {
    let manager = CommunicationManager::new(config().server(free_port()).build().unwrap());
    manager.initialize().await.unwrap();
    manager.request_shutdown();
    timeout(PATIENCE, manager.serve(Router::new()))
        .await
        .unwrap()
        .unwrap();
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn man10_a_path_that_is_taken_is_an_error_and_no_panic() {
    let manager = CommunicationManager::new(config().server(free_port()).build().unwrap());
    let router = Router::new().route("/circuits", get(async || "mine"));
    let error = manager.serve(router).await.unwrap_err();
    assert_eq!(error.kind(), trunkline_core::ErrorKind::Config);
    assert!(error.message().contains("/circuits"), "{error}");
}

#[tokio::test]
async fn man10_circuits_are_shown_unless_that_is_switched_off() {
    let mut server = free_port();
    server.circuits = false;
    let manager = CommunicationManager::new(config().server(server).build().unwrap());
    let router = Router::new().route("/circuits", get(async || "mine"));
    served(&manager, router, async |address| {
        assert_eq!(ask(address, "GET /circuits", "").await.body, "mine");
    })
    .await;
}

const KEYED: &str = "idempotency-key: k\r\n";

#[tokio::test]
async fn man10_idempotency_is_as_the_server_is_configured() {
    let mut server = free_port().with_body_limit(ByteSize::new(1000));
    server.idempotency.max_response = ByteSize::new(10);
    server.idempotency.reservation = Duration::from_secs(2);
    let directory = tempfile::tempdir().unwrap();
    let config = config().server(server).embedded_path(directory.path());
    let manager = CommunicationManager::new(config.build().unwrap());
    let go = Arc::new(Notify::new());
    let (begun, waits) = (Arc::new(Notify::new()), Arc::clone(&go));
    let tell = Arc::clone(&begun);
    let pay = post(async move || {
        tell.notify_one();
        waits.notified().await;
        "more than ten bytes"
    });
    let once = manager.idempotency("payments").required();
    let router = Router::new().route("/pay", pay).route_layer(once);
    served(&manager, router, async |address| {
        assert_eq!(ask(address, "POST /pay", "{}").await.status, 400);
        let first = ask_with(address, "POST /pay", KEYED, "{}");
        let meanwhile = async {
            timeout(PATIENCE, begun.notified()).await.unwrap();
            let answer = ask_with(address, "POST /pay", KEYED, "{}").await;
            assert_eq!(answer.status, 409);
            let wait = answer.head.to_ascii_lowercase();
            let short = wait.contains("retry-after: 1\r\n") || wait.contains("retry-after: 2\r\n");
            assert!(short, "the reservation is two seconds: {wait}");
            go.notify_one();
        };
        let (first, ()) = tokio::join!(first, meanwhile);
        assert_eq!(
            (first.status, first.body.as_str()),
            (200, "more than ten bytes")
        );
        let again = ask_with(address, "POST /pay", KEYED, "{}").await;
        assert_eq!(
            (again.status, &again.json()["original_status"]),
            (409, &json!(200))
        );
    })
    .await;
}

#[tokio::test]
async fn man10_a_stop_waits_for_what_goes_on_under_a_key_although_its_client_left() {
    let directory = tempfile::tempdir().unwrap();
    let config = config().server(free_port()).embedded_path(directory.path());
    let manager = CommunicationManager::new(config.build().unwrap());
    let log = crate::scripted::Log::default();
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, waits, noted) = (Arc::clone(&begun), Arc::clone(&go), log.clone());
    let pay = post(async move || {
        tell.notify_one();
        waits.notified().await;
        noted.add("paid");
    });
    let once = manager.idempotency("payments");
    let router = Router::new().route("/pay", pay).route_layer(once);
    manager.initialize().await.unwrap();
    manager.attach("relay", Stage::Egress, AnyLifecycle::new(Paying(go)));
    let asks = async {
        let address = announced(&manager).await;
        let asking = ask_with(address, "POST /pay", KEYED, "{}");
        tokio::select! {
            _ = asking => panic!("nobody answers"),
            () = begun.notified() => {}
        }
        manager.request_shutdown();
    };
    let (ended, ()) = tokio::join!(manager.serve(router), asks);
    ended.unwrap();
    manager.shutdown().await.unwrap();
    assert_eq!(log.lines(), ["paid"]);
}

/// Lets the payment go on when requests have drained.
struct Paying(Arc<Notify>);

impl Lifecycle for Paying {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn drain(&self, _: Instant) -> Result<()> {
        self.0.notify_one();
        Ok(())
    }

    async fn shutdown(&self, _: Instant) -> Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn man10_an_address_in_use_and_a_missing_name_are_errors() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let server = ServerConfig::default().with_listen("127.0.0.1", port);
    let manager = CommunicationManager::new(config().server(server).build().unwrap());
    let ended: Result<()> = manager
        .clone()
        .lifespan(async |manager| manager.serve(Router::new()).await)
        .await;
    assert!(
        ended
            .unwrap_err()
            .report()
            .to_string()
            .contains(&port.to_string())
    );
    assert!(manager.is_shutdown());

    let mut nameless = config().build().unwrap();
    nameless.service.name = None;
    let manager = CommunicationManager::new(nameless);
    let error = manager.serve(Router::new()).await.unwrap_err();
    assert!(error.message().contains("SERVICE_NAME"), "{error}");
}

#[tokio::test]
async fn x21_a_detached_subscription_makes_the_service_not_ready() {
    let broker = Scripted::default();
    broker.leave();
    let settings = MessageBrokerConfig::new("scripted").with_required(false);
    let config = config()
        .server(free_port())
        .message_broker("orders", settings);
    let manager = with_scripted(config, &broker).build();
    served(&manager, Router::new(), async |address| {
        assert_eq!(ask(address, "GET /health/ready", "").await.status, 200);
        manager
            .subscribe_to_topic("orders", "orders", async |_| Ok(()))
            .await
            .unwrap();
        let ready = ask(address, "GET /health/ready", "").await;
        assert_eq!(ready.status, 503, "{}", ready.body);
        broker.come_back();
        let began = Instant::now();
        while ask(address, "GET /health/ready", "").await.status != 200 {
            assert!(began.elapsed() < PATIENCE, "it never attached");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
