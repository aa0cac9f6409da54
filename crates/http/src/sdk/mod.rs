//! Services by their names: the calls, clients, middleware, batches and error handlers of a whole service in one place.

mod batch;
mod builder;
mod call;
mod clients;
mod config;
mod report;
mod result;

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use serde::Serialize;
use trunkline_core::{Error, Result};
use trunkline_discovery::{Discovery, ServiceInstance, ServiceName};
use trunkline_resilience::CircuitStatus;
use trunkline_resilience::config::PolicyConfig;

pub use batch::{Batch, BatchResults, BatchTuple, Job, Outcome};
pub use builder::ServiceSdkBuilder;
pub use call::{ServiceCall, ServiceFetch};
pub use clients::ServiceClients;
pub use config::{CircuitConfig, ServiceSdkConfig};
pub use report::ErrorContext;
pub use result::ServiceResult;

use crate::client::EnhancedHttpClient;
use crate::error::ServiceError;
use crate::interface::{Caller, ServiceClient};
use crate::middleware::{Hook, MiddlewareResult, Next, ServiceRequest, hook};
use call::Sending;
use report::Handler;

/// Clients with settings of their own that are kept; code that needs more of them makes its own clients.
const MOST_ADJUSTED: usize = 256;

/// Calls services by their names.
///
/// It comes from a manager, or is made alone. Cloning copies a pointer; what a clone is given afterwards (middleware, error
/// handlers) is the clone's own, while clients, circuits and connections are shared.
///
/// ```no_run
/// use trunkline_http::{ServiceError, ServiceSdk};
/// use trunkline_discovery::ServiceConfig;
///
/// #[derive(serde::Deserialize)]
/// struct User { name: String }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ServiceError> {
/// let sdk = ServiceSdk::builder()
///     .service("user-service", ServiceConfig::at("localhost", 8001))
///     .build()?
///     .middleware(async |mut request, next| {
///         request.bearer("token")?;
///         next.run(request).await
///     });
/// let users: Vec<User> = sdk.get_from_service("user-service", "/users").param("limit", 50).await?;
/// let orders = sdk.call_service("order-service", "/orders").retry_attempts(3).await;
/// match orders.data {
///     Some(orders) => println!("{} has {orders}", users[0].name),
///     None => println!("{:?}: {:?}", orders.status_code, orders.error),
/// }
/// # Ok(()) }
/// ```
#[doc(alias = "ServiceSDK")]
#[derive(Clone)]
pub struct ServiceSdk(Arc<Inner>);

struct Inner {
    base: Arc<Base>,
    hooks: Vec<Hook>,
    attempt_hooks: Vec<Hook>,
    handlers: Arc<[Handler]>,
}

/// What all clones share, whatever middleware they have.
struct Base {
    clients: Arc<dyn ServiceClients>,
    adjusted: Mutex<Vec<Adjusted>>,
}

struct Adjusted {
    service: ServiceName,
    policy: PolicyConfig,
    client: EnhancedHttpClient,
}

impl fmt::Debug for ServiceSdk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceSdk")
            .field("middleware", &self.0.hooks.len())
            .field("attempt_middleware", &self.0.attempt_hooks.len())
            .field("error_handlers", &self.0.handlers.len())
            .finish_non_exhaustive()
    }
}

impl ServiceSdk {
    /// Starts making one without a manager.
    pub fn builder() -> ServiceSdkBuilder {
        ServiceSdkBuilder::default()
    }

    /// One whose clients come from elsewhere.
    pub fn with_clients(clients: impl ServiceClients) -> Self {
        Self(Arc::new(Inner {
            base: Arc::new(Base {
                clients: Arc::new(clients),
                adjusted: Mutex::default(),
            }),
            hooks: Vec::new(),
            attempt_hooks: Vec::new(),
            handlers: Arc::new([]),
        }))
    }

    /// Puts a middleware around every call of every service, outside the policies. The first one added is the outermost.
    #[must_use]
    pub fn middleware<F, Fut>(self, middleware: F) -> Self
    where
        F: FnOnce(ServiceRequest, Next) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = MiddlewareResult> + Send + 'static,
    {
        self.changed(|inner| inner.hooks.push(hook(middleware)))
    }

    /// Puts a middleware around every attempt, inside the policies: it knows the attempt's number. The first one added is
    /// the outermost.
    #[must_use]
    pub fn attempt_middleware<F, Fut>(self, middleware: F) -> Self
    where
        F: FnOnce(ServiceRequest, Next) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = MiddlewareResult> + Send + 'static,
    {
        self.changed(|inner| inner.attempt_hooks.push(hook(middleware)))
    }

    /// Tells a function about every call that failed for good: without an answer, with an error status (its body is left
    /// to the caller), and, for what the SDK reads itself, with an answer that cannot be read. It changes nothing about the
    /// outcome, but the call waits for it, 5 s at most; its panic is logged.
    #[doc(alias = "error_handler")]
    #[must_use]
    pub fn on_error<F, Fut>(self, handler: F) -> Self
    where
        F: FnOnce(Arc<ServiceError>, ErrorContext) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let handler = report::handler(handler);
        self.changed(|inner| {
            inner.handlers = inner.handlers.iter().cloned().chain([handler]).collect();
        })
    }

    fn changed(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner {
            base: Arc::clone(&self.0.base),
            hooks: self.0.hooks.clone(),
            attempt_hooks: self.0.attempt_hooks.clone(),
            handlers: Arc::clone(&self.0.handlers),
        };
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// The client of a service, with the middleware and error handlers of this SDK.
    ///
    /// # Errors
    /// `Invalid` when it is no name of a service; `Config` when its settings are wrong.
    ///
    /// # Panics
    /// Outside a Tokio runtime, when the service is asked for the first time: it is watched from now on.
    #[doc(alias = "get_client")]
    pub fn client(&self, service: &str) -> Result<EnhancedHttpClient> {
        Ok(self.equipped(self.0.base.clients.client(service)?))
    }

    /// The client that `#[service_interface]` generated of a trait, with the middleware and error handlers of this SDK:
    /// `let users: UsersClient = sdk.typed_client();`. Where a service has no client the calls say why.
    ///
    /// # Panics
    /// As [`ServiceSdk::client`].
    #[must_use]
    pub fn typed_client<C: ServiceClient>(&self) -> C {
        C::from_caller(Caller::new(C::INTERFACE, |service| self.client(service)))
    }

    /// A client of a service with some settings over those of the service, such as a [`CircuitConfig`], and with circuits
    /// and budgets of its own. What is said of single endpoints stays over both. Asking again with the same settings gives
    /// the same circuits; the settings are to come from code, 256 at most are kept.
    ///
    /// # Errors
    /// As [`ServiceSdk::client`]; `Config` when a setting is out of its range; `Exhausted` with too many of them.
    ///
    /// # Panics
    /// As [`ServiceSdk::client`].
    #[doc(alias = "get_client")]
    pub fn client_with(
        &self,
        service: &str,
        settings: impl Into<PolicyConfig>,
    ) -> Result<EnhancedHttpClient> {
        let (service, policy) = (ServiceName::new(service)?, settings.into());
        let mut adjusted = self.adjusted();
        let known = adjusted
            .iter()
            .find(|known| known.service == service && known.policy == policy);
        if let Some(known) = known {
            return Ok(self.equipped(known.client.clone()));
        }
        if adjusted.len() >= MOST_ADJUSTED {
            return Err(Error::exhausted(format!(
                "there are {MOST_ADJUSTED} clients with settings of their own already; these are to come from code"
            )));
        }
        let client = self.0.base.clients.client_with(service.as_str(), &policy)?;
        adjusted.push(Adjusted {
            service,
            policy,
            client: client.clone(),
        });
        Ok(self.equipped(client))
    }

    /// Gives the client of a service to a function and answers what it answers. What the function has under way ends with
    /// it; connections stay for whoever calls the service next.
    ///
    /// ```no_run
    /// # use trunkline_http::{ServiceError, ServiceSdk};
    /// # async fn pay(sdk: &ServiceSdk) -> Result<(), ServiceError> {
    /// let status = sdk
    ///     .service_client("payment-service", async |client| {
    ///         let payment = client.post("/payments").json(&serde_json::json!({ "amount": 1000 }));
    ///         Ok::<_, ServiceError>(payment.send().await?.status())
    ///     })
    ///     .await?;
    /// # let _ = status; Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`ServiceSdk::client`], and those of the function.
    ///
    /// # Panics
    /// As [`ServiceSdk::client`].
    ///
    /// # Cancel safety
    /// Dropping it drops what the function has under way.
    pub async fn service_client<T, E, F>(&self, service: &str, scope: F) -> Result<T, E>
    where
        F: AsyncFnOnce(EnhancedHttpClient) -> Result<T, E>,
        E: From<ServiceError>,
    {
        let client = self.client(service).map_err(ServiceError::from)?;
        scope(client).await
    }

    /// A call whose outcome is one value, [`ServiceResult`], and never an `Err`.
    pub fn call_service(&self, service: &str, path: &str) -> ServiceCall {
        ServiceCall::new(self.sending(service, Method::GET, path))
    }

    /// Gets something from a service. An answer of 400 or more is an error.
    pub fn get_from_service<T>(&self, service: &str, path: &str) -> ServiceFetch<T> {
        ServiceFetch::new(self.sending(service, Method::GET, path))
    }

    /// Sends something new to a service, as JSON, and reads the answer. It is repeated only with an idempotency key, or
    /// where it provably was not processed.
    pub fn post_to_service<T>(
        &self,
        service: &str,
        path: &str,
        data: &(impl Serialize + ?Sized),
    ) -> ServiceFetch<T> {
        ServiceFetch::new(self.sending(service, Method::POST, path)).sends(data)
    }

    /// Replaces something in a service.
    pub fn put_to_service<T>(
        &self,
        service: &str,
        path: &str,
        data: &(impl Serialize + ?Sized),
    ) -> ServiceFetch<T> {
        ServiceFetch::new(self.sending(service, Method::PUT, path)).sends(data)
    }

    /// Changes something in a service. Repeated as [`ServiceSdk::post_to_service`] is.
    pub fn patch_in_service<T>(
        &self,
        service: &str,
        path: &str,
        data: &(impl Serialize + ?Sized),
    ) -> ServiceFetch<T> {
        ServiceFetch::new(self.sending(service, Method::PATCH, path)).sends(data)
    }

    /// Removes something from a service. What the answer says about it is not read.
    pub fn delete_from_service(
        &self,
        service: &str,
        path: &str,
    ) -> ServiceFetch<serde::de::IgnoredAny> {
        ServiceFetch::new(self.sending(service, Method::DELETE, path))
    }

    /// Several named calls at once, to any services, each with an outcome of its own. [`Batch`] says how they run.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use trunkline_http::{Job, ServiceSdk};
    ///
    /// # async fn dashboard(sdk: &ServiceSdk) {
    /// let results = sdk
    ///     .batch_call([
    ///         ("user", Job::new(sdk.call_service("user-service", "/users/1"))),
    ///         ("orders", Job::new(sdk.get_from_service::<Vec<u64>>("order-service", "/orders"))),
    ///     ])
    ///     .deadline(Duration::from_secs(1))
    ///     .await;
    /// for (name, result) in results {
    ///     match result.data {
    ///         Some(data) => println!("{name}: {data}"),
    ///         None => println!("failed to load {name}: {:?}", result.error),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn batch_call<'a, N: Into<String>>(
        &self,
        calls: impl IntoIterator<Item = (N, Job<'a>)>,
    ) -> Batch<'a> {
        Batch::new(calls)
    }

    /// A tuple of calls at once; each outcome keeps its type.
    ///
    /// ```no_run
    /// # async fn both(sdk: &trunkline_http::ServiceSdk) {
    /// let (user, orders) = sdk
    ///     .batch((
    ///         sdk.get_from_service::<String>("user-service", "/users/1"),
    ///         sdk.get_from_service::<Vec<u64>>("order-service", "/orders"),
    ///     ))
    ///     .await;
    /// # let _ = (user.data, orders.data); }
    /// ```
    pub fn batch<'a, C: BatchTuple<'a>>(&self, calls: C) -> C::Batch {
        calls.batch()
    }

    /// The circuits of every service that was called, endpoint by endpoint; those of clients with settings of their own
    /// stand beside those of the service.
    #[doc(alias = "get_circuit_state")]
    #[must_use]
    pub fn circuit_states(&self) -> Vec<CircuitStatus> {
        let mut states = self.0.base.clients.circuit_states();
        for adjusted in self.adjusted().iter() {
            states.extend(adjusted.client.circuit_states());
        }
        states.sort_by(|one, other| one.target.cmp(&other.target));
        states
    }

    /// Where services are found: registration, watching, health.
    ///
    /// # Errors
    /// The reason why there is no discovery.
    pub fn discovery(&self) -> Result<Discovery> {
        self.0.base.clients.discovery()
    }

    /// Makes an instance of a service known to this process alone, as [`Discovery::register_external_service`] does.
    ///
    /// # Errors
    /// `Invalid` when the instance is not sound; the reason why there is no discovery.
    pub fn register_external_service(&self, instance: ServiceInstance) -> Result<()> {
        self.discovery()?.register_external_service(instance)
    }

    /// Every instance of a service, as [`Discovery::discover_services`] answers it.
    ///
    /// # Errors
    /// `Invalid` when it is no name of a service; `Unavailable` when there was no answer; the reason why there is no
    /// discovery.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn discover_services(&self, service: &str) -> Result<Vec<Arc<ServiceInstance>>> {
        let service = ServiceName::new(service)?;
        self.discovery()?.discover_services(&service).await
    }

    /// One instance of a service, by the rule of balancing; `None` when there is none.
    ///
    /// # Errors
    /// As [`ServiceSdk::discover_services`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    #[doc(alias = "get_service_instance")]
    pub async fn service_instance(&self, service: &str) -> Result<Option<Arc<ServiceInstance>>> {
        let service = ServiceName::new(service)?;
        match self.discovery()?.service_instance(&service).await {
            Ok(instance) => Ok(Some(instance)),
            Err(error) if error.find::<trunkline_discovery::NoInstance>().is_some() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether any instance of a service is healthy, asked now.
    ///
    /// # Errors
    /// As [`ServiceSdk::discover_services`].
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn health_check_service(&self, service: &str) -> Result<bool> {
        let service = ServiceName::new(service)?;
        self.discovery()?.health_check_service(&service).await
    }

    fn sending(&self, service: &str, method: Method, path: &str) -> Sending {
        Sending::new(Ok(self.clone()), service, method, path)
    }

    pub(crate) fn handlers(&self) -> Arc<[Handler]> {
        Arc::clone(&self.0.handlers)
    }

    /// A client with what every call goes through here: the error handlers outside all middleware, which may well answer
    /// in place of a service that failed.
    fn equipped(&self, mut client: EnhancedHttpClient) -> EnhancedHttpClient {
        if !self.0.handlers.is_empty() {
            client.add_hook(report::reporting(self.handlers()));
        }
        for hook in &self.0.hooks {
            client.add_hook(Arc::clone(hook));
        }
        for hook in &self.0.attempt_hooks {
            client.add_attempt_hook(Arc::clone(hook));
        }
        client
    }

    fn adjusted(&self) -> std::sync::MutexGuard<'_, Vec<Adjusted>> {
        self.0
            .base
            .adjusted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
