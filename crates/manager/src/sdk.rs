//! The service SDK over the clients of a manager.

use std::sync::{Arc, Mutex, PoisonError};

use trunkline_core::{Error, Result};
use trunkline_discovery::Discovery;
use trunkline_http::{EnhancedHttpClient, ServiceCall, ServiceClients, ServiceSdk};
use trunkline_resilience::config::PolicyConfig;
use trunkline_resilience::{CircuitStatus, PolicyRegistry};

use crate::CommunicationManager;
use crate::http::HttpClients;
use crate::policies::Policies;

/// The policies of clients with settings of their own: each has circuits and budgets apart from its service's.
#[derive(Default)]
pub(crate) struct AdjustedPolicies(Mutex<Vec<Policies>>);

impl AdjustedPolicies {
    pub(crate) fn add(&self, policies: Policies) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(policies);
    }

    pub(crate) fn all(&self) -> Vec<Policies> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.clone()
    }
}

/// What a manager is for the SDK.
struct Managed(Arc<HttpClients>);

impl ServiceClients for Managed {
    fn client(&self, service: &str) -> Result<EnhancedHttpClient> {
        self.0.client(service)
    }

    fn client_with(&self, service: &str, policy: &PolicyConfig) -> Result<EnhancedHttpClient> {
        self.0.adjusted_client(service, policy)
    }

    fn discovery(&self) -> Result<Discovery> {
        self.0.discovery()
    }

    fn circuit_states(&self) -> Vec<CircuitStatus> {
        let registry: &PolicyRegistry = self.0.policies().registry();
        registry.circuit_states()
    }
}

pub(crate) fn of_clients(clients: &Arc<HttpClients>) -> ServiceSdk {
    ServiceSdk::with_clients(Managed(Arc::clone(clients)))
}

impl CommunicationManager {
    /// The service SDK: calls by the names of services, with middleware, batches and error handlers. Its clients are those
    /// of [`http_client`](Self::http_client), so a configured client's name is taken for a service's as well. What it is
    /// given (middleware, handlers) belongs to the value it returns; keep that and clone it.
    ///
    /// ```
    /// # async fn page(manager: &trunkline_manager::CommunicationManager) {
    /// let sdk = manager.service_sdk().middleware(async |mut request, next| {
    ///     request.set_header("x-tenant", "acme")?;
    ///     next.run(request).await
    /// });
    /// let orders = sdk.call_service("order-service", "/orders").retry_attempts(3).await;
    /// # drop(orders); }
    /// ```
    #[doc(alias = "ServiceSDK")]
    #[must_use]
    pub fn service_sdk(&self) -> ServiceSdk {
        self.0.sdk.clone()
    }
}

/// The client that `#[service_interface]` generated of a trait, over the global manager:
/// `let users: UsersClient = trunkline::typed_client()?;`.
///
/// # Errors
/// `Config` when there is no global manager: [`initialize_communication`](crate::initialize_communication) makes it.
pub fn typed_client<C: trunkline_http::interface::ServiceClient>() -> Result<C> {
    match crate::communication_manager() {
        Some(manager) => Ok(manager.client()),
        None => Err(no_manager()),
    }
}

fn no_manager() -> Error {
    Error::config("there is no global manager; call initialize_communication first")
}

/// A call by the name of a service through the global manager. Without one it fails with `Config`, as a
/// [`ServiceResult`](trunkline_http::ServiceResult).
///
/// ```
/// # async fn page() {
/// let result = trunkline_manager::call_service("order-service", "/orders").retry_attempts(3).await;
/// assert!(!result.success, "there is no global manager here");
/// # }
/// ```
pub fn call_service(service: &str, path: &str) -> ServiceCall {
    match crate::communication_manager() {
        Some(manager) => manager.0.sdk.call_service(service, path),
        None => ServiceCall::without_sdk(service, path, no_manager()),
    }
}
