//! The registry that only finds.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use futures_util::stream::{self, BoxStream, SelectAll};
use futures_util::{StreamExt as _, TryFutureExt as _};
use tokio::time::Instant;
use trunkline_core::{ErrorKind, Result};
use trunkline_discovery::{
    InstanceList, InstanceWatch, Lease, Registry, Resolver, ServiceInstance, ServiceName,
};

use crate::client::Client;
use crate::config::KubernetesConfig;
use crate::endpoints::{Ports, instances};
use crate::error::announces_nothing;
use crate::follow::{Collection, list, snapshots, try_list};
use crate::message::{EndpointSlice, SERVICE_LABEL, Service};

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

struct Shared {
    client: Arc<Client>,
    /// None: all of them.
    namespaces: Vec<Option<String>>,
    ports: Ports,
    annotations: bool,
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
            annotations: config.annotations,
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

    /// Asks for what a lookup needs, in every namespace.
    async fn health_check(&self) -> Result<()> {
        let probe = ServiceName::new("trunkline-health")?;
        let asked = self.0.slices_of(&probe);
        let asked = asked
            .iter()
            .map(|slices| try_list::<EndpointSlice>(&self.0.client, slices));
        let answers = try_join_all(asked).await;
        answers
            .map(drop)
            .map_err(|error| error.with_operation("health_check"))
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
        let lists = Watching::new(&self.0, service);
        let lists = stream::unfold(lists, async |mut watching| {
            let list = watching.next().await?;
            Some((list, watching))
        });
        Ok(InstanceWatch::new(lists))
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
        let (slices, services) = tokio::try_join!(try_join_all(slices), try_join_all(services))?;
        let found = instances(&self.ports, service, &slices.concat(), &services.concat());
        Ok(InstanceList::new(found, 0))
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
        for (slices, _) in try_join_all(asked).await? {
            let used = slices
                .into_iter()
                .filter(|slice| !slice.endpoints.is_empty());
            let labels = used.filter_map(|mut slice| slice.metadata.labels.remove(SERVICE_LABEL));
            names.extend(labels.filter_map(|name| ServiceName::new(name).ok()));
        }
        Ok(names.into_iter().collect())
    }

    fn slices_of(&self, service: &ServiceName) -> Vec<Collection> {
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

    fn services_of(&self, service: &ServiceName) -> Vec<Collection> {
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

/// What one of the collections of a watch says.
enum Said {
    Slices(usize, Vec<EndpointSlice>),
    Services(usize, Vec<Service>),
}

struct Watching {
    shared: Arc<Shared>,
    service: ServiceName,
    parts: SelectAll<BoxStream<'static, Result<Said>>>,
    /// Nothing yet where none was listed yet.
    slices: Vec<Option<Vec<EndpointSlice>>>,
    services: Vec<Option<Vec<Service>>>,
    last: Option<Vec<ServiceInstance>>,
}

impl Watching {
    fn new(shared: &Arc<Shared>, service: &ServiceName) -> Self {
        let (of_slices, of_services) = (shared.slices_of(service), shared.services_of(service));
        let (slices, services) = (vec![None; of_slices.len()], vec![None; of_services.len()]);
        let mut parts: Vec<BoxStream<'static, Result<Said>>> = Vec::new();
        for (at, part) in of_slices.into_iter().enumerate() {
            let lists = snapshots::<EndpointSlice>(Arc::clone(&shared.client), part);
            parts.push(lists.map(move |items| Ok(Said::Slices(at, items?))).boxed());
        }
        for (at, part) in of_services.into_iter().enumerate() {
            let lists = snapshots::<Service>(Arc::clone(&shared.client), part);
            parts.push(
                lists
                    .map(move |items| Ok(Said::Services(at, items?)))
                    .boxed(),
            );
        }
        Self {
            shared: Arc::clone(shared),
            service: service.clone(),
            parts: parts.into_iter().collect(),
            slices,
            services,
            last: None,
        }
    }

    async fn next(&mut self) -> Option<Result<InstanceList>> {
        loop {
            match self.parts.next().await? {
                Ok(Said::Slices(at, items)) => *self.slices.get_mut(at)? = Some(items),
                Ok(Said::Services(at, items)) => *self.services.get_mut(at)? = Some(items),
                Err(error) if error.kind() == ErrorKind::Cancelled => return None,
                Err(error) => {
                    // After an error the list is told again, changed or not.
                    self.last = None;
                    return Some(Err(error));
                }
            }
            if let Some(list) = self.news() {
                return Some(Ok(list));
            }
        }
    }

    /// The list, if all parts of it are known and it is another one than last time.
    fn news(&mut self) -> Option<InstanceList> {
        let slices: Vec<EndpointSlice> = self
            .slices
            .iter()
            .cloned()
            .collect::<Option<Vec<_>>>()?
            .concat();
        let services: Vec<Service> = self
            .services
            .iter()
            .cloned()
            .collect::<Option<Vec<_>>>()?
            .concat();
        let found = instances(&self.shared.ports, &self.service, &slices, &services);
        if self.last.as_ref() == Some(&found) {
            return None;
        }
        self.last = Some(found.clone());
        Some(InstanceList::new(found, 0))
    }
}
