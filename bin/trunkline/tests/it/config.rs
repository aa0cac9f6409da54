//! `trunkline config`.

use serde_json::Value;

use crate::place::{Place, keys};

const EIGHT_MISTAKES: &str = "\
message_broker:
  type: rabitmq
  prot: 5672
http_client:
  timeout: soon
services:
  user-service:
    port: 80801
    circuit_breaker: { failure_treshold: 3 }
    policy: critcal
policies:
  critical:
    retry: { max_attempts: 0 }
logging:
  level: inof
";

/// Line, key, and what else its line of the report has.
const EIGHT_REPORTS: [(u32, &str, &str); 8] = [
    (
        2,
        "message_broker.type",
        "`rabitmq` is not known; did you mean `rabbitmq`?; allowed: ",
    ),
    (
        3,
        "message_broker.prot",
        "unknown key; did you mean `port`?; allowed: ",
    ),
    (
        5,
        "http_client.timeout",
        "`soon` is not a duration; allowed: \"30s\"",
    ),
    (
        8,
        "services.user-service.port",
        "`80801` is out of range; allowed: 1 to 65535",
    ),
    (
        9,
        "services.user-service.circuit_breaker.failure_treshold",
        "unknown key; did you mean `failure_threshold`?; allowed: ",
    ),
    (
        10,
        "services.user-service.policy",
        "did you mean `critical`?; allowed: critical",
    ),
    (
        13,
        "policies.critical.retry.max_attempts",
        "`0` is out of range; allowed: 1 to 100",
    ),
    (
        15,
        "logging.level",
        "`inof` is not known; did you mean `info`?; allowed: ",
    ),
];

#[tokio::test]
async fn eight_mistakes_are_eight_lines_and_exit_2() {
    let place = Place::new();
    place.file("deploy.yaml", EIGHT_MISTAKES);
    let report = place
        .run(&["config", "check", "deploy.yaml"])
        .await
        .ended(2);
    let lines: Vec<_> = report.text().lines().collect();
    assert_eq!(lines.len(), 8, "{}", report.text());
    for (line, (number, key, says)) in lines.iter().zip(EIGHT_REPORTS) {
        let place = format!("deploy.yaml:{number}: {key}: ");
        assert!(line.starts_with(&place) && line.contains(says), "{line}");
    }
    assert_eq!(report.stderr, "");
}

#[tokio::test]
async fn a_report_for_programs_has_place_key_and_message_of_each_mistake() {
    let place = Place::new();
    place.file("deploy.yaml", EIGHT_MISTAKES);
    let args = ["config", "check", "deploy.yaml", "--output", "json"];
    let report: Vec<Value> = place.run(&args).await.ended(2).json();
    let told: Vec<_> = report
        .iter()
        .map(|problem| {
            assert_eq!(problem["severity"], "error");
            assert_eq!(problem["place"]["file"], "deploy.yaml");
            (
                problem["place"]["line"].as_u64().unwrap(),
                problem["key"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        EIGHT_REPORTS.map(|(line, key, _)| (u64::from(line), key))
    );
}

#[tokio::test]
async fn without_a_file_what_a_service_would_load_is_checked() {
    let place = Place::new();
    assert_eq!(
        place.run(&["config", "check"]).await.done().text(),
        "no problems\n"
    );
    place.file("communication.yaml", "logging: { level: info }\n");
    let mut command = place.command(&["config", "check"]);
    command.env("HTTP_CLIENT_TIMEOUT", "soon");
    let report = crate::place::Outcome::of(command).await.ended(2);
    assert!(
        report.text().contains("HTTP_CLIENT_TIMEOUT"),
        "{}",
        report.text()
    );
    // A file that is named is checked alone.
    let mut command = place.command(&["config", "check", "communication.yaml"]);
    command.env("HTTP_CLIENT_TIMEOUT", "soon");
    crate::place::Outcome::of(command).await.done();
}

#[tokio::test]
async fn a_warning_is_told_and_is_no_failure() {
    let place = Place::new();
    place.file("communication.yaml", "of_the_application: 1\n");
    let report = place.run(&["config", "check"]).await.done();
    assert!(
        report
            .text()
            .starts_with("communication.yaml:1: warning: of_the_application: "),
        "{}",
        report.text()
    );
}

#[tokio::test]
async fn a_file_that_is_not_there_is_exit_2() {
    let place = Place::new();
    let report = place
        .run(&["config", "check", "nowhere.yaml"])
        .await
        .ended(2);
    assert!(
        report.text().starts_with("nowhere.yaml: "),
        "{}",
        report.text()
    );
    for args in [
        &["config", "show", "-c", "nowhere.yaml"][..],
        &[
            "policy",
            "explain",
            "user-service",
            "--config",
            "nowhere.yaml",
        ],
        &["gateway", "-c", "nowhere.yaml"],
        &["call", "user-service", "GET", "/", "-c", "nowhere.yaml"],
    ] {
        let refused = place.run(args).await.refused(2, "nowhere.yaml");
        assert_eq!(
            refused.stderr.matches("nowhere.yaml").count(),
            1,
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn show_tells_where_each_value_comes_from_and_no_secret() {
    let place = Place::new();
    place.file(
        "communication.yaml",
        "message_broker: { type: embedded, password: hunter2 }\nhttp_client: { base_url: \"http://localhost:9\", headers: { authorization: Bearer hunter2 } }\n",
    );
    let mut command = place.command(&["config", "show"]);
    command.env("LOG_LEVEL", "debug");
    let shown = crate::place::Outcome::of(command).await.done();
    let row = |path: &str| {
        let row = shown.text().lines().find(|line| line.contains(path));
        row.unwrap_or_else(|| panic!("{path}: {}", shown.text()))
            .to_owned()
    };
    assert!(row("VALUE").contains("WRITTEN AT"));
    assert!(
        row("logging.level ").ends_with("LOG_LEVEL"),
        "{}",
        row("logging.level ")
    );
    assert!(row("connection.password").contains("****"));
    assert!(row("connection.password").ends_with("communication.yaml:1"));
    assert!(row("drain_timeout").ends_with("default"));
    assert!(!shown.text().contains("hunter2") && !shown.stderr.contains("hunter2"));
}

#[tokio::test]
async fn show_for_programs_is_a_list_of_path_value_origin() {
    let place = Place::new();
    place.file(
        "one.toml",
        "[message_broker]\ntype = \"embedded\"\npassword = \"hunter2\"\n",
    );
    let args = ["config", "show", "--config", "one.toml", "--output", "json"];
    let shown = place.run(&args).await.done();
    assert!(!shown.text().contains("hunter2"));
    let settings: Vec<Value> = shown.json();
    assert!(settings.len() > 20);
    for setting in &settings {
        assert_eq!(keys(setting), ["origin", "path", "value"]);
    }
    assert!(
        settings
            .iter()
            .any(|setting| setting["origin"] == "one.toml:3")
    );
}

#[tokio::test]
async fn show_of_a_bad_configuration_is_every_problem_on_stderr() {
    let place = Place::new();
    place.file("communication.yaml", EIGHT_MISTAKES);
    let refused = place
        .run(&["config", "show"])
        .await
        .refused(2, "8 problems");
    for (line, key, _) in EIGHT_REPORTS {
        let place = format!("communication.yaml:{line}: {key}: ");
        assert_eq!(
            refused.stderr.matches(&place).count(),
            1,
            "{}",
            refused.stderr
        );
    }
    let error = place
        .run(&["--output", "json", "config", "show"])
        .await
        .ended(2)
        .error();
    assert_eq!(error["kind"], "config");
}

#[tokio::test]
async fn the_schema_is_json_and_knows_the_sections() {
    let place = Place::new();
    for args in [
        &["config", "schema"][..],
        &["config", "schema", "--output", "json"],
    ] {
        let schema: Value = place.run(args).await.done().json();
        assert!(schema["$schema"].is_string());
        for section in [
            "message_broker",
            "services",
            "gateway",
            "policies",
            "logging",
        ] {
            assert!(schema["properties"][section].is_object(), "{section}");
        }
    }
}
