//! How a case gets its tier.

use std::future::Future;
use std::time::Duration;

use trunkline_core::BoxFuture;
use trunkline_resilience::cache::AnyCacheTier;

use crate::Scope;
use crate::live::{self, Missing};

/// How long tasks of a tier may take to end after it was dropped.
const GRACE: Duration = Duration::from_secs(5);

/// Opens the tier under test.
pub trait TierHarness: Send + Sync + 'static {
    /// A tier; `None` when it needs a server that is not configured here. Handles opened by the same harness share what
    /// is kept; the cases keep to keys of their scope.
    fn open(&self, scope: &Scope) -> impl Future<Output = Option<AnyCacheTier>> + Send;

    /// The word by which `TRUNKLINE_REQUIRE_LIVE` asks for this tier.
    fn system(&self) -> &'static str {
        "cache"
    }
}

/// The erased twin of [`TierHarness`].
pub trait OpenTier: Send + Sync {
    /// See [`TierHarness::open`].
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<AnyCacheTier>>;
    /// See [`TierHarness::system`].
    fn system_dyn(&self) -> &'static str;
}

impl<H: TierHarness> OpenTier for H {
    fn open_boxed<'a>(&'a self, scope: &'a Scope) -> BoxFuture<'a, Option<AnyCacheTier>> {
        Box::pin(self.open(scope))
    }

    fn system_dyn(&self) -> &'static str {
        self.system()
    }
}

/// Runs one case over two handles of a tier.
///
/// # Panics
/// When the case fails.
pub fn run<C>(harness: &dyn OpenTier, case: &'static str, body: C)
where
    C: for<'a> FnOnce(&'a [AnyCacheTier; 2], &'a Scope) -> BoxFuture<'a, ()>,
{
    live::block_on(async {
        let scope = Scope::new(case);
        let open = || scope.within("open", harness.open_boxed(&scope));
        let (Some(one), Some(two)) = (open().await, open().await) else {
            live::skip(&scope, Missing::Server(harness.system_dyn()));
            return;
        };
        let handles = [one, two];
        scope.within("the case", body(&handles, &scope)).await;
        drop(handles);
        live::no_task_left(&scope, GRACE).await;
    });
}
