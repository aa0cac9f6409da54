//! Kubernetes by URL: its API server alone, on which slices are written.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use axum::http::Request;
use serde_json::json;
use tokio::time::Instant;
use trunkline::discovery::ServiceDiscoveryConfig;
use trunkline::http::{Body, Limits, Origin, Transport, TransportConfig};
use trunkline_testing::servers::KUBERNETES;
use trunkline_testing::servers::kubernetes::ADMIN;

use super::*;

/// Where the API server is, and who signed its certificate.
struct Cluster {
    host: String,
    port: u16,
    ca: PathBuf,
}

impl Cluster {
    fn of(url: &str) -> Self {
        let neutral = ServiceDiscoveryConfig::from_url(url).unwrap();
        Self {
            host: neutral.connection.host.unwrap(),
            port: neutral.connection.port.unwrap(),
            ca: PathBuf::from(neutral.options["ca_file"].as_str().unwrap()),
        }
    }

    /// Writes the slice of a service.
    async fn write(&self, service: &str, address: IpAddr, port: u16) {
        let mut settings = TransportConfig::default();
        settings.ca_file = Some(self.ca.clone());
        settings.system_roots = false;
        let transport = Transport::new(&settings).unwrap();
        let origin = Origin::https(&self.host, self.port).unwrap();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": "http", "port": port}],
            "endpoints": [{"addresses": [address.to_string()], "zone": "eu-1"}],
        });
        let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{service}");
        // While it starts it refuses this and that.
        eventually(async || {
            let request = Request::patch(format!("{path}?fieldManager=tests&force=true"))
                .header("authorization", format!("Bearer {ADMIN}"))
                .header("content-type", "application/apply-patch+yaml")
                .body(Body::from(slice.to_string()))
                .unwrap();
            let limits = Limits::default().with_deadline(Instant::now() + Duration::from_secs(10));
            let answer = transport.send(&origin, request, &limits).await.unwrap();
            answer.status().is_success().then_some(())
        })
        .await;
    }
}

/// An address of this machine that is not loopback, which Kubernetes does not take. Nothing is sent.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    let connected = socket.connect(("198.51.100.1", 9));
    connected.expect("this machine has an address that is not loopback");
    socket.local_addr().unwrap().ip()
}

#[tokio::test]
async fn what_slices_say_is_listed_watched_and_called() {
    let Some(url) = shared(&KUBERNETES).await else {
        return;
    };
    let cluster = Cluster::of(&url);
    let place = Place::new();
    let web = unique("web");
    let address = own_address();
    let upstream = Upstream::talkative_at(&address.to_string()).await;
    let watch = [
        "services", "watch", &url, &web, "--output", "json", "--count", "2",
    ];
    let mut watch = place.start(&watch);
    assert_eq!(watch.json().await["instances"], Value::Array(Vec::new()));
    cluster
        .write(&web, address, upstream.address().port())
        .await;
    let found = listed(&place, &url, &web).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["zone"], "eu-1");
    assert_eq!(watch.json().await["instances"], Value::Array(found.clone()));
    watch.end().await.done();
    let all = place
        .run(&["services", "list", &url, "--output", "json"])
        .await;
    assert!(all.done().json::<Vec<Value>>().contains(&found[0]));
    let call = ["call", "--registry", &url, &web, "GET", "/items?page=2"];
    let heard: Value = place.run(&call).await.done().json();
    assert_eq!(heard["path"], "/items?page=2");

    // As a pod asks: by its account, and by what it is told of the server.
    place.file("namespace", "default");
    place.file("token", ADMIN);
    std::fs::copy(&cluster.ca, place.path().join("ca.crt")).unwrap();
    let in_pod = format!("kubernetes://?account={}", place.path().display());
    let mut list = place.command(&["services", "list", &in_pod, &web, "--output", "json"]);
    list.env("KUBERNETES_SERVICE_HOST", &cluster.host)
        .env("KUBERNETES_SERVICE_PORT", cluster.port.to_string());
    let seen: Vec<Value> = Outcome::of(list).await.done().json();
    assert_eq!(seen, found);
    // The URL may say it, too.
    let named = format!("{in_pod}&api_server={}:{}", cluster.host, cluster.port);
    assert_eq!(listed(&place, &named, &web).await, found);
}

#[tokio::test]
async fn it_is_asked_by_url_and_announces_nothing() {
    let Some(url) = shared(&KUBERNETES).await else {
        return;
    };
    let place = Place::new();
    // What stands there is written by the tests of the backend; here it is who is asked, and how it is said.
    let all = place
        .run(&["services", "list", &url, "--output", "json"])
        .await;
    let _any: Vec<Value> = all.done().json();
    assert!(listed(&place, &url, &unique("nobody")).await.is_empty());
    let web = unique("web");
    let watch = [
        "services", "watch", &url, &web, "--output", "json", "--count", "1",
    ];
    let mut watch = place.start(&watch);
    assert_eq!(watch.json().await["instances"], Value::Array(Vec::new()));
    watch.end().await.done();
    let register = ["services", "register", &url, &web, "127.0.0.1:9"];
    let outcome = place.run(&register).await;
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(
        outcome.stderr.contains("nothing is announced"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn wrong_options_are_told_with_their_names() {
    let url = "kubernetes://127.0.0.1:9?weit=5s";
    let place = Place::new();
    let outcome = place.run(&["services", "list", url]).await;
    outcome.refused(2, "service_discovery.options.weit");
}

#[tokio::test]
async fn is_an_error_when_away() {
    super::is_an_error_when_away("kubernetes").await;
}
