//! What follows after a middleware.

use std::fmt;

use tower::util::ServiceExt;

use super::{MiddlewareResult, ServiceRequest};
use crate::client::ClientService;
use crate::response::Response;

/// What follows after a middleware: the next one, or the call itself. A clone can be run once more.
#[derive(Clone)]
pub struct Next(ClientService);

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Next").finish_non_exhaustive()
    }
}

impl Next {
    pub(super) fn new(service: ClientService) -> Self {
        Self(service)
    }

    /// Goes on with the request. Dropping `next` instead, with an answer or an error of one's own, sends nothing.
    ///
    /// # Errors
    /// Those of the call; an answer with an error status is `Ok`.
    ///
    /// # Cancel safety
    /// Dropping it gives up the call; the request may have been processed.
    pub async fn run(self, request: ServiceRequest) -> MiddlewareResult {
        let (about, request) = request.into_parts();
        let answer = self.0.oneshot(request).await?;
        Ok(Response::new(answer, &about.service, about.limit))
    }
}
