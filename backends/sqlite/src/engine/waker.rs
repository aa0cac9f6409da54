//! The one thread of this process that waits for changes of a database, whoever makes them, and hands on the news.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use trunkline_core::{Error, Result};

use super::bell::{Belfry, Bell, Cord};
use super::connection::{self, Purpose};
use super::writer::data_version;

/// The safety net under the bells.
const POLL: Duration = Duration::from_millis(100);

/// Somebody who wants to know of changes.
pub(crate) trait Listener: Send {
    /// Looks at what there is, with a connection that only reads. `changed` is false when only time has passed.
    ///
    /// It is called after every change, when it was nudged, and when the time it returned is over; several reasons may
    /// fall into one call, and some calls have no reason.
    fn wake(&mut self, connection: &Connection, changed: bool) -> Option<Duration>;

    /// Whether it wants to be called no more.
    fn is_over(&self) -> bool {
        false
    }
}

/// Wakes the waker from within the process.
#[derive(Clone, Debug)]
pub(crate) struct Nudge(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    cord: Cord,
    pending: AtomicBool,
    closing: AtomicBool,
    arrivals: Mutex<Arrivals>,
}

#[derive(Default)]
struct Arrivals(Vec<Box<dyn Listener>>);

impl std::fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} arrivals", self.0.len())
    }
}

impl Nudge {
    /// Has the listeners called soon, although nothing was committed.
    pub(crate) fn now(&self) {
        if !self.0.pending.swap(true, Ordering::AcqRel) {
            self.0.cord.pull();
        }
    }
}

#[cfg(test)]
impl Nudge {
    /// One that wakes nobody.
    pub(crate) fn idle() -> Self {
        Self(Arc::new(Shared {
            cord: Cord::idle(),
            pending: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            arrivals: Mutex::default(),
        }))
    }
}

#[derive(Debug)]
pub(super) struct Waker {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Waker {
    pub(super) fn spawn(path: &Path, name: &str, token: &str, belfry: &Belfry) -> Result<Self> {
        let unable = |error| Error::unavailable("cannot hang a bell").with_source(error);
        let bell = belfry.hang(name, token).map_err(unable)?;
        let shared = Arc::new(Shared {
            cord: belfry.cord(&bell).map_err(unable)?,
            pending: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            arrivals: Mutex::default(),
        });
        let connection = connection::open(path, Purpose::Read)?;
        let inside = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name(format!("tl-wake-{name}"))
            .spawn(move || live(&inside, &bell, &connection))
            .map_err(|error| Error::unavailable("cannot start a thread").with_source(error))?;
        Ok(Self { shared, thread })
    }

    pub(super) fn attach(&self, listener: Box<dyn Listener>) {
        self.shared
            .arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .0
            .push(listener);
        self.nudge().now();
    }

    pub(super) fn nudge(&self) -> Nudge {
        Nudge(Arc::clone(&self.shared))
    }

    /// Tells the thread to end; join the handle.
    pub(super) fn close(self) -> JoinHandle<()> {
        self.shared.closing.store(true, Ordering::Release);
        self.shared.cord.pull();
        self.thread
    }
}

/// A listener and when it wants to be called although nothing changes.
struct Listening {
    listener: Box<dyn Listener>,
    after: Option<Duration>,
}

fn live(shared: &Shared, bell: &Bell, connection: &Connection) {
    let mut listening: Vec<Listening> = Vec::new();
    let mut version = -1;
    while !shared.closing.load(Ordering::Acquire) {
        let due = listening.iter().filter_map(|one| one.after).min();
        let wait = due.map_or(POLL, |due| due.min(POLL));
        let rung = bell.wait(wait).unwrap_or_else(|error| {
            tracing::error!(target: "trunkline", %error, "the bell is broken; polling instead");
            thread::park_timeout(wait);
            false
        });
        let nudged = shared.pending.swap(false, Ordering::AcqRel);
        let newcomers = std::mem::take(
            &mut shared
                .arrivals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .0,
        );
        let arrived = !newcomers.is_empty();
        listening.extend(newcomers.into_iter().map(|listener| Listening {
            listener,
            after: None,
        }));
        let now = data_version(connection).unwrap_or(version - 1);
        let changed = now != version;
        version = now;
        for one in &mut listening {
            one.after = one.after.map(|after| after.saturating_sub(wait));
            let due = one.after.is_some_and(|after| after.is_zero());
            if changed || rung || nudged || arrived || due {
                one.after = call(one.listener.as_mut(), connection, changed);
            }
        }
        listening.retain(|one| !one.listener.is_over());
    }
}

fn call(listener: &mut dyn Listener, connection: &Connection, changed: bool) -> Option<Duration> {
    match catch_unwind(AssertUnwindSafe(|| listener.wake(connection, changed))) {
        Ok(after) => after,
        Err(panic) => {
            let error = trunkline_core::task::panic_error(panic.as_ref());
            tracing::error!(target: "trunkline", %error, "a listener for changes failed; it is tried again");
            Some(Duration::from_secs(1))
        }
    }
}
