//! A future with an end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

pin_project! {
    /// Runs a future until it is done or a point in time is there; what comes first, the future being asked first.
    // In place of `tokio::time::timeout_at`, which sets up its timer even for a future that is ready at once.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub(crate) struct Limited<F> {
        #[pin]
        future: F,
        until: Instant,
        #[pin]
        timer: Option<Sleep>,
    }
}

/// The time was over before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over;

/// Ends a future at a point in time.
pub(crate) fn limited<F: Future>(until: Instant, future: F) -> Limited<F> {
    Limited {
        future,
        until,
        timer: None,
    }
}

impl<F: Future> Future for Limited<F> {
    type Output = Result<F::Output, Over>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        if this.timer.is_none() {
            this.timer.set(Some(sleep_until(*this.until)));
        }
        let Some(timer) = this.timer.as_pin_mut() else {
            return Poll::Pending;
        };
        // A future that uses up the task's budget at every turn must not keep its own end from being seen.
        pin!(unconstrained(timer)).poll(cx).map(|()| Err(Over))
    }
}
