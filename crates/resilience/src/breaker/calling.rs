//! One call through a breaker.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::error::CallError;
use super::{Breaker, Permit};
use crate::failure::{Classify, Standard};

pin_project! {
    /// The future of [`Breaker::call`]. It asks the breaker when it is first polled.
    // By hand: an `async fn` moves the future within several times, which costs more than the breaker itself.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless awaited"]
    pub struct Calling<'a, F, C = Standard> {
        // Before the permit: a probe's place is free again only when the call has ended.
        #[pin]
        future: F,
        judge: C,
        breaker: &'a Breaker,
        permit: Option<Permit<'a>>,
    }
}

impl<'a, F, C> Calling<'a, F, C> {
    #[inline]
    pub(super) fn new(breaker: &'a Breaker, judge: C, future: F) -> Self {
        Self {
            future,
            judge,
            breaker,
            permit: None,
        }
    }
}

impl<F, C, T, E> Future for Calling<'_, F, C>
where
    F: Future<Output = Result<T, E>>,
    C: Classify<Result<T, E>>,
{
    type Output = Result<T, CallError<E>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut permit = match this.permit.take() {
            Some(permit) => permit,
            None => match this.breaker.try_acquire() {
                Ok(permit) => permit,
                Err(open) => return Poll::Ready(Err(CallError::Open(open))),
            },
        };
        match this.future.poll(cx) {
            Poll::Ready(result) => {
                permit.settle(this.judge.outcome(&result));
                Poll::Ready(result.map_err(CallError::Failed))
            }
            Poll::Pending => {
                *this.permit = Some(permit);
                Poll::Pending
            }
        }
    }
}
