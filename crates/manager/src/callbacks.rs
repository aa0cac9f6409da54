//! What the application wants to be told: started, stopping, health.

use std::fmt::Display;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use trunkline_core::health::HealthChange;
use trunkline_core::names::target;
use trunkline_core::task::catch_panic;
use trunkline_core::{BoxFuture, ComponentStatus};

use crate::CommunicationManager;

/// A callback that takes longer is left behind: it must not hold up the start, the stop, or the next report.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a callback may return: nothing, or a result whose error is logged.
pub trait CallbackOutcome: Send {
    /// The error, if there is one.
    fn failure(self) -> Option<String>;
}

impl CallbackOutcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: Display + Send> CallbackOutcome for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

tokio::task_local! {
    static SHUTDOWN_CALLBACK: ();
}

/// Whether a shutdown callback is running here: it must not wait for the end of the stop that waits for it.
pub(crate) fn inside_shutdown_callback() -> bool {
    SHUTDOWN_CALLBACK.try_with(|()| ()).is_ok()
}

type Outcome = BoxFuture<'static, Option<String>>;
type ManagerCallback = Arc<dyn Fn(CommunicationManager) -> Outcome + Send + Sync>;
type HealthCallback = Arc<dyn Fn(String, ComponentStatus) -> Outcome + Send + Sync>;

#[derive(Clone)]
struct HealthListener {
    call: HealthCallback,
    on_every_failure: bool,
}

/// All callbacks of one manager, called in the order in which they were added.
#[derive(Default)]
pub(crate) struct Callbacks {
    startup: Mutex<Vec<ManagerCallback>>,
    shutdown: Mutex<Vec<ManagerCallback>>,
    health: Mutex<Vec<HealthListener>>,
}

impl Callbacks {
    pub(crate) fn add_startup<F, Fut>(&self, callback: F)
    where
        F: Fn(CommunicationManager) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: CallbackOutcome> + Send + 'static,
    {
        push(
            &self.startup,
            Arc::new(move |manager| boxed(callback(manager))),
        );
    }

    pub(crate) fn add_shutdown<F, Fut>(&self, callback: F)
    where
        F: Fn(CommunicationManager) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: CallbackOutcome> + Send + 'static,
    {
        push(
            &self.shutdown,
            Arc::new(move |manager| boxed(callback(manager))),
        );
    }

    pub(crate) fn add_health<F, Fut>(&self, on_every_failure: bool, callback: F)
    where
        F: Fn(String, ComponentStatus) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: CallbackOutcome> + Send + 'static,
    {
        let call: HealthCallback = Arc::new(move |key, status| boxed(callback(key, status)));
        push(
            &self.health,
            HealthListener {
                call,
                on_every_failure,
            },
        );
    }

    pub(crate) async fn started(&self, manager: &CommunicationManager) {
        for callback in snapshot(&self.startup) {
            run("startup", async { callback(manager.clone()).await }).await;
        }
    }

    pub(crate) async fn stopping(&self, manager: &CommunicationManager) {
        for callback in snapshot(&self.shutdown) {
            let stopping = run("shutdown", async { callback(manager.clone()).await });
            SHUTDOWN_CALLBACK.scope((), stopping).await;
        }
    }

    /// Forgets them all: they may hold the manager that holds them.
    pub(crate) fn clear(&self) {
        empty(&self.startup);
        empty(&self.shutdown);
        empty(&self.health);
    }

    pub(crate) async fn health_reported(&self, report: &HealthChange) {
        for listener in snapshot(&self.health) {
            if report.is_change() || (listener.on_every_failure && report.failed) {
                let (key, status) = (report.key.to_string(), report.status.clone());
                run("health", async { (listener.call)(key, status).await }).await;
            }
        }
    }
}

fn boxed<O: CallbackOutcome>(future: impl Future<Output = O> + Send + 'static) -> Outcome {
    Box::pin(async move { future.await.failure() })
}

fn push<T>(list: &Mutex<Vec<T>>, item: T) {
    list.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(item);
}

fn empty<T>(list: &Mutex<Vec<T>>) {
    // Dropped outside the lock: a callback may hold anything.
    let all = std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner));
    drop(all);
}

fn snapshot<T: Clone>(list: &Mutex<Vec<T>>) -> Vec<T> {
    list.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A callback that fails, panics or hangs harms nobody but is not passed over in silence.
async fn run(kind: &'static str, callback: impl Future<Output = Option<String>>) {
    let failure = match tokio::time::timeout(PATIENCE, catch_panic(callback)).await {
        Ok(Ok(None)) => return,
        Ok(Ok(Some(error))) => error,
        Ok(Err(panic)) => panic.to_string(),
        Err(_) => "it did not return within 30 s".to_owned(),
    };
    tracing::error!(target: target::MANAGER, callback = kind, error = %failure, "a callback failed");
}
