//! Health checks over HTTP, TCP and gRPC, for discovery.

mod grpc;

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Request, Uri};
use trunkline_core::{Error, Problem, Result};
use trunkline_discovery::{CheckKind, HealthCheckConfig, Probe, ServiceInstance};

use crate::body::Body;
use crate::connect::{self, ConnectFailed, ConnectStage};
use crate::limits::Limits;
use crate::origin::Origin;
use crate::transport::Transport;

/// Bytes of an answer that are read so that its connection can carry the next check.
const MOST_OF_AN_ANSWER: usize = 64 * 1024;

/// Who asks.
const AGENT: &str = "trunkline-health-check";

/// Origins remembered; with more than this the memory is begun anew.
const MOST_ORIGINS: usize = 4096;

/// Asks `GET <health_check_path>` of an instance: any status from 200 to 399 says that it is well. Where the settings say
/// [`CheckKind::Tcp`], it is well when it can be connected to, past proxies; where they say [`CheckKind::Grpc`], when
/// `grpc.health.v1.Health/Check` answers `SERVING`, over HTTP/2 without asking or, with `https`, as agreed on.
///
/// ```
/// use trunkline_discovery::Discovery;
/// use trunkline_http::{HttpProbe, Transport, TransportConfig};
///
/// let transport = Transport::new(&TransportConfig::default())?;
/// let discovery = Discovery::builder().probe(HttpProbe::new(transport)).build();
/// # let _ = discovery;
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Debug)]
pub struct HttpProbe {
    transport: Transport,
    /// For gRPC, made when it is needed.
    http2: OnceLock<Transport>,
    origins: Mutex<HashMap<String, Origin>>,
}

impl HttpProbe {
    /// Asks over these connections. They had better not be those of the service's own calls: a check must not wait
    /// until a call is done.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self {
            transport,
            http2: OnceLock::new(),
            origins: Mutex::default(),
        }
    }

    fn origin(&self, instance: &ServiceInstance) -> Result<Origin> {
        let url = instance.base_url();
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = origins.get(&url) {
            return Ok(origin.clone());
        }
        let origin = match instance.protocol.as_str() {
            "grpc" => Origin::http(&instance.host, instance.port)?,
            "grpcs" => Origin::https(&instance.host, instance.port)?,
            _ => Origin::of_instance(instance)?,
        };
        if origins.len() >= MOST_ORIGINS {
            origins.clear();
        }
        origins.insert(url, origin.clone());
        Ok(origin)
    }
}

impl Probe for HttpProbe {
    async fn probe(&self, instance: &ServiceInstance) -> Result<()> {
        let origin = self.origin(instance)?;
        let path = &instance.health_check_path;
        ask(&self.transport, &origin, path, HeaderMap::new()).await
    }

    async fn probe_by(
        &self,
        instance: &ServiceInstance,
        settings: &HealthCheckConfig,
    ) -> Result<()> {
        match settings.kind {
            CheckKind::Tcp => {
                let reachable = connect::reachable(&instance.host, instance.port).await;
                reachable.map_err(by_its_word)
            }
            CheckKind::Grpc => {
                let origin = self.origin(instance)?;
                let transport = self.http2.get_or_init(|| self.transport.beside_by_http2());
                let service = settings.grpc_service.as_deref().unwrap_or_default();
                let asked = grpc::ask(transport, &origin, service, settings.timeout);
                asked.await.map_err(by_its_word)
            }
            _ => self.probe(instance).await,
        }
    }
}

/// Asks an endpoint of an instance, as a client would: with the client's headers, behind its prefix.
#[derive(Debug)]
pub(crate) struct EndpointProbe {
    pub(crate) transport: Transport,
    /// Where the client leads, unless it is to the instances of a service.
    pub(crate) fixed: Option<Origin>,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

impl Probe for EndpointProbe {
    async fn probe(&self, instance: &ServiceInstance) -> Result<()> {
        let origin = match &self.fixed {
            Some(origin) => origin.clone(),
            None => Origin::of_instance(instance)?,
        };
        ask(&self.transport, &origin, &self.path, self.headers.clone()).await
    }
}

/// A refused connection is as good as a word of the instance: nobody listens there. Unlike silence it needs no second check.
fn by_its_word(error: Error) -> Error {
    let refused = |failed: &ConnectFailed| {
        failed.stage == ConnectStage::Connect && failed.timeout.is_none() && !failed.is_local
    };
    if error.find::<ConnectFailed>().is_some_and(refused) {
        return error.with_origin(trunkline_core::Origin::Remote);
    }
    error
}

async fn ask(transport: &Transport, origin: &Origin, path: &str, headers: HeaderMap) -> Result<()> {
    let uri: Uri = path.parse().map_err(|error: http::uri::InvalidUri| {
        Error::invalid(format!("health check path `{path}` cannot be asked for")).with_source(error)
    })?;
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    let agent = HeaderValue::from_static(AGENT);
    request.headers_mut().insert(USER_AGENT, agent);
    let sent = transport.send(origin, request, &Limits::default()).await;
    let response = sent.map_err(by_its_word)?;
    let status = response.status();
    // Whatever the answer says beside its status does not matter, nor whether it breaks off.
    drop(response.into_body().bytes(MOST_OF_AN_ANSWER).await);
    if status.is_client_error() || status.is_server_error() {
        let text = format!("{} answers {path} with {status}", origin.authority());
        return Err(Error::new(Problem::kind_of(status.as_u16()), text)
            .with_origin(trunkline_core::Origin::Remote));
    }
    Ok(())
}
