//! A whole service from its start to its end.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::sync::Notify;
use tokio::time::Instant;
use trunkline_core::{BoxFuture, Error, ErrorKind, Health, Lifecycle, Result};
use trunkline_discovery::{
    Discovery, InstanceStatus, MemoryRegistry, PickRequest, ServiceInstance, ServiceName,
};
use trunkline_server::{MicroserviceApp, MicroserviceAppBuilder, Registration, ServerConfig};
use trunkline_telemetry::Metrics;

use crate::client::{self, Raw, SOON, eventually, json, problem};

/// What happened, in order.
#[derive(Clone, Default)]
struct Story(Arc<Mutex<Vec<String>>>);

impl Story {
    fn tell(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn told(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A registration that checks that the service answers when it is announced and when it is withdrawn.
struct Announcing {
    story: Story,
    instance: Mutex<Option<ServiceInstance>>,
    fails: bool,
}

impl Announcing {
    async fn health(&self) -> u16 {
        let instance = self.instance.lock().unwrap().clone().unwrap();
        let address = instance.authority().parse().unwrap();
        client::send(address, client::get("/health/ready"))
            .await
            .status()
            .as_u16()
    }
}

impl Registration for Announcing {
    fn register(&self, instance: ServiceInstance) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let shown = format!(
                "{} {} {:?}",
                instance.name, instance.version, instance.metadata
            );
            *self.instance.lock().unwrap() = Some(instance);
            let answer = self.health().await;
            self.story.tell(format!("register {shown} {answer}"));
            if self.fails {
                Err(Error::invalid("no such namespace"))
            } else {
                Ok(())
            }
        })
    }

    fn deregister(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let answer = self.health().await;
            self.story.tell(format!("deregister {answer}"));
            Ok(())
        })
    }
}

fn app(story: &Story) -> MicroserviceAppBuilder {
    let [up, up2, down, down2] = std::array::from_fn(|_| story.clone());
    MicroserviceApp::builder("order-service")
        .config(ServerConfig::default().with_listen("127.0.0.1", 0))
        .version("2.1")
        .metadata("team", "shop")
        .router(Router::new().route("/", get(async || "hello")))
        .on_startup(|| async move {
            up.tell("startup 1");
            Ok(())
        })
        .on_startup(|| async move {
            up2.tell("startup 2");
            Ok(())
        })
        .on_shutdown(|| async move {
            down.tell("shutdown 1");
            Ok(())
        })
        .on_shutdown(|| async move {
            down2.tell("shutdown 2");
            Ok(())
        })
}

fn announcing(story: &Story, fails: bool) -> Announcing {
    Announcing {
        story: story.clone(),
        instance: Mutex::default(),
        fails,
    }
}

fn soon() -> Instant {
    Instant::now() + SOON
}

#[tokio::test]
async fn everything_happens_in_its_order() {
    let story = Story::default();
    let app = app(&story)
        .registration(announcing(&story, false))
        .build()
        .unwrap();
    assert_eq!(app.local_addr(), None);
    assert_eq!(
        app.ready().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    app.start().await.unwrap();
    app.start().await.unwrap();
    app.ready().await.unwrap();
    let address = app.local_addr().unwrap();
    assert_eq!(
        client::send(address, client::get("/health/ready"))
            .await
            .status(),
        200
    );
    assert_eq!(
        client::send_http2(address, client::get("/")).await.body(),
        "hello"
    );
    app.drain(soon()).await.unwrap();
    app.shutdown(soon()).await.unwrap();
    app.shutdown(soon()).await.unwrap();
    assert!(Raw::open_or_refused(address).await.is_none());
    assert_eq!(app.start().await.unwrap_err().kind(), ErrorKind::Cancelled);
    let expected = [
        "startup 1",
        "startup 2",
        // It answers already.
        r#"register order-service 2.1 {"team": "shop"} 200"#,
        // It is not ready any more, and answers still.
        "deregister 503",
        "shutdown 2",
        "shutdown 1",
    ];
    assert_eq!(story.told(), expected);
}

#[tokio::test]
async fn a_failed_start_leaves_nothing_behind() {
    let story = Story::default();
    let app = app(&story)
        .registration(announcing(&story, true))
        .build()
        .unwrap();
    let error = app.start().await.unwrap_err();
    assert_eq!(error.message(), "no such namespace");
    assert!(
        Raw::open_or_refused(app.local_addr().unwrap())
            .await
            .is_none()
    );
    assert!(story.told().contains(&"deregister 503".to_owned()));
    assert!(
        story
            .told()
            .ends_with(&["shutdown 2".to_owned(), "shutdown 1".to_owned()])
    );
    assert_eq!(app.start().await.unwrap_err().kind(), ErrorKind::Cancelled);

    let failing = MicroserviceApp::builder("a")
        .config(ServerConfig::default().with_listen("127.0.0.1", 0))
        .on_startup(|| async { Err(Error::unavailable("no database")) })
        .build()
        .unwrap();
    let error = failing.start().await.unwrap_err();
    assert_eq!(
        (error.message(), error.operation()),
        ("no database", Some("startup hook"))
    );
}

/// A registry that takes the announcement and never answers.
#[derive(Clone)]
struct Hanging {
    story: Story,
    asked: Arc<Notify>,
}

impl Registration for Hanging {
    fn register(&self, _: ServiceInstance) -> BoxFuture<'_, Result<()>> {
        self.asked.notify_one();
        Box::pin(std::future::pending())
    }

    fn deregister(&self) -> BoxFuture<'_, Result<()>> {
        self.story.tell("deregister");
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn a_start_given_up_half_way_leaves_nothing_behind_after_the_stop() {
    for drained_first in [true, false] {
        let story = Story::default();
        let hanging = Hanging {
            story: story.clone(),
            asked: Arc::new(Notify::new()),
        };
        let app = app(&story).registration(hanging.clone()).build().unwrap();
        tokio::select! {
            started = app.start() => panic!("{started:?}"),
            () = hanging.asked.notified() => {}
        }
        let address = app.local_addr().unwrap();
        assert_eq!(
            app.ready().await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        // It would listen a second time.
        assert_eq!(app.start().await.unwrap_err().kind(), ErrorKind::Cancelled);
        if drained_first {
            app.drain(soon()).await.unwrap();
        }
        app.shutdown(soon()).await.unwrap();
        assert!(Raw::open_or_refused(address).await.is_none());
        let expected = [
            "startup 1",
            "startup 2",
            "deregister",
            "shutdown 2",
            "shutdown 1",
        ];
        assert_eq!(story.told(), expected);
    }
}

#[tokio::test]
async fn discovery_knows_the_service_while_it_runs() {
    let registry = MemoryRegistry::new();
    let discovery = Discovery::builder()
        .registry(registry.clone())
        .resolver(registry)
        .build();
    let app = MicroserviceApp::builder("order-service")
        .config(ServerConfig::default().with_listen("127.0.0.1", 0))
        .discovery(discovery.clone())
        .build()
        .unwrap();
    app.start().await.unwrap();
    let orders = ServiceName::new("order-service").unwrap();
    let instances = discovery.instances(&orders);
    instances.ready(soon()).await.unwrap();
    let picked = instances.pick(&PickRequest::any()).unwrap();
    assert_eq!(
        picked.instance().authority(),
        app.local_addr().unwrap().to_string()
    );
    drop(picked);
    // Callers are told first, and for a moment it goes on answering.
    let told = async {
        let draining = async || {
            let set = instances.snapshot();
            let mut known = set.instances();
            known.any(|it| it.status == InstanceStatus::Draining)
        };
        eventually("it is announced as draining", draining).await;
        let address = app.local_addr().unwrap();
        assert!(Raw::open_or_refused(address).await.is_some());
    };
    let (drained, ()) = tokio::join!(app.drain(soon()), told);
    drained.unwrap();
    eventually("it is withdrawn", async || instances.snapshot().is_empty()).await;
    app.shutdown(soon()).await.unwrap();
    discovery.shutdown(soon()).await.unwrap();
}

/// A registry that hears of nothing before it is told to.
struct Slow {
    story: Story,
    hears: Option<Arc<Notify>>,
}

impl Registration for Slow {
    fn register(&self, _: ServiceInstance) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn drain(&self) {
        self.story.tell("drain");
    }

    fn drained(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            match &self.hears {
                Some(hears) => hears.notified().await,
                None => std::future::pending().await,
            }
            self.story.tell("heard");
            Ok(())
        })
    }

    fn deregister(&self) -> BoxFuture<'_, Result<()>> {
        self.story.tell("deregister");
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test]
async fn the_delay_of_a_stop_begins_when_the_registry_has_heard_of_it() {
    for hears in [true, false] {
        let story = Story::default();
        let heard = Arc::new(Notify::new());
        let app = MicroserviceApp::builder("order-service")
            .config(ServerConfig::default().with_listen("127.0.0.1", 0))
            .registration(Slow {
                story: story.clone(),
                hears: hears.then(|| Arc::clone(&heard)),
            })
            .drain_delay(Duration::from_millis(1))
            .build()
            .unwrap();
        app.start().await.unwrap();
        let hear = async {
            let drains = async || story.told().iter().any(|it| it == "drain");
            eventually("it drains", drains).await;
            heard.notify_one();
        };
        let (drained, ()) = tokio::join!(app.drain(soon()), hear);
        drained.unwrap();
        let expected: &[&str] = match hears {
            true => &["drain", "heard", "deregister"],
            // It is not waited for for ever.
            false => &["drain", "deregister"],
        };
        assert_eq!(story.told(), expected);
        app.shutdown(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn registration_can_be_switched_off() {
    let story = Story::default();
    let config = ServerConfig::default()
        .with_listen("127.0.0.1", 0)
        .with_register(false);
    let app = app(&story)
        .config(config)
        .registration(announcing(&story, true))
        .build()
        .unwrap();
    app.start().await.unwrap();
    app.shutdown(soon()).await.unwrap();
    assert!(!story.told().iter().any(|told| told.contains("register")));
}

#[tokio::test]
async fn the_advertised_address_is_one_that_others_reach() {
    for (config, expected) in [
        (
            ServerConfig::default().with_listen("127.0.0.1", 0),
            Some("127.0.0.1".to_owned()),
        ),
        (
            ServerConfig::default()
                .with_listen("127.0.0.1", 0)
                .with_advertise("orders.example", 80),
            Some("orders.example:80".to_owned()),
        ),
        (ServerConfig::default().with_listen("0.0.0.0", 0), None),
    ] {
        struct Kept(Arc<Mutex<Option<ServiceInstance>>>);
        impl Registration for Kept {
            fn register(&self, instance: ServiceInstance) -> BoxFuture<'_, Result<()>> {
                *self.0.lock().unwrap() = Some(instance);
                Box::pin(async { Ok(()) })
            }
            fn deregister(&self) -> BoxFuture<'_, Result<()>> {
                Box::pin(async { Ok(()) })
            }
        }
        let kept = Arc::new(Mutex::new(None));
        let app = MicroserviceApp::builder("a")
            .config(config)
            .registration(Kept(Arc::clone(&kept)))
            .build()
            .unwrap();
        app.start().await.unwrap();
        let instance = kept.lock().unwrap().clone().unwrap();
        match expected {
            Some(host) => assert!(
                instance.authority().starts_with(&host),
                "{}",
                instance.authority()
            ),
            None => {
                assert_ne!(instance.host, "0.0.0.0");
                assert_eq!(instance.port, app.local_addr().unwrap().port());
            }
        }
        app.shutdown(soon()).await.unwrap();
    }
}

#[tokio::test]
async fn run_until_drains_what_runs() {
    let (begun, go, stop) = (
        Arc::new(Notify::new()),
        Arc::new(Notify::new()),
        Arc::new(Notify::new()),
    );
    let (tell, wait, signal) = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&stop));
    let slow = get(async move || {
        tell.notify_one();
        wait.notified().await;
        "finished"
    });
    let health = Health::default();
    let app = MicroserviceApp::builder("orders")
        .config(ServerConfig::default().with_listen("127.0.0.1", 0))
        .router(Router::new().route("/slow", slow))
        .health(health.clone())
        .build()
        .unwrap();
    let running = app.clone();
    let run = trunkline_core::task::spawn("app", async move {
        running
            .run_until(async move { signal.notified().await }, SOON)
            .await
    });
    eventually("it starts", async || app.ready().await.is_ok()).await;
    let mut raw = Raw::open(app.local_addr().unwrap()).await;
    raw.send("GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client::within(begun.notified()).await;
    assert!(health.readiness().ready);
    stop.notify_one();
    eventually("it drains", async || !health.readiness().ready).await;
    assert_eq!(health.readiness().reasons, ["http_server: draining"]);
    go.notify_one();
    assert!(raw.rest().await.ends_with("finished"));
    run.await.unwrap().unwrap();
}

#[tokio::test]
async fn requests_cut_off_at_the_deadline_are_an_error() {
    let begun = Arc::new(Notify::new());
    let tell = Arc::clone(&begun);
    let stuck = get(async move || {
        tell.notify_one();
        std::future::pending::<()>().await;
    });
    let app = MicroserviceApp::builder("orders")
        .config(ServerConfig::default().with_listen("127.0.0.1", 0))
        .router(Router::new().route("/", stuck))
        .build()
        .unwrap();
    app.start().await.unwrap();
    let mut raw = Raw::open(app.local_addr().unwrap()).await;
    raw.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client::within(begun.notified()).await;
    let error = app
        .drain(Instant::now() + Duration::from_millis(20))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("cut off"), "{error}");
    app.shutdown(soon()).await.unwrap();
}

#[tokio::test]
async fn requests_that_do_not_end_leave_the_shutdown_hooks_their_time() {
    let (story, begun) = (Story::default(), Arc::new(Notify::new()));
    let (told, tell) = (story.clone(), Arc::clone(&begun));
    let stuck = get(async move || {
        tell.notify_one();
        std::future::pending::<()>().await;
    });
    let app = MicroserviceApp::builder("orders")
        .config(ServerConfig::default().with_listen("127.0.0.1", 0))
        .router(Router::new().route("/", stuck))
        .on_shutdown(|| async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            told.tell("closed the database");
            Ok(())
        })
        .build()
        .unwrap();
    let (stopping, stop) = tokio::sync::oneshot::channel();
    let stop = async { drop(stop.await) };
    let asks = async {
        eventually("it starts", async || app.ready().await.is_ok()).await;
        let mut raw = Raw::open(app.local_addr().unwrap()).await;
        raw.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        client::within(begun.notified()).await;
        tokio::time::pause();
        let began = Instant::now();
        stopping.send(()).unwrap();
        (began, raw)
    };
    let grace = Duration::from_secs(10);
    let (ended, (began, _raw)) = tokio::join!(app.run_until(stop, grace), asks);
    assert!(ended.unwrap_err().message().contains("cut off"));
    assert_eq!(story.told(), ["closed the database"]);
    assert!(began.elapsed() <= grace);
}

#[tokio::test]
async fn the_whole_stack_answers_as_promised() {
    let config = ServerConfig::default()
        .with_listen("127.0.0.1", 0)
        .with_body_limit(trunkline_core::size::ByteSize::new(10));
    let metrics = Metrics::new();
    let router = Router::new()
        .route("/panic", get(async || -> &'static str { panic!("oh") }))
        .route("/echo", axum::routing::post(async |body: String| body))
        .route("/health", get(async || "the application's own"))
        .route(
            "/peer",
            get(
                async |axum::extract::ConnectInfo(peer): axum::extract::ConnectInfo<
                    std::net::SocketAddr,
                >| peer.ip().to_string(),
            ),
        );
    let app = MicroserviceApp::builder("orders")
        .config(config)
        .router(router)
        .metrics(metrics)
        .build()
        .unwrap();
    app.start().await.unwrap();
    let address = app.local_addr().unwrap();
    for (method, path, body, status) in [
        ("GET", "/nowhere", "", 404),
        ("DELETE", "/echo", "", 405),
        ("POST", "/health/live", "", 405),
        ("GET", "/panic", "", 500),
        ("POST", "/echo", "far too much of it", 413),
    ] {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("x-correlation-id", "abc");
        let response = client::send(address, request.body(body.to_owned()).unwrap()).await;
        assert_eq!(problem(&response)["status"], status, "{method} {path}");
        if path != "/health/live" {
            assert_eq!(response.headers()["x-correlation-id"], "abc", "{path}");
            assert_eq!(problem(&response)["correlation_id"], "abc", "{path}");
        }
        assert_eq!(
            response.headers().contains_key("allow"),
            status == 405,
            "{path}"
        );
    }
    let health = client::send(address, client::get("/health")).await;
    assert_eq!(json(&health)["overall_status"], "healthy");
    assert_eq!(
        client::send(address, client::get("/peer")).await.body(),
        "127.0.0.1"
    );
    let metrics = client::send(address, client::get("/metrics")).await;
    let text = String::from_utf8_lossy(metrics.body()).into_owned();
    assert!(
        text.contains(r#"http_route="/echo",http_response_status_code="413""#),
        "{text}"
    );
    assert!(
        !text.contains(r#"http_route="/health""#),
        "the app's own paths are not measured"
    );
    app.shutdown(soon()).await.unwrap();
}

#[test]
fn what_cannot_work_is_said_when_it_is_built() {
    let with = |change: fn(&mut ServerConfig)| {
        let mut config = ServerConfig::default();
        change(&mut config);
        MicroserviceApp::builder("a").config(config).build()
    };
    for (built, expected) in [
        (MicroserviceApp::builder("").build(), "service name"),
        (
            with(|config| config.health_path = "health".to_owned()),
            "server.health_path",
        ),
        (
            with(|config| config.metrics_path = "/{x}".to_owned()),
            "server.metrics_path",
        ),
        (
            with(|config| config.health_path = "/:x".to_owned()),
            "server.health_path: `/:x` is no path",
        ),
        (
            with(|config| config.metrics_path = "/a/*rest".to_owned()),
            "server.metrics_path",
        ),
        (
            with(|config| config.metrics_path = "/health".to_owned()),
            "server.metrics_path: `/health` is taken",
        ),
        (
            with(|config| config.metrics_path = "/health/live".to_owned()),
            "is taken",
        ),
        (
            with(|config| config.publish.enabled = true),
            "server.publish: the route needs brokers",
        ),
    ] {
        let error = built.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.message().contains(expected), "{error}");
    }
}

#[tokio::test]
async fn publishing_is_off_unless_asked_for() {
    let story = Story::default();
    let app = app(&story).build().unwrap();
    app.start().await.unwrap();
    let request = http::Request::post("/publish/default/user.created")
        .body("{}".to_owned())
        .unwrap();
    assert_eq!(
        client::send(app.local_addr().unwrap(), request)
            .await
            .status(),
        404
    );
    app.shutdown(soon()).await.unwrap();
}

#[tokio::test]
async fn each_client_may_send_as_much_as_configuration_says_and_health_is_not_counted() {
    let mut config = ServerConfig::default().with_listen("127.0.0.1", 0);
    config.rate_limit.limit = Some(2);
    config.rate_limit.per = Some(Duration::from_secs(3600));
    config.rate_limit.header = Some("X-Api-Key".to_owned());
    let app = MicroserviceApp::builder("orders")
        .config(config)
        .router(Router::new().route("/", get(async || "served")))
        .build()
        .unwrap();
    app.start().await.unwrap();
    let address = app.local_addr().unwrap();
    let ask = async |key: Option<&'static str>, path| {
        let mut request = client::get(path);
        if let Some(key) = key {
            let headers = request.headers_mut();
            headers.insert("x-api-key", key.parse().unwrap());
        }
        client::send(address, request).await
    };
    for key in [None, Some("ada")] {
        for _ in 0..2 {
            assert_eq!(ask(key, "/").await.status(), 200);
        }
        let refused = ask(key, "/").await;
        assert_eq!(refused.status(), 429);
        let after: u64 = refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=1800).contains(&after), "{after}");
        assert_eq!(problem(&refused)["status"], 429);
    }
    assert_eq!(ask(None, "/health/live").await.status(), 200);
    app.drain(Instant::now() + SOON).await.unwrap();
    app.shutdown(Instant::now() + SOON).await.unwrap();
}

#[tokio::test]
async fn load_is_shed_where_configuration_says_so_by_a_priority_that_is_believed() {
    for trusted in [true, false] {
        let mut config = ServerConfig::default().with_listen("127.0.0.1", 0);
        config.trust_baggage = trusted;
        let limit = &mut config.concurrency;
        (limit.initial, limit.min, limit.max) = (Some(10), Some(10), Some(10));
        limit.enabled = Some(true);
        let (entered, mut inside) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = tokio::sync::watch::channel(false);
        let held = async move || {
            entered.send(()).unwrap();
            released
                .clone()
                .wait_for(|released| *released)
                .await
                .unwrap();
            "served"
        };
        let app = MicroserviceApp::builder("orders")
            .config(config)
            .router(Router::new().route("/", get(held)))
            .build()
            .unwrap();
        app.start().await.unwrap();
        let address = app.local_addr().unwrap();
        let ask = move |priority: &'static str| async move {
            let mut request = client::get("/");
            let baggage = format!("priority={priority}").parse().unwrap();
            request.headers_mut().insert("baggage", baggage);
            client::send(address, request).await
        };
        let mut running: Vec<_> = (0..9)
            .map(|_| trunkline_core::task::spawn("client", ask("normal")))
            .collect();
        for _ in 0..9 {
            client::within(inside.recv()).await.unwrap();
        }
        let shed = ask("normal").await;
        assert_eq!(shed.status(), 503);
        assert_eq!(shed.headers()["retry-after"], "1");
        // The last place is for what matters most, where that is believed.
        let critical = trunkline_core::task::spawn("client", ask("critical"));
        if trusted {
            client::within(inside.recv()).await.unwrap();
            running.push(critical);
        } else {
            assert_eq!(client::within(critical).await.unwrap().status(), 503);
        }
        let health = client::send(address, client::get("/health/live")).await;
        assert_eq!(health.status(), 200);
        release.send_replace(true);
        for answer in running {
            assert_eq!(client::within(answer).await.unwrap().status(), 200);
        }
        app.drain(Instant::now() + SOON).await.unwrap();
        app.shutdown(Instant::now() + SOON).await.unwrap();
    }
}

#[test]
fn limits_that_cannot_be_used_are_told_all_at_once() {
    let mut config = ServerConfig::default();
    config.rate_limit.limit = Some(0);
    config.concurrency.min = Some(50);
    config.concurrency.max = Some(10);
    let error = MicroserviceApp::builder("orders")
        .config(config)
        .build()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for part in ["rate_limit.limit: 0", "concurrency.m"] {
        assert!(error.message().contains(part), "{error}");
    }
}
