//! Layers, search order, profiles and variables.

use std::time::Duration;

use trunkline_manager::Source;
use trunkline_telemetry::LogLevel;

use super::{Files, assert_holds, assert_line};

#[test]
fn layers_win_in_order_and_keep_their_places() {
    let files = Files::new(&[
        (
            "communication.yaml",
            "service: {name: base, version: base}\nprefix: base.\nlogging: {level: debug}\n",
        ),
        (
            "config/staging.yaml",
            "service: {version: profile}\nprefix: profile.\n",
        ),
    ]);
    let config = files
        .load(&[
            ("ENVIRONMENT", "staging"),
            ("TRUNKLINE__PREFIX", "variable."),
        ])
        .unwrap();
    assert_eq!(config.service.name.as_deref(), Some("base"));
    assert_eq!(config.service.version, "profile");
    assert_eq!(config.prefix.as_deref(), Some("variable."));
    assert_eq!(config.logging.level, LogLevel::Debug);
    assert_eq!(config.files().len(), 2);

    let source = |path: &str| {
        config
            .place(path)
            .map(|place| (place.source().clone(), place.line()))
    };
    assert!(
        matches!(source("service.name"), Some((Source::File(file), Some(1))) if file.ends_with("communication.yaml"))
    );
    assert!(
        matches!(source("service.version"), Some((Source::File(file), Some(1))) if file.ends_with("staging.yaml"))
    );
    assert_eq!(
        source("prefix"),
        Some((Source::Variable("TRUNKLINE__PREFIX".into()), None))
    );
    assert_eq!(source("drain_timeout"), None);

    let coded = config.into_builder().prefix("code.").build().unwrap();
    assert_eq!(coded.prefix.as_deref(), Some("code."));
    let origins = coded.settings();
    let origin = |path: &str| {
        origins
            .iter()
            .find(|setting| setting.path == path)
            .unwrap()
            .origin
            .clone()
    };
    assert_eq!(origin("prefix"), "code");
    assert_eq!(origin("drain_timeout"), "default");
    assert!(origin("service.version").ends_with("config/staging.yaml:1"));
}

#[test]
fn the_base_file_is_looked_for_in_order() {
    let all = [
        "communication.yaml",
        "communication.toml",
        "communication.json",
        "config/communication.yaml",
        "config/communication.toml",
        "config/communication.json",
        "config/settings.toml",
    ];
    for (index, first) in all.iter().enumerate() {
        let there: Vec<(&str, String)> = all[index..]
            .iter()
            .map(|name| {
                let text = match name.rsplit('.').next().unwrap() {
                    "toml" => format!("service.name = \"{name}\"\n"),
                    "json" => format!("{{\"service\": {{\"name\": \"{name}\"}}}}"),
                    _ => format!("service: {{name: \"{name}\"}}\n"),
                };
                (*name, text.replace('/', "-"))
            })
            .collect();
        let there: Vec<(&str, &str)> = there
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        let files = Files::new(&there);
        let config = files.load(&[]).unwrap();
        assert_eq!(config.service.name.unwrap(), first.replace('/', "-"));
        let others = files.check(&[]);
        assert_eq!(
            others.len(),
            usize::from(index + 1 < all.len()),
            "{others:?}"
        );
        if let Some(line) = others.first() {
            assert_holds(
                line,
                &[all[index + 1], "warning: it is not read, since", first],
            );
        }
    }
}

#[test]
fn a_named_file_comes_before_those_found_and_the_argument_before_the_variable() {
    let files = Files::new(&[
        ("communication.yaml", "prefix: found.\n"),
        ("a.yaml", "prefix: a.\n"),
        ("b.yaml", "prefix: b.\n"),
    ]);
    let variable = [("TRUNKLINE_CONFIG", "a.yaml")];
    assert_eq!(files.load(&variable).unwrap().prefix.as_deref(), Some("a."));
    let config = files.loader(&variable).with_file("b.yaml").load().unwrap();
    assert_eq!(config.prefix.as_deref(), Some("b."));
}

#[test]
fn the_profile_file_is_found_beside_the_base_file() {
    let files = Files::new(&[
        ("etc/communication.yaml", "prefix: base.\n"),
        ("etc/config/production.toml", "prefix = \"prod.\"\n"),
        ("cfg/config/communication.yaml", "prefix: base.\n"),
        ("cfg/config/production.yaml", "prefix: prod.\n"),
    ]);
    for base in ["etc/communication.yaml", "cfg/config/communication.yaml"] {
        let loader = files.loader(&[]).with_file(base).with_profile("production");
        assert_eq!(
            loader.load().unwrap().prefix.as_deref(),
            Some("prod."),
            "{base}"
        );
    }
    // The profile's own file as the base file is read once.
    let loader = files
        .loader(&[])
        .with_file("cfg/config/production.yaml")
        .with_profile("production");
    assert_eq!(loader.load().unwrap().files().len(), 1);
}

#[test]
fn profiles_are_names_and_not_paths() {
    let files = Files::new(&[("secret.yaml", "prefix: x.\n")]);
    assert_line(
        &files.check(&[("ENVIRONMENT", "../secret")]),
        &["ENVIRONMENT", "not the name of a profile"],
    );
    assert_line(
        &files.check(&[("ENVIRONMENT", "prodction")]),
        &["warning", "did you mean `production`?"],
    );
    assert!(files.check(&[("ENVIRONMENT", "qa-7")]).is_empty());
    assert_eq!(files.load(&[]).unwrap().environment, "development");
    assert_eq!(
        files.load(&[("ENVIRONMENT", " ")]).unwrap().environment,
        "development"
    );
}

#[test]
fn paths_reach_every_setting() {
    let files = Files::new(&[(
        "communication.yaml",
        "message_brokers: {Order-Events: {type: memory}}\nservices: {user_service: {host: u}}\n",
    )]);
    let config = files
        .load(&[
            (
                "TRUNKLINE__MESSAGE_BROKERS__ORDER_EVENTS__PREFETCH_COUNT",
                "50",
            ),
            ("TRUNKLINE__MESSAGE_BROKER__TYPE", "memory"),
            ("TRUNKLINE__SERVICES__USER_SERVICE__PORT", "81"),
            ("TRUNKLINE__HTTP_CLIENTS__DEFAULT__TIMEOUT", "5s"),
            ("TRUNKLINE__HTTP_CLIENT__RETRY__ENABLED", "false"),
            ("TRUNKLINE__SERVER__PUBLISH__TOPICS", "user.*, order.#"),
            ("TRUNKLINE__SERVER__PUBLISH__ENABLED", "1"),
            (
                "TRUNKLINE__GATEWAY__ROUTES",
                "[{\"path\": \"/x\", \"service\": \"u\"}]",
            ),
            (
                "TRUNKLINE__POLICIES__CRITICAL",
                "{\"request_timeout\": \"2s\"}",
            ),
            ("TRUNKLINE__DEBUG_MODE", ""),
        ])
        .unwrap();
    let brokers = config.message_brokers.as_ref().unwrap();
    assert_eq!(brokers["Order-Events"].prefetch_count, 50);
    assert_eq!(brokers["default"].kind, "memory");
    assert_eq!(
        config
            .service_config("user-service")
            .unwrap()
            .base_url()
            .as_deref(),
        Some("http://u:81")
    );
    let client = &config.http_clients["default"];
    assert_eq!(client.timeout.total, Some(Duration::from_secs(5)));
    assert_eq!(client.retry.enabled, Some(false));
    assert_eq!(config.server.publish.topics, ["user.*", "order.#"]);
    assert!(config.server.publish.enabled && !config.debug_mode);
    assert_eq!(config.gateway.as_ref().unwrap().routes[0].path, "/x");
    assert_eq!(
        config.policies["critical"].request_timeout,
        Some(Duration::from_secs(2))
    );
}

#[test]
fn wrong_variables_are_named() {
    let files = Files::new(&[]);
    assert_line(
        &files.check(&[("TRUNKLINE__LOGING__LEVEL", "info")]),
        &[
            "environment variable TRUNKLINE__LOGING__LEVEL: loging: unknown key; did you mean `logging`?",
        ],
    );
    assert_line(
        &files.check(&[("HTTP_CLIENT_TIMEOUT", "soon")]),
        &[
            "environment variable HTTP_CLIENT_TIMEOUT: http_clients.default.timeout: `soon` is not a duration",
        ],
    );
    assert_line(
        &files.check(&[("TRUNKLINE__", "x")]),
        &["does not name a setting"],
    );
    assert_line(
        &files.check(&[("TRUNKLINE_LOGGING__LEVEL", "x")]),
        &["warning: no such variable is read", "TRUNKLINE__"],
    );
    assert_line(
        &files.check(&[("TRUNKLINE__SERVER__PUBLISH__TOPICS", "[\"a\"")]),
        &["it is not JSON"],
    );
    assert_line(
        &files.check(&[
            ("LOG_LEVEL", "info"),
            ("TRUNKLINE__LOGGING__LEVEL", "debug"),
        ]),
        &[
            "TRUNKLINE__LOGGING__LEVEL",
            "says the same as environment variable LOG_LEVEL",
        ],
    );
}

#[test]
fn service_links_of_kubernetes_are_ignored_with_a_warning() {
    let files = Files::new(&[]);
    let links = [
        ("MESSAGE_BROKER_PORT", "tcp://10.0.0.1:5672"),
        ("MESSAGE_BROKER_PORT_5672_TCP", "tcp://10.0.0.1:5672"),
        ("MESSAGE_BROKER_SERVICE_HOST", "10.0.0.1"),
        ("TRUNKLINE_PORT", "tcp://10.0.0.1:80"),
        ("TRUNKLINE_SERVICE_HOST", "10.0.0.1"),
        ("TRUNKLINE_PORT_80_TCP_ADDR", "10.0.0.1"),
    ];
    assert_line(
        &files.check(&links),
        &[
            "environment variable MESSAGE_BROKER_PORT",
            "warning",
            "service link of Kubernetes",
        ],
    );
    assert_eq!(files.load(&links).unwrap().message_brokers, None);
}

#[test]
fn kinds_are_known_whether_served_or_not() {
    let files = Files::new(&[]);
    let check = |kind: &str| files.check(&[("MESSAGE_BROKER_TYPE", kind)]);
    assert!(check("memory").is_empty() && check("Embedded").is_empty());
    if cfg!(feature = "kafka") {
        assert!(check("Kafka").is_empty());
    } else {
        let says = [
            "warning",
            "the feature `kafka`",
            "allowed: embedded, memory",
        ];
        assert_line(&check("Kafka"), &says);
    }
    if cfg!(feature = "redis") {
        assert!(check("redis").is_empty());
    } else {
        assert_line(&check("redis"), &["warning", "the feature `redis`"]);
    }
    if cfg!(feature = "nats") {
        assert!(check("nats").is_empty());
    } else {
        assert_line(&check("nats"), &["warning", "the feature `nats`"]);
    }
    if cfg!(feature = "rabbitmq") {
        assert!(check("rabbitmq").is_empty());
    } else {
        let needs = "it needs the feature `rabbitmq`";
        assert_line(&check("rabbitmq"), &["warning", needs]);
    }
    assert_line(
        &check("rabitmq"),
        &["`rabitmq` is not known; did you mean `rabbitmq`?"],
    );
    assert_line(
        &check("carrier-pigeon"),
        &["warning", "works only if the program registers it"],
    );
    let discovery = |kind: &str| files.check(&[("SERVICE_DISCOVERY_TYPE", kind)]);
    assert!(discovery("static").is_empty() && discovery("embedded").is_empty());
    for (kind, is_served) in [
        ("consul", cfg!(feature = "consul")),
        ("kubernetes", cfg!(feature = "kubernetes")),
        ("k8s", cfg!(feature = "kubernetes")),
        ("etcd", cfg!(feature = "etcd")),
    ] {
        let name = if kind == "k8s" { "kubernetes" } else { kind };
        let feature = format!("it needs the feature `{name}`");
        let told = discovery(kind);
        match is_served {
            true => assert!(told.is_empty(), "{told:?}"),
            false => assert_line(&told, &["warning", &feature]),
        }
    }
    // These do not do without settings of their own.
    let dns = if cfg!(feature = "dns") {
        "service_discovery.options.srv"
    } else {
        "it needs the feature `dns`"
    };
    for (kind, told) in [("dns", dns), ("several", "at least two registries")] {
        let lines = discovery(kind);
        assert!(lines.iter().any(|line| line.contains(told)), "{lines:?}");
    }
    let store = |kind: &str| files.check(&[("TRUNKLINE__EVENT_STORE__TYPE", kind)]);
    assert!(store("sqlite").is_empty() && store("memory").is_empty());
    assert_line(
        &store("postgresql"),
        &["warning", "`postgres` is not available"],
    );
}

/// What only the backend understands is checked with everything else, where it was written.
#[cfg(feature = "consul")]
#[test]
fn options_of_a_registry_are_checked_with_the_rest() {
    let files = Files::new(&[(
        "communication.yaml",
        "service_discovery:\n  type: consul\n  host: a,b\n  options:\n    weit: 5s\n    wait: soon\nservce: {}\n",
    )]);
    let all = files.check(&[]);
    assert_eq!(all.len(), 4, "{all:?}");
    assert!(
        all.iter()
            .any(|line| line.contains("communication.yaml:3") && line.contains("several agents")),
        "{all:?}"
    );
    assert!(
        all.iter()
            .any(|line| line.contains("communication.yaml:5") && line.contains("weit")),
        "{all:?}"
    );
    assert!(
        all.iter()
            .any(|line| line.contains("options.wait") && line.contains("`5s`")),
        "{all:?}"
    );
}

#[test]
fn settings_without_effect_are_pointed_out() {
    let files = Files::new(&[]);
    assert_line(
        &files.check(&[
            ("MESSAGE_BROKER_HOST", "h"),
            ("MESSAGE_BROKER_TYPE", "memory"),
        ]),
        &[
            "MESSAGE_BROKER_HOST",
            "`memory` has no server of its own; the setting has no effect",
        ],
    );
    assert_line(
        &files.check(&[("TRUNKLINE__SERVICES__A__PORT", "81")]),
        &["the service has no host"],
    );
    assert_line(
        &files.check(&[("TRUNKLINE__SERVER__PUBLISH__ENABLED", "true")]),
        &["nothing can be published"],
    );
    assert_line(
        &files.check(&[("TRUNKLINE__MESSAGE_BROKER__CONFIRM_DELIVERY", "false")]),
        &["every publish is confirmed"],
    );
    let relay = [
        ("TRUNKLINE__EVENT_STORE__RELAY__BROKER", "evnts"),
        ("TRUNKLINE__MESSAGE_BROKERS__EVENTS__TYPE", "memory"),
    ];
    assert_line(
        &files.check(&relay),
        &["no message broker `evnts`; did you mean `events`?"],
    );
}
