//! The registries that the proofs about discovery are about, on real servers.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use trunkline::backends;
use trunkline::discovery::{AnyRegistry, AnyResolver, ServiceDiscoveryConfig};
use trunkline_testing::faults::Relay;
use trunkline_testing::servers::{CONSUL, ETCD, Server, System, consul, etcd};

/// A registry, and what it needs.
#[derive(Debug)]
pub(crate) struct Subject {
    /// As the tables call it.
    pub(crate) name: &'static str,
    /// The server; none for the registry in a directory.
    pub(crate) system: Option<&'static System>,
    /// Makes it forget everything that was announced, behind the back of those who did.
    pub(crate) forget: fn(&Stage) -> Result<()>,
    /// Makes it forget its history, where it keeps one.
    pub(crate) compact: Option<fn(SocketAddr) -> Result<()>>,
}

pub(crate) static ON_EMBEDDED: Subject = Subject {
    name: "embedded",
    system: None,
    forget: |stage| {
        let path = stage.directory.path().join("registry.db");
        let database = trunkline::sqlite::Connection::open(&path)?;
        database.busy_timeout(std::time::Duration::from_secs(10))?;
        let gone = database.execute("DELETE FROM instance", [])?;
        if gone == 0 {
            bail!("{} holds no instance", path.display());
        }
        Ok(())
    },
    compact: None,
};

pub(crate) static ON_CONSUL: Subject = Subject {
    name: "Consul",
    system: Some(&CONSUL),
    forget: |stage| {
        let at = stage.server_address()?;
        let known: Value = serde_json::from_str(&consul::get(at, "/v1/agent/services")?)?;
        for id in known.as_object().context("services by id")?.keys() {
            let path = format!("/v1/agent/service/deregister/{}", escaped(id));
            consul::call(at, "PUT", &path, "")?;
        }
        Ok(())
    },
    compact: None,
};

pub(crate) static ON_ETCD: Subject = Subject {
    name: "etcd",
    system: Some(&ETCD),
    forget: |stage| {
        // Every key: from the zero byte to the zero byte.
        let all = json!({ "key": "AA==", "range_end": "AA==" }).to_string();
        etcd::call(stage.server_address()?, "POST", "/v3/kv/deleterange", &all)?;
        Ok(())
    },
    compact: Some(|at| {
        let any = json!({ "key": "AA==" }).to_string();
        let found: Value = serde_json::from_str(&etcd::call(at, "POST", "/v3/kv/range", &any)?)?;
        let revision = &found["header"]["revision"];
        let now = json!({ "revision": revision, "physical": true }).to_string();
        etcd::call(at, "POST", "/v3/kv/compaction", &now)?;
        Ok(())
    }),
};

/// The registry, and two links to it that fail on demand: one that callers go over, one that instances go over.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) server: Option<Server>,
    pub(crate) callers: Option<Relay>,
    pub(crate) instances: Option<Relay>,
    pub(crate) directory: tempfile::TempDir,
}

/// Over which way the registry is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Callers,
    Instances,
    Direct,
}

impl Stage {
    pub(crate) fn set(subject: &Subject) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let server = subject.system.map(Server::start).transpose()?;
        let relay = || {
            let server = server.as_ref();
            let relay = server.map(|server| Relay::to(server.address()));
            relay.transpose().context("cannot relay")
        };
        let (callers, instances) = (relay()?, relay()?);
        Ok(Self {
            server,
            callers,
            instances,
            directory,
        })
    }

    pub(crate) fn url(&self, way: Way) -> String {
        let Some(server) = &self.server else {
            return format!("embedded://{}", self.directory.path().display());
        };
        let link = match way {
            Way::Callers => &self.callers,
            Way::Instances => &self.instances,
            Way::Direct => &None,
        };
        let direct = server.address().to_string();
        let via = link.as_ref().map_or(server.address(), Relay::address);
        server.url().replace(&direct, &via.to_string())
    }

    pub(crate) fn open(&self, way: Way) -> Result<(AnyRegistry, AnyResolver)> {
        let config = ServiceDiscoveryConfig::from_url(&self.url(way))?;
        Ok(backends::open_discovery(&config)?)
    }

    pub(crate) fn server(&mut self) -> Result<&mut Server> {
        self.server.as_mut().context("it has no server")
    }

    fn server_address(&self) -> Result<SocketAddr> {
        let server = self.server.as_ref().context("it has no server")?;
        Ok(server.address())
    }

    /// Takes the data of a server that is down.
    pub(crate) fn wipe(&mut self) -> Result<()> {
        let data = self.server()?.site().data();
        for entry in fs::read_dir(&data)? {
            let path = entry?.path();
            if path.is_dir() {
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
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
