//! What the scrape shows.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use trunkline_core::{Error, ErrorKind, Health};
use trunkline_telemetry::metrics::{CacheOutcome, CircuitPosition, Processed, Rejection};
use trunkline_telemetry::{Format, Metrics, MetricsConfig};
use trunkline_testing::servers::{self, PROMTOOL};

const MS: Duration = Duration::from_millis(1);

/// Records into every metric there is.
fn everything(metrics: &Metrics) {
    let client = metrics.http_client("user-service");
    let _active = client.active();
    let endpoint = client.endpoint("GET /users/{id}");
    endpoint.answered(200, MS);
    endpoint.answered(404, MS);
    endpoint.answered(503, MS);
    endpoint.failed(ErrorKind::Timeout, MS);
    endpoint.retried();
    endpoint.hedged();
    endpoint.hedge_won();
    client.attempts("10.0.0.1:80").observe(true, MS);
    metrics
        .http_server()
        .route("GET", "/users/{id}")
        .served(200, MS);
    metrics
        .http_server()
        .route("GET", "/users/{id}")
        .served(500, MS);
    let resilience = metrics.resilience("user-service");
    resilience
        .circuit("GET /users/{id}")
        .changed(CircuitPosition::Open);
    resilience.rejected(Rejection::CircuitOpen);
    resilience.budget_exhausted();
    let broker = metrics.messaging("default");
    let out = broker.destination("order.created");
    out.published(3, MS);
    out.failed(1, ErrorKind::Unavailable);
    out.unroutable();
    out.payload(100);
    let group = broker.group("order.created", "mailer");
    group.processed(Processed::Handled, MS);
    group.processed(Processed::DeadLettered, MS);
    let _flight = group.in_flight();
    group.redelivered();
    group.duplicate();
    group.dead_lettered("attempts");
    group.set_attached(true);
    group.set_lag(Some(7));
    group.payload(5000);
    let discovery = metrics.discovery("user-service");
    discovery.resolved(true, MS);
    discovery.instances(2, 1, 0);
    discovery.changed();
    discovery.stale(Duration::from_secs(3));
    metrics.cache("user-service").met(CacheOutcome::Hit);
    metrics.events("default").appended(5);
    metrics.relay("orders").published(4);
    metrics.relay("orders").lag(1);
    metrics.relay("orders").age(Duration::from_secs(2));
}

fn text(metrics: &Metrics) -> String {
    metrics.render(Format::Prometheus).unwrap()
}

fn with_health(metrics: &Metrics) -> Health {
    let health = Health::default();
    let broker = health.register(
        "message_broker_default",
        "default",
        "message_broker_memory",
        true,
    );
    broker.mark_healthy();
    metrics.show_health(&health);
    broker.mark_unhealthy(&Error::unavailable("gone"));
    health
}

#[test]
fn every_metric_has_a_head_and_base_units() {
    let metrics = Metrics::new();
    metrics.set_detailed(true);
    everything(&metrics);
    with_health(&metrics);
    let text = text(&metrics);
    let mut described = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("# HELP ") {
            let (name, help) = head.split_once(' ').unwrap();
            assert!(help.len() > 5, "{line}");
            assert!(described.insert(name.to_owned()), "twice: {line}");
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let base = ["_bucket", "_sum", "_count"];
            let base = base
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .unwrap_or(name);
            assert!(
                described.contains(base) || described.contains(name),
                "no head: {line}"
            );
        }
    }
    // One for each constant in `names::metric`.
    assert_eq!(described.len(), 37, "{described:#?}");
    for expected in [
        r#"http_client_request_duration_seconds_count{service="user-service",endpoint="GET /users/{id}",http_response_status_code="200",error_type=""} 1"#,
        r#"http_client_request_duration_seconds_count{service="user-service",endpoint="GET /users/{id}",http_response_status_code="",error_type="timeout"} 1"#,
        r#"trunkline_service_call_errors_total{service="user-service",operation="GET /users/{id}",error_type="503"} 1"#,
        r#"http_server_request_duration_seconds_bucket{le="0.001",http_request_method="GET",http_route="/users/{id}",http_response_status_code="200",error_type=""} 1"#,
        r#"http_server_request_duration_seconds_sum{http_request_method="GET",http_route="/users/{id}",http_response_status_code="200",error_type=""} 0.001"#,
        r#"trunkline_circuit_state{service="user-service",endpoint="GET /users/{id}"} 2"#,
        r#"trunkline_rejections_total{service="user-service",reason="circuit_open"} 1"#,
        r#"trunkline_http_cache_requests_total{service="user-service",outcome="hit"} 1"#,
        r#"messaging_client_sent_messages_total{broker="default",destination="order.created",outcome="published"} 3"#,
        r#"messaging_client_sent_messages_total{broker="default",destination="order.created",outcome="unavailable"} 1"#,
        r#"trunkline_discovery_stale_age_seconds{service="user-service"} 3.0"#,
        r#"trunkline_component_health{component="message_broker_default"} 0.0"#,
        r#"trunkline_messaging_payload_size_bytes_bucket{le="4096.0",broker="default",destination="order.created",direction="in"} 0"#,
    ] {
        assert!(text.contains(expected), "{expected}\nin\n{text}");
    }
}

#[test]
fn a_lag_that_is_not_known_is_not_there() {
    let config = MetricsConfig::default().with_max_label_sets(2);
    let metrics = Metrics::with_config(&config).unwrap();
    let broker = metrics.messaging("default");
    let groups = ["mail", "billing", "one-too-many"].map(|name| broker.group("orders", name));
    for group in &groups {
        group.set_lag(Some(7));
    }
    let of = |group: &str| {
        text(&metrics).contains(&format!(
            r#"trunkline_messaging_lag{{broker="default",destination="orders",group="{group}"}} 7"#
        ))
    };
    assert_eq!((of("mail"), of("billing")), (true, true));
    // Those for whom there is no room would say whatever the last of them says.
    assert!(!text(&metrics).contains("one-too-many"));
    assert!(!text(&metrics).contains(r#"trunkline_messaging_lag{broker="other""#));
    groups[0].set_lag(None);
    assert_eq!((of("mail"), of("billing")), (false, true));
}

#[test]
fn promtool_accepts_the_text() {
    let Some(promtool) = servers::tool(&PROMTOOL) else {
        return;
    };
    let metrics = Metrics::new();
    metrics.set_detailed(true);
    everything(&metrics);
    with_health(&metrics);
    metrics
        .http_client("a\"b\\c\nd")
        .endpoint("#\u{0} {x=\"y\"}")
        .retried();
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check
        .stdin
        .take()
        .unwrap()
        .write_all(text(&metrics).as_bytes())
        .unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn open_metrics_ends_as_it_must() {
    let metrics = Metrics::new();
    everything(&metrics);
    let text = metrics.render(Format::OpenMetrics).unwrap();
    assert!(text.ends_with("# EOF\n"));
    assert!(text.contains("# TYPE trunkline_retries counter"));
    assert!(text.contains("# UNIT http_server_request_duration_seconds seconds"));
    assert_eq!(
        Metrics::disabled().render(Format::OpenMetrics).unwrap(),
        "# EOF\n"
    );
}

#[test]
fn detailed_metrics_are_recorded_and_shown_only_while_on() {
    let metrics = Metrics::new();
    let attempts = metrics.http_client("a").attempts("h:1");
    attempts.observe(true, MS);
    assert!(!metrics.is_detailed());
    assert!(!text(&metrics).contains("attempt_duration"));
    metrics.set_detailed(true);
    assert!(
        !text(&metrics).contains("h:1"),
        "what was not recorded takes no room"
    );
    attempts.observe(true, MS);
    let line = r#"trunkline_http_client_attempt_duration_seconds_count{service="a",instance="h:1",outcome="success"} 1"#;
    assert!(text(&metrics).contains(line));
    metrics.set_detailed(false);
    assert!(!text(&metrics).contains("attempt_duration"));
}

#[test]
fn disabled_metrics_record_nothing() {
    let metrics = Metrics::disabled();
    everything(&metrics);
    with_health(&metrics);
    metrics.set_detailed(true);
    assert!(!metrics.is_enabled() && !metrics.is_detailed());
    assert_eq!(text(&metrics), "");
}

#[test]
fn label_sets_are_bounded() {
    let metrics = Metrics::with_config(&MetricsConfig::default().with_max_label_sets(3)).unwrap();
    let server = metrics.http_server();
    for route in 0..50 {
        server.route("GET", &format!("/r{route}")).served(200, MS);
    }
    let text = text(&metrics);
    let counts = text
        .lines()
        .filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
    assert_eq!(counts.count(), 4);
    assert!(
        text.contains(
            r#"http_route="other",http_response_status_code="other",error_type="other"} 47"#
        ),
        "{text}"
    );
}

#[test]
fn what_is_under_way_falls_again() {
    let metrics = Metrics::new();
    let server = metrics.http_server();
    let guards = [server.active(), server.active()];
    assert!(text(&metrics).contains("http_server_active_requests 2"));
    drop(guards);
    assert!(text(&metrics).contains("http_server_active_requests 0"));
}

#[test]
fn two_managers_do_not_mix() {
    let (one, other) = (Metrics::new(), Metrics::new());
    one.events("a").appended(1);
    assert!(!text(&other).contains("trunkline_events_appended"));
    assert!(text(&one).contains("trunkline_events_appended_total{store=\"a\"} 1"));
}

#[test]
fn the_application_adds_its_own() {
    let metrics = Metrics::new();
    let orders = prometheus_client::metrics::counter::Counter::<u64>::default();
    let own = orders.clone();
    metrics.register(|registry| registry.register("shop_orders", "Orders placed", own));
    orders.inc();
    assert!(text(&metrics).contains("# TYPE shop_orders_total counter\nshop_orders_total 1\n"));
}

#[test]
fn bad_buckets_are_refused() {
    for bounds in [
        vec![],
        vec![0.0],
        vec![1.0, 0.5],
        vec![1.0, 1.0],
        vec![f64::NAN],
        vec![f64::INFINITY],
    ] {
        let config = MetricsConfig::default().with_latency_buckets(bounds);
        let error = Metrics::with_config(&config).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().starts_with("latency_buckets:"));
    }
}
