//! Tasks that have a name, and belong to a call, whose context they carry, or to an owner who waits for them.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use tracing::instrument::Instrumented;

use crate::{Context, Error};

/// How long the end by force may take.
const AFTER_FORCE: Duration = Duration::from_millis(250);

/// Spawns a task that carries the context of the running scope. Await or abort the handle: a task that outlives its
/// owner belongs into a [`Scope`].
///
/// # Panics
/// Outside a Tokio runtime.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let named = named(name, future);
    match Context::current() {
        Some(context) => spawn_raw(context.scope(named)),
        None => spawn_raw(named),
    }
}

fn named<F: Future>(name: &'static str, future: F) -> Instrumented<F> {
    future.instrument(tracing::debug_span!(target: "trunkline", "task", task = name))
}

#[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
fn spawn_raw<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(future)
}

/// An owner of tasks: they are told to stop together and waited for together. Clones share the same tasks.
///
/// ```
/// use tokio::time::{Duration, Instant};
/// use trunkline_core::task::Scope;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let scope = Scope::new();
/// let stop = scope.token();
/// scope.spawn("worker", async move { stop.cancelled().await });
/// let left = scope.shutdown(Instant::now() + Duration::from_secs(1)).await;
/// assert_eq!(left, 0);
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Scope {
    tracker: TaskTracker,
    token: CancellationToken,
    /// Ends the tasks that did not listen to the token.
    kill: CancellationToken,
}

impl Scope {
    /// An owner without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task into the scope. It should end soon after [`Scope::token`] is cancelled. A panic is logged and
    /// ends that task alone.
    ///
    /// The task is its owner's, and not that of the call that happens to begin it: it runs outside that call's
    /// [`Context`], whose deadline would be over long before it ends. What belongs to one call takes its context along:
    /// `scope.spawn(name, context.scope(future))`.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn spawn<F>(&self, name: &'static str, future: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let kill = self.kill.clone();
        let watched = async move {
            tokio::select! {
                biased;
                () = kill.cancelled() => tracing::warn!(target: "trunkline", task = name, "task stopped by force"),
                outcome = catch_panic(future) => if let Err(panic) = outcome {
                    tracing::error!(target: "trunkline", task = name, error = %panic, "task panicked");
                },
            }
        };
        drop(spawn_raw(named(name, self.tracker.track_future(watched))));
    }

    /// Cancelled when the scope is told to stop.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Whether the scope was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.token.is_cancelled()
    }

    /// How many tasks are running.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is running.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Tells the tasks to stop, without waiting.
    pub fn stop(&self) {
        self.token.cancel();
    }

    /// Tells the tasks to stop, waits for them until the deadline, then ends the rest by force. Returns how many had
    /// to be ended so. One that blocks its thread cannot be ended: it is waited for a moment longer and left behind.
    ///
    /// # Cancel safety
    /// Dropping it stops the waiting; the tasks have been told to stop and may be waited for again.
    pub async fn shutdown(&self, deadline: Instant) -> usize {
        self.token.cancel();
        self.tracker.close();
        if tokio::time::timeout_at(deadline, self.tracker.wait())
            .await
            .is_ok()
        {
            return 0;
        }
        let left = self.tracker.len();
        self.kill.cancel();
        // One that blocks its thread hears of it only when it lets go, if ever.
        drop(tokio::time::timeout(AFTER_FORCE, self.tracker.wait()).await);
        left
    }
}

/// Runs a future and turns a panic within into an error of kind `Internal` that tells the panic's message.
///
/// # Errors
/// When the future panicked.
///
/// # Cancel safety
/// As safe as the future within.
pub async fn catch_panic<F: Future>(future: F) -> Result<F::Output, Error> {
    catch_panic_raw(future)
        .await
        .map_err(|panic| panic_error(panic.as_ref()))
}

/// Runs a future and catches a panic within, for those who will resume it.
///
/// # Errors
/// With the payload of the panic.
///
/// # Cancel safety
/// As safe as the future within.
pub async fn catch_panic_raw<F: Future>(
    future: F,
) -> Result<F::Output, Box<dyn std::any::Any + Send>> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(move |cx| {
        let mut pinned: Pin<&mut F> = future.as_mut();
        match std::panic::catch_unwind(AssertUnwindSafe(|| pinned.as_mut().poll(cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Ok(value)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// An error that tells the message of a panic.
#[must_use]
pub fn panic_error(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    Error::internal(format!("panicked: {text}"))
}
