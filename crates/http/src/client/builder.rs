//! Sets up a client.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use indexmap::IndexMap;
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, Propagation, Result};
use trunkline_discovery::{Discovery, EndpointConfig, Instances, ServiceConfig, ServiceName};
use trunkline_resilience::{
    Declared, EffectivePolicy, Layer, Policy, PolicyConfig, PolicyLayers, PolicyRegistry, Target,
};
use trunkline_telemetry::Metrics;
use trunkline_telemetry::metrics::HttpClientMetrics;

use super::core::{Core, Endpoint};
use super::destination::{Balanced, Destination, Peer};
use super::endpoint::{Endpoints, Template};
use super::health::Checked;
use super::inject::Injector;
use super::versions::VersionPolicies;
use super::{EnhancedHttpClient, HttpClient};
use crate::cache::{ClientCache, EndpointCache, ResponseCache};
use crate::coding::{Codings, CompressionConfig};
use crate::config::HttpClientConfig;
use crate::observe::{PolicyMetrics, WHOLE, show_circuit};
use crate::origin::{Origin, unix_socket};
use crate::redirect::{FollowRedirects, RedirectConfig};
use crate::transport::{Transport, TransportConfig};

type Settings = Box<dyn Fn(&Target) -> Arc<EffectivePolicy> + Send + Sync>;

/// Sets up an [`HttpClient`](crate::HttpClient) or an [`EnhancedHttpClient`](crate::EnhancedHttpClient).
///
/// ```
/// use std::time::Duration;
/// use trunkline_http::EnhancedHttpClient;
///
/// let client = EnhancedHttpClient::builder()
///     .base_url("https://api.example.com/v1")
///     .timeout(Duration::from_secs(5))
///     .endpoint("GET /users/{id}", Default::default())
///     .header("accept-language", "es")
///     .build()?;
/// # let _ = client;
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[must_use = "call build()"]
pub struct ClientBuilder<C> {
    config: HttpClientConfig,
    service_config: ServiceConfig,
    endpoints: IndexMap<String, EndpointConfig>,
    instances: Option<Instances>,
    discovery: Option<Discovery>,
    transport: Option<Transport>,
    propagation: Propagation,
    metrics: Metrics,
    policies: Option<(PolicyRegistry, Settings)>,
    pub(crate) cache: Option<ResponseCache>,
    pub(crate) keeps_answers: bool,
    kind: PhantomData<fn() -> C>,
}

impl<C> fmt::Debug for ClientBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("config", &self.config)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl<C> ClientBuilder<C> {
    pub(super) fn new() -> Self {
        Self {
            config: HttpClientConfig::default(),
            service_config: ServiceConfig::default(),
            endpoints: IndexMap::new(),
            instances: None,
            discovery: None,
            transport: None,
            propagation: Propagation::default(),
            metrics: Metrics::disabled(),
            policies: None,
            cache: None,
            keeps_answers: true,
            kind: PhantomData,
        }
    }

    /// Takes settings from configuration; what was set before is replaced.
    pub fn config(mut self, config: HttpClientConfig) -> Self {
        self.config = config;
        self
    }

    /// Takes the policy, the endpoints and the path of a service from configuration.
    pub fn service_config(mut self, config: ServiceConfig) -> Self {
        self.service_config = config;
        self
    }

    /// Where requests lead: `https://api.example.com/v1`, or a Unix socket, `unix:/run/users.sock`, with a path behind a
    /// colon if there is one: `unix:/run/users.sock:/v1`.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.config.base_url = Some(url.into());
        self
    }

    /// The service, found by discovery; with a base URL only the name in logs and metrics.
    pub fn service(mut self, name: impl Into<String>) -> Self {
        self.config.service = Some(name.into());
        self
    }

    /// Where services are found: the client's own, and those of fallbacks.
    pub fn discovery(mut self, discovery: &Discovery) -> Self {
        self.discovery = Some(discovery.clone());
        self
    }

    /// The instances that requests lead to, in place of discovery.
    pub fn instances(mut self, instances: Instances) -> Self {
        self.instances = Some(instances);
        self
    }

    /// Connections shared with other clients. Default: its own, with the limits of the configuration.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = Some(transport);
        self
    }

    /// Which headers carry the context, and the own service's name. Default: the usual headers, no name.
    pub fn propagation(mut self, propagation: Propagation) -> Self {
        self.propagation = propagation;
        self
    }

    /// Where calls are measured. Default: nowhere.
    pub fn metrics(mut self, metrics: &Metrics) -> Self {
        self.metrics = metrics.clone();
        self
    }

    /// The policies of the process: their state, and their values for a target. In place of what the configuration of
    /// this client alone says; a plain client takes the time limits only.
    pub fn policies(
        mut self,
        registry: &PolicyRegistry,
        settings: impl Fn(&Target) -> Arc<EffectivePolicy> + Send + Sync + 'static,
    ) -> Self {
        self.policies = Some((registry.clone(), Box::new(settings)));
        self
    }

    /// An endpoint with a circuit and measures of its own, such as `GET /users/{id}`, and its policy.
    pub fn endpoint(mut self, template: impl Into<String>, config: EndpointConfig) -> Self {
        self.endpoints.insert(template.into(), config);
        self
    }

    /// A header sent with every request that does not bring its own.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config = self.config.with_header(name, value);
        self
    }

    /// Which bodies are compressed on their way. Default: none.
    pub fn compression(mut self, compression: CompressionConfig) -> Self {
        self.config = self.config.with_compression(compression);
        self
    }

    /// Which redirects are followed. Default: none.
    pub fn redirects(mut self, redirects: RedirectConfig) -> Self {
        self.config = self.config.with_redirects(redirects);
        self
    }

    /// Limit of a whole call. Default 30 s.
    pub fn timeout(mut self, total: Duration) -> Self {
        self.config = self.config.with_timeout(total);
        self
    }

    /// Switches the circuit breaker on or off. Default: on, for an enhanced client.
    pub fn circuit_breaker_enabled(mut self, enabled: bool) -> Self {
        self.config = self.config.with_circuit_breaker_enabled(enabled);
        self
    }

    /// Switches retries on or off. Default: on, for an enhanced client.
    pub fn retry_enabled(mut self, enabled: bool) -> Self {
        self.config = self.config.with_retry_enabled(enabled);
        self
    }

    /// How many bytes of a streamed body are kept so that it can be sent again. Default 64 KiB.
    pub fn replay_limit(mut self, bytes: usize) -> Self {
        self.config.replay_limit = ByteSize::new(u64::try_from(bytes).unwrap_or(u64::MAX));
        self
    }

    /// Makes what all clones share; `with_policies` says whether more than time limits apply.
    pub(super) fn assemble(mut self, with_policies: bool) -> Result<(Core, PolicyRegistry)> {
        let endpoints = self.endpoints();
        let place = self.place()?;
        let (registry, settings) = match self.policies.take() {
            Some((registry, settings)) if with_policies => (registry, settings),
            Some((_, settings)) => (PolicyRegistry::default(), plain(settings)),
            None => {
                let mut registry = PolicyRegistry::builder();
                if with_policies {
                    registry = registry.observer(PolicyMetrics::new(&self.metrics));
                }
                let registry = registry.build();
                let own = self.own_policies(&endpoints, &registry, with_policies)?;
                let own = if with_policies { own } else { plain(own) };
                (registry, own)
            }
        };
        let templates = endpoints.keys().map(|text| Template::parse(text));
        let templates = templates.collect::<Result<Vec<_>>>()?;
        let metrics = self.metrics.http_client(&place.service);
        let maker = Arc::new(Maker {
            registry: registry.clone(),
            service: Arc::clone(&place.service),
            settings,
            metrics: metrics.clone(),
            all_metrics: self.metrics.clone(),
            finds_services: self.discovery.is_some(),
        });
        let declaring = Arc::clone(&maker);
        let transport = match self.transport {
            Some(transport) => transport,
            None => Transport::new(&TransportConfig::from(&self.config))?,
        };
        let core = Core {
            cache: ClientCache::new(
                self.cache,
                with_policies && self.keeps_answers,
                &place.service,
                &self.metrics,
            ),
            refusals: self.metrics.resilience(&place.service),
            service: place.service,
            destination: match place.leads_to {
                LeadsTo::Origin(origin) => Destination::Fixed(Peer::new(origin, &metrics)),
                LeadsTo::Instances(instances) => {
                    Destination::Balanced(Balanced::new(instances, metrics.clone()))
                }
            },
            checked: Checked::default(),
            closes_departed: AtomicBool::new(false),
            discovery: self.discovery,
            prefix: place.prefix.into(),
            transport,
            injector: Injector::new(&self.propagation, self.config.context_headers)?,
            propagation: self.propagation,
            headers: headers(&self.config)?,
            endpoints: Endpoints::new(templates, move |name| maker.endpoint(name)),
            maker: declaring,
            metrics,
            codings: Codings::of(&self.config)?,
            redirects: Some(self.config.redirects.clone())
                .filter(|redirects| redirects.follow != FollowRedirects::Never),
            max_response_size: self.config.max_response_size.as_usize(),
            replay_limit: self.config.replay_limit.as_usize(),
        };
        Ok((core, registry))
    }

    /// Those of the service and those of this client, which win.
    fn endpoints(&self) -> IndexMap<String, EndpointConfig> {
        let mut endpoints = self.service_config.endpoints.clone();
        endpoints.extend(self.endpoints.clone());
        endpoints
    }

    fn place(&self) -> Result<Place> {
        let service = self.config.service.as_deref();
        let path = self.service_config.base_path.as_deref().unwrap_or_default();
        match (&self.config.base_url, &self.instances) {
            (Some(url), None) => Place::of_url(url, service),
            (Some(url), Some(_)) => Err(Error::config(format!(
                "give either the base URL {url} or instances, not both"
            ))),
            (None, Some(instances)) => Ok(Place::of_instances(instances.clone(), service, path)),
            (None, None) => {
                let Some(name) = service else {
                    return Err(Error::config(
                        "an HTTP client needs a base URL or a service",
                    ));
                };
                let Some(discovery) = &self.discovery else {
                    return Err(Error::config(format!(
                        "service {name} cannot be found without discovery: give a base URL"
                    )));
                };
                let instances = discovery.instances(&ServiceName::new(name)?);
                Ok(Place::of_instances(instances, None, path))
            }
        }
    }

    /// A fallback that cannot be found had better be missed now than on the day on which it is needed.
    fn finds_fallback(&self, with_policies: bool, policy: &EffectivePolicy) -> Result<()> {
        let service = policy.fallback.as_ref();
        let service = service.and_then(|fallback| fallback.service.as_deref());
        match service {
            Some(name) if with_policies && self.discovery.is_none() => Err(Error::config(format!(
                "fallback.service {name} cannot be found without discovery"
            ))),
            _ => Ok(()),
        }
    }

    /// The policies that the settings of this client alone make, each value checked now.
    fn own_policies(
        &self,
        endpoints: &IndexMap<String, EndpointConfig>,
        registry: &PolicyRegistry,
        with_policies: bool,
    ) -> Result<Settings> {
        let own = Own {
            service: self.service_config.policy_config(),
            client: self.config.policy_config(),
            registry: registry.clone(),
        };
        let whole = own.settle(None, None)?;
        self.finds_fallback(with_policies, &whole)?;
        let mut known = Vec::with_capacity(endpoints.len());
        for (name, config) in endpoints {
            let policy = own.settle(Some((name, config)), None)?;
            self.finds_fallback(with_policies, &policy)?;
            known.push((Template::parse(name)?, config.clone(), policy));
        }
        Ok(Box::new(move |target| {
            let declared = own.registry.declared(target);
            let second = declared.as_ref().and_then(|declared| declared.also.clone());
            let names = target.endpoint.iter().chain(&second);
            let found = names.filter_map(|name| Template::parse(name).ok());
            let found = found
                .filter_map(|asked| known.iter().find(|(known, ..)| known.is_same_as(&asked)))
                .next();
            match (declared, found) {
                (None, None) => Arc::clone(&whole),
                (None, Some((.., policy))) => Arc::clone(policy),
                (Some(declared), found) => {
                    let name = target.endpoint.as_deref().unwrap_or_default().to_owned();
                    let endpoint = found.map(|(_, config, _)| (&name, config));
                    own.settle_or_leave(endpoint, &declared)
                }
            }
        }))
    }
}

impl ClientBuilder<HttpClient> {
    /// Makes the client. Nothing is connected yet; `ca_file` is read.
    ///
    /// # Errors
    /// `Config` or `Invalid` when there is neither a base URL nor a service that can be found, when both lead
    /// somewhere, or when a URL, header, endpoint, time limit or `ca_file` is wrong.
    pub fn build(self) -> Result<HttpClient> {
        let (core, _) = self.assemble(false)?;
        Ok(HttpClient::of(core))
    }
}

impl ClientBuilder<EnhancedHttpClient> {
    /// Makes the client. Nothing is connected yet; `ca_file` is read.
    ///
    /// # Errors
    /// `Config` or `Invalid` when there is neither a base URL nor a service that can be found, when both lead
    /// somewhere, or when a URL, header, endpoint, policy or `ca_file` is wrong.
    pub fn build(self) -> Result<EnhancedHttpClient> {
        let (core, registry) = self.assemble(true)?;
        Ok(EnhancedHttpClient::of(core, registry))
    }
}

fn service_layer() -> Layer {
    Layer::Service("http_client".to_owned())
}

/// Keeps the time limits of a policy and nothing else.
fn plain(settings: Settings) -> Settings {
    Box::new(move |target| {
        let mut policy = EffectivePolicy::clone(&settings(target));
        policy.retry.enabled = false;
        policy.retry.budget = None;
        policy.circuit_breaker = None;
        policy.bulkhead = None;
        policy.rate_limit = None;
        policy.concurrency = None;
        policy.chaos = None;
        policy.hedge = None;
        policy.fallback = None;
        if let Some(versions) = &mut policy.versions {
            // No call is made twice.
            versions.order = versions.order.iter().take(1).cloned().collect();
        }
        Arc::new(policy)
    })
}

/// The settings of one client, where nothing else speaks of its targets.
struct Own {
    service: PolicyConfig,
    client: PolicyConfig,
    registry: PolicyRegistry,
}

impl Own {
    fn settle(
        &self,
        endpoint: Option<(&String, &EndpointConfig)>,
        declared: Option<&Declared>,
    ) -> Result<Arc<EffectivePolicy>> {
        let nowhere = |_: &str| None;
        let mut layers = PolicyLayers::new()
            .push(service_layer(), self.service.clone(), nowhere)
            .push(service_layer(), self.client.clone(), nowhere)
            .push_declared(declared);
        if let Some((name, config)) = endpoint {
            let layer = Layer::Endpoint(name.clone());
            layers = layers.push(layer, config.policy_config(), nowhere);
        }
        let explained = layers.resolve().map_err(Error::from)?;
        Ok(Arc::new(explained.policy))
    }

    /// What an author wrote comes when the client is there already: what cannot be used is left out, and said.
    fn settle_or_leave(
        &self,
        endpoint: Option<(&String, &EndpointConfig)>,
        declared: &Declared,
    ) -> Arc<EffectivePolicy> {
        self.settle(endpoint, Some(declared))
            .unwrap_or_else(|error| {
                tracing::error!(
                    target: "trunkline", method = %declared.method, place = %declared.place,
                    error = %error.report(), "the policy of an interface cannot be used"
                );
                self.settle(endpoint, None).unwrap_or_default()
            })
    }
}

/// Makes what is kept for each endpoint.
pub(super) struct Maker {
    registry: PolicyRegistry,
    service: Arc<str>,
    settings: Settings,
    metrics: HttpClientMetrics,
    all_metrics: Metrics,
    finds_services: bool,
}

impl Maker {
    /// Takes what the author of an interface wrote at the method that calls an endpoint.
    pub(super) fn declare(&self, endpoint: &Arc<str>, declared: Declared) {
        let target = Target::service(Arc::clone(&self.service)).with_endpoint(Arc::clone(endpoint));
        let (method, place) = (Arc::clone(&declared.method), Arc::clone(&declared.place));
        if let Some(service) = &declared.policy.fallback.service
            && !self.finds_services
        {
            tracing::warn!(
                target: "trunkline", %target, %method, %place, %service,
                "the fallback's service cannot be found without discovery: calls that fail are not asked of it"
            );
        }
        if let Err(known) = self.registry.declare(&target, declared, &self.settings) {
            tracing::warn!(
                target: "trunkline", %target, first = ?known, second = %format_args!("{method} ({place})"),
                "two methods call one endpoint and say different things of its policy; the first one decides"
            );
        }
    }

    /// What forgets the circuit of an instance that has left.
    pub(super) fn forgetting(&self) -> impl Fn(&Origin) + Send + 'static {
        let (registry, service) = (self.registry.clone(), Arc::clone(&self.service));
        move |origin| registry.forget_instance(&service, origin.authority().as_str())
    }

    /// The policy of one version of an endpoint: the same values, and a state of its own.
    pub(super) fn of_version(&self, endpoint: &Policy, version: &Arc<str>) -> Arc<Policy> {
        let target = endpoint.target().clone().with_version(Arc::clone(version));
        let policy = self.registry.policy(&target, &self.settings);
        if policy.breaker().is_some() {
            show_circuit(&self.all_metrics, policy.target());
        }
        policy
    }

    /// The policy of another service, as whoever calls it directly has it.
    pub(super) fn of_service(&self, service: &str) -> Arc<Policy> {
        let policy = self
            .registry
            .policy(&Target::service(service), &self.settings);
        if policy.breaker().is_some() {
            show_circuit(&self.all_metrics, policy.target());
        }
        policy
    }

    fn endpoint(&self, name: Option<&Arc<str>>) -> Endpoint {
        let target = Target::service(Arc::clone(&self.service));
        let target = match name {
            Some(name) => target.with_endpoint(Arc::clone(name)),
            None => target,
        };
        let name = name.map_or_else(|| Arc::from(WHOLE), Arc::clone);
        let policy = self.registry.policy(&target, &self.settings);
        if policy.breaker().is_some() {
            show_circuit(&self.all_metrics, policy.target());
        }
        Endpoint {
            policy,
            versions: VersionPolicies::default(),
            metrics: self.metrics.endpoint(&name),
            cache: EndpointCache::default(),
            name,
        }
    }
}

enum LeadsTo {
    Origin(Origin),
    Instances(Instances),
}

struct Place {
    service: Arc<str>,
    prefix: String,
    leads_to: LeadsTo,
}

impl Place {
    fn of_url(url: &str, service: Option<&str>) -> Result<Self> {
        let wrong = |what: &str| Error::config(format!("base URL {what}"));
        let origin: Origin = url.parse()?;
        let mut prefix = String::new();
        if let Some((_, base)) = unix_socket(url).flatten() {
            if base.contains(['?', '#']) {
                return Err(wrong("has a query or a fragment"));
            }
            base.trim_end_matches('/').clone_into(&mut prefix);
        } else {
            let url =
                url::Url::parse(url).map_err(|error| wrong("cannot be read").with_source(error))?;
            if url.query().is_some() || url.fragment().is_some() {
                return Err(wrong("has a query or a fragment"));
            }
            if !url.username().is_empty() || url.password().is_some() {
                return Err(wrong("holds credentials: send them in a header"));
            }
            url.path().trim_end_matches('/').clone_into(&mut prefix);
        }
        let service = match (service, origin.socket()) {
            (Some(service), _) => service.to_owned(),
            // Two ports of a host are two services, and so are two sockets.
            (None, None) => origin.authority().to_string(),
            (None, Some(socket)) => socket.display().to_string(),
        };
        Ok(Self {
            service: service.into(),
            prefix,
            leads_to: LeadsTo::Origin(origin),
        })
    }

    fn of_instances(instances: Instances, service: Option<&str>, path: &str) -> Self {
        let path = path.trim_matches('/');
        Self {
            service: service
                .unwrap_or_else(|| instances.service().as_str())
                .into(),
            prefix: if path.is_empty() {
                String::new()
            } else {
                format!("/{path}")
            },
            leads_to: LeadsTo::Instances(instances),
        }
    }
}

fn headers(config: &HttpClientConfig) -> Result<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(config.headers.len());
    for (name, value) in &config.headers {
        let wrong = |what| Error::config(format!("header `{name}`: {what} cannot be sent"));
        let key =
            HeaderName::try_from(name).map_err(|error| wrong("the name").with_source(error))?;
        // The value may be a secret: it is not shown.
        let value =
            HeaderValue::try_from(value).map_err(|error| wrong("the value").with_source(error))?;
        headers.insert(key, value);
    }
    Ok(headers)
}
