//! Who writes where instances are, in registries in which they do not announce themselves: what controllers of a cluster do,
//! and who keeps a zone.

use std::fmt;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::time::Instant;
use trunkline_http::{Body, Limits, Origin, Transport, TransportConfig};
use trunkline_testing::servers::Server;
use trunkline_testing::servers::knot::{self, Change, Data, ZONE};
use trunkline_testing::servers::kubernetes::{ADMIN, ca_file};

/// The service that all of them are of.
pub(crate) const SERVICE: &str = "shop";
/// The time to live of records, in seconds.
const TTL: u32 = 1;
/// Time for one question.
const WITHIN: Duration = Duration::from_secs(5);
/// How soon it is tried again.
const AGAIN: Duration = Duration::from_millis(50);
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;

/// Writes once.
pub(crate) trait Scribe: Send + 'static {
    /// From now on the instances are at these places, and no others.
    fn write(&mut self, places: &[SocketAddr]) -> Result<()>;
}

/// Writes what is to be known until it is written, however long the registry is away.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    news: Condvar,
}

#[derive(Default)]
struct Wanted {
    places: Vec<SocketAddr>,
    is_written: bool,
    /// Why it could not be written the last time.
    problem: Option<String>,
    ended: bool,
}

impl Shared {
    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
    fn run(&self, mut scribe: Box<dyn Scribe>) {
        loop {
            let mut wanted = self.wanted();
            while wanted.is_written && !wanted.ended {
                let waited = self.news.wait(wanted);
                wanted = waited.unwrap_or_else(PoisonError::into_inner);
            }
            if wanted.ended {
                return;
            }
            wanted.is_written = true;
            let places = wanted.places.clone();
            drop(wanted);
            let problem = scribe.write(&places).err();
            let mut wanted = self.wanted();
            wanted.problem = problem.map(|error| format!("{error:#}"));
            if wanted.problem.is_some() {
                // Away, most likely.
                wanted.is_written = false;
                drop(wanted);
                std::thread::sleep(AGAIN);
            }
        }
    }
}

impl Writer {
    pub(crate) fn begin(scribe: Box<dyn Scribe>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("scribe".to_owned())
            .spawn(move || writing.run(scribe))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// From now on the instances are at these places.
    pub(crate) fn write(&self, places: Vec<SocketAddr>) {
        self.shared.wanted().places = places;
        self.again();
    }

    /// Why it could not be written the last time.
    pub(crate) fn problem(&self) -> Option<String> {
        self.shared.wanted().problem.clone()
    }

    /// What was written may be lost.
    pub(crate) fn again(&self) {
        self.shared.wanted().is_written = false;
        self.shared.news.notify_one();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.wanted().ended = true;
        self.shared.news.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by its thread.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

/// An address of this machine that is not loopback. Nothing is sent.
pub(crate) fn own_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    let connected = socket.connect(("198.51.100.1", 9));
    connected
        .context("this machine has no address but loopback, which Kubernetes does not take")?;
    let address = socket.local_addr()?.ip();
    ensure!(
        !address.is_loopback() && !address.is_unspecified(),
        "this machine has no address but loopback"
    );
    Ok(address)
}

struct Zone(SocketAddr);

/// The zone of a server of DNS.
pub(crate) fn dns(server: &Server) -> Result<Box<dyn Scribe>> {
    Ok(Box::new(Zone(server.address())))
}

impl Scribe for Zone {
    fn write(&mut self, places: &[SocketAddr]) -> Result<()> {
        let name = format!("_{SERVICE}._tcp.{ZONE}");
        let mut changes = vec![Change::Clear(name.clone())];
        for place in places {
            let IpAddr::V4(address) = place.ip() else {
                bail!("{place} is not of IPv4");
            };
            let host = format!("{}.{ZONE}", address.to_string().replace('.', "-"));
            changes.push(Change::Add(host.clone(), TTL, Data::A(address)));
            let srv = Data::Srv(0, 1, place.port(), host);
            changes.push(Change::Add(name.clone(), TTL, srv));
        }
        Ok(knot::update(self.0, &changes)?)
    }
}

/// Who may do everything in a cluster.
struct Cluster {
    runtime: Runtime,
    transport: Transport,
    origin: Origin,
}

const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// The slices of a cluster.
pub(crate) fn kubernetes(server: &Server) -> Result<Box<dyn Scribe>> {
    Ok(Box::new(Cluster::of(server)?))
}

/// Whether the API server says that it is ready; it listens long before.
pub(crate) fn is_ready(server: &Server) -> bool {
    let asked =
        Cluster::of(server).and_then(|cluster| cluster.answer("GET", "/readyz", String::new()));
    asked.is_ok()
}

impl Cluster {
    fn of(server: &Server) -> Result<Self> {
        let mut settings = TransportConfig::default();
        settings.ca_file = Some(ca_file(server.site()));
        settings.system_roots = false;
        let address = server.address();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let transport = Transport::new(&settings)?;
        drop(entered);
        Ok(Self {
            runtime,
            transport,
            origin: Origin::https(&address.ip().to_string(), address.port())?,
        })
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let answer = self.answer(method, path, body.to_string())?;
        Ok(serde_json::from_slice(&answer)?)
    }

    fn answer(&self, method: &str, path: &str, body: String) -> Result<Bytes> {
        let content = match method {
            "PATCH" => "application/apply-patch+yaml",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {ADMIN}"))
            .header("content-type", content)
            .body(Body::from(body))?;
        self.runtime.block_on(async {
            let limits = Limits::default().with_deadline(Instant::now() + WITHIN);
            let answer = self.transport.send(&self.origin, request, &limits).await?;
            let (parts, body) = answer.into_parts();
            let body = body.bytes(LONGEST_ANSWER).await?;
            // Somebody else may have deleted it just now.
            let gone = method == "DELETE" && parts.status == StatusCode::NOT_FOUND;
            ensure!(
                parts.status.is_success() || gone,
                "{method} {path}: {}",
                parts.status
            );
            Ok(body)
        })
    }
}

impl Scribe for Cluster {
    /// A slice for each: those of one slice have one port.
    fn write(&mut self, places: &[SocketAddr]) -> Result<()> {
        let selector = format!("labelSelector=kubernetes.io%2Fservice-name%3D{SERVICE}");
        let there = self.ask("GET", &format!("{SLICES}?{selector}"), &json!({}))?;
        let there = there["items"].as_array().context("a list of slices")?;
        let there: Vec<&str> = there
            .iter()
            .filter_map(|slice| slice["metadata"]["name"].as_str())
            .collect();
        let wanted: Vec<(String, &SocketAddr)> = places
            .iter()
            .map(|place| {
                let host = place.ip().to_string().replace('.', "-");
                (format!("{SERVICE}-{host}-{}", place.port()), place)
            })
            .collect();
        for (name, place) in &wanted {
            if there.contains(&name.as_str()) {
                continue;
            }
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": name, "labels": {"kubernetes.io/service-name": SERVICE}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": place.port()}],
                "endpoints": [{"addresses": [place.ip().to_string()], "conditions": {"ready": true}}],
            });
            let path = format!("{SLICES}/{name}?fieldManager=scribe&force=true");
            self.ask("PATCH", &path, &slice)?;
        }
        for name in there {
            if !wanted.iter().any(|(kept, _)| kept == name) {
                self.ask("DELETE", &format!("{SLICES}/{name}"), &json!({}))?;
            }
        }
        Ok(())
    }
}
