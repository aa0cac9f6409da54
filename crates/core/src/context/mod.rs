//! What travels with a request or a message through every protocol.

mod baggage;
mod correlation;
mod propagation;
mod trace;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use baggage::Baggage;
pub use correlation::{CorrelationFormat, CorrelationId};
pub use propagation::{Carrier, Propagation};
pub use trace::{SpanId, TraceContext, TraceId};

tokio::task_local! {
    static CURRENT: Context;
}

/// Who asks, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The calling service.
    pub service: String,
    /// True only when the transport or a token proved it; a mere header does not.
    pub verified: bool,
}

impl Identity {
    /// An identity that somebody claims, unproven.
    #[must_use]
    pub fn claimed(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            verified: false,
        }
    }
}

/// Correlation id, W3C trace, deadline, identity and baggage of one unit of work.
///
/// A cheap value: cloning copies a pointer. Servers and the message router open a scope with it ([`Context::scope`]);
/// a public call reads it once at its edge ([`Context::current_or_new`]) and carries the value on from there.
///
/// ```
/// use std::time::Duration;
/// use trunkline_core::Context;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let context = Context::new().with_timeout(Duration::from_millis(500));
/// let seen = context
///     .scope(async { Context::current().map(|inner| inner.correlation_id().clone()) })
///     .await;
/// assert_eq!(seen.as_ref(), Some(context.correlation_id()));
/// assert!(Context::current().is_none());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    correlation_id: CorrelationId,
    trace: TraceContext,
    deadline: Option<Instant>,
    identity: Option<Identity>,
    baggage: Baggage,
}

impl Context {
    /// The beginning of a new unit of work: fresh correlation and trace ids, no deadline.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        Self::with_id(CorrelationId::new())
    }

    /// A new unit of work under a correlation id that is known already.
    #[must_use]
    pub fn with_id(correlation_id: CorrelationId) -> Self {
        Self(Arc::new(Inner {
            correlation_id,
            trace: TraceContext::new(),
            deadline: None,
            identity: None,
            baggage: Baggage::default(),
        }))
    }

    /// The context of the scope that runs on this task.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The context of the running scope, or a new one where there is none.
    #[must_use]
    pub fn current_or_new() -> Self {
        Self::current().unwrap_or_else(Self::new)
    }

    /// Runs a future in the scope of this context.
    ///
    /// # Cancel safety
    /// Dropping it drops the future within; nothing else happens.
    pub fn scope<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        CURRENT.scope(self.clone(), future)
    }

    /// Runs a closure in the scope of this context.
    pub fn sync_scope<T>(&self, work: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), work)
    }

    /// Ties the context of the running scope to a future that will run elsewhere, such as in a user's own
    /// `tokio::spawn`.
    ///
    /// # Cancel safety
    /// Dropping it drops the future within; nothing else happens.
    pub fn bind<F: Future>(future: F) -> impl Future<Output = F::Output> + use<F> {
        Self::current_or_new().scope(future)
    }

    /// The id by which a whole conversation is found in the logs of every service.
    #[must_use]
    pub fn correlation_id(&self) -> &CorrelationId {
        &self.0.correlation_id
    }

    /// The W3C trace this work belongs to.
    #[must_use]
    pub fn trace(&self) -> &TraceContext {
        &self.0.trace
    }

    /// When nobody waits for the result any more.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.0.deadline
    }

    /// Time left until the deadline; zero when it has passed, `None` when there is none.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.0
            .deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether the deadline has passed.
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.0
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Who asks.
    #[must_use]
    pub fn identity(&self) -> Option<&Identity> {
        self.0.identity.as_ref()
    }

    /// The application's own pairs that travel along.
    #[must_use]
    pub fn baggage(&self) -> &Baggage {
        &self.0.baggage
    }

    /// The same work seen from its next step: a new span id under the present one.
    #[must_use]
    pub fn child(&self) -> Self {
        self.edit(|inner| inner.trace = inner.trace.child())
    }

    /// Replaces the correlation id.
    #[must_use]
    pub fn with_correlation_id(self, correlation_id: CorrelationId) -> Self {
        self.edit(|inner| inner.correlation_id = correlation_id)
    }

    /// Replaces the trace, as the OpenTelemetry bridge does.
    #[must_use]
    pub fn with_trace(self, trace: TraceContext) -> Self {
        self.edit(|inner| inner.trace = trace)
    }

    /// Sets a deadline; an earlier one that is there already stays.
    #[must_use]
    pub fn with_deadline(self, deadline: Instant) -> Self {
        let earliest = self
            .0
            .deadline
            .map_or(deadline, |known| known.min(deadline));
        self.edit(|inner| inner.deadline = Some(earliest))
    }

    /// Sets a deadline from now; an earlier one that is there already stays.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        // An absurdly long span has no deadline that could be represented: leave what is there.
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.with_deadline(deadline),
            None => self,
        }
    }

    /// Removes the deadline, for work that must go on after the caller has gone.
    #[must_use]
    pub fn without_deadline(self) -> Self {
        self.edit(|inner| inner.deadline = None)
    }

    /// Says who asks.
    #[must_use]
    pub fn with_identity(self, identity: Identity) -> Self {
        self.edit(|inner| inner.identity = Some(identity))
    }

    /// Replaces the baggage.
    #[must_use]
    pub fn with_baggage(self, baggage: Baggage) -> Self {
        self.edit(|inner| inner.baggage = baggage)
    }

    fn edit(&self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut copy = Arc::clone(&self.0);
        change(Arc::make_mut(&mut copy));
        Self(copy)
    }
}
