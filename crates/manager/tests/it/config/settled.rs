//! Where the guides disagree, what was settled: one test for each X-n that concerns configuration.

use std::time::Duration;

use trunkline_core::Secret;
use trunkline_discovery::Protocol;
use trunkline_telemetry::LogLevel;

use super::{Files, assert_holds, assert_line, check_yaml, errors_in, yaml};

fn millis(count: u64) -> Option<Duration> {
    Some(Duration::from_millis(count))
}

#[test]
fn x_3_timeout_is_the_breakers_only_inside_its_section() {
    let config = yaml(
        "services:\n  a: {timeout: 7, circuit_breaker: {timeout: 60}}\n  b: {circuit_breaker: {reset_timeout: 30}}\n\
         \x20 c: {circuit_breaker: {resetTimeout: 30000, failureThreshold: 3}}\n",
    )
    .unwrap();
    let a = config.service_config("a").unwrap();
    assert_eq!(a.timeout.total, millis(7000));
    assert_eq!(a.circuit_breaker.recovery_timeout, millis(60_000));
    assert_eq!(
        config
            .service_config("b")
            .unwrap()
            .circuit_breaker
            .recovery_timeout,
        millis(30_000)
    );
    let c = &config.service_config("c").unwrap().circuit_breaker;
    assert_eq!(
        (c.recovery_timeout, c.failure_threshold),
        (millis(30_000), Some(3))
    );
    assert_line(
        &check_yaml("policies: {p: {circuit_breaker: {timeout: 1, recovery_timeout: 2}}}\n"),
        &[
            "policies.p.circuit_breaker.timeout: it says the same as `policies.p.circuit_breaker.recovery_timeout`",
        ],
    );
}

#[test]
fn x_4_durations_are_seconds_texts_or_milliseconds_by_name() {
    for (written, expected) in [
        ("request_timeout: 30", 30_000),
        ("request_timeout: 0.25", 250),
        ("request_timeout: \"30.0\"", 30_000),
        ("request_timeout: 250ms", 250),
        ("request_timeout: 1m30s", 90_000),
        ("request_timeout_ms: 250", 250),
        ("timeout_ms: 5000", 5000),
    ] {
        let config = yaml(&format!("policies: {{p: {{{written}}}}}\n")).unwrap();
        let policy = &config.policies["p"];
        assert_eq!(
            policy.request_timeout.or(policy.timeout.total),
            millis(expected),
            "{written}"
        );
        assert!(config.warnings().is_empty(), "{written}");
    }
    let config = yaml("policies: {p: {retry: {delay_ms: 50}}}\n").unwrap();
    assert_eq!(config.policies["p"].retry.delay, millis(50));
    assert_line(
        &check_yaml("policies: {p: {request_timeout: 5000}}\n"),
        &[
            "warning: policies.p.request_timeout: `5000` is seconds, more than an hour",
            "\"250ms\"",
        ],
    );
    assert_line(
        &check_yaml("policies: {p: {request_timeout_ms: 5s}}\n"),
        &["not a number of milliseconds"],
    );
    assert_line(
        &check_yaml("policies: {p: {request_timeout_ms: 5, request_timeout: 1}}\n"),
        &["says the same"],
    );
}

#[test]
fn x_5_attempts_count_the_first_and_retries_do_not() {
    for (written, expected) in [
        ("retry_attempts: 3", 3),
        ("max_attempts: 2", 2),
        ("max_retries: 3", 4),
        ("max_retries: 3.0", 4),
        ("max_retries: 0x3", 4),
        ("max_retries: \"${NOT_SET:3.0}\"", 4),
        ("retry: {retry_attempts: 3}", 3),
        ("retry: {max_retries: 0}", 1),
        ("retry: 5", 5),
        ("retry_policy: {max_attempts: 6}", 6),
        ("circuit_breaker: {retry_attempts: 3}", 3),
    ] {
        let config = yaml(&format!("services: {{a: {{{written}}}}}\n")).unwrap();
        let attempts = config.service_config("a").unwrap().retry.max_attempts;
        assert_eq!(attempts, Some(expected), "{written}");
    }
    let config = yaml("default_retry_attempts: 4\n").unwrap();
    assert_eq!(config.policies["default"].retry.max_attempts, Some(4));
    for (written, what) in [
        (
            "max_retries: 100",
            "`100` is out of range; allowed: 0 to 99",
        ),
        ("max_retries: -1", "`-1` is out of range; allowed: 0 to 99"),
        (
            "max_retries: 2.5",
            "`2.5` is not a whole number; allowed: 0 to 99",
        ),
        ("max_retries: many", "`many` is not a whole number"),
    ] {
        let lines = check_yaml(&format!("services: {{a: {{{written}}}}}\n"));
        assert_line(&lines, &["services.a.max_retries: ", what]);
    }
    for both in [
        "retry_attempts: 3, max_retries: 2",
        "retry: {max_attempts: 1}, retry_attempts: 1",
    ] {
        let lines = check_yaml(&format!("services:\n  a: {{{both}}}\n"));
        assert_line(
            &lines,
            &["communication.yaml:2", "says the same as", "one of the two"],
        );
    }
    let files = Files::new(&[
        ("communication.yaml", "services: {a: {retry_attempts: 3}}\n"),
        ("config/staging.yaml", "services: {a: {max_retries: 1}}\n"),
    ]);
    let config = files.load(&[("ENVIRONMENT", "staging")]).unwrap();
    assert_eq!(
        config.service_config("a").unwrap().retry.max_attempts,
        Some(2)
    );
}

#[test]
fn x_6_a_scalar_timeout_is_the_total_and_a_mapping_has_parts() {
    let config = yaml(
        "http_clients:\n  a: {timeout: 5}\n  b: {timeout: {connect: 1, read: 2, total: 3, pool: 4}}\n  c: {timeout: {connection: 1}}\n",
    )
    .unwrap();
    let timeout = |name: &str| config.http_clients[name].timeout;
    assert_eq!(
        (timeout("a").total, timeout("a").read),
        (millis(5000), None)
    );
    assert_eq!(
        (
            timeout("b").connection,
            timeout("b").read,
            timeout("b").total,
            timeout("b").pool
        ),
        (millis(1000), millis(2000), millis(3000), millis(4000))
    );
    let effective = config
        .client_policy_layers("c", None)
        .resolve()
        .unwrap()
        .policy;
    assert_eq!(effective.timeout.connection, Duration::from_secs(1));
    assert_eq!(effective.timeout.total, Duration::from_secs(30));
    // A higher layer changes one part and leaves the others.
    let files = Files::new(&[(
        "communication.yaml",
        "http_client: {timeout: {read: 2, total: 9}}\n",
    )]);
    let config = files.load(&[("HTTP_CLIENT_TIMEOUT", "3.5")]).unwrap();
    let timeout = config.http_clients["default"].timeout;
    assert_eq!((timeout.total, timeout.read), (millis(3500), millis(2000)));
}

#[test]
fn x_7_and_x_8_defaults_of_breaker_and_attempt() {
    let policy = yaml("")
        .unwrap()
        .policy_layers("any", None)
        .resolve()
        .unwrap()
        .policy;
    let breaker = policy.circuit_breaker.unwrap();
    assert_eq!(
        (breaker.failure_threshold, breaker.success_threshold),
        (5, 2)
    );
    assert_eq!(breaker.recovery_timeout, Duration::from_secs(60));
    assert_eq!(policy.timeout.attempt, Duration::from_secs(30));
    assert_eq!(policy.timeout.total, Duration::from_secs(30));
}

#[test]
fn x_9_pool_size_is_max_connections() {
    let config = yaml("http_client: {connection_pool_size: 7}\n").unwrap();
    let client = &config.http_clients["default"];
    assert_eq!(client.max_connections, 7);
    assert_eq!(client.max_keepalive_connections, 20);
    assert_eq!(client.keepalive_expiry, Duration::from_secs(30));
    assert_line(
        config
            .warnings()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .as_slice(),
        &["more connections are kept"],
    );
    assert_line(
        &check_yaml("http_client: {connection_pool_size: 7, max_connections: 30}\n"),
        &["says the same"],
    );
}

#[test]
fn x_10_the_singular_section_is_the_entry_default() {
    let config =
        yaml("message_broker: {type: memory}\nhttp_client: {base_url: http://x}\n").unwrap();
    assert_eq!(config.message_brokers.unwrap()["default"].kind, "memory");
    assert_eq!(
        config.http_clients["default"].base_url.as_deref(),
        Some("http://x")
    );
    let beside =
        yaml("message_broker: {type: memory}\nmessage_brokers: {other: {type: memory}}\n").unwrap();
    assert_eq!(beside.message_brokers.unwrap().len(), 2);
    let lines =
        check_yaml("message_brokers:\n  default: {type: memory}\nmessage_broker: {type: memory}\n");
    assert_line(
        &lines,
        &[
            "communication.yaml:3: message_broker: it says the same as `message_brokers.default` at",
            "communication.yaml:2",
        ],
    );
}

#[test]
fn x_11_a_url_and_its_parts_are_alternatives() {
    let config =
        yaml("message_brokers: {r: {connection_url: \"amqps://u:p%40w@h:5671/vh?heartbeat=7\"}}\n")
            .unwrap();
    let broker = &config.message_brokers.unwrap()["r"];
    assert_eq!(broker.kind, "rabbitmq");
    let connection = &broker.connection;
    assert_eq!(
        (connection.host.as_deref(), connection.port),
        (Some("h"), Some(5671))
    );
    assert_eq!(connection.password, Some(Secret::from("p@w")));
    assert_eq!(
        (connection.path.as_deref(), connection.ssl_enabled),
        (Some("vh"), true)
    );
    assert_eq!(broker.options["heartbeat"], 7);
    assert_eq!(broker.display_url(), "amqps://h:5671/vh");

    assert_line(
        &errors_in("message_broker:\n  type: rabbitmq\n  host: a\n  connection_url: amqp://b\n"),
        &[
            "communication.yaml:4: message_broker.connection_url: it says the same as `message_broker.host`",
            ":3",
        ],
    );
    assert_line(
        &errors_in("message_broker: {type: redis, connection_url: \"amqp://u:hunter2@b\"}\n"),
        &["one of `rabbitmq`, but the type is `redis`"],
    );
    let refused = check_yaml("message_broker: {connection_url: \"amqp://u:hunter2@b:port\"}\n");
    assert_line(
        &refused,
        &[
            "message_broker.connection_url: not a connection URL",
            "port",
        ],
    );
    assert!(!refused[0].contains("hunter2"));
}

#[test]
fn x_11_a_higher_layer_replaces_parts_one_by_one() {
    let files = Files::new(&[(
        "communication.yaml",
        "message_broker: {connection_url: \"amqp://u:p@h:5672/v\"}\n",
    )]);
    let parts = |variables: &[(&str, &str)]| {
        let config = files.load(variables).unwrap();
        let broker = config.message_brokers.unwrap()["default"].clone();
        (
            broker.connection.host.unwrap(),
            broker.connection.port,
            broker.connection.username.unwrap(),
            broker.connection.path,
        )
    };
    let path = Some("v".to_owned());
    assert_eq!(
        parts(&[("MESSAGE_BROKER_HOST", "other")]),
        ("other".into(), Some(5672), "u".into(), path.clone())
    );
    assert_eq!(
        parts(&[("MESSAGE_BROKER_PORT", "9")]),
        ("h".into(), Some(9), "u".into(), path.clone())
    );
    assert_eq!(
        parts(&[("MESSAGE_BROKER_URL", "amqp://x")]),
        ("x".into(), Some(5672), "u".into(), path.clone())
    );
    assert_eq!(
        parts(&[("RABBITMQ_URL", "amqp://y:1")]),
        ("y".into(), Some(1), "u".into(), path)
    );
    let lines = files.check(&[
        ("MESSAGE_BROKER_URL", "amqp://x"),
        ("MESSAGE_BROKER_HOST", "y"),
    ]);
    assert_holds(
        &lines[0],
        &[
            "environment variable MESSAGE_BROKER_URL",
            "says the same as",
            "MESSAGE_BROKER_HOST",
        ],
    );
}

#[test]
fn x_11_the_rabbitmq_url_goes_to_the_broker_that_is_rabbitmq() {
    let url = [("RABBITMQ_URL", "amqp://u:p@rabbit/")];
    let alone = Files::new(&[]).load(&url).unwrap();
    assert_eq!(alone.message_brokers.unwrap()["default"].kind, "rabbitmq");
    let named = Files::new(&[(
        "communication.yaml",
        "message_brokers: {events: {type: rabbitmq}, local: {type: memory}}\n",
    )]);
    let config = named.load(&url).unwrap();
    let brokers = config.message_brokers.unwrap();
    assert_eq!(brokers.len(), 2);
    assert_eq!(brokers["events"].connection.host.as_deref(), Some("rabbit"));
    let other = Files::new(&[(
        "communication.yaml",
        "message_brokers: {local: {type: memory}}\n",
    )]);
    assert_line(
        &other.check(&url),
        &["warning: no broker of type `rabbitmq` is configured"],
    );
}

#[test]
fn x_12_both_roots_are_read() {
    let config = yaml("communication:\n  debug_mode: true\nservices: {a: {host: x}}\n").unwrap();
    assert!(config.debug_mode);
    assert!(config.service_config("a").is_some());
    let toml = "[communication.logging]\nlevel = \"debug\"\n[services.a]\nhost = \"x\"\n[database]\nurl = \"x\"\n";
    let files = Files::new(&[("config/settings.toml", toml)]);
    let config = files.load(&[]).unwrap();
    assert_eq!(config.logging.level, LogLevel::Debug);
    assert_line(
        &files.check(&[]),
        &[
            "config/settings.toml:5: warning: database: the section is not known here and is ignored",
        ],
    );
    let twice = "communication:\n  logging: {level: info}\nlogging: {level: debug}\n";
    assert_line(
        &check_yaml(twice),
        &[
            "communication.yaml:2: logging: it says the same as `logging`",
            "communication.yaml:3",
        ],
    );
    assert_line(
        &check_yaml("servces: {}\n"),
        &["servces: unknown section; did you mean `services`?"],
    );
    assert_line(
        &check_yaml("comunication: {}\n"),
        &["did you mean `communication`?"],
    );
    assert_line(
        &check_yaml("communication: {database: {}}\n"),
        &["communication.yaml:1: database: unknown key"],
    );
    yaml("$schema: ./trunkline.json\n").unwrap();
}

#[test]
fn x_13_the_port_written_is_used_and_warned_of() {
    // What is said of the port; that a build leaves the kind out is another matter.
    let with = |text: &str| {
        let lines = check_yaml(&format!("message_broker: {{type: rabbitmq, {text}}}\n"));
        let of_port = lines.into_iter().filter(|line| line.contains("TLS is"));
        of_port.collect::<Vec<_>>()
    };
    assert_holds(
        &with("host: h, port: 5672, ssl_enabled: true")[0],
        &["TLS is on, but 5672", "5671"],
    );
    assert_holds(
        &with("connection_url: \"amqp://h:5671\"")[0],
        &["TLS is off, but 5671"],
    );
    assert!(with("host: h, ssl_enabled: true").is_empty());
    assert!(with("host: h, port: 5671, ssl_enabled: true").is_empty());
}

#[test]
fn x_14_names_are_equal_after_folding_and_tables_and_urls_are_both_read() {
    let config = yaml(
        "services:\n  User_Service: http://users:8000/base\n  b: {url: \"https://b.example.com\"}\n  c:\n\
         gateway:\n  services:\n    order_service: http://orders:8000\n    user-service: {timeout: 5}\n    other:\n",
    )
    .unwrap();
    let user = config.service_config("user-service").unwrap();
    assert_eq!(user.base_url().as_deref(), Some("http://users:8000/base"));
    let b = config.service_config("B").unwrap();
    assert_eq!(
        (b.protocol, b.base_url().as_deref()),
        (Protocol::Https, Some("https://b.example.com:443"))
    );
    assert_eq!(config.service_config("c").unwrap().host, None);
    let gateway = config.gateway.unwrap();
    let names: Vec<&str> = gateway.services.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["order-service", "other", "user-service"]);
    assert_line(
        &check_yaml("services:\n  user_service: {}\n  user-service: {}\n"),
        &[
            "communication.yaml:3: services.user-service: `user-service` names the same as `services.user_service`",
            ":2",
        ],
    );
    assert_line(
        &check_yaml("services: {a: {url: \"http://x\", host: y}}\n"),
        &["says the same as `services.a.host`"],
    );
    assert_line(
        &check_yaml("services: {a: \"ftp://x\"}\n"),
        &["not the URL of a service"],
    );
    assert_line(
        &check_yaml("services: {a: \"http://u:hunter2@x\"}\n"),
        &["credentials have no meaning"],
    );
}

#[test]
fn x_15_flat_names_are_aliases_of_nested_ones() {
    let config = yaml(
        "services:\n  a: {circuit_breaker_enabled: false, failure_threshold: 9, retry_enabled: false, success_threshold: 4, recovery_timeout: 5}\n",
    )
    .unwrap();
    let a = config.service_config("a").unwrap();
    assert_eq!(a.circuit_breaker.enabled, Some(false));
    assert_eq!(
        (
            a.circuit_breaker.failure_threshold,
            a.circuit_breaker.success_threshold
        ),
        (Some(9), Some(4))
    );
    assert_eq!(a.circuit_breaker.recovery_timeout, millis(5000));
    assert_eq!(a.retry.enabled, Some(false));
    for word in ["caching_enabled", "cache_enabled"] {
        let config = yaml(&format!("services: {{a: {{{word}: false}}}}\n")).unwrap();
        assert_eq!(
            config.service_config("a").unwrap().cache.enabled,
            Some(false)
        );
        let config = yaml(&format!("{word}: false\n")).unwrap();
        assert_eq!(config.policies["default"].cache.enabled, Some(false));
        // A build without the cache says so where it is asked for, and not where it is declined.
        let lines = check_yaml(&format!("services: {{a: {{{word}: true}}}}\n"));
        if cfg!(feature = "cache") {
            assert!(lines.is_empty(), "{lines:?}");
        } else {
            assert_line(&lines, &["warning", "services.a.cache", "feature `cache`"]);
        }
    }
    let short = yaml("services: {a: {cache: 5m}, b: {cache: false}}\n").unwrap();
    let of = |name: &str| short.service_config(name).unwrap().cache.clone();
    assert_eq!(of("a").ttl, millis(300_000));
    assert_eq!(of("b").enabled, Some(false));
    let short = yaml("services: {a: {circuit_breaker: false, failure_threshold: 2}}\n").unwrap();
    let breaker = &short.service_config("a").unwrap().circuit_breaker;
    assert_eq!(
        (breaker.enabled, breaker.failure_threshold),
        (Some(false), Some(2))
    );
}

#[test]
fn x_16_a_file_alone_and_the_environment_alone() {
    let files = Files::new(&[
        (
            "communication.yaml",
            "debug_mode: true\nservice: {name: base}\n",
        ),
        (
            "config/production.yaml",
            "service: {name: \"${NAME:file}\"}\n",
        ),
    ]);
    let variables = [
        ("ENVIRONMENT", "production"),
        ("LOG_LEVEL", "debug"),
        ("NAME", "given"),
    ];
    let layered = files.load(&variables).unwrap();
    assert!(layered.debug_mode);
    assert_eq!(layered.service.name.as_deref(), Some("given"));
    assert_eq!(layered.logging.level, LogLevel::Debug);
    assert_eq!(layered.environment, "production");

    let alone = files
        .loader(&variables)
        .with_file("config/production.yaml")
        .only_file()
        .load()
        .unwrap();
    assert!(!alone.debug_mode);
    assert_eq!(alone.service.name.as_deref(), Some("given"));
    assert_eq!(alone.logging.level, LogLevel::Info);

    let environment = files.loader(&variables).only_environment().load().unwrap();
    assert!(!environment.debug_mode);
    assert_eq!(environment.service.name, None);
    assert_eq!(environment.logging.level, LogLevel::Debug);
}

#[test]
fn x_17_switches_have_the_guides_other_names() {
    let config = yaml("enable_security_integration: false\nmetrics_enabled: false\n").unwrap();
    assert!(!config.security_integration);
    assert!(!config.enable_metrics);
    let off = yaml("observability_enabled: false\n").unwrap();
    assert!(off.enable_metrics && off.enable_tracing);
    assert!(!off.metrics_on() && !off.tracing_on());
    let default = yaml("").unwrap();
    assert!(default.metrics_on() && default.tracing_on() && default.enable_health_checks);
    assert!(default.security_integration && !default.debug_mode && !default.detailed_metrics);
    assert_line(
        &check_yaml("metrics_enabled: true\nenable_metrics: true\n"),
        &["says the same"],
    );
    assert_line(
        &check_yaml("security: {jwt: {}}\n"),
        &["warning", "`security` is not available in this version"],
    );
}

#[test]
fn the_words_of_the_service_sdk_are_understood() {
    let config = yaml(
        "default_timeout: 12\ndefault_circuit_breaker_enabled: false\nservice_discovery_enabled: false\n\
         health_check_interval: 7\ncache_enabled: false\nmetrics_enabled: true\nservice_name: orders\n\
         telemetry: {install: never}\nserver: {listen: \"0.0.0.0:9000\"}\n",
    )
    .unwrap();
    assert!(config.warnings().is_empty(), "{}", config.warnings());
    let default = &config.policies["default"];
    assert_eq!(default.timeout.total, millis(12_000));
    assert_eq!(default.circuit_breaker.enabled, Some(false));
    let discovery = config.service_discovery.as_ref().unwrap();
    assert!(!discovery.enabled);
    assert_eq!(discovery.health_check.interval, Duration::from_secs(7));
    assert_eq!(config.service.name.as_deref(), Some("orders"));
    assert_eq!(config.logging.install, trunkline_telemetry::Install::Never);
    assert_eq!(
        (config.server.host.as_str(), config.server.port),
        ("0.0.0.0", 9000)
    );
    assert_line(
        &check_yaml("server: {listen: \"0.0.0.0:9000\", port: 1}\n"),
        &["says the same as `server.port`"],
    );
}

#[test]
fn x_18_interpolation_is_typed_by_the_setting_and_points_at_its_line() {
    let text = "services:\n  a:\n    host: \"${HOST}\"\n    port: \"${PORT:8001}\"\n";
    let files = Files::new(&[("communication.yaml", text)]);
    let config = files.load(&[("HOST", "h"), ("PORT", "9")]).unwrap();
    assert_eq!(
        config.service_config("a").unwrap().base_url().as_deref(),
        Some("http://h:9")
    );
    assert_holds(
        &files.check(&[])[0],
        &["communication.yaml:3: services.a.host: the variable HOST is not set and has no default"],
    );
    assert_holds(
        &files.check(&[("HOST", "h"), ("PORT", "x")])[0],
        &["communication.yaml:4: services.a.port: `x`"],
    );
}

#[test]
fn x_31_correlation_header_and_format_are_settings() {
    let config =
        yaml("logging: {correlation_header: X-Request-ID, correlation_format: service}\n").unwrap();
    assert_eq!(config.logging.correlation_header, "X-Request-ID");
    assert_eq!(
        config.logging.correlation_format,
        trunkline_core::CorrelationFormat::Service
    );
    assert_line(
        &check_yaml("logging: {correlation_header: \"X Request\"}\n"),
        &["is not a header name"],
    );
}

#[test]
fn x_49_no_brokers_is_not_the_same_as_no_section() {
    assert_eq!(yaml("").unwrap().message_brokers, None);
    for empty in ["message_brokers: {}\n", "message_brokers:\n"] {
        assert!(yaml(empty).unwrap().message_brokers.unwrap().is_empty());
    }
}

#[test]
fn x_28_max_poll_records_is_a_limit_of_our_own() {
    let open = |url: &str| {
        let config = trunkline_messaging::MessageBrokerConfig::from_url(url).unwrap();
        trunkline_manager::backends::open_broker(&config)
    };
    // librdkafka would refuse it: so it is never handed to it.
    open("kafka://localhost?max_poll_records=7&batch_size=16384&linger_ms=10").unwrap();
    let error = open("kafka://localhost?max.poll.records=7").unwrap_err();
    assert_eq!(error.kind(), trunkline_core::ErrorKind::Config);
    assert!(error.report().to_string().contains("max.poll.records"));
}
