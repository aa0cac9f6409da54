//! Whether the registry answers at all: asked in one place, for every watch and every registration.
//!
//! A watch over a connection on which nothing passes any more hears nothing, which is also what it hears in quiet times.
//! So the registry is asked now and then how it is. When it falls silent, what is known is marked stale; when it is
//! back, everybody asks again at once instead of at the end of a wait that has grown meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use trunkline_core::task::Scope;
use trunkline_core::{Error, ErrorKind};

use crate::erased::AnyRegistry;
use crate::registry::Registry;

/// Time between two questions while the registry answers.
const EVERY: Duration = Duration::from_secs(2);

/// The same while it does not.
const WHILE_SILENT: Duration = Duration::from_millis(500);

/// What takes longer is no answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Those that wait for the registry do not all come back at the same moment.
const SPREAD: Duration = Duration::from_millis(300);

/// What the last question came to.
#[derive(Clone, Debug, Default)]
struct Beat {
    /// Why the registry is taken to be silent, while it is.
    silent: Option<(ErrorKind, Arc<str>)>,
    /// How often it has come back.
    returns: u64,
}

/// Asks the registry how it is, from the first use on.
#[derive(Debug)]
pub(crate) struct Pulse {
    registry: Option<AnyRegistry>,
    beat: watch::Sender<Beat>,
    ask_now: Arc<Notify>,
    begun: AtomicBool,
}

impl Pulse {
    /// Without a registry there is nobody to ask, and nothing is ever told.
    pub(crate) fn new(registry: Option<AnyRegistry>) -> Arc<Self> {
        Arc::new(Self {
            registry,
            beat: watch::Sender::default(),
            ask_now: Arc::default(),
            begun: AtomicBool::new(false),
        })
    }

    /// Listens to it, which begins to ask if nobody has.
    pub(crate) fn listen(&self, scope: &Scope) -> Listener {
        let heard = self.beat.subscribe();
        let returns = heard.borrow().returns;
        if let Some(registry) = &self.registry
            && !self.begun.swap(true, Ordering::Relaxed)
        {
            let asking = Asking {
                registry: registry.clone(),
                beat: self.beat.clone(),
                ask_now: Arc::clone(&self.ask_now),
                stop: scope.token(),
            };
            scope.spawn("discovery-pulse", asking.run());
        }
        Listener {
            heard,
            beat: self.beat.clone(),
            returns,
            told_at: None,
            ask_now: Arc::clone(&self.ask_now),
        }
    }
}

/// One that listens.
#[derive(Debug)]
pub(crate) struct Listener {
    heard: watch::Receiver<Beat>,
    beat: watch::Sender<Beat>,
    /// Returns that it knows of.
    returns: u64,
    /// It is back, and this is when that is told.
    told_at: Option<Instant>,
    ask_now: Arc<Notify>,
}

/// What a listener is told.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The registry does not answer.
    Silent(Error),
    /// It has been silent, and answers again.
    Back,
}

impl Listener {
    /// Why the registry is taken to be silent now, if it is.
    pub(crate) fn silent(&self) -> Option<Error> {
        let beat = self.heard.borrow();
        let (kind, why) = beat.silent.as_ref()?;
        Some(Error::new(*kind, String::from(&**why)))
    }

    /// The registry has answered something else: it is not silent, whatever it said to the last question. Without this it
    /// could fall silent again before it is asked, and nobody would be told.
    pub(crate) fn answers(&mut self) {
        if self.heard.borrow().silent.is_some() {
            answered(&self.beat);
            // Whoever knows need not be told.
            self.returns = self.heard.borrow_and_update().returns;
            self.ask_now.notify_one();
        }
    }

    /// Something went wrong: it is asked now, not only when it is time.
    pub(crate) fn ask_now(&self) {
        self.ask_now.notify_one();
    }

    /// Waits for the next news. Cancel safe.
    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            if self.heard.changed().await.is_err() {
                // Nobody asks any more: there are no news.
                return std::future::pending().await;
            }
            let beat = self.heard.borrow_and_update().clone();
            if let Some(error) = self.silent() {
                return Heard::Silent(error);
            }
            if beat.returns > self.returns {
                self.returns = beat.returns;
                return Heard::Back;
            }
        }
    }

    /// Waits until the registry is back, and a moment longer by chance. Cancel safe: a return that was heard and not told is
    /// told the next time.
    pub(crate) async fn back(&mut self) {
        let at = match self.told_at {
            Some(at) => at,
            None => {
                while !matches!(self.next().await, Heard::Back) {}
                *self.told_at.insert(Instant::now() + a_moment())
            }
        };
        sleep_until(at).await;
        self.told_at = None;
    }
}

/// Waits for a moment by chance, so that not everybody asks at once.
pub(crate) async fn spread() {
    sleep(a_moment()).await;
}

fn a_moment() -> Duration {
    SPREAD.mul_f64(fastrand::f64())
}

struct Asking {
    registry: AnyRegistry,
    beat: watch::Sender<Beat>,
    ask_now: Arc<Notify>,
    stop: CancellationToken,
}

impl Asking {
    async fn run(self) {
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.keep_asking() => {}
        }
    }

    async fn keep_asking(&self) {
        loop {
            let silent = self.beat.borrow().silent.is_some();
            let wait = if silent { WHILE_SILENT } else { EVERY };
            tokio::select! {
                () = sleep(wait.mul_f64(0.9 + fastrand::f64() / 5.0)) => {}
                // Asked already as often as it should be while it is silent.
                () = self.ask_now.notified(), if !silent => {}
            }
            let answer = timeout(ANSWER_WITHIN, self.registry.health_check()).await;
            match answer.unwrap_or_else(|_| Err(too_slow())) {
                Err(error) if error.kind() == ErrorKind::Cancelled => return,
                Err(error) if is_silence(&error) => self.fell_silent(&error),
                // Who refuses is there.
                Ok(()) | Err(_) => answered(&self.beat),
            }
        }
    }

    fn fell_silent(&self, error: &Error) {
        self.beat.send_if_modified(|beat| {
            let news = beat.silent.is_none();
            beat.silent = Some((error.kind(), error.report().to_string().into()));
            news
        });
    }
}

fn answered(beat: &watch::Sender<Beat>) {
    beat.send_if_modified(|beat| {
        let news = beat.silent.take().is_some();
        beat.returns += u64::from(news);
        news
    });
}

fn is_silence(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

fn too_slow() -> Error {
    let span = trunkline_core::duration::format(ANSWER_WITHIN);
    Error::timeout(format!("the registry does not say within {span} how it is"))
}
