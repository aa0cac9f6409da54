//! What one connection is doing, so that one that does nothing is found out.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Place;

/// How the client's first bytes begin when it speaks HTTP/2 from the start.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// No such thing is going on.
const NEVER: u64 = u64::MAX;

/// How long a connection may do nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For the head of a request, from its first byte; for the very first one from the connection's beginning.
    pub(super) head: Duration,
    /// Between requests, and for a client that does not take what is sent.
    pub(super) idle: Duration,
}

/// What to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Look again then.
    Wait(Instant),
    /// It has had no request for too long: close it in an orderly way.
    Idle,
    /// The head of a request does not come, or nothing that is sent is taken: drop it.
    Stuck,
}

/// Clones watch the same connection. Times are milliseconds since its beginning.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Marks>);

#[derive(Debug)]
struct Marks {
    start: Instant,
    requests: AtomicU32,
    http2: AtomicBool,
    spoken: AtomicBool,
    /// Since when the head of a request is being read.
    reading: AtomicU64,
    /// Since when there is no request.
    idle: AtomicU64,
    /// Since when nothing could be written.
    stalled: AtomicU64,
}

impl Activity {
    pub(super) fn begin() -> Self {
        Self(Arc::new(Marks {
            start: Instant::now(),
            requests: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            spoken: AtomicBool::new(false),
            // A connection that says nothing at all is treated as one whose head does not come.
            reading: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            stalled: AtomicU64::new(NEVER),
        }))
    }

    /// Counts a request until the guard is dropped, which must be when its response has been sent.
    pub(super) fn request(&self) -> RequestGuard {
        self.0.requests.fetch_add(1, Ordering::AcqRel);
        RequestGuard(self.clone())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.0.requests.load(Ordering::Acquire) == 0
    }

    /// Whether the client has sent anything yet.
    pub(super) fn has_spoken(&self) -> bool {
        self.0.spoken.load(Ordering::Acquire)
    }

    pub(super) fn verdict(&self, patience: Patience) -> Verdict {
        let marks = &*self.0;
        let now = Instant::now();
        let since = |mark: &AtomicU64| match mark.load(Ordering::Acquire) {
            NEVER => None,
            millis => Some(marks.start + Duration::from_millis(millis)),
        };
        // Looking again that often finds a head that began meanwhile in time.
        let mut next = now + patience.head.min(patience.idle);
        let mut expired = |begun: Option<Instant>, allowed: Duration| {
            let Some(end) = begun.map(|begun| begun + allowed) else {
                return false;
            };
            next = next.min(end);
            end <= now
        };
        if expired(since(&marks.stalled), patience.idle) {
            return Verdict::Stuck;
        }
        if self.is_idle() {
            let http2 = marks.http2.load(Ordering::Acquire);
            // In HTTP/2 bytes come without requests too: pings, windows.
            if !http2 && expired(since(&marks.reading), patience.head) {
                return Verdict::Stuck;
            }
            if expired(since(&marks.idle), patience.idle) {
                return Verdict::Idle;
            }
        }
        Verdict::Wait(next)
    }

    fn millis(&self) -> u64 {
        let span = Instant::now().saturating_duration_since(self.0.start);
        u64::try_from(span.as_millis()).unwrap_or(NEVER - 1)
    }

    fn on_read(&self, bytes: &[u8]) {
        if self.is_idle() && self.0.reading.load(Ordering::Acquire) == NEVER {
            self.0.reading.store(self.millis(), Ordering::Release);
        }
        if !self.0.spoken.swap(true, Ordering::AcqRel) && bytes.starts_with(HTTP2_PREFACE) {
            self.0.http2.store(true, Ordering::Release);
        }
    }

    fn on_write<T>(&self, written: &Poll<T>) {
        let stalled = &self.0.stalled;
        if written.is_ready() {
            if stalled.load(Ordering::Relaxed) != NEVER {
                stalled.store(NEVER, Ordering::Release);
            }
        } else if stalled.load(Ordering::Relaxed) == NEVER {
            stalled.store(self.millis(), Ordering::Release);
        }
    }
}

/// Counts as a request until it is dropped.
#[derive(Debug)]
pub(super) struct RequestGuard(Activity);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let marks = &*self.0.0;
        // Before the count falls, so that nobody sees an idle connection with the marks of the last request.
        marks.idle.store(self.0.millis(), Ordering::Release);
        marks.reading.store(NEVER, Ordering::Release);
        marks.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

pin_project! {
    /// A connection that tells its [`Activity`] what passes. It holds its place for as long as it is open, also when
    /// it has been upgraded to another protocol.
    pub(super) struct Watched<I> {
        #[pin]
        io: I,
        activity: Activity,
        place: Place,
    }
}

impl<I> Watched<I> {
    pub(super) fn new(io: I, activity: Activity, place: Place) -> Self {
        Self {
            io,
            activity,
            place,
        }
    }
}

impl<I: AsyncRead> AsyncRead for Watched<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        ready!(this.io.poll_read(cx, buffer))?;
        if let Some(new) = buffer.filled().get(before..).filter(|new| !new.is_empty()) {
            this.activity.on_read(new);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite> AsyncWrite for Watched<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.io.poll_write(cx, bytes);
        this.activity.on_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = this.io.poll_write_vectored(cx, parts);
        this.activity.on_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
    };

    async fn after(activity: &Activity, seconds: u64) -> Verdict {
        advance(Duration::from_secs(seconds)).await;
        activity.verdict(PATIENCE)
    }

    fn waits(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Wait(next) if next > Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_has_the_time_of_a_head() {
        let activity = Activity::begin();
        assert!(waits(after(&activity, 9).await));
        assert_eq!(after(&activity, 1).await, Verdict::Stuck);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_may_take_its_time_and_then_idles() {
        let activity = Activity::begin();
        activity.on_read(b"GET / HTTP/1.1");
        let request = activity.request();
        assert!(waits(after(&activity, 1000).await));
        drop(request);
        assert!(waits(after(&activity, 74).await));
        assert_eq!(after(&activity, 1).await, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_cut_off_from_its_first_byte() {
        let activity = Activity::begin();
        drop(activity.request());
        after(&activity, 60).await;
        activity.on_read(b"G");
        assert!(waits(after(&activity, 9).await));
        activity.on_read(b"E");
        assert_eq!(after(&activity, 1).await, Verdict::Stuck);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_pings_are_no_heads() {
        let activity = Activity::begin();
        activity.on_read(b"PRI * HTTP/2.0\r\n");
        assert!(waits(after(&activity, 50).await));
        assert_eq!(after(&activity, 25).await, Verdict::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_stuck() {
        let activity = Activity::begin();
        let _request = activity.request();
        activity.on_write(&Poll::<()>::Pending);
        assert!(waits(after(&activity, 74).await));
        activity.on_write(&Poll::Ready(()));
        assert!(waits(after(&activity, 74).await));
        activity.on_write(&Poll::<()>::Pending);
        assert_eq!(after(&activity, 75).await, Verdict::Stuck);
    }
}
