//! `trunkline call`, to a small HTTP server that is registered as `web`.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::place::{Place, Running, keys};
use crate::upstream::{Nobody, Upstream};

/// A service, registered by the command.
struct Web {
    place: Place,
    upstream: Upstream,
    _registration: Running,
}

impl Web {
    async fn new() -> Self {
        let (place, upstream) = (Place::new(), Upstream::talkative().await);
        let (url, address) = (place.url(), upstream.address().to_string());
        let mut registration = place.start(&["services", "register", &url, "web", &address]);
        registration.line().await;
        Self {
            place,
            upstream,
            _registration: registration,
        }
    }

    /// The arguments of a call by name.
    fn args<'a>(url: &'a str, args: &[&'a str]) -> Vec<&'a str> {
        [&["call", "--registry", url, "web"], args].concat()
    }

    async fn call(&self, args: &[&str]) -> crate::place::Outcome {
        self.place.run(&Self::args(&self.place.url(), args)).await
    }

    /// What the service heard.
    async fn heard(&self, args: &[&str]) -> Value {
        self.call(args).await.done().json()
    }
}

#[tokio::test]
async fn a_service_is_called_by_its_name() {
    let web = Web::new().await;
    let heard = web.heard(&["get", "/items?page=2"]).await;
    assert_eq!(
        (&heard["method"], &heard["path"]),
        (&json!("GET"), &json!("/items?page=2"))
    );
    assert_eq!(heard["headers"]["host"], web.upstream.address().to_string());
    assert!(heard["headers"]["x-correlation-id"].is_string());
    assert_eq!(heard["body"], "");

    let text = web.call(&["GET", "/text"]).await.done();
    assert_eq!(text.text(), "a line without an end\n");
    assert_eq!(text.stderr, "200\n");
}

#[tokio::test]
async fn a_body_and_headers_are_sent_as_they_are() {
    let web = Web::new().await;
    let args = [
        "POST",
        "/items",
        "--data",
        r#"{"id":1}"#,
        "--header",
        "X-Tenant=a=b",
    ];
    let heard = web.heard(&args).await;
    assert_eq!(
        (&heard["method"], &heard["body"]),
        (&json!("POST"), &json!(r#"{"id":1}"#))
    );
    assert_eq!(heard["headers"]["content-type"], "application/json");
    assert_eq!(heard["headers"]["x-tenant"], "a=b");

    let args = [
        "PUT",
        "/items",
        "-d",
        "words",
        "--header",
        "content-type=text/markdown",
    ];
    let heard = web.heard(&args).await;
    assert_eq!(
        (&heard["method"], &heard["body"]),
        (&json!("PUT"), &json!("words"))
    );
    assert_eq!(heard["headers"]["content-type"], "text/markdown");

    let url = web.place.url();
    let args = Web::args(&url, &["POST", "/items", "--data", "-"]);
    let heard: Value = web.place.feed(&args, b"from stdin").await.done().json();
    assert_eq!(heard["body"], "from stdin");
}

#[tokio::test]
async fn an_answer_for_programs_is_status_headers_and_body() {
    let web = Web::new().await;
    let answer = web
        .call(&["GET", "/items", "--output", "json"])
        .await
        .done();
    let answer = answer.json_lines().remove(0);
    assert_eq!(keys(&answer), ["body", "headers", "status"]);
    assert_eq!(
        (&answer["status"], &answer["body"]["path"]),
        (&json!(200), &json!("/items"))
    );
    let answer = web.call(&["GET", "/text", "--output", "json"]).await.done();
    let answer = answer.json_lines().remove(0);
    assert_eq!(answer["body"], "a line without an end");
    assert_eq!(
        answer["headers"]["content-type"],
        "text/plain; charset=utf-8"
    );
    assert_eq!(answer["headers"]["content-length"], "21");
}

#[tokio::test]
async fn an_error_status_is_an_answer_unless_it_shall_fail() {
    let web = Web::new().await;
    let answer = web.call(&["GET", "/missing"]).await.done();
    assert_eq!(
        (answer.text(), answer.stderr.as_str()),
        ("not here\n", "404\n")
    );
    let answer = web.call(&["GET", "/missing", "--fail"]).await.ended(1);
    assert_eq!(answer.text(), "not here\n");
    web.call(&["GET", "/text", "--fail"]).await.done();
}

#[tokio::test]
async fn too_late_is_exit_3() {
    let web = Web::new().await;
    let args = ["GET", "/stuck", "--timeout", "200ms"];
    web.call(&args)
        .await
        .refused(3, "the total timeout ran out");
    let as_json = [&args[..], &["--output", "json"]].concat();
    assert_eq!(web.call(&as_json).await.ended(3).error()["kind"], "timeout");
}

#[tokio::test]
async fn a_service_without_an_instance_is_exit_1() {
    let place = Place::new();
    let url = place.url();
    let args = [
        "call",
        "web",
        "GET",
        "/",
        "--registry",
        &url,
        "--output",
        "json",
    ];
    let refused = place.run(&args).await.refused(1, "has no instance");
    assert_eq!(refused.error()["kind"], "rejected");
}

#[tokio::test]
async fn a_service_that_went_is_no_longer_called() {
    let web = Web::new().await;
    web.call(&["GET", "/text"]).await.done();
    let Web {
        place,
        _registration,
        ..
    } = web;
    _registration.stop(Signal::TERM).await.done();
    let url = place.url();
    place
        .run(&Web::args(&url, &["GET", "/text"]))
        .await
        .refused(1, "has no instance");
}

#[tokio::test]
async fn without_a_registry_the_configuration_says_where_it_is() {
    let (place, upstream) = (Place::new(), Upstream::talkative().await);
    let (address, nobody) = (upstream.address(), Nobody::new());
    let services = format!(
        "services:\n  web: {{ host: {}, port: {}, retry: {{ delay: 1ms }} }}\n  dead: {{ base_url: \"{}\", retry: {{ delay: 1ms }} }}\n",
        address.ip(),
        address.port(),
        nobody.url(),
    );
    place.file("web.yaml", &services);
    let args = ["call", "-c", "web.yaml", "web", "GET", "/text"];
    assert_eq!(
        place.run(&args).await.done().text(),
        "a line without an end\n"
    );
    let args = ["call", "-c", "web.yaml", "dead", "GET", "/text"];
    place.run(&args).await.refused(1, "cannot connect");
}

#[tokio::test]
async fn what_is_typed_wrong_is_exit_2() {
    let web = Web::new().await;
    for (args, says) in [
        (&["G T", "/"][..], "is no HTTP method"),
        (&["GET", "/", "--header", "x"], "write NAME=VALUE"),
        (&["GET", "/", "--header", "a b=c"], "header"),
        (&["GET", "/", "--timeout", "soon"], "is not a duration"),
        (&["GET"], "<PATH>"),
    ] {
        web.call(args).await.refused(2, says);
    }
    for (args, says) in [
        (["call", "a b", "GET", "/"].as_slice(), "nor a service name"),
        (
            &["call", "web", "GET", "/", "--registry", "zookeeper://x"],
            "is not known",
        ),
        (
            &["call", "web", "GET", "/", "--registry", "no url"],
            "not a connection URL",
        ),
    ] {
        web.place.run(args).await.refused(2, says);
    }
}
