//! What stands in the cluster, as tests write it.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use trunkline_core::BoxFuture;
use trunkline_discovery::{ServiceDiscoveryConfig, ServiceName};
use trunkline_http::{Body, Limits, Origin, Transport, TransportConfig};
use trunkline_kubernetes::KubernetesConfig;
use trunkline_testing::resolver::{Editor, Place};
use trunkline_testing::servers::kubernetes::{ADMIN, ca_file};
use trunkline_testing::servers::{self, KUBERNETES, Server};

/// Longest that a test waits for something that must happen.
pub(crate) const SOON: Duration = Duration::from_secs(90);

/// The URL of the server that tests share.
pub(crate) async fn shared() -> Option<String> {
    tokio::task::spawn_blocking(|| servers::shared(&KUBERNETES))
        .await
        .unwrap()
}

pub(crate) async fn own() -> Option<Server> {
    tokio::task::spawn_blocking(|| servers::own(&KUBERNETES))
        .await
        .unwrap()
}

/// Does something with the server that blocks.
pub(crate) async fn with(
    mut server: Server,
    work: impl FnOnce(&mut Server) + Send + 'static,
) -> Server {
    let worked = tokio::task::spawn_blocking(move || {
        work(&mut server);
        server
    });
    worked.await.unwrap()
}

pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let look = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(SOON, look).await.is_ok(), "{what}");
}

pub(crate) fn config(url: &str) -> KubernetesConfig {
    let neutral = ServiceDiscoveryConfig::from_url(url).unwrap();
    let mut config = KubernetesConfig::from_neutral(&neutral).unwrap();
    // Servers of tests have little to do, and much company.
    config.request_timeout = Duration::from_secs(20);
    config
}

pub(crate) fn unique(what: &str) -> ServiceName {
    ServiceName::new(format!("{what}-{}", trunkline_core::Id::new())).unwrap()
}

/// An administrator of the cluster.
#[derive(Clone)]
pub(crate) struct Cluster {
    transport: Transport,
    origin: Origin,
    /// The ports that were ever written of each service.
    written: Arc<Mutex<HashMap<ServiceName, BTreeSet<u16>>>>,
}

impl Cluster {
    pub(crate) fn of(url: &str) -> Self {
        let neutral = ServiceDiscoveryConfig::from_url(url).unwrap();
        let mut settings = TransportConfig::default();
        settings.ca_file = Some(PathBuf::from(neutral.options["ca_file"].as_str().unwrap()));
        settings.system_roots = false;
        let (host, port) = (
            neutral.connection.host.unwrap(),
            neutral.connection.port.unwrap(),
        );
        Self {
            transport: Transport::new(&settings).unwrap(),
            origin: Origin::https(&host, port).unwrap(),
            written: Arc::default(),
        }
    }

    /// Asks until the server takes it, and returns what it says.
    pub(crate) async fn ask(&self, method: &str, path: &str, content: &str, body: &Value) -> Value {
        let until = Instant::now() + SOON;
        loop {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("authorization", format!("Bearer {ADMIN}"))
                .header("content-type", content)
                .body(Body::from(body.to_string()))
                .unwrap();
            let limits = Limits::default().with_deadline(until);
            let sent = self.transport.send(&self.origin, request, &limits).await;
            let why = match sent {
                Ok(answer) => {
                    let (parts, body) = answer.into_parts();
                    let body = body.bytes(10_000_000).await.unwrap();
                    let code = parts.status.as_u16();
                    if parts.status.is_success() || code == 409 {
                        return serde_json::from_slice(&body).unwrap();
                    }
                    let text = String::from_utf8_lossy(&body).into_owned();
                    // While it starts it refuses this and that.
                    assert!(
                        code >= 500 || code == 403 || code == 429,
                        "{method} {path}: {code} {text}"
                    );
                    text
                }
                Err(error) => error.report().to_string(),
            };
            assert!(Instant::now() < until, "{method} {path}: {why}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes an object be as it is written, whether there is one or not.
    pub(crate) async fn apply(&self, path: &str, object: &Value) {
        let path = format!("{path}?fieldManager=tests&force=true");
        self.ask("PATCH", &path, "application/apply-patch+yaml", object)
            .await;
    }

    /// A slice of a service: what is in it besides its labels.
    pub(crate) async fn slice(&self, namespace: &str, service: &str, name: &str, content: &Value) {
        let path =
            format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}");
        let mut slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
        });
        for (key, value) in content.as_object().unwrap() {
            slice[key] = value.clone();
        }
        self.apply(&path, &slice).await;
    }

    pub(crate) async fn end(&self, deadline: Instant) {
        self.transport.shutdown(deadline).await;
    }

    pub(crate) async fn namespace(&self, name: &str) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        self.apply(&format!("/api/v1/namespaces/{name}"), &object)
            .await;
    }
}

/// Writes instances as endpoints of two slices for each port, some of them in both.
impl Editor for Cluster {
    fn write<'a>(&'a self, service: &'a ServiceName, places: &'a [Place]) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let ports: BTreeSet<u16> = {
                let mut written = self.written.lock().unwrap();
                // Those that an earlier list had are emptied.
                let ports = written.entry(service.clone()).or_default();
                ports.extend(places.iter().map(|place| place.port));
                ports.clone()
            };
            for port in ports {
                let endpoints: Vec<Value> = places
                    .iter()
                    .filter(|place| place.port == port)
                    .map(|place| json!({"addresses": [place.host], "conditions": {"ready": true}}))
                    .collect();
                let half = endpoints.len() / 2;
                let first = endpoints.get(..=half).unwrap_or(&endpoints).to_vec();
                let second = endpoints.get(half..).unwrap_or_default().to_vec();
                for (n, endpoints) in [first, second].into_iter().enumerate() {
                    let content =
                        json!({"ports": [{"name": "http", "port": port}], "endpoints": endpoints});
                    let name = format!("{service}-{port}-{n}");
                    self.slice("default", service.as_str(), &name, &content)
                        .await;
                }
            }
        })
    }
}

pub(crate) fn url_of(server: &Server, address: SocketAddr) -> String {
    let ca = ca_file(server.site());
    format!(
        "kubernetes://:{ADMIN}@{address}/default?ca_file={}",
        ca.display()
    )
}
