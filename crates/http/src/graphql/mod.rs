//! GraphQL: queries and mutations with variables, through the policies, context and middleware of a client.
//!
//! Use [`EnhancedHttpClient::graphql`](crate::EnhancedHttpClient::graphql) or
//! [`ServiceSdk::graphql`](crate::ServiceSdk::graphql). A query is repeated as a GET is, whatever method carries it; a
//! mutation only with an idempotency key. Each operation is an endpoint of its own, `QUERY /graphql/User` and
//! `MUTATION /graphql/AddUser`, with circuit, policy and measures: give operations names, and write no values into them.
//!
//! What a service answers with status 200 and errors in the body has come as it should, as far as policies see it: it opens
//! no circuit and is not repeated. Subscriptions are not served.

mod answer;
mod document;
mod persisted;
mod request;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use answer::{GraphQlError, GraphQlErrors, GraphQlResponse, Location};
pub use request::GraphQlRequest;

use crate::client::EnhancedHttpClient;
use crate::sdk::ServiceSdk;

/// Asks one GraphQL endpoint of a service. Cloning copies pointers.
///
/// ```no_run
/// use serde_json::json;
/// use trunkline_http::EnhancedHttpClient;
///
/// #[derive(serde::Deserialize)]
/// struct Found { user: User }
/// #[derive(serde::Deserialize)]
/// struct User { name: String }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), trunkline_http::ServiceError> {
/// let users = EnhancedHttpClient::new("http://localhost:8001")?.graphql("/graphql").persisted();
/// let found: Found = users
///     .request("query User($id: ID!) { user(id: $id) { name } }")
///     .variable("id", 1)
///     .fetch()
///     .await?;
/// println!("{}", found.user.name);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct GraphQlClient {
    client: EnhancedHttpClient,
    path: Arc<str>,
    persisted: bool,
    by_get: bool,
    /// The service has said that it keeps no documents.
    keeps_none: Arc<AtomicBool>,
}

impl fmt::Debug for GraphQlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphQlClient")
            .field("client", &self.client)
            .field("path", &self.path)
            .field("persisted", &self.persisted)
            .field("by_get", &self.by_get)
            .finish()
    }
}

impl GraphQlClient {
    /// Asks at a path of a service.
    #[must_use]
    pub fn new(client: EnhancedHttpClient, path: impl AsRef<str>) -> Self {
        let path = path.as_ref();
        Self {
            client,
            path: format!("/{}", path.trim_start_matches('/')).into(),
            persisted: false,
            by_get: false,
            keeps_none: Arc::default(),
        }
    }

    /// Sends the hash of a document in place of the document, which follows only where the service does not know it yet
    /// (automatic persisted queries). A service that keeps none is noticed, and from then on sent documents.
    #[must_use]
    pub fn persisted(mut self) -> Self {
        self.persisted = true;
        self
    }

    /// Sends queries by GET, so that what lies between may keep the answers; of persisted ones the hash alone. Mutations,
    /// and documents that a service does not know yet, are sent by POST.
    #[must_use]
    pub fn queries_by_get(mut self) -> Self {
        self.by_get = true;
        self
    }

    /// The client that the requests go through.
    #[must_use]
    pub fn client(&self) -> &EnhancedHttpClient {
        &self.client
    }

    /// Asks for what a document says. What is wrong with it is said when it is sent.
    pub fn request(&self, document: impl Into<Arc<str>>) -> GraphQlRequest {
        GraphQlRequest::new(self.clone(), document.into())
    }

    fn sends_hashes(&self) -> bool {
        self.persisted && !self.keeps_none.load(Ordering::Relaxed)
    }
}

impl EnhancedHttpClient {
    /// The GraphQL endpoint at a path of the service.
    #[must_use]
    pub fn graphql(&self, path: impl AsRef<str>) -> GraphQlClient {
        GraphQlClient::new(self.clone(), path)
    }
}

impl ServiceSdk {
    /// The GraphQL endpoint at a path of a service, with the middleware and error handlers of this SDK. Errors that the
    /// service tells with status 200 are not told to the handlers.
    ///
    /// # Errors
    /// As [`ServiceSdk::client`].
    ///
    /// # Panics
    /// As [`ServiceSdk::client`].
    pub fn graphql(
        &self,
        service: &str,
        path: impl AsRef<str>,
    ) -> trunkline_core::Result<GraphQlClient> {
        Ok(self.client(service)?.graphql(path))
    }
}
