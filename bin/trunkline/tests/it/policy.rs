//! `trunkline policy explain`.

use serde_json::Value;

use crate::place::{Place, keys};

const SERVICES: &str = "\
policies:
  default: { request_timeout: 5s }
services:
  user-service:
    timeout: 3s
    endpoints:
      \"GET /users/{id}\": { timeout: 500ms }
";

fn place() -> Place {
    let place = Place::new();
    place.file("communication.yaml", SERVICES);
    place
}

async fn explained(args: &[&str]) -> Value {
    let args = [&["policy", "explain", "--output", "json"], args].concat();
    place().run(&args).await.done().json()
}

fn setting<'a>(explained: &'a Value, path: &str) -> &'a Value {
    let settings = explained["settings"].as_array().unwrap();
    let found = settings.iter().find(|setting| setting["path"] == path);
    found.unwrap_or_else(|| panic!("{path}: {explained}"))
}

#[tokio::test]
async fn a_service_has_its_own_values_over_the_common_ones() {
    let explained = explained(&["user-service"]).await;
    assert_eq!(explained["service"], "user-service");
    let total = setting(&explained, "timeout.total");
    assert_eq!(keys(total), ["layer", "origin", "path", "value"]);
    assert_eq!(
        (&total["value"], &total["origin"]),
        (&"3s".into(), &"communication.yaml:5".into())
    );
    assert_eq!(
        setting(&explained, "request_timeout")["layer"],
        "policies.default"
    );
    assert_eq!(
        setting(&explained, "retry.max_attempts")["layer"],
        "built-in"
    );
}

#[tokio::test]
async fn an_endpoint_is_found_by_its_template_whatever_the_case_of_the_method() {
    let explained = explained(&["user-service", "get", "/users/1"]).await;
    assert_eq!(explained["endpoint"], "GET /users/{id}");
    let total = setting(&explained, "timeout.total");
    assert_eq!(total["value"], "500ms");
    assert_eq!(total["origin"], "communication.yaml:7");
}

#[tokio::test]
async fn people_get_a_table() {
    let table = place()
        .run(&["policy", "explain", "user_service"])
        .await
        .done();
    let row = table
        .text()
        .lines()
        .find(|row| row.contains("timeout.total"))
        .unwrap();
    let words: Vec<_> = row.split_whitespace().collect();
    assert_eq!(
        words,
        [
            "timeout.total",
            "3s",
            "services.user-service",
            "communication.yaml:5"
        ]
    );
}

#[tokio::test]
async fn a_service_without_settings_has_the_defaults_and_a_remark() {
    let table = place().run(&["policy", "explain", "nobody"]).await.done();
    assert!(
        table.stderr.contains("`nobody` has no settings"),
        "{}",
        table.stderr
    );
    assert!(table.text().contains("policies.default"));
}

#[tokio::test]
async fn a_file_can_be_named() {
    let place = place();
    place.file(
        "other.yaml",
        "services: { user-service: { timeout: 9s } }\n",
    );
    let args = ["policy", "explain", "user-service", "-c", "other.yaml"];
    let table = place.run(&args).await.done();
    assert!(
        table.text().contains("other.yaml:1") && !table.text().contains("3s"),
        "{table:?}"
    );
}

#[tokio::test]
async fn what_is_no_service_or_half_an_endpoint_is_exit_2() {
    let place = place();
    place
        .run(&["policy", "explain", "a b"])
        .await
        .refused(2, "is no service name");
    place
        .run(&["policy", "explain", "user-service", "GET"])
        .await
        .refused(2, "<PATH>");
    place
        .run(&["policy", "explain"])
        .await
        .refused(2, "<SERVICE>");
}
