//! What a generated client holds.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use trunkline_core::{Error, ErrorKind, Result};
use trunkline_discovery::ServiceHealth;
use trunkline_resilience::{CircuitStatus, Declared};

use super::check::{Check, Checks};
use super::making::Making;
use super::operation::{Interface, Operation};
use crate::client::EnhancedHttpClient;
use crate::options::CallOptions;

/// A client that `#[service_interface]` generated.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no client of a service interface",
    note = "name the generated one: `#[service_interface]` on a trait `Users` makes `UsersClient`"
)]
pub trait ServiceClient: Clone + Send + Sync + 'static {
    /// What it is the client of.
    const INTERFACE: &'static Interface;

    /// The client over a caller.
    fn from_caller(caller: Caller) -> Self;
}

/// Makes the calls of one interface. Cloning copies pointers.
#[derive(Clone)]
pub struct Caller {
    shared: Arc<Shared>,
    /// What every call of this clone asks for.
    always: Option<Arc<Always>>,
}

#[derive(Clone, Default)]
pub(super) struct Always {
    pub(super) options: CallOptions,
    pub(super) headers: HeaderMap,
}

struct Shared {
    interface: &'static Interface,
    services: Vec<Service>,
    prepared: Vec<Prepared>,
    checks: Checks,
}

struct Service {
    name: &'static str,
    client: Result<EnhancedHttpClient, (ErrorKind, String)>,
}

/// One operation, at the client that it calls.
struct Prepared {
    /// Where its service stands in the list.
    service: usize,
    /// By which name its policy and its circuit go.
    endpoint: Arc<str>,
    base_path: &'static str,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("interface", &self.shared.interface.name)
            .field("service", &self.shared.interface.service)
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// A caller; `connect` is asked once for each service that the interface names. Where there is none the calls say so.
    pub fn new(
        interface: &'static Interface,
        connect: impl Fn(&str) -> Result<EnhancedHttpClient>,
    ) -> Self {
        let services = interface.services().map(|name| Service {
            name,
            client: connect(name).map_err(|error| (error.kind(), error.report().to_string())),
        });
        Self::of(interface, services.collect())
    }

    /// A caller over one client, which leads to the interface's own service.
    #[must_use]
    pub fn over(interface: &'static Interface, client: &EnhancedHttpClient) -> Self {
        Self::new(interface, |service| match service == interface.service {
            true => Ok(client.clone()),
            false => Err(Error::config(format!(
                "there is no client for {service}: add one by `with_service`, or ask the manager for the client"
            ))),
        })
    }

    fn of(interface: &'static Interface, services: Vec<Service>) -> Self {
        let prepared = interface.operations.iter().map(|operation| {
            let name = operation.service.unwrap_or(interface.service);
            let service = services.iter().position(|known| known.name == name);
            let service = service.unwrap_or_default();
            let client = services
                .get(service)
                .and_then(|known| known.client.as_ref().ok());
            Prepared {
                service,
                endpoint: match client {
                    Some(client) => declare(client, operation),
                    None => operation.endpoint.into(),
                },
                base_path: match client {
                    // A base URL that ends in it has it already.
                    Some(client) if client.prefix().ends_with(interface.base_path) => "",
                    _ => interface.base_path,
                },
            }
        });
        let prepared = prepared.collect();
        let checked = interface.operations.iter().any(|one| one.check.is_some());
        let caller = Self {
            shared: Arc::new(Shared {
                interface,
                services,
                prepared,
                checks: Checks::new(checked),
            }),
            always: None,
        };
        caller.begin_checks();
        caller
    }

    /// Begins to check the endpoints that are marked so, once, and where there is a runtime.
    fn begin_checks(&self) {
        let shared = &self.shared;
        if !shared.checks.are_due() {
            return;
        }
        for (operation, prepared) in shared.interface.operations.iter().zip(&shared.prepared) {
            let service = shared.services.get(prepared.service);
            if let Some(fill) = operation.check
                && let Some(Ok(client)) = service.map(Service::client)
            {
                let Check {
                    path,
                    headers,
                    wrong,
                    ..
                } = Check::of(prepared.base_path, fill);
                let begun = match wrong {
                    Some(wrong) => Err(wrong),
                    None => client.check(&prepared.endpoint, &path, headers),
                };
                if let Err(error) = begun {
                    tracing::error!(
                        target: "trunkline", method = operation.name, place = operation.place,
                        error = %error.report(), "an endpoint cannot be checked"
                    );
                }
            }
        }
    }

    /// How each instance of the interface's own service is, as far as it is known.
    ///
    /// # Errors
    /// Why the service cannot be called.
    pub fn service_health(&self) -> Result<ServiceHealth> {
        Ok(self.http_client()?.service_health())
    }

    /// The interface.
    #[must_use]
    pub fn interface(&self) -> &'static Interface {
        self.shared.interface
    }

    /// The client of the interface's own service.
    ///
    /// # Errors
    /// Why there is none.
    pub fn http_client(&self) -> Result<&EnhancedHttpClient> {
        self.shared.services.first().map_or_else(
            || Err(Error::internal("an interface has a service")),
            Service::client,
        )
    }

    /// The circuits of the interface's endpoints.
    #[must_use]
    pub fn circuit_states(&self) -> Vec<CircuitStatus> {
        let clients = self
            .shared
            .services
            .iter()
            .filter_map(|known| known.client.as_ref().ok());
        let states = clients.flat_map(EnhancedHttpClient::circuit_states);
        let own = |state: &CircuitStatus| {
            let endpoint = state.target.endpoint.as_ref();
            endpoint
                .is_some_and(|name| self.shared.prepared.iter().any(|one| one.endpoint == *name))
        };
        states.filter(own).collect()
    }

    /// Forgets what is kept of the answers of the services that the methods call: by key, prefix or tag. Says how many
    /// keys there were in this process.
    ///
    /// # Errors
    /// When the tier that processes share cannot be reached; this process has cleared its memory all the same.
    ///
    /// # Cancel safety
    /// As [`EnhancedHttpClient::clear_cache`].
    #[cfg(feature = "cache")]
    pub async fn clear_cache(&self, what: crate::Clear) -> Result<u64> {
        let (mut cleared, mut failed) = (0, None);
        for service in &self.shared.services {
            if let Ok(client) = &service.client {
                match client.clear_cache(what.clone()).await {
                    Ok(number) => cleared += number,
                    Err(error) => failed = Some(error),
                }
            }
        }
        failed.map_or(Ok(cleared), Err)
    }

    /// Uses another client for one of the services that the methods name.
    #[must_use]
    pub fn with_service(self, name: &str, client: &EnhancedHttpClient) -> Self {
        let services = self.shared.services.iter().map(|known| Service {
            name: known.name,
            client: match known.name == name {
                true => Ok(client.clone()),
                false => known.client.clone(),
            },
        });
        Self {
            always: self.always.clone(),
            ..Self::of(self.shared.interface, services.collect())
        }
    }

    /// A clone whose calls all ask for this.
    #[must_use]
    pub fn with_options(&self, options: CallOptions) -> Self {
        self.with_always(|always| always.options = options)
    }

    /// A clone whose calls all send this header.
    ///
    /// # Errors
    /// `Invalid` when it cannot be sent.
    pub fn with_header(&self, name: &str, value: &str) -> Result<Self> {
        let name = HeaderName::try_from(name)
            .map_err(|error| Error::invalid("a header cannot be sent").with_source(error))?;
        let value = HeaderValue::try_from(value).map_err(|error| {
            Error::invalid(format!("the value of header `{name}` cannot be sent"))
                .with_source(error)
        })?;
        Ok(self.with_always(|always| drop(always.headers.insert(name, value))))
    }

    fn with_always(&self, change: impl FnOnce(&mut Always)) -> Self {
        let mut always = self.always.as_deref().cloned().unwrap_or_default();
        change(&mut always);
        Self {
            shared: Arc::clone(&self.shared),
            always: Some(Arc::new(always)),
        }
    }

    /// Starts a call of the method at this place of the interface.
    #[must_use]
    pub fn begin(&self, index: usize) -> Making<'_> {
        self.begin_checks();
        let known = self.shared.interface.operations.get(index);
        let (Some(operation), Some(prepared)) = (known, self.shared.prepared.get(index)) else {
            return Making::failed(Error::internal("the interface has no such method"));
        };
        let service = self.shared.services.get(prepared.service);
        match service.map(Service::client) {
            Some(Ok(client)) => Making::new(
                client,
                operation,
                &prepared.endpoint,
                prepared.base_path,
                self.always.as_deref(),
            ),
            Some(Err(error)) => Making::failed(error),
            None => Making::failed(Error::internal("the interface has no service")),
        }
    }
}

impl Service {
    fn client(&self) -> Result<&EnhancedHttpClient> {
        self.client
            .as_ref()
            .map_err(|(kind, message)| Error::new(*kind, message.clone()).with_component(self.name))
    }
}

fn declare(client: &EnhancedHttpClient, operation: &Operation) -> Arc<str> {
    let policy = (operation.policy)();
    let mut declared = Declared::new(operation.name, operation.place, policy);
    if operation.also != operation.endpoint {
        declared = declared.with_also(operation.also);
    }
    client.declare(operation.endpoint, declared)
}
