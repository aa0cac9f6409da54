//! Requests to the API server.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request};
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::{Context, Error, ErrorKind, Result};
use trunkline_http::{Body, Limits, Origin, Transport, TransportConfig};

use crate::access::Access;
use crate::config::{KubernetesConfig, Server};
use crate::error::{ended, from_status};
use crate::kubeconfig;
use crate::lines::Lines;

/// Longest answer that is read.
const LONGEST_ANSWER: usize = 256 * 1024 * 1024;
/// For what is asked and answered: watches never take these.
const CONNECTIONS: usize = 32;
/// Longer than anything that is waited for: who opens a watch bounds its silence.
const NEVER: Duration = Duration::from_secs(24 * 3600);
/// How much longer than it should last a watch may be silent.
const LATE: Duration = Duration::from_secs(5);

/// What is asked once.
pub(crate) enum Opened {
    Lines(Lines),
    /// The version is too old: the whole list must be asked for.
    Gone,
}

pub(crate) struct Client {
    transport: Transport,
    /// The connections that watches hold: each has one, or a stream of one.
    watching: Transport,
    watches: Arc<Semaphore>,
    max_watches: usize,
    origin: Origin,
    access: Access,
    namespace: Option<String>,
    request_timeout: Duration,
    wait: Duration,
    closed: CancellationToken,
    /// Certificates that stood in a kubeconfig file.
    _unpacked: Option<TempDir>,
}

impl Client {
    pub(crate) fn new(config: &KubernetesConfig) -> Result<Self> {
        let mut found = match &config.server {
            Server::Kubeconfig { path, context } => kubeconfig::read(path, context.as_deref())?,
            Server::InCluster { account, .. } => of_account(account)?,
            Server::At { .. } => kubeconfig::Found::default(),
        };
        let origin = match &config.server {
            Server::At {
                host,
                port,
                tls: true,
            } => Origin::https(host, *port),
            Server::At { host, port, .. } => Origin::http(host, *port),
            Server::InCluster { at, .. } => {
                let (host, port) = Server::in_cluster(at.as_ref());
                Origin::https(host, port)
            }
            Server::Kubeconfig { .. } => origin_of(&found.server)?,
        };
        let origin = origin.map_err(|error| {
            Error::config("the server of Kubernetes is none").with_source(error)
        })?;
        let mut settings = TransportConfig::default();
        settings.max_connections = CONNECTIONS;
        settings.ca_file = config.ca_file.clone().or(found.ca_file);
        // Whoever says who signs means them alone.
        settings.system_roots = settings.ca_file.is_none();
        (settings.client_certificate, settings.client_key) = match &config.client_certificate {
            Some(certificate) => (Some(certificate.clone()), config.client_key.clone()),
            None => (found.client_certificate, found.client_key),
        };
        let given = config.token.is_some() || config.token_file.is_some();
        let access = match found.plugin {
            _ if given => Access::new(config.token.as_ref(), config.token_file.clone())?,
            Some(plugin) => Access::Plugin(Box::new(plugin)),
            None => Access::new(found.token.as_ref(), found.token_file)?,
        };
        let transport = Transport::new(&settings)?;
        let max_watches = usize::try_from(config.max_watches).unwrap_or(usize::MAX);
        let max_watches = max_watches.min(Semaphore::MAX_PERMITS);
        settings.max_connections = max_watches;
        Ok(Self {
            transport,
            watching: Transport::new(&settings)?,
            watches: Arc::new(Semaphore::new(max_watches)),
            max_watches,
            origin,
            access,
            namespace: found.namespace,
            request_timeout: config.request_timeout,
            wait: config.wait,
            closed: CancellationToken::new(),
            _unpacked: found.unpacked.take(),
        })
    }

    /// The namespace of the pod or of the context.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    pub(crate) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.is_cancelled() {
            return Err(ended());
        }
        Ok(())
    }

    pub(crate) async fn shutdown(&self, deadline: Instant) {
        self.closed.cancel();
        tokio::join!(
            self.transport.shutdown(deadline),
            self.watching.shutdown(deadline)
        );
    }

    /// How long the server is asked to keep a watch open.
    pub(crate) fn wait(&self) -> Duration {
        self.wait
    }

    /// Leave to hold a watch open, also while it is opened anew.
    ///
    /// # Errors
    /// `Rejected` while there are as many as there may be.
    pub(crate) fn leave_to_watch(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.watches).try_acquire_owned().map_err(|_| {
            let text = format!(
                "{} watches are open, which is all that `max_watches` allows: what this one is of is not kept current",
                self.max_watches
            );
            Error::new(ErrorKind::Rejected, text)
        })
    }

    /// Asks for something; nothing when a continuation is too old.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let latest = Instant::now() + self.request_timeout;
        let asked = Context::current().and_then(|context| context.deadline());
        let deadline = asked.map_or(latest, |asked| asked.min(latest));
        let asking = async {
            let sending = self.send(&self.transport, path, deadline, self.request_timeout);
            let (code, body) = sending.await?;
            let body = body.bytes(LONGEST_ANSWER).await?;
            Ok((code, body))
        };
        let (code, body): (u16, Bytes) = self.unless_closed(asking).await?;
        match code {
            200..=299 => serde_json::from_slice(&body).map(Some).map_err(|error| {
                Error::internal("the answer of Kubernetes is not understood").with_source(error)
            }),
            410 => Ok(None),
            _ => Err(from_status(code, &body)),
        }
    }

    /// Opens a watch: what is answered comes line by line, for as long as it is read.
    pub(crate) async fn open(&self, path: &str) -> Result<Opened> {
        let opening = async {
            let (end, silence) = (Instant::now() + NEVER, self.wait + LATE);
            let sending = self.send(&self.watching, path, end, silence);
            let sent = tokio::time::timeout(self.request_timeout, sending).await;
            let (code, body) = sent.unwrap_or_else(|_| Err(late()))?;
            match code {
                200..=299 => Ok(Opened::Lines(Lines::new(body.into_stream()))),
                410 => Ok(Opened::Gone),
                _ => Err(from_status(code, &body.bytes(LONGEST_ANSWER).await?)),
            }
        };
        self.unless_closed(opening).await
    }

    /// Sends a request with the token as it is now, and with a newer one when that is refused.
    async fn send(
        &self,
        by: &Transport,
        path: &str,
        deadline: Instant,
        silence: Duration,
    ) -> Result<(u16, Body)> {
        let token = self.access.current().await?;
        let sending = self.send_as(by, path, token.as_ref(), deadline, silence);
        let answer = sending.await?;
        if answer.0 == 401
            && let Some(newer) = self.access.instead_of(token.as_ref()).await
        {
            let sending = self.send_as(by, path, Some(&newer), deadline, silence);
            return sending.await;
        }
        Ok(answer)
    }

    async fn send_as(
        &self,
        by: &Transport,
        path: &str,
        token: Option<&HeaderValue>,
        deadline: Instant,
        silence: Duration,
    ) -> Result<(u16, Body)> {
        let mut request = Request::get(path).header("accept", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let request = request
            .body(Body::empty())
            .map_err(|error| Error::invalid("no request to Kubernetes").with_source(error))?;
        let mut limits = Limits::default().with_read(silence).with_deadline(deadline);
        limits.connection = limits.connection.min(self.request_timeout);
        let answer = by.send(&self.origin, request, &limits).await?;
        let (parts, body) = answer.into_parts();
        Ok((parts.status.as_u16(), body))
    }

    async fn unless_closed<T>(&self, asking: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(ended()),
            answer = asking => answer,
        }
    }
}

/// What a pod finds of its account.
fn of_account(account: &Path) -> Result<kubeconfig::Found> {
    let namespace = account.join("namespace");
    let named = std::fs::read_to_string(&namespace).map_err(|error| {
        let text = format!(
            "{} cannot be read: outside a cluster, give a host, or the option `kubeconfig`",
            namespace.display()
        );
        Error::config(text).with_source(error)
    })?;
    Ok(kubeconfig::Found {
        namespace: Some(named.trim().to_owned()),
        ca_file: Some(account.join("ca.crt")),
        token_file: Some(account.join("token")),
        ..kubeconfig::Found::default()
    })
}

/// `https://host:port`, as kubeconfig files write it.
fn origin_of(server: &str) -> Result<Result<Origin>> {
    let wrong = || {
        Error::config(format!(
            "`{server}` is no `https://host:port` of Kubernetes"
        ))
    };
    let uri: http::Uri = server.parse().map_err(|_| wrong())?;
    if !uri.path().trim_matches('/').is_empty() {
        let text = format!("`{server}` has a path, which is not understood");
        return Err(Error::config(text));
    }
    let host = uri.host().ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match uri.scheme_str() {
        Some("https") => Ok(Origin::https(host, uri.port_u16().unwrap_or(443))),
        Some("http") => Ok(Origin::http(host, uri.port_u16().unwrap_or(80))),
        _ => Err(wrong()),
    }
}

fn late() -> Error {
    Error::timeout("Kubernetes did not answer in time")
}
