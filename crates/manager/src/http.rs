//! The HTTP clients of a manager: by configured name, or by the name of a service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::join_all;
use tokio::time::Instant;
use trunkline_core::names::target;
use trunkline_core::{Error, Health, Propagation, Result};
use trunkline_discovery::{Discovery, DiscoveryBuilder, ServiceName};
use trunkline_http::interface::{Caller, ServiceClient};
use trunkline_http::{
    ClientBuilder, EnhancedHttpClient, HttpClientConfig, HttpProbe, PolicyMetrics, ProxyRules,
    Transport, TransportConfig,
};
use trunkline_resilience::config::PolicyConfig;
use trunkline_resilience::{Declared, EffectivePolicy, PolicyRegistry, Target};
use trunkline_telemetry::Metrics;

use crate::answers::Answers;
use crate::circuits::{Calls, CircuitHealth};
use crate::config::{fixed_segments, is_production};
use crate::named::{DEFAULT, Missing};
use crate::policies::{CurrentConfig, Origin, Policies};
use crate::sdk::AdjustedPolicies;
use crate::{CommunicationManager, PolicyExplanation};

/// Most services that have a client of their own at once; names come from code, so this is only a guard.
const MOST_CLIENTS: usize = 4096;

/// The connections of a client: through the proxies of the environment, unless its settings say otherwise.
fn transport_of(settings: &HttpClientConfig) -> Result<Transport> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this crate is the one that reads the environment"
    )]
    let rules = ProxyRules::from_variables(|name| std::env::var(name).ok())?;
    Transport::new(&TransportConfig::from(settings).with_proxy_rules(rules))
}

/// Asks instances how they are, for whoever has discovery check them; over connections of its own.
pub(crate) struct Probing(Result<Transport, Missing>);

impl Probing {
    pub(crate) fn new() -> Self {
        let transport = Transport::new(&TransportConfig::default());
        Self(transport.map_err(|error| Missing::new(&error)))
    }

    pub(crate) fn add_to(&self, discovery: DiscoveryBuilder) -> DiscoveryBuilder {
        match &self.0 {
            Ok(transport) => discovery.probe(HttpProbe::new(transport.clone())),
            Err(missing) => {
                tracing::warn!(target: target::MANAGER, error = %missing.error(), "instances cannot be checked");
                discovery
            }
        }
    }
}

/// Makes clients when they are asked for and keeps them. A configured one has circuits, budgets and bulkheads of its
/// own, under its name; those of a service share them.
pub(crate) struct HttpClients {
    config: CurrentConfig,
    discovery: Result<Discovery, Missing>,
    policies: Policies,
    /// Of what the gateway passes on. What strangers send opens no circuit of this process's own calls and uses up none of
    /// their places and retries, nor the other way round.
    forwarded: Policies,
    shown: Arc<CircuitHealth>,
    propagation: Propagation,
    metrics: Metrics,
    clients: Mutex<HashMap<String, EnhancedHttpClient>>,
    /// Shared by clients without limits of their own.
    transport: Mutex<Option<Transport>>,
    adjusted: AdjustedPolicies,
    probing: Probing,
    answers: Answers,
    closed: AtomicBool,
}

impl HttpClients {
    pub(crate) fn new(
        config: CurrentConfig,
        discovery: Result<Discovery, Missing>,
        propagation: Propagation,
        metrics: Metrics,
        probing: Probing,
        health: &Health,
    ) -> Self {
        let answers = Answers::new(&config.load(), &metrics);
        let shown = CircuitHealth::new(health.clone());
        let policies = |calls| {
            let counted = match calls {
                Calls::Own => PolicyMetrics::new(&metrics),
                Calls::Forwarded => PolicyMetrics::of_others(&metrics),
            };
            let registry = PolicyRegistry::builder()
                .observer(counted)
                .observer(shown.observer(calls))
                .build();
            Policies::new(Arc::clone(&config), registry)
        };
        Self {
            policies: policies(Calls::Own),
            forwarded: policies(Calls::Forwarded),
            config,
            discovery,
            shown,
            propagation,
            metrics,
            answers,
            clients: Mutex::default(),
            transport: Mutex::default(),
            adjusted: AdjustedPolicies::default(),
            probing,
            closed: AtomicBool::new(false),
        }
    }

    pub(crate) fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Those of what the gateway passes on, and of clients with settings of their own.
    pub(crate) fn other_policies(&self) -> Vec<Policies> {
        let mut all = self.adjusted.all();
        all.push(self.forwarded.clone());
        all
    }

    /// Whose calls the policies are for.
    pub(crate) fn calls_of(&self, policies: &Policies) -> Calls {
        match policies.is(&self.forwarded) {
            true => Calls::Forwarded,
            false => Calls::Own,
        }
    }

    pub(crate) fn discovery(&self) -> Result<Discovery> {
        self.discovery.as_ref().cloned().map_err(Missing::error)
    }

    /// Connections for what has no limits of its own: service clients and the gateway.
    pub(crate) fn transport(&self) -> Result<Transport> {
        let mut shared = self.shared_transport();
        if let Some(transport) = &*shared {
            return Ok(transport.clone());
        }
        let config = self.config.load();
        let settings = config
            .http_clients
            .get(DEFAULT)
            .cloned()
            .unwrap_or_default();
        let transport = transport_of(&settings)?;
        *shared = Some(transport.clone());
        Ok(transport)
    }

    /// A configured name wins, then a service's name. `default` is also the only configured one.
    pub(crate) fn client(&self, name: &str) -> Result<EnhancedHttpClient> {
        let config = self.config.load_full();
        let configured = &config.http_clients;
        let only = || configured.keys().next().filter(|_| configured.len() == 1);
        let name = match only() {
            Some(only) if name == DEFAULT => only.as_str(),
            _ => name,
        };
        if let Some(client) = self.kept().get(name) {
            return Ok(client.clone());
        }
        let client = match configured.get(name) {
            Some(settings) => self.configured(name, settings)?,
            None if name == DEFAULT => return Err(self.no_default()),
            None => self.for_service(name)?,
        };
        let mut kept = self.kept();
        if let Some(first) = kept.get(name) {
            // Two made one at the same time: everybody gets the first.
            return Ok(first.clone());
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::cancelled("the manager was shut down"));
        }
        if kept.len() >= MOST_CLIENTS {
            return Err(Error::exhausted(
                "there are too many HTTP clients; ask for services by their names",
            ));
        }
        self.show(name, client.service_name(), Calls::Own)?;
        kept.insert(name.to_owned(), client.clone());
        Ok(client)
    }

    /// What the author of an interface wrote at the method that calls an endpoint, which is a template or a path.
    fn declared(&self, service: &ServiceName, endpoint: &str) -> Option<(Target, Arc<Declared>)> {
        let all = self.policies.registry().declarations();
        let own = all
            .into_iter()
            .filter(|(target, _)| *target.service == *service.as_str());
        own.filter_map(|(target, declared)| {
            let names = target.endpoint.iter().chain(&declared.also);
            let fixed = names
                .filter_map(|name| fixed_segments(name, endpoint))
                .max()?;
            Some((fixed, target, declared))
        })
        .max_by_key(|(fixed, ..)| *fixed)
        .map(|(_, target, declared)| (target, declared))
    }

    /// Closes the connections of every client; those in use until the deadline.
    pub(crate) async fn shutdown(&self, deadline: Instant) {
        self.closed.store(true, Ordering::Release);
        let clients: Vec<EnhancedHttpClient> = self.kept().values().cloned().collect();
        join_all(clients.iter().map(|client| client.shutdown(deadline))).await;
        let shared = self.shared_transport().take();
        if let Some(transport) = shared {
            transport.shutdown(deadline).await;
        }
        if let Ok(probing) = &self.probing.0 {
            // A check that is under way is worth no wait.
            probing.shutdown(Instant::now()).await;
        }
    }

    /// Puts a client into the health document, with the circuits of its target and the instances of its service.
    fn show(&self, name: &str, target: &str, calls: Calls) -> Result<()> {
        let config = self.config.load();
        let configured = config.http_clients.get(name);
        let service = configured
            .and_then(|settings| settings.service.as_deref())
            .unwrap_or(target);
        // As `config show` prints it: without credentials.
        let shown = config.redacted();
        let place = shown["http_clients"][name]["base_url"].as_str();
        let place = place.map_or_else(|| format!("service {service}"), ToOwned::to_owned);
        let policies = match calls {
            Calls::Own => &self.policies,
            Calls::Forwarded => &self.forwarded,
        };
        let circuits = (policies.registry(), calls);
        let metadata = [("base_url", place)];
        let is_first = self.shown.show(name, target, &metadata, circuits);
        let is_service = configured.is_none_or(|settings| settings.base_url.is_none());
        if let (true, true, Ok(discovery)) = (is_first, is_service, &self.discovery) {
            let instances = discovery.instances(&ServiceName::new(service)?);
            self.shown.follow(target, instances.onlooker());
        }
        Ok(())
    }

    fn shared_transport(&self) -> MutexGuard<'_, Option<Transport>> {
        self.transport
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, EnhancedHttpClient>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn no_default(&self) -> Error {
        let config = self.config.load();
        let known: Vec<&str> = config.http_clients.keys().map(String::as_str).collect();
        if known.is_empty() {
            return Error::not_found(
                "there is no HTTP client `default`: set http_client.base_url, or ask for a service by its name",
            );
        }
        Error::not_found(format!(
            "there are several HTTP clients and none is named `default`; ask for one of: {}",
            known.join(", ")
        ))
    }

    fn configured(&self, name: &str, settings: &HttpClientConfig) -> Result<EnhancedHttpClient> {
        let config = self.config.load();
        let mut settings = settings.clone();
        let mut behind = None;
        if let Some(service) = config.client_service(name) {
            behind = config.services.get(&service).cloned();
            settings.service = Some(service.to_string());
        }
        let builder = self.answers.of(EnhancedHttpClient::builder())?;
        let builder = builder
            .config(settings.clone())
            .service_config(behind.unwrap_or_default())
            .propagation(self.propagation.clone())
            .metrics(&self.metrics)
            .transport(
                transport_of(&settings)
                    .map_err(|error| error.with_component(format!("http_client_{name}")))?,
            )
            .policies(
                self.policies.registry(),
                settings_of(&self.policies, Origin::Client(name.into())),
            );
        self.under_its_name(builder, name, &settings)
            .and_then(ClientBuilder::<EnhancedHttpClient>::build)
            .map_err(|error| error.with_component(format!("http_client_{name}")))
    }

    /// Circuits, budgets and limits go by the name of their target. A configured client has settings of its own, so it
    /// has a target of its own, wherever it leads: who calls the same host or service by other settings is not counted
    /// with it.
    fn under_its_name(
        &self,
        builder: ClientBuilder<EnhancedHttpClient>,
        name: &str,
        settings: &HttpClientConfig,
    ) -> Result<ClientBuilder<EnhancedHttpClient>> {
        let builder = match &self.discovery {
            Ok(discovery) => builder.discovery(discovery),
            Err(_) => builder,
        };
        match (&settings.base_url, &settings.service, &self.discovery) {
            (Some(_), _, _) => Ok(builder.service(name)),
            (None, Some(service), Ok(discovery)) => {
                let instances = discovery.instances(&ServiceName::new(service)?);
                Ok(builder.instances(instances).service(name))
            }
            _ => Ok(builder),
        }
    }

    /// A client of a service with some values over those that the configuration has for it, and with circuits of its own.
    pub(crate) fn adjusted_client(
        &self,
        name: &str,
        over: &PolicyConfig,
    ) -> Result<EnhancedHttpClient> {
        let origin = Origin::Adjusted(Arc::new(over.clone()));
        let config = self.config.load();
        let service = ServiceName::new(name)?;
        let chaos = &over.chaos;
        let asked = chaos.allow_in_production == Some(true);
        if chaos.enabled == Some(true) && !asked && is_production(&config.environment) {
            return Err(Error::config(format!(
                "chaos for the service {name} is refused in the production profile: it needs `allow_in_production` beside it"
            )));
        }
        origin
            .layers(&config, &Target::service(service.as_str()), None)
            .resolve()
            .map_err(Error::from)?;
        let registry = PolicyRegistry::builder()
            .observer(PolicyMetrics::new(&self.metrics))
            .build();
        let policies = Policies::new(Arc::clone(&self.config), registry);
        let client = self.service_client(name, &policies, origin)?;
        self.adjusted.add(policies);
        Ok(client)
    }

    fn for_service(&self, name: &str) -> Result<EnhancedHttpClient> {
        self.service_client(name, &self.policies, Origin::Service)
    }

    fn service_client(
        &self,
        name: &str,
        policies: &Policies,
        origin: Origin,
    ) -> Result<EnhancedHttpClient> {
        let service = ServiceName::new(name).map_err(|_| self.unknown(name))?;
        let discovery = self.discovery.as_ref().map_err(Missing::error)?;
        let config = self.config.load();
        let settings = config.service_config(name).cloned().unwrap_or_default();
        let builder = self.answers.of(EnhancedHttpClient::builder())?;
        builder
            .service(service.as_str())
            .service_config(settings)
            .discovery(discovery)
            .transport(self.transport()?)
            .propagation(self.propagation.clone())
            .metrics(&self.metrics)
            .policies(policies.registry(), settings_of(policies, origin))
            .build()
            .map_err(|error| error.with_component(format!("http_client_{service}")))
    }

    fn unknown(&self, name: &str) -> Error {
        let config = self.config.load();
        let known: Vec<&str> = config.http_clients.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "none is configured".to_owned()
        } else {
            known.join(", ")
        };
        Error::not_found(format!(
            "`{name}` is neither an HTTP client ({known}) nor a service name"
        ))
    }

    /// A client for what the gateway passes on to a service: under the policies of the gateway's own section, over the
    /// gateway's connections.
    #[cfg(feature = "gateway")]
    pub(crate) fn behind_gateway(
        &self,
        service: &ServiceName,
        transport: &Transport,
    ) -> Result<EnhancedHttpClient> {
        let discovery = self.discovery.as_ref().map_err(Missing::error)?;
        let config = self.config.load();
        let behind = config
            .gateway
            .as_ref()
            .and_then(|gateway| gateway.services.get(service));
        let mut settings = behind.cloned().unwrap_or_default();
        for (template, endpoint) in config
            .services
            .get(service)
            .into_iter()
            .flat_map(|known| &known.endpoints)
        {
            settings
                .endpoints
                .entry(template.clone())
                .or_insert_with(|| endpoint.clone());
        }
        Answers::none(EnhancedHttpClient::builder())
            .service(service.as_str())
            .service_config(settings)
            .discovery(discovery)
            .transport(transport.clone())
            .propagation(self.propagation.clone())
            .metrics(&self.metrics)
            .policies(
                self.forwarded.registry(),
                settings_of(&self.forwarded, Origin::Gateway),
            )
            .build()
            .and_then(|client| {
                self.show(service.as_str(), client.service_name(), Calls::Forwarded)?;
                Ok(client)
            })
            .map_err(|error| error.with_component(format!("gateway {service}")))
    }
}

/// How calls to what a part of the configuration speaks of are carried.
fn settings_of(
    policies: &Policies,
    origin: Origin,
) -> impl Fn(&Target) -> Arc<EffectivePolicy> + Send + Sync + use<> {
    let policies = policies.clone();
    move |target| policies.settings(target, &origin)
}

impl CommunicationManager {
    /// An HTTP client: a configured one by its name, else one for the service of that name.
    ///
    /// # Errors
    /// `NotFound` with the names that there are; `Config` when its settings are wrong.
    ///
    /// # Panics
    /// Outside a Tokio runtime: a service is watched from now on.
    #[doc(alias = "get_http_client")]
    pub fn http_client(&self, name: &str) -> Result<EnhancedHttpClient> {
        self.0.http.client(name)
    }

    /// The client of a service interface, over the HTTP client of its service. Where that cannot be made, each call
    /// says why.
    ///
    /// # Panics
    /// As [`http_client`](Self::http_client).
    #[must_use]
    pub fn client<C: ServiceClient>(&self) -> C {
        let connect = |service: &str| self.http_client(service);
        C::from_caller(Caller::new(C::INTERFACE, connect))
    }

    /// Says for calls to a service, or to one of its endpoints, every value of the policy and where it came from: as
    /// [`CommunicationConfig::explain`](crate::CommunicationConfig::explain) for the configuration that applies now, and
    /// with what the authors of the interfaces in use wrote.
    ///
    /// # Errors
    /// As there.
    pub fn explain_policy(
        &self,
        service: &str,
        endpoint: Option<&str>,
    ) -> Result<PolicyExplanation> {
        let name = ServiceName::new(service)?;
        let declared = endpoint.and_then(|asked| self.0.http.declared(&name, asked));
        let known = declared
            .as_ref()
            .and_then(|(target, _)| target.endpoint.as_deref());
        let declared = declared.as_ref().map(|(_, declared)| &**declared);
        self.config()
            .explain_declared(service, known.or(endpoint), declared)
    }

    /// The default HTTP client.
    ///
    /// # Errors
    /// As [`http_client`](Self::http_client).
    ///
    /// # Panics
    /// As [`http_client`](Self::http_client).
    pub fn http(&self) -> Result<EnhancedHttpClient> {
        self.http_client(DEFAULT)
    }
}
