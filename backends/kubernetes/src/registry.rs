//! The registry that only finds.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt as _;
use futures_util::future::join_all;
use tokio::time::Instant;
use trunkline_core::{Error, Result};
use trunkline_discovery::{
    InstanceList, InstanceWatch, Lease, Registry, Resolver, ServiceInstance, ServiceName,
};

use crate::client::Client;
use crate::config::{IpFamily, KubernetesConfig};
use crate::endpoints::{Ports, instances};
use crate::error::announces_nothing;
use crate::family::Families;
use crate::follow::{Collection, list, try_list};
use crate::gaps::{Gaps, is_refusal};
use crate::message::{AddressType, EndpointSlice, SERVICE_LABEL, Service};
use crate::watch::{shown, watch};

const KIND: &str = "kubernetes";
const DISCOVERY: &str = "/apis/discovery.k8s.io/v1";
const CORE: &str = "/api/v1";

/// Finds the endpoints of services in Kubernetes. Clones share connections.
///
/// A service is looked up in every namespace of the settings; `users.shop` is the service `users` of the namespace `shop`.
///
/// ```no_run
/// use trunkline_kubernetes::{KubernetesConfig, KubernetesRegistry};
///
/// let mut config = KubernetesConfig::kubeconfig("/etc/trunkline/kubeconfig");
/// config.namespaces = vec!["shop".to_owned(), "stock".to_owned()];
/// let kubernetes = KubernetesRegistry::new(&config)?;
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct KubernetesRegistry(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) client: Arc<Client>,
    /// None: all of them.
    namespaces: Vec<Option<String>>,
    ports: Ports,
    ip: IpFamily,
    annotations: bool,
    pub(crate) gaps: Gaps,
}

impl KubernetesRegistry {
    /// Makes a registry; connects when it is first used. Reads the files of the account or the kubeconfig at once.
    ///
    /// # Errors
    /// `Config` when one of the files cannot be read, or says what is not understood.
    pub fn new(config: &KubernetesConfig) -> Result<Self> {
        let client = Client::new(config)?;
        let mut namespaces = config.namespaces.clone();
        if namespaces.is_empty() {
            namespaces.push(client.namespace().unwrap_or("default").to_owned());
        }
        let namespaces = namespaces.into_iter();
        Ok(Self(Arc::new(Shared {
            client: Arc::new(client),
            namespaces: namespaces
                .map(|name| (name != "*").then_some(name))
                .collect(),
            ports: Ports {
                port: config.port.clone(),
                protocol: config.protocol.clone(),
            },
            ip: config.ip,
            annotations: config.annotations,
            gaps: Gaps::default(),
        })))
    }

    /// Ends it: watches end, every call fails with `Cancelled`. Connections are closed when the last clone is dropped.
    pub fn close(&self) {
        self.0.client.closed().cancel();
    }

    /// Ends it as [`KubernetesRegistry::close`] does and closes the connections, until the deadline at most.
    ///
    /// # Cancel safety
    /// Dropping it stops the waiting; it is closed all the same.
    pub async fn shutdown(&self, deadline: Instant) {
        self.0.client.shutdown(deadline).await;
    }
}

impl fmt::Debug for KubernetesRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesRegistry")
            .field("namespaces", &self.0.namespaces)
            .finish_non_exhaustive()
    }
}

impl Registry for KubernetesRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn register(&self, _: ServiceInstance, _: Duration) -> Result<Lease> {
        Err(announces_nothing().with_operation("register"))
    }

    async fn renew(&self, _: &Lease, _: &ServiceInstance) -> Result<()> {
        Err(announces_nothing().with_operation("renew"))
    }

    async fn deregister(&self, _: &Lease) -> Result<()> {
        Err(announces_nothing().with_operation("deregister"))
    }

    /// Asks for what a lookup needs, in every namespace; it works as long as one can be read.
    async fn health_check(&self) -> Result<()> {
        let probe = ServiceName::new("trunkline-health")?;
        let slices = self.0.slices_of(&probe);
        let asked = slices
            .iter()
            .map(|slices| try_list::<EndpointSlice>(&self.0.client, slices));
        let answers = self.0.passed_by(&slices, join_all(asked).await);
        answers
            .map(drop)
            .map_err(|error| error.with_operation("health_check"))
    }

    /// Namespaces that could not be read when they were last asked for.
    fn shortcoming(&self) -> Option<Error> {
        self.0.gaps.told()
    }
}

impl Resolver for KubernetesRegistry {
    fn kind(&self) -> &'static str {
        KIND
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        let found = self.0.find(service).await;
        found.map_err(|error| error.with_operation("resolve"))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let found = self.0.names().await;
        found.map_err(|error| error.with_operation("services"))
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        self.0.client.check_open()?;
        Ok(watch(&self.0, service))
    }
}

impl Shared {
    async fn find(&self, service: &ServiceName) -> Result<InstanceList> {
        let (of_slices, of_services) = (self.slices_of(service), self.services_of(service));
        let slices = of_slices
            .iter()
            .map(|part| list::<EndpointSlice>(&self.client, part).map_ok(|(items, _)| items));
        let services = of_services
            .iter()
            .map(|part| list::<Service>(&self.client, part).map_ok(|(items, _)| items));
        let (slices, services) = tokio::join!(join_all(slices), join_all(services));
        let slices = self.passed_by(&of_slices, slices)?.concat();
        let mut annotated = Vec::new();
        for (part, answer) in of_services.iter().zip(services) {
            match answer {
                Ok(items) => annotated.extend(items),
                Err(error) if is_refusal(&error) => {
                    self.without_annotations(shown(part.namespace.as_ref()), &error);
                }
                Err(error) => return Err(error),
            }
        }
        let (found, _) = self.found(service, &slices, &annotated);
        Ok(InstanceList::new(found, 0))
    }

    /// What was answered, without the parts that refuse.
    fn passed_by<T>(&self, parts: &[Collection], answers: Vec<Result<T>>) -> Result<Vec<T>> {
        let namespaces = parts.iter().map(|part| shown(part.namespace.as_ref()));
        self.gaps.passed_by(namespaces.zip(answers))
    }

    pub(crate) fn without_annotations(&self, namespace: &str, error: &Error) {
        if self.gaps.first(format!("annotations of {namespace}")) {
            tracing::warn!(
                target: "trunkline::discovery",
                namespace, error = %error.report(),
                "Services cannot be read: their annotations do not count"
            );
        }
    }

    /// The instances that slices stand for, of one family of addresses in each namespace.
    pub(crate) fn found(
        &self,
        service: &ServiceName,
        slices: &[EndpointSlice],
        services: &[Service],
    ) -> (Vec<ServiceInstance>, Families) {
        for slice in slices {
            let namespace = &slice.metadata.namespace;
            if slice.address_type == AddressType::Other
                && self
                    .gaps
                    .first(format!("names of {service} in {namespace}"))
            {
                tracing::warn!(
                    target: "trunkline::discovery",
                    %service, namespace, slice = slice.metadata.name,
                    "a slice has no addresses of IPv4 or IPv6; it is passed by"
                );
            }
        }
        let callable = slices.iter().filter(|slice| self.ports.are_in(slice));
        let families = Families::of(self.ip, callable);
        let found = instances(&self.ports, &families, service, slices, services);
        (found, families)
    }

    async fn names(&self) -> Result<Vec<ServiceName>> {
        let everywhere: Vec<Collection> = self
            .namespaces
            .iter()
            .map(|namespace| Collection {
                group: DISCOVERY,
                plural: "endpointslices",
                namespace: namespace.clone(),
                selector: None,
            })
            .collect();
        let asked = everywhere.iter();
        let asked = asked.map(|part| list::<EndpointSlice>(&self.client, part));
        let mut names = BTreeSet::new();
        for (slices, _) in self.passed_by(&everywhere, join_all(asked).await)? {
            let used = slices
                .into_iter()
                .filter(|slice| !slice.endpoints.is_empty());
            let labels = used.filter_map(|mut slice| slice.metadata.labels.remove(SERVICE_LABEL));
            names.extend(labels.filter_map(|name| ServiceName::new(name).ok()));
        }
        Ok(names.into_iter().collect())
    }

    pub(crate) fn slices_of(&self, service: &ServiceName) -> Vec<Collection> {
        let (name, namespaces) = self.places(service);
        namespaces
            .into_iter()
            .map(|namespace| Collection {
                group: DISCOVERY,
                plural: "endpointslices",
                namespace,
                selector: Some(("labelSelector", format!("{SERVICE_LABEL}={name}"))),
            })
            .collect()
    }

    pub(crate) fn services_of(&self, service: &ServiceName) -> Vec<Collection> {
        if !self.annotations {
            return Vec::new();
        }
        let (name, namespaces) = self.places(service);
        namespaces
            .into_iter()
            .map(|namespace| Collection {
                group: CORE,
                plural: "services",
                namespace,
                selector: Some(("fieldSelector", format!("metadata.name={name}"))),
            })
            .collect()
    }

    /// The name of a service, and where it is looked up.
    fn places(&self, service: &ServiceName) -> (String, Vec<Option<String>>) {
        match service.as_str().split_once('.') {
            Some((name, namespace)) => (name.to_owned(), vec![Some(namespace.to_owned())]),
            None => (service.to_string(), self.namespaces.clone()),
        }
    }
}
