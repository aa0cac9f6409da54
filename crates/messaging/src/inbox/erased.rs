//! Any inbox, behind one cheap handle.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use trunkline_core::{BoxFuture, Result};

use super::{Claim, ClaimRequest, ClaimToken, InboxStore};

trait DynInbox: Send + Sync {
    fn claim_dyn(&self, request: ClaimRequest) -> BoxFuture<'_, Result<Claim>>;
    fn complete_dyn(
        &self,
        token: ClaimToken,
        result: Bytes,
        keep: Duration,
    ) -> BoxFuture<'_, Result<()>>;
    fn extend_dyn<'a>(
        &'a self,
        token: &'a ClaimToken,
        lease: Duration,
    ) -> BoxFuture<'a, Result<()>>;
    fn release_dyn(&self, token: ClaimToken) -> BoxFuture<'_, Result<()>>;
}

impl<I: InboxStore> DynInbox for I {
    fn claim_dyn(&self, request: ClaimRequest) -> BoxFuture<'_, Result<Claim>> {
        Box::pin(self.claim(request))
    }

    fn complete_dyn(
        &self,
        token: ClaimToken,
        result: Bytes,
        keep: Duration,
    ) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.complete(token, result, keep))
    }

    fn extend_dyn<'a>(
        &'a self,
        token: &'a ClaimToken,
        lease: Duration,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.extend(token, lease))
    }

    fn release_dyn(&self, token: ClaimToken) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.release(token))
    }
}

/// Any inbox; cloning copies a pointer.
#[derive(Clone)]
pub struct AnyInbox(Arc<dyn DynInbox>);

impl AnyInbox {
    /// Erases an inbox.
    #[must_use]
    pub fn new(inbox: impl InboxStore) -> Self {
        inbox.erase()
    }

    pub(super) fn of(inbox: impl InboxStore) -> Self {
        Self(Arc::new(inbox))
    }
}

impl fmt::Debug for AnyInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyInbox")
    }
}

impl InboxStore for AnyInbox {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        self.0.claim_dyn(request).await
    }

    async fn complete(&self, token: ClaimToken, result: Bytes, keep: Duration) -> Result<()> {
        self.0.complete_dyn(token, result, keep).await
    }

    async fn extend(&self, token: &ClaimToken, lease: Duration) -> Result<()> {
        self.0.extend_dyn(token, lease).await
    }

    async fn release(&self, token: ClaimToken) -> Result<()> {
        self.0.release_dyn(token).await
    }

    fn erase(self) -> AnyInbox {
        self
    }
}
