//! The registries that the proofs about discovery are about, on real servers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::Instant;
use trunkline::backends;
use trunkline::discovery::{AnyRegistry, AnyResolver, ServiceDiscoveryConfig};
use trunkline_testing::faults::Relay;
use trunkline_testing::servers::{
    CONSUL, ETCD, KNOT, KUBERNETES, Server, Site, System, consul, etcd, knot,
};

use super::scribe::{self, Scribe};

/// How long a server may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How soon callers know the truth.
const SOON: Duration = Duration::from_secs(2);

/// A registry, and what it needs.
#[derive(Debug)]
pub(crate) struct Subject {
    /// As the tables call it.
    pub(crate) name: &'static str,
    /// Its servers: none for the registry in a directory, more than one for several registries at once.
    pub(crate) kinds: &'static [&'static Kind],
    /// How soon callers know the truth once it is back.
    pub(crate) known_within: Duration,
    /// What bounds that, where it is more than the two seconds of the others.
    pub(crate) bound: Option<&'static str>,
}

type Writes = fn(&Server) -> Result<Box<dyn Scribe>>;

/// A server of a registry.
#[derive(Debug)]
pub(crate) struct Kind {
    system: &'static System,
    /// Makes it forget everything that was announced, behind the back of those who did.
    forget: fn(&Server) -> Result<()>,
    /// Makes it forget its history, where it keeps one.
    compact: Option<fn(&Server) -> Result<()>>,
    /// Whether it is ready, where it listens before that.
    ready: fn(&Server) -> bool,
    /// Takes its data while it is down.
    wipe: fn(&Site) -> Result<()>,
    /// It is asked by datagrams as well.
    datagrams: bool,
    /// Who writes where the instances are, where they do not announce themselves.
    scribe: Option<Writes>,
}

impl Subject {
    const fn new(name: &'static str, kinds: &'static [&'static Kind]) -> Self {
        Self {
            name,
            kinds,
            known_within: SOON,
            bound: None,
        }
    }

    /// Instances do not announce themselves: somebody writes where they are.
    pub(crate) fn is_written(&self) -> bool {
        self.kinds.iter().any(|kind| kind.scribe.is_some())
    }

    /// Whether one of its servers keeps a history.
    pub(crate) fn compacts(&self) -> bool {
        self.kinds.iter().any(|kind| kind.compact.is_some())
    }

    /// Where instances listen. Kubernetes takes no address of loopback.
    pub(crate) fn host(&self) -> Result<IpAddr> {
        if self
            .kinds
            .iter()
            .any(|kind| kind.system.name == "kubernetes")
        {
            return scribe::own_address();
        }
        Ok(Ipv4Addr::LOCALHOST.into())
    }
}

pub(crate) static ON_EMBEDDED: Subject = Subject::new("embedded", &[]);
pub(crate) static ON_CONSUL: Subject = Subject::new("Consul", &[&CONSUL_ALONE]);
pub(crate) static ON_ETCD: Subject = Subject::new("etcd", &[&ETCD_ALONE]);
pub(crate) static ON_SEVERAL: Subject =
    Subject::new("Consul and etcd at once", &[&CONSUL_ALONE, &ETCD_ALONE]);
pub(crate) static ON_KUBERNETES: Subject = Subject::new("Kubernetes", &[&KUBERNETES_ALONE]);
pub(crate) static ON_DNS: Subject = Subject {
    name: "DNS",
    kinds: &[&KNOT_ALONE],
    known_within: Duration::from_secs(3),
    bound: Some("2 s and the time to live of its records, 1 s"),
};

static CONSUL_ALONE: Kind = Kind {
    system: &CONSUL,
    forget: |server| {
        let at = server.address();
        let known: Value = serde_json::from_str(&consul::get(at, "/v1/agent/services")?)?;
        for id in known.as_object().context("services by id")?.keys() {
            let path = format!("/v1/agent/service/deregister/{}", escaped(id));
            consul::call(at, "PUT", &path, "")?;
        }
        Ok(())
    },
    compact: None,
    ready: |_| true,
    wipe: |site| empty(&site.data()),
    datagrams: false,
    scribe: None,
};

static ETCD_ALONE: Kind = Kind {
    system: &ETCD,
    forget: |server| {
        // Every key: from the zero byte to the zero byte.
        let all = json!({ "key": "AA==", "range_end": "AA==" }).to_string();
        etcd::call(server.address(), "POST", "/v3/kv/deleterange", &all)?;
        Ok(())
    },
    compact: Some(|server| compact(server.address())),
    ready: |_| true,
    wipe: |site| empty(&site.data()),
    datagrams: false,
    scribe: None,
};

static KUBERNETES_ALONE: Kind = Kind {
    system: &KUBERNETES,
    forget: |server| scribe::kubernetes(server)?.write(&[]),
    compact: Some(|server| {
        // That of its own etcd.
        let port = *server.site().ports().get(1).context("the port of etcd")?;
        compact(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }),
    ready: scribe::is_ready,
    // Its certificates stay: callers know them.
    wipe: |site| empty(&site.data().join("etcd")),
    datagrams: false,
    scribe: Some(scribe::kubernetes),
};

static KNOT_ALONE: Kind = Kind {
    system: &KNOT,
    forget: |server| scribe::dns(server)?.write(&[]),
    compact: None,
    ready: |_| true,
    wipe: |site| {
        empty(&site.data())?;
        Ok(knot::write_zone(site)?)
    },
    datagrams: true,
    scribe: Some(scribe::dns),
};

fn compact(at: SocketAddr) -> Result<()> {
    let any = json!({ "key": "AA==" }).to_string();
    let found: Value = serde_json::from_str(&etcd::call(at, "POST", "/v3/kv/range", &any)?)?;
    let revision = &found["header"]["revision"];
    let now = json!({ "revision": revision, "physical": true }).to_string();
    etcd::call(at, "POST", "/v3/kv/compaction", &now)?;
    Ok(())
}

fn empty(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// A server, and two links to it that fail on demand: one that callers go over, one that instances go over.
#[derive(Debug)]
pub(crate) struct Post {
    kind: &'static Kind,
    pub(crate) server: Server,
    pub(crate) callers: Relay,
    pub(crate) instances: Relay,
}

/// The registry with all its servers.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) posts: Vec<Post>,
    /// Which of them things are done to.
    pub(crate) hit: usize,
    pub(crate) directory: tempfile::TempDir,
}

/// Over which way the registry is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Callers,
    Instances,
    Direct,
}

impl Post {
    fn begin(kind: &'static Kind) -> Result<Self> {
        let server = Server::start(kind.system)?;
        let relay = || match kind.datagrams {
            true => Relay::with_datagrams(server.address()),
            false => Relay::to(server.address()),
        };
        let (callers, instances) = (relay()?, relay()?);
        Ok(Self {
            kind,
            server,
            callers,
            instances,
        })
    }

    fn url(&self, way: Way) -> String {
        let via = match way {
            Way::Callers => self.callers.address(),
            Way::Instances => self.instances.address(),
            Way::Direct => self.server.address(),
        };
        let direct = self.server.address().to_string();
        self.server.url().replace(&direct, &via.to_string())
    }

    pub(crate) fn compacts(&self) -> bool {
        self.kind.compact.is_some()
    }

    pub(crate) fn compact(&self) -> Result<()> {
        let compact = self.kind.compact.context("it keeps no history")?;
        compact(&self.server)
    }

    /// Starts it again, and waits until it says that it is ready.
    #[expect(clippy::disallowed_methods, reason = "no task runs on this thread")]
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.server.restart()?;
        let until = Instant::now() + READY_WITHIN;
        while !(self.kind.ready)(&self.server) {
            ensure!(Instant::now() < until, "the server is not ready");
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Takes the data of a server that is down.
    pub(crate) fn wipe(&self) -> Result<()> {
        (self.kind.wipe)(self.server.site())
    }
}

impl Stage {
    pub(crate) fn set(subject: &Subject) -> Result<Self> {
        let posts = subject.kinds.iter().map(|kind| Post::begin(kind));
        Ok(Self {
            posts: posts.collect::<Result<_>>()?,
            hit: 0,
            directory: tempfile::tempdir()?,
        })
    }

    pub(crate) fn url(&self, way: Way) -> String {
        match self.posts.as_slice() {
            [] => format!("embedded://{}", self.directory.path().display()),
            [post] => post.url(way),
            posts => {
                let each = posts.iter().map(|post| {
                    let url = post.url(way).replace('%', "%25").replace('&', "%26");
                    format!("registry={url}")
                });
                format!("several://?{}", each.collect::<Vec<_>>().join("&"))
            }
        }
    }

    pub(crate) fn open(&self, way: Way) -> Result<(AnyRegistry, AnyResolver)> {
        let config = ServiceDiscoveryConfig::from_url(&self.url(way))?;
        Ok(backends::open_discovery(&config)?)
    }

    /// Each of its registries by itself, not over a link.
    pub(crate) fn each(&self) -> Result<Vec<AnyResolver>> {
        if self.posts.is_empty() {
            return Ok(vec![self.open(Way::Direct)?.1]);
        }
        let opened = self.posts.iter().map(|post| {
            let config = ServiceDiscoveryConfig::from_url(&post.url(Way::Direct))?;
            Ok(backends::open_discovery(&config)?.1)
        });
        opened.collect()
    }

    /// Writes where instances are, where they do not say so themselves.
    pub(crate) fn writer(&self) -> Result<Option<scribe::Writer>> {
        let Some(post) = self.posts.first() else {
            return Ok(None);
        };
        let writer = post.kind.scribe.map(|scribe| scribe(&post.server));
        writer.transpose()?.map(scribe::Writer::begin).transpose()
    }

    /// What things are done to.
    pub(crate) fn post(&mut self) -> Result<&mut Post> {
        self.posts.get_mut(self.hit).context("it has no server")
    }

    pub(crate) fn forget(&self) -> Result<()> {
        if let Some(post) = self.posts.get(self.hit) {
            return (post.kind.forget)(&post.server);
        }
        let path = self.directory.path().join("registry.db");
        let database = trunkline::sqlite::Connection::open(&path)?;
        database.busy_timeout(Duration::from_secs(10))?;
        let gone = database.execute("DELETE FROM instance", [])?;
        if gone == 0 {
            bail!("{} holds no instance", path.display());
        }
        Ok(())
    }
}

/// A part of a path.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
