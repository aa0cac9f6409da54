//! How a case gets its inbox.

use std::future::Future;
use std::time::Duration;

use trunkline_core::BoxFuture;
use trunkline_messaging::inbox::AnyInbox;

use crate::Scope;
use crate::live::{self, Missing};

/// How long tasks of an inbox may take to end after it was dropped.
const GRACE: Duration = Duration::from_secs(5);

/// Opens the inbox under test.
pub trait InboxHarness: Send + Sync + 'static {
    /// An inbox; `None` when it needs a server that is not configured here. Handles opened with the same scope share
    /// their keys where [`InboxHarness::is_shared`] says so.
    fn open(&self, scope: &Scope) -> impl Future<Output = Option<AnyInbox>> + Send;

    /// The same, but with room for so many keys only. `None` when it cannot be limited.
    fn open_limited(
        &self,
        scope: &Scope,
        max_keys: usize,
    ) -> impl Future<Output = Option<AnyInbox>> + Send {
        let _ = (scope, max_keys);
        async { None }
    }

    /// Whether handles opened with the same scope share their keys.
    fn is_shared(&self) -> bool {
        false
    }

    /// The word by which `TRUNKLINE_REQUIRE_LIVE` asks for this inbox.
    fn system(&self) -> &'static str {
        "inbox"
    }
}

/// The erased twin of [`InboxHarness`].
pub trait OpenInbox: Send + Sync {
    /// See [`InboxHarness::open`].
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<AnyInbox>>;
    /// See [`InboxHarness::open_limited`].
    fn open_limited_boxed<'a>(
        &'a self,
        scope: &'a Scope,
        max_keys: usize,
    ) -> BoxFuture<'a, Option<AnyInbox>>;
    /// See [`InboxHarness::is_shared`].
    fn is_shared_dyn(&self) -> bool;
    /// See [`InboxHarness::system`].
    fn system_dyn(&self) -> &'static str;
}

impl<H: InboxHarness> OpenInbox for H {
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<AnyInbox>> {
        Box::pin(self.open(scope))
    }

    fn open_limited_boxed<'a>(
        &'a self,
        scope: &'a Scope,
        max_keys: usize,
    ) -> BoxFuture<'a, Option<AnyInbox>> {
        Box::pin(self.open_limited(scope, max_keys))
    }

    fn is_shared_dyn(&self) -> bool {
        self.is_shared()
    }

    fn system_dyn(&self) -> &'static str {
        self.system()
    }
}

/// Runs one case over an inbox.
///
/// # Panics
/// When the case fails.
pub fn run<C>(harness: &dyn OpenInbox, case: &'static str, body: C)
where
    C: for<'a> FnOnce(&'a AnyInbox, &'a Scope) -> BoxFuture<'a, ()>,
{
    live::block_on(async {
        let scope = Scope::new(case);
        let Some(inbox) = opened(harness, &scope).await else {
            return;
        };
        scope.within("the case", body(&inbox, &scope)).await;
        drop(inbox);
        live::no_task_left(&scope, GRACE).await;
    });
}

/// Runs one case that opens its inboxes itself.
///
/// # Panics
/// When the case fails.
pub fn run_with_harness<C>(harness: &dyn OpenInbox, case: &'static str, body: C)
where
    C: for<'a> FnOnce(&'a dyn OpenInbox, &'a Scope) -> BoxFuture<'a, ()>,
{
    live::block_on(async {
        let scope = Scope::new(case);
        if opened(harness, &scope).await.is_none() {
            return;
        }
        scope.within("the case", body(harness, &scope)).await;
        live::no_task_left(&scope, GRACE).await;
    });
}

async fn opened(harness: &dyn OpenInbox, scope: &Scope) -> Option<AnyInbox> {
    let inbox = scope.within("open", harness.open_boxed(scope)).await;
    if inbox.is_none() {
        live::skip(scope, Missing::Server(harness.system_dyn()));
    }
    inbox
}
