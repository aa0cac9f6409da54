//! Bounds the time until the head of an answer is here, counted from the end of the request.
//!
//! Around [`Exchange`](super::Exchange) and not in it: few calls have this limit, and none of the others pays for it.

use std::future::Future;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use futures_util::future::poll_fn;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, sleep_until};

use crate::body::Upload;
use crate::connect::Meter;
use crate::limits::after;

/// Tells whether a request is still being written.
pub(crate) struct Writing<'a> {
    /// Of a connection that carries one request at a time: what it sends is this request.
    pub(crate) meter: Option<&'a Meter>,
    pub(crate) upload: Option<&'a Upload>,
}

impl Writing<'_> {
    fn sent(&self) -> u64 {
        self.meter.map_or(0, |meter| meter.moved_both().0)
    }
}

/// The answer, or `None` when its head took too long.
pub(crate) async fn head_within<F: Future>(
    exchange: F,
    writing: Writing<'_>,
    limit: Duration,
) -> Option<F::Output> {
    let mut exchange = pin!(exchange);
    let mut sent = writing.sent();
    let mut uploaded = writing.upload.is_some_and(Upload::is_under_way);
    let mut due = after(Instant::now(), limit);
    let mut alarm = pin!(sleep_until(due));
    poll_fn(|cx| {
        if let Poll::Ready(answer) = exchange.as_mut().poll(cx) {
            return Poll::Ready(Some(answer));
        }
        let now_sent = writing.sent();
        let uploads = writing.upload.is_some_and(Upload::is_under_way);
        if now_sent != sent || uploads || uploaded {
            (sent, uploaded) = (now_sent, uploads);
            due = after(Instant::now(), limit);
        }
        loop {
            // A flood that uses up the task's budget at every turn must not keep the end from being seen.
            ready!(pin!(unconstrained(alarm.as_mut())).poll(cx));
            if due <= Instant::now() {
                return Poll::Ready(None);
            }
            alarm.as_mut().reset(due);
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::stream;
    use tokio::time::sleep;

    use super::*;
    use crate::body::Body;

    const LIMIT: Duration = Duration::from_millis(100);

    /// The answer to a request that takes half a second to be written.
    async fn answered_after(pause: Duration) -> Option<&'static str> {
        let pieces = stream::pending::<Result<Bytes, trunkline_core::Error>>();
        let (body, upload) = Upload::watch(Body::stream(pieces));
        let exchange = async move {
            sleep(5 * LIMIT).await;
            drop(body);
            sleep(pause).await;
            "answer"
        };
        let writing = Writing {
            meter: None,
            upload: Some(&upload),
        };
        head_within(exchange, writing, LIMIT).await
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_that_the_request_takes_does_not_count() {
        assert_eq!(answered_after(LIMIT / 2).await, Some("answer"));
        let began = Instant::now();
        assert_eq!(answered_after(3 * LIMIT).await, None);
        assert_eq!(began.elapsed(), 6 * LIMIT);
    }
}
