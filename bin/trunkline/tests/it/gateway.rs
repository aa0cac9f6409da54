//! `trunkline gateway`.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use trunkline::http::{HttpClient, Response};

use crate::place::{Outcome, Place, Running};
use crate::upstream::{Nobody, Rude, Upstream};

/// A gateway that runs on a port of its own choice.
pub(crate) struct Gateway {
    pub(crate) place: Place,
    running: Running,
    address: SocketAddr,
}

impl Gateway {
    pub(crate) async fn start(place: Place, args: &[&str]) -> Self {
        let args = [&["gateway", "--port", "0"], args].concat();
        let mut running = place.start(&args);
        let line = running.remark("\"listening\"").await;
        let line: Value = serde_json::from_str(&line).unwrap();
        let address = line["fields"]["address"].as_str().unwrap().parse().unwrap();
        Self {
            place,
            running,
            address,
        }
    }

    /// In front of `user-service` at this place, found in a file that lets it answer soon.
    pub(crate) async fn before(url: &str) -> Self {
        let place = Place::new();
        let (host, port) = url
            .strip_prefix("http://")
            .unwrap()
            .split_once(':')
            .unwrap();
        place.file(
            "gateway.yaml",
            &format!(
                "gateway:\n  circuits: true\n  services:\n    user-service: {{ host: {host}, port: {port}, timeout: 300ms, retry: {{ delay: 1ms }} }}\n",
            ),
        );
        Self::start(place, &["-c", "gateway.yaml"]).await
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let client = HttpClient::new(self.url()).unwrap();
        client.get(path).send().await.unwrap()
    }

    async fn stop(self, signal: Signal) -> Outcome {
        self.running.stop(signal).await
    }
}

/// The problem document that an answer is.
async fn problem(answer: Response) -> Value {
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["correlation_id"].is_string(), "{problem}");
    problem
}

#[tokio::test]
async fn services_named_on_the_command_line_are_routed_to() {
    let (users, orders) = (Upstream::talkative().await, Upstream::talkative().await);
    let services = [
        format!("user-service={}", users.url()),
        format!("orders={}", orders.url()),
    ];
    let args = [
        "--service",
        &services[0],
        "--service",
        &services[1],
        "--host",
        "127.0.0.1",
    ];
    let gateway = Gateway::start(Place::new(), &args).await;
    for (path, upstream) in [("/api/v1/users/1?a=b", &users), ("/api/v1/orders", &orders)] {
        let heard: Value = gateway.get(path).await.json().await.unwrap();
        assert_eq!(heard["path"], path);
        assert_eq!(heard["headers"]["host"], upstream.address().to_string());
    }
    assert_eq!(
        problem(gateway.get("/api/v1/nobodies").await).await["status"],
        404
    );
    assert_eq!(gateway.get("/health/ready").await.status().as_u16(), 200);
    let metrics = gateway.get("/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("http_server_request_duration_seconds"),
        "{metrics}"
    );
    gateway.stop(Signal::TERM).await.done();
}

#[tokio::test]
async fn a_service_that_cannot_be_reached_is_503() {
    let nobody = Nobody::new();
    let gateway = Gateway::before(&nobody.url()).await;
    let problem = problem(gateway.get("/api/v1/users").await).await;
    assert_eq!(problem["status"], 503);
    assert_eq!(problem["service"], "user-service");
    gateway.stop(Signal::INT).await.done();
}

#[tokio::test]
async fn a_service_that_answers_nothing_is_502() {
    let rude = Rude::new().await;
    let gateway = Gateway::before(&rude.url()).await;
    let problem = problem(gateway.get("/api/v1/users").await).await;
    assert_eq!(problem["status"], 502);
    assert_eq!(problem["service"], "user-service");
}

#[tokio::test]
async fn a_service_that_never_answers_is_504() {
    let stuck = Upstream::stuck().await;
    let gateway = Gateway::before(&stuck.url()).await;
    let problem = problem(gateway.get("/api/v1/users").await).await;
    assert_eq!(problem["status"], 504);
    assert_eq!(problem["service"], "user-service");
}

#[tokio::test]
async fn it_serves_services_of_the_registry_that_come_while_it_runs() {
    let place = Place::new();
    let (url, upstream) = (place.url(), Upstream::talkative().await);
    let services = format!(
        "embedded: {{ path: {} }}\ngateway: {{ services: {{ user-service: {{}} }} }}\n",
        place.data().display()
    );
    place.file("communication.yaml", &services);
    let gateway = Gateway::start(place, &[]).await;
    let address = upstream.address().to_string();
    let args = ["services", "register", &url, "user-service", &address];
    let mut registration = gateway.place.start(&args);
    registration.line().await;
    crate::place::eventually(async || {
        let answer = gateway.get("/api/v1/users").await;
        (answer.status().as_u16() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_follows_its_configuration() {
    let stuck = Upstream::stuck().await;
    let place = Place::new();
    let (host, port) = (stuck.address().ip(), stuck.address().port());
    let written = |timeout: &str| {
        format!(
            "gateway:\n  services:\n    user-service: {{ host: {host}, port: {port}, timeout: {timeout}, retry: {{ enabled: false }} }}\n"
        )
    };
    place.file("communication.yaml", &written("1h"));
    let gateway = Gateway::start(place, &[]).await;
    let patience = Duration::from_millis(500);
    let waits = tokio::time::timeout(patience, gateway.get("/api/v1/users")).await;
    assert!(waits.is_err(), "an hour is not over");
    // What cannot be used changes nothing, and the next one that can be is taken over.
    gateway.place.file("communication.yaml", &written("soon"));
    gateway.place.file("communication.yaml", &written("50ms"));
    crate::place::eventually(async || {
        let waits = tokio::time::timeout(patience, gateway.get("/api/v1/users"));
        let answer = waits.await.ok()?;
        (answer.status().as_u16() == 504).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_typed_wrong_is_exit_2() {
    let place = Place::new();
    for (args, says) in [
        (&["gateway", "--service", "users"][..], "write NAME=VALUE"),
        (
            &["gateway", "--service", "users=ftp://x"],
            "is no address of a service",
        ),
        (
            &["gateway", "--service", "users=nowhere"],
            "is no address of a service",
        ),
        (
            &["gateway", "--service", "a b=http://x"],
            "is no service name",
        ),
        (&["gateway", "--port", "99999"], "99999"),
    ] {
        place.run(args).await.refused(2, says);
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_exit_1() {
    let place = Place::new();
    let taken = Upstream::talkative().await;
    let port = taken.address().port().to_string();
    let service = format!("users={}", taken.url());
    let args = ["gateway", "--port", &port, "--service", &service];
    let failed = place.run(&args).await.ended(1);
    let last = failed.stderr.lines().last().unwrap();
    assert!(
        last.starts_with("error: ") && last.contains(&port),
        "{last}"
    );
}
