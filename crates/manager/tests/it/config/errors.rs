//! Every problem at once, each with file, line, key, what is wrong and what is allowed.

use trunkline_core::ErrorKind;
use trunkline_manager::{Diagnostics, Severity};

use super::{Files, assert_holds, assert_line, check_yaml, yaml};

const EIGHT_MISTAKES: &str = "\
communication:
  message_broker:
    type: rabitmq
    prot: 5672
  services:
    user-service:
      port: 80801
      timeout: soon
      circuit_breaker:
        failure_treshold: 3
      policy: critcal
  policies:
    critical:
      retry:
        max_attempts: 0
  logging:
    level: verbos
";

#[test]
fn a_file_with_eight_mistakes_reports_all_eight() {
    let files = Files::new(&[("communication.yaml", EIGHT_MISTAKES)]);
    let lines = files.load(&[]).unwrap_err();
    assert_eq!(lines.len(), 8, "{lines:#?}");
    let expected: [&[&str]; 8] = [
        &[
            "communication.yaml:3: message_broker.type: ",
            "`rabitmq`",
            "did you mean `rabbitmq`?",
        ],
        &[
            "communication.yaml:4: message_broker.prot: unknown key",
            "did you mean `port`?",
        ],
        &[
            "communication.yaml:7: services.user-service.port: ",
            "`80801`",
            "allowed: 1 to 65535",
        ],
        &[
            "communication.yaml:8: services.user-service.timeout: ",
            "`soon` is not a duration",
            "allowed: \"30s\"",
        ],
        &[
            "communication.yaml:10: services.user-service.circuit_breaker.failure_treshold: unknown key",
            "did you mean `failure_threshold`?",
        ],
        &[
            "communication.yaml:11: services.user-service.policy: ",
            "`critcal`",
            "did you mean `critical`?",
        ],
        &[
            "communication.yaml:15: policies.critical.retry.max_attempts: ",
            "`0`",
            "allowed: 1 to 100",
        ],
        &[
            "communication.yaml:17: logging.level: ",
            "`verbos`",
            "allowed: off, error, warn, info, debug, trace",
        ],
    ];
    for (line, parts) in lines.iter().zip(expected) {
        assert_holds(line, parts);
    }
}

#[test]
fn the_error_carries_every_problem() {
    let files = Files::new(&[("communication.yaml", EIGHT_MISTAKES)]);
    let error = files.loader(&[]).load().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(error.message(), "8 problems in the configuration");
    let found = error.find::<Diagnostics>().unwrap();
    assert_eq!(found.errors().count(), 8);
    assert!(
        found
            .iter()
            .all(|problem| problem.severity == Severity::Error)
    );
    assert_eq!(found.to_string().lines().count(), 8);
    // In a log, too, each has a line of its own.
    let report = error.report().to_string();
    let (first, lines) = report.split_once('\n').unwrap();
    assert_eq!(first, "8 problems in the configuration:");
    assert_eq!(lines, found.to_string());

    let json = serde_json::to_value(found).unwrap();
    assert_eq!(json[1]["severity"], "error");
    assert_eq!(json[1]["place"]["line"], 4);
    assert_eq!(json[1]["place"]["column"], 5);
    assert_eq!(json[1]["key"], "message_broker.prot");
    assert_eq!(json[1]["suggestion"], "port");
}

#[test]
fn a_wrong_kind_of_value_says_what_is_there_and_what_should_be() {
    assert_line(
        &check_yaml("services: [a, b]\n"),
        &[
            "communication.yaml:1: services: it is a list",
            "allowed: a section",
        ],
    );
    assert_line(
        &check_yaml("logging:\n  level: {a: 1}\n"),
        &[
            "communication.yaml:2: logging.level: it is a section with keys",
            "allowed: off",
        ],
    );
    assert_line(
        &check_yaml("debug_mode: maybe\n"),
        &["debug_mode: `maybe` is neither true nor false; allowed: true, false"],
    );
    assert_line(
        &check_yaml("health:\n  interval: 0\n"),
        &["communication.yaml:2: health.interval: it is zero; allowed: a duration above zero"],
    );
}

#[test]
fn a_bound_below_an_even_share_is_refused_wherever_it_stands() {
    for section in ["service_discovery:\n  type: static", "services:\n  users:"] {
        let indent = if section.starts_with("services:") {
            "    "
        } else {
            "  "
        };
        let text = |percent: u32| {
            format!(
                "{section}\n{indent}load_balancer: {{strategy: consistent_hash, bound_percent: {percent}}}\n"
            )
        };
        for percent in [1, 99] {
            assert_line(
                &check_yaml(&text(percent)),
                &[
                    "load_balancer.bound_percent: ",
                    "even share",
                    "allowed: 0, for no bound, or 100 and more",
                ],
            );
        }
        for percent in [0, 100, 150] {
            assert_eq!(check_yaml(&text(percent)), Vec::<String>::new());
        }
    }
}

#[test]
fn confirming_checks_farther_apart_than_others_are_pointless() {
    let text = |confirm| {
        format!(
            "service_discovery:\n  type: static\n  health_check: {{interval: 5s, confirm_interval: {confirm}}}\n"
        )
    };
    assert_line(
        &check_yaml(&text("10s")),
        &[
            "health_check.confirm_interval: ",
            "allowed: up to the `interval`, 5s",
        ],
    );
    assert_line(
        &check_yaml(&text("0s")),
        &["health_check.confirm_interval: it is zero"],
    );
    assert_eq!(check_yaml(&text("2s")), Vec::<String>::new());
}

#[test]
fn one_mistake_does_not_hide_those_that_only_the_whole_shows() {
    let lines =
        check_yaml("services:\n  a: {port: x, policy: none}\nmetrics: {latency_buckets: [2, 1]}\n");
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert_holds(&lines[0], &["services.a.port", "not a whole number"]);
    assert_holds(
        &lines[1],
        &[
            "services.a.policy",
            "there is no policy `none`",
            "none is configured",
        ],
    );
    assert_holds(&lines[2], &["metrics.latency_buckets", "do not ascend"]);
}

#[test]
fn limits_that_publishing_does_not_have_are_refused() {
    for key in ["connection", "read", "first_byte", "pool"] {
        assert_line(
            &check_yaml(&format!(
                "topics: {{\"order.*\": {{publish: {{timeout: {{{key}: 1s}}}}}}}}\n"
            )),
            &[
                &format!("publish.timeout.{key}: publishing has no such limit"),
                "`timeout.total`",
            ],
        );
    }
    assert_eq!(
        check_yaml("policies: {default: {timeout: {read: 1s, total: 2s}}}\n"),
        Vec::<String>::new()
    );
}

#[test]
fn versions_that_cannot_be_asked_for_are_all_named() {
    let lines = check_yaml(
        "services:\n  users:\n    versions: {order: [v2, v2], name: \"a b\", value: v2, on_status: [200]}\n",
    );
    for wanted in [
        "versions.order",
        "each version once",
        "versions.name",
        "versions.value",
        "{version}",
        "versions.on_status",
    ] {
        assert!(
            lines.iter().any(|line| line.contains(wanted)),
            "{wanted}: {lines:#?}"
        );
    }
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert_line(
        &check_yaml("services: {users: {versions: {order: [a/b]}}}\n"),
        &["versions.order", "a version such as v2"],
    );
    assert_line(
        &check_yaml("services: {users: {versions: {order: []}}}\n"),
        &["versions.order", "1 to 8 versions"],
    );
    assert_line(
        &check_yaml("services: {users: {versions: {order: [v1], by: cookie}}}\n"),
        &["versions.by", "cookie"],
    );
}

#[test]
fn names_that_cannot_be_used_are_refused() {
    assert_line(
        &check_yaml("services: {\"a b\": {}}\n"),
        &["`a b` is not a service name"],
    );
    assert_line(
        &check_yaml("topics: {\"a..b\": {}}\n"),
        &["a..b", "topic pattern"],
    );
    assert_line(
        &check_yaml("services: {a: {endpoints: {\"fetch it\": {}}}}\n"),
        &["`FETCH it` is not an endpoint", "GET /users/{id}"],
    );
    assert_line(
        &check_yaml("prefix: \"a b\"\n"),
        &["prefix", "`a b` is not a prefix"],
    );
}

#[cfg(feature = "server")]
#[test]
fn limits_of_the_server_that_cannot_be_used_are_told_all_at_once() {
    let lines = check_yaml(
        "server:\n  concurrency: {min: 50, max: 10}\n  rate_limit: {limit: 5, per: 0s, header: \"no header\"}\n",
    );
    assert_eq!(lines.len(), 3, "{lines:#?}");
    for parts in [
        ["server.concurrency.min", "50", "at most concurrency.max"],
        ["server.rate_limit.per", "0s", "communication.yaml"],
        ["server.rate_limit.header", "no header", "X-Api-Key"],
    ] {
        let told = lines
            .iter()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(told, "{parts:?} is not in {lines:#?}");
    }
    let unknown = check_yaml("server: {rate_limit: {max_wait: 1s}}\n");
    assert_line(&unknown, &["server.rate_limit", "max_wait"]);
}

#[cfg(feature = "server")]
#[test]
fn paths_of_the_server_have_no_parameters() {
    for path in ["/:x", "/a/:x", "/a/{x}", "/a/*x"] {
        assert_line(
            &check_yaml(&format!("server: {{health_path: \"{path}\"}}\n")),
            &["server.health_path", path, "without parameters"],
        );
    }
}

#[test]
fn a_long_value_is_cut_and_kept_on_one_line() {
    let text = format!("logging: {{level: \"{}\\nx\"}}\n", "é".repeat(500));
    let lines = check_yaml(&text);
    assert_line(&lines, &["…`"]);
    assert!(lines[0].chars().count() < 250, "{}", lines[0]);
    assert!(!lines[0].contains('\n'));
}

#[test]
fn a_missing_file_that_was_asked_for_is_an_error() {
    let files = Files::new(&[]);
    let (config, found) = files.loader(&[]).with_file("nowhere.yaml").check();
    assert!(config.is_none());
    assert_line(
        &files.lines(&found),
        &["nowhere.yaml: there is no such file"],
    );
    let lines = files.check(&[("TRUNKLINE_CONFIG", "nowhere.toml")]);
    assert_line(&lines, &["nowhere.toml: there is no such file"]);
    assert!(files.load(&[]).is_ok());
}

#[test]
fn a_file_of_another_ending_or_kind_is_refused_politely() {
    let files = Files::new(&[("a.ini", "x=1"), ("dir.yaml/x", "")]);
    for (name, part) in [("a.ini", "no known ending"), ("dir.yaml", "is not a file")] {
        let (_, found) = files.loader(&[]).with_file(name).check();
        assert_line(&files.lines(&found), &[name, part]);
    }
}

#[test]
fn a_file_full_of_mistakes_is_cut_short() {
    let keys: String = (0..20_000)
        .map(|n| format!("  debug_mod{n}: 1\n"))
        .collect();
    let lines = check_yaml(&format!("communication:\n{keys}"));
    assert_eq!(lines.len(), 101);
    assert_holds(
        &lines[0],
        &[
            "communication.yaml:2: debug_mod0: unknown key",
            "`debug_mode`",
        ],
    );
    assert_holds(&lines[100], &["more problems than these 100"]);
}

#[test]
fn a_warning_is_not_an_error() {
    let config = yaml("event_store: {type: postgres, host: p, port: 5432}\n").unwrap();
    assert_eq!(config.warnings().len(), 1);
    assert_eq!(config.warnings().warnings().count(), 1);
    assert!(!config.warnings().has_errors());
}

#[test]
fn chaos_in_production_has_to_be_asked_for_where_it_is_switched_on() {
    let files = Files::new(&[(
        "communication.yaml",
        "\
policies:
  game-day:
    chaos: { enabled: true, error: { percent: 5 }, allow_in_production: true }
services:
  users:
    host: localhost
    chaos: true
    endpoints:
      \"GET /users\": { chaos: { enabled: true } }
",
    )]);
    assert!(files.check(&[]).is_empty());
    for spelt in ["Production", "PROD", "prod"] {
        let problems = files.check(&[("ENVIRONMENT", spelt)]);
        let refused = problems
            .iter()
            .filter(|problem| problem.contains("chaos is refused"));
        assert_eq!(refused.count(), 2, "{problems:#?}");
    }
    let problems = files.check(&[("ENVIRONMENT", "production")]);
    assert_eq!(problems.len(), 2, "{problems:#?}");
    for (problem, place) in problems.iter().zip(["services.users.chaos:", "GET /users"]) {
        assert!(problem.contains(place), "{problem}");
        assert!(
            problem.ends_with(
                "chaos is refused in the production profile; allowed: false, or `allow_in_production: true` beside it"
            ),
            "{problem}"
        );
    }
}

#[test]
fn limits_have_short_forms() {
    let config = yaml(
        "services: { users: { host: localhost, rate_limit: 50, concurrency: aimd, chaos: on } }",
    )
    .unwrap();
    let users = config.services.values().next().unwrap();
    assert_eq!(users.rate_limit.limit, Some(50));
    assert_eq!(
        users.concurrency.algorithm,
        Some(trunkline_resilience::config::ConcurrencyAlgorithm::Aimd)
    );
    assert_eq!(users.chaos.enabled, Some(true));
}

/// Words that are written with hyphens are known, and keys of messages are looked at.
#[test]
fn keys_of_messages_are_checked() {
    let lines = check_yaml(
        "message_broker:\n  encryption:\n    keys:\n      k: {algorithm: chacha20-poly1305, key: c2hvcnQ=}\n",
    );
    let told = |what: &str| lines.iter().any(|line| line.contains(what));
    assert!(told("keys.k.key") && told("32 bytes"), "{lines:#?}");
    assert!(!told("is not known"), "{lines:#?}");
}
