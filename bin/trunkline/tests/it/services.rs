//! `trunkline services`.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::place::{Place, Running, eventually, keys};

async fn registered(place: &Place, name: &str, address: &str, more: &[&str]) -> Running {
    let url = place.url();
    let args = [&["services", "register", &url, name, address], more].concat();
    let mut running = place.start(&args);
    let line = running.line().await;
    assert!(
        line.starts_with(&format!("registered {name} at http://{address}")),
        "{line}"
    );
    running
}

async fn listed(place: &Place, name: &str) -> Vec<Value> {
    let url = place.url();
    let args = ["services", "list", &url, name, "--output", "json"];
    place.run(&args).await.done().json()
}

async fn gone(place: &Place, name: &str) {
    eventually(async || listed(place, name).await.is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_registration_lasts_as_long_as_the_command_and_ends_at_sigterm() {
    let place = Place::new();
    let running = registered(&place, "web", "127.0.0.1:9000", &["--ttl", "500ms"]).await;
    // More than two times its lease.
    let end = Instant::now() + Duration::from_millis(1200);
    while Instant::now() < end {
        assert_eq!(listed(&place, "web").await.len(), 1);
    }
    running.stop(Signal::TERM).await.done();
    assert!(listed(&place, "web").await.is_empty());
}

#[tokio::test]
async fn a_killed_one_disappears_when_its_lease_is_over() {
    let place = Place::new();
    let running = registered(&place, "web", "127.0.0.1:9000", &["--ttl", "500ms"]).await;
    assert_eq!(listed(&place, "web").await.len(), 1);
    running.stop(Signal::KILL).await;
    gone(&place, "web").await;
}

#[tokio::test]
async fn what_is_said_of_an_instance_is_listed() {
    let place = Place::new();
    let url = place.url();
    let more = [
        "--metadata",
        "team=core",
        "--metadata",
        "a=b=c",
        "--version",
        "2.1.0",
    ];
    let _web = registered(&place, "web", "127.0.0.1:9000", &more).await;
    let _mail = registered(&place, "mailer", "[::1]:25", &[]).await;

    let web = &listed(&place, "web").await[0];
    assert_eq!(web["name"], "web");
    assert_eq!(web["version"], "2.1.0");
    assert_eq!(web["metadata"], json!({ "team": "core", "a": "b=c" }));

    let table = place.run(&["services", "list", &url]).await.done();
    let row = table
        .text()
        .lines()
        .find(|row| row.contains(" web "))
        .unwrap();
    for word in [
        "http://127.0.0.1:9000",
        "up",
        "2.1.0",
        "team=core",
        web["id"].as_str().unwrap(),
    ] {
        assert!(row.contains(word), "{word}: {row}");
    }
    let all: Vec<Value> = place
        .run(&["services", "list", &url, "--output", "json"])
        .await
        .done()
        .json();
    let names: Vec<_> = all
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["mailer", "web"]);
}

#[tokio::test]
async fn callers_ask_how_an_instance_is_only_where_it_says_that_it_answers() {
    let place = Place::new();
    let _plain = registered(&place, "web", "127.0.0.1:9000", &[]).await;
    let path = ["--health-check-path", "/up"];
    let _well = registered(&place, "mailer", "127.0.0.1:9001", &path).await;
    let path = |instances: Vec<Value>| instances[0]["health_check_path"].clone();
    assert_eq!(path(listed(&place, "web").await), "");
    assert_eq!(path(listed(&place, "mailer").await), "/up");
}

#[tokio::test]
async fn a_registration_for_programs_is_one_line() {
    let place = Place::new();
    let url = place.url();
    let args = [
        "services",
        "register",
        &url,
        "web",
        "127.0.0.1:9000",
        "--output",
        "json",
    ];
    let mut running = place.start(&args);
    let line = running.json().await;
    assert_eq!(keys(&line), ["registered"]);
    assert_eq!(line["registered"], listed(&place, "web").await[0]);
    let rest = running.stop(Signal::INT).await.done();
    assert_eq!((rest.text(), rest.stderr.as_str()), ("", ""));
}

#[tokio::test]
async fn a_watch_sees_it_come_and_go() {
    let place = Place::new();
    let url = place.url();
    let args = [
        "services", "watch", &url, "web", "--output", "json", "--count", "3",
    ];
    let mut watch = place.start(&args);
    let first = watch.json().await;
    assert_eq!(keys(&first), ["instances", "revision", "service"]);
    assert_eq!(
        (&first["service"], &first["instances"]),
        (&json!("web"), &json!([]))
    );

    let running = registered(&place, "web", "127.0.0.1:9000", &[]).await;
    let second = watch.json().await;
    assert_eq!(
        second["instances"],
        Value::Array(listed(&place, "web").await)
    );
    running.stop(Signal::TERM).await.done();
    assert_eq!(watch.json().await["instances"], json!([]));
    watch.end().await.done();
}

#[tokio::test]
async fn a_watch_without_a_name_is_of_all_that_are_there_and_ends_when_asked() {
    let place = Place::new();
    let url = place.url();
    let none = place.run(&["services", "watch", &url]).await.done();
    assert_eq!(none.stderr, "no service is registered\n");

    let _web = registered(&place, "web", "127.0.0.1:9000", &[]).await;
    for signal in [Signal::INT, Signal::TERM] {
        let mut watch = place.start(&["services", "watch", &url]);
        assert_eq!(watch.line().await, "web: 1 instance(s)");
        watch.stop(signal).await.done();
    }
}

#[tokio::test]
async fn a_watch_without_a_name_sees_services_that_come_later() {
    let place = Place::new();
    let url = place.url();
    let _web = registered(&place, "web", "127.0.0.1:9000", &[]).await;
    let mut watch = place.start(&["services", "watch", &url, "--output", "json"]);
    assert_eq!(watch.json().await["service"], "web");
    let _mail = registered(&place, "mail", "[2001:db8::1]:9001", &[]).await;
    let later = watch.json().await;
    assert_eq!(later["service"], "mail");
    assert_eq!(later["instances"][0]["host"], "2001:db8::1");
    watch.stop(Signal::INT).await.done();
}

#[tokio::test]
async fn an_instance_is_withdrawn_by_its_address_or_its_id() {
    let place = Place::new();
    let url = place.url();
    let _one = registered(&place, "web", "127.0.0.1:9001", &["--ttl", "1m"]).await;
    let _two = registered(&place, "web", "127.0.0.1:9002", &["--ttl", "1m"]).await;

    let by_address = ["services", "deregister", &url, "web", "127.0.0.1:9001"];
    let said = place.run(&by_address).await.done();
    assert_eq!(said.text(), "withdrew 1 instance(s) of web\n");
    place
        .run(&by_address)
        .await
        .refused(1, "web has no instance 127.0.0.1:9001");

    let left = listed(&place, "web").await;
    assert_eq!(left.len(), 1);
    let id = left[0]["id"].as_str().unwrap();
    let by_id = [
        "services",
        "deregister",
        &url,
        "web",
        id,
        "--output",
        "json",
    ];
    let withdrawn: Vec<Value> = place.run(&by_id).await.done().json();
    assert_eq!(withdrawn, left);
    assert!(listed(&place, "web").await.is_empty());
}

#[tokio::test]
async fn what_is_typed_wrong_is_exit_2() {
    let place = Place::new();
    let url = place.url();
    for (args, says) in [
        (&["services", "list", "zookeeper://x"][..], "is not known"),
        (&["services", "list", "no url"], "not a connection URL"),
        (&["services", "list", &url, "a b"], "is no service name"),
        (&["services", "watch", &url, "a b"], "is no service name"),
        (
            &["services", "register", &url, "a b", "h:1"],
            "is no service name",
        ),
        (
            &["services", "register", &url, "web", "nowhere"],
            "write HOST:PORT",
        ),
        (
            &["services", "register", &url, "web", "h:0"],
            "write HOST:PORT",
        ),
        (
            &["services", "register", &url, "web", ":80"],
            "write HOST:PORT",
        ),
        (
            &["services", "register", &url, "web", "::1"],
            "write HOST:PORT or [IPV6]:PORT",
        ),
        (
            &["services", "register", &url, "web", "2001:db8::1:80"],
            "write HOST:PORT or [IPV6]:PORT",
        ),
        (
            &["services", "register", &url, "web", "[h]:80"],
            "write HOST:PORT or [IPV6]:PORT",
        ),
        (
            &["services", "register", &url, "web", "h:99999"],
            "write HOST:PORT",
        ),
        (
            &["services", "register", &url, "web", "h:1", "--ttl", "0s"],
            "must last longer",
        ),
        (
            &[
                "services",
                "register",
                &url,
                "web",
                "h:1",
                "--metadata",
                "x",
            ],
            "write NAME=VALUE",
        ),
        (
            &["services", "deregister", "zookeeper://x", "web", "h:1"],
            "is not known",
        ),
    ] {
        place.run(args).await.refused(2, says);
    }
}
