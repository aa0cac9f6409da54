//! What a policy has to know about one call, and what it tells each attempt.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Context;

use crate::chaos::Chaos;
use crate::concurrency::Priority;

/// What a policy has to know about one call: until when, and whether it may be repeated.
///
/// ```
/// use std::time::Duration;
/// use trunkline_core::Context;
/// use trunkline_resilience::Call;
///
/// let context = Context::new().with_timeout(Duration::from_secs(2));
/// let call = Call::new(&context).repeatable(true);
/// assert_eq!(call.deadline, context.deadline());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// The caller's deadline.
    pub deadline: Option<Instant>,
    /// Whether a second time does no harm: the operation is idempotent, or carries a key by which the other side knows
    /// it again. Without it only what provably was not processed is repeated.
    pub repeatable: bool,
    /// Whether it does no harm either when several of them are processed at the same time: then it may be hedged where it
    /// is repeatable.
    pub hedge: bool,
    /// How much it matters where not all can be served.
    pub priority: Priority,
    /// Whether chaos may hit it where only marked calls are hit.
    pub marked: bool,
    /// In place of the policy's total timeout.
    pub total: Option<Duration>,
    /// In place of the policy's timeout of an attempt.
    pub attempt: Option<Duration>,
    /// In place of the policy's number of attempts.
    pub max_attempts: Option<u32>,
    /// When it began, for whoever has just looked at the clock; it counts from then. Default: when the policy is asked.
    pub began: Option<Instant>,
}

impl Call {
    /// A call within the deadline of a context and as important as that says, not repeatable.
    #[must_use]
    pub fn new(context: &Context) -> Self {
        Self {
            deadline: context.deadline(),
            priority: Priority::of(context),
            marked: Chaos::is_marked(context),
            ..Self::default()
        }
    }

    /// Says whether a second time does no harm.
    #[must_use]
    pub const fn repeatable(mut self, repeatable: bool) -> Self {
        self.repeatable = repeatable;
        self
    }

    /// Says whether it does no harm either when several of them are processed at the same time. A read does none; what has
    /// a key is repeatable, but its second request may be told that the first is under way.
    #[must_use]
    pub const fn hedge(mut self, hedge: bool) -> Self {
        self.hedge = hedge;
        self
    }

    /// Says how much it matters where not all can be served.
    #[must_use]
    pub const fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets this call's own total timeout.
    #[must_use]
    pub const fn with_total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// Sets this call's own timeout of an attempt.
    #[must_use]
    pub const fn with_attempt_timeout(mut self, attempt: Duration) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// Says when it began. A moment ago: what has passed since counts as time of the call.
    #[must_use]
    pub const fn with_began(mut self, began: Instant) -> Self {
        self.began = Some(began);
        self
    }

    /// Sets this call's own number of attempts, the first one included.
    #[must_use]
    pub const fn with_max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts);
        self
    }
}

/// What an attempt is told: its number, and until when it has time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// The first is 1.
    pub number: u32,
    /// Which hedge of that attempt it is; 0 for the attempt itself.
    pub hedge: u32,
    /// When it began.
    pub began: Instant,
    /// When it is cut off: this is what to tell the next hop, as time left.
    pub deadline: Instant,
    /// Whether running out of this time speaks against the other side: not where the caller left next to none
    /// (`timeout.fair`).
    pub fair: bool,
}

impl Attempt {
    /// An attempt outside any policy, that begins now.
    #[must_use]
    pub fn new(number: u32, deadline: Instant) -> Self {
        Self {
            number,
            hedge: 0,
            began: Instant::now(),
            deadline,
            fair: true,
        }
    }

    /// Time left; zero when it is over.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether something was tried before.
    #[must_use]
    pub const fn is_retry(&self) -> bool {
        self.number > 1
    }
}
