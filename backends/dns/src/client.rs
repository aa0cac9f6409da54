//! Questions to the servers of DNS.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio_util::sync::CancellationToken;
use trunkline_core::{Error, Result};

use crate::config::{DnsConfig, IpFamilies};
use crate::error::{Nothing, ended, told};

/// Questions at a time; each watched service asks a few.
const QUESTIONS: usize = 1024;
/// Names and families whose addresses are remembered.
const REMEMBERED: usize = 4096;
/// How often one server is asked before it counts as one that does not answer.
const ATTEMPTS: usize = 2;

pub(crate) struct Client {
    /// Dropped at the end: with it go its connections.
    resolver: Mutex<Option<Arc<TokioResolver>>>,
    families: IpFamilies,
    known: KnownAddresses,
    timeout: Duration,
    closed: CancellationToken,
}

/// The addresses of names by their family, as they were last known.
#[derive(Debug, Default)]
struct KnownAddresses(Mutex<BTreeMap<(Name, RecordType), Vec<IpAddr>>>);

impl KnownAddresses {
    fn remember(&self, name: &Name, kind: RecordType, addresses: &[IpAddr]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (name.clone(), kind);
        if addresses.is_empty() {
            known.remove(&key);
            return;
        }
        if known.len() >= REMEMBERED && !known.contains_key(&key) {
            known.pop_first();
        }
        known.insert(key, addresses.to_vec());
    }

    fn of(&self, name: &Name, kind: RecordType) -> Vec<IpAddr> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&(name.clone(), kind))
            .cloned()
            .unwrap_or_default()
    }
}

/// An answer, and how many seconds it may be believed. None: it was not said.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub(crate) records: Vec<T>,
    pub(crate) ttl: Option<u32>,
}

/// What an SRV record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Srv {
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) port: u16,
    pub(crate) target: Name,
}

impl Client {
    pub(crate) fn new(config: &DnsConfig) -> Result<Self> {
        let provider = TokioRuntimeProvider::default();
        let mut builder = if config.servers.is_empty() {
            TokioResolver::builder(provider).map_err(|error| {
                Error::config("the servers of this machine are not known: /etc/resolv.conf")
                    .with_source(error)
            })?
        } else {
            let servers = config.servers.iter().map(|server| at(*server)).collect();
            let settings = ResolverConfig::from_name_servers(servers);
            TokioResolver::builder_with_config(settings, provider)
        };
        let options = builder.options_mut();
        // What is asked is asked now: the watch keeps to the times to live.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.attempts = ATTEMPTS;
        let tries = u32::try_from(ATTEMPTS + 1).unwrap_or(u32::MAX);
        options.timeout = (config.request_timeout / tries).max(Duration::from_millis(1));
        options.max_active_requests = QUESTIONS;
        let resolver = builder
            .build()
            .map_err(|error| Error::config("no questions can be put to DNS").with_source(error))?;
        Ok(Self {
            resolver: Mutex::new(Some(Arc::new(resolver))),
            families: config.ip,
            known: KnownAddresses::default(),
            timeout: config.request_timeout,
            closed: CancellationToken::new(),
        })
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn close(&self) {
        self.closed.cancel();
        let resolver = self.resolver.lock();
        drop(resolver.unwrap_or_else(PoisonError::into_inner).take());
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(ended());
        }
        Ok(())
    }

    pub(crate) async fn srv(&self, name: &Name) -> Result<Found<Srv>> {
        self.records(name, RecordType::SRV, |record| match &record.data {
            RData::SRV(srv) => Some(Srv {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv.target.clone(),
            }),
            _ => None,
        })
        .await
    }

    /// The addresses of a name, of the families that are wanted.
    pub(crate) async fn addresses(&self, name: &Name) -> Result<Found<IpAddr>> {
        let v4 = async {
            if self.families == IpFamilies::V6 {
                return Ok(None);
            }
            let asked = self.records(name, RecordType::A, |record| match &record.data {
                RData::A(address) => Some(IpAddr::V4(address.0)),
                _ => None,
            });
            asked.await.map(Some)
        };
        let v6 = async {
            if self.families == IpFamilies::V4 {
                return Ok(None);
            }
            let asked = self.records(name, RecordType::AAAA, |record| match &record.data {
                RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                _ => None,
            });
            asked.await.map(Some)
        };
        let (v4, v6) = tokio::join!(v4, v6);
        let mut found = Vec::new();
        let mut failed = Vec::new();
        for (kind, half) in [(RecordType::A, v4), (RecordType::AAAA, v6)] {
            match half {
                Ok(Some(half)) => {
                    self.known.remember(name, kind, &half.records);
                    found.push(half);
                }
                Ok(None) => {}
                Err(error) => failed.push((kind, error)),
            }
        }
        // Where one family has no address, and nobody knows of the other one, nobody knows whether there is any.
        if found
            .iter()
            .all(|half: &Found<IpAddr>| half.records.is_empty())
            && let Some((_, error)) = failed.pop()
        {
            return Err(error);
        }
        // How soon the family that is not there may come does not matter where the other one is.
        let full = found.iter().filter(|found| !found.records.is_empty());
        let ttl = full.clone().filter_map(|found| found.ttl).min();
        let ttl = ttl.or_else(|| found.iter().filter_map(|found| found.ttl).min());
        let mut records: Vec<IpAddr> = found.into_iter().flat_map(|found| found.records).collect();
        for (kind, error) in failed {
            // Half an answer takes the other half neither out nor along.
            let known = self.known.of(name, kind);
            tracing::warn!(
                target: "trunkline::discovery",
                %name, %kind, known = known.len(), error = %error.report(),
                "addresses of one family cannot be asked for; those that were known last are used"
            );
            records.extend(known);
        }
        Ok(Found { records, ttl })
    }

    /// Whether the server answers about a name, whatever the answer.
    pub(crate) async fn answers(&self, name: &Name) -> Result<()> {
        self.records(name, RecordType::SOA, |_| Some(()))
            .await
            .map(drop)
    }

    async fn records<T>(
        &self,
        name: &Name,
        kind: RecordType,
        read: impl Fn(&Record) -> Option<T>,
    ) -> Result<Found<T>> {
        self.check_open()?;
        let resolver = self
            .resolver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let resolver = resolver.ok_or_else(ended)?;
        let asking = tokio::time::timeout(self.timeout, resolver.lookup(name.clone(), kind));
        let answer = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(ended()),
            answer = asking => answer,
        };
        let asked = |error: Error| {
            Error::new(
                error.kind(),
                format!("cannot look up {kind} of {name}: {error}"),
            )
            .with_retry(error.retry())
            .with_source(error)
        };
        match answer {
            Ok(Ok(lookup)) => {
                let answers = lookup.answers();
                // With those of the aliases on the way: the first that ends ends the answer.
                let ttl = answers.iter().map(|record| record.ttl).min();
                Ok(Found {
                    records: answers.iter().filter_map(read).collect(),
                    ttl,
                })
            }
            Ok(Err(error)) => match told(error) {
                Nothing::None(ttl) => Ok(Found {
                    records: Vec::new(),
                    ttl,
                }),
                Nothing::Unknown(error) => Err(asked(error)),
            },
            Err(_) => Err(asked(Error::timeout("no server answered in time"))),
        }
    }
}

fn at(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
    let connections = connections.map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}
