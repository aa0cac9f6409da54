//! One broker under a steady load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use trunkline::core::{Id, Lifecycle as _, task};
use trunkline::messaging::{AnyBroker, HandlerError, MessageBroker as _, Messaging, Topic};

use crate::member::Numbered;
use crate::proofs::brokers::{Stage, Subject};

/// Publishers, each with a key of its own.
const PUBLISHERS: u32 = 4;
/// Between two publishes of one: with four, a hundred messages a second.
const PACE: Duration = Duration::from_millis(40);
/// Before a publish that failed is repeated.
const PAUSE: Duration = Duration::from_millis(100);
/// Messages after which a guest leaves.
const STAY: u64 = 50;
/// How long anything may take to settle when all is calm.
const PATIENCE: Duration = Duration::from_secs(120);

/// A broker, who publishes to it, who stays and who comes and goes.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) stage: Stage,
    broker: AnyBroker,
    messaging: Messaging,
    book: Arc<Book>,
    stop: Arc<AtomicBool>,
    busy: Vec<JoinHandle<Result<()>>>,
}

/// What became of it.
pub(super) struct Counts {
    pub(super) confirmed: u64,
    pub(super) failed: u64,
    pub(super) again: u64,
    pub(super) guests: u64,
    pub(super) lost: u64,
}

/// What is under way, and counts of what is over: what is done is forgotten, so that this grows no more than the broker does.
#[derive(Default)]
struct Book {
    under_way: Mutex<HashMap<(u32, u32), State>>,
    confirmed: AtomicU64,
    failed: AtomicU64,
    again: AtomicU64,
    guests: AtomicU64,
}

#[derive(Default)]
struct State {
    confirmed: bool,
    handled: bool,
}

impl Book {
    fn under_way(&self) -> MutexGuard<'_, HashMap<(u32, u32), State>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, message: Numbered) {
        let fresh = State::default();
        self.under_way().insert((message.key, message.seq), fresh);
    }

    fn confirmed(&self, message: Numbered) {
        self.confirmed.fetch_add(1, Ordering::Relaxed);
        self.change(message, |state| {
            state.confirmed = true;
        });
    }

    fn handled(&self, message: Numbered) {
        let was = self.change(message, |state| {
            state.handled = true;
        });
        if was.is_none_or(|state| state.handled) {
            self.again.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it was before; `None` when it was over.
    fn change(&self, message: Numbered, change: impl FnOnce(&mut State)) -> Option<State> {
        let mut all = self.under_way();
        let state = all.get_mut(&(message.key, message.seq))?;
        let was = State { ..*state };
        change(state);
        if state.confirmed && state.handled {
            all.remove(&(message.key, message.seq));
        }
        Some(was)
    }
}

impl Line {
    /// Starts the server and the load.
    pub(super) fn open(subject: &'static Subject, runtime: &Runtime) -> Result<Self> {
        let stage = Stage::set(subject)?;
        let broker = stage.broker()?;
        let name: &'static str = format!("soak.t{}", Id::new()).leak();
        let topic = Topic::<Numbered>::new(name);
        let book = Arc::<Book>::default();
        let _entered = runtime.enter();
        let messaging = Messaging::builder(broker.clone()).service("soak").build();
        let own = Arc::clone(&book);
        let opened = runtime.block_on(async {
            let listening = messaging.subscribe(topic).group("those-who-stay");
            let listening = listening
                .without_inbox()
                .handle(move |message: Numbered| {
                    own.handled(message);
                    std::future::ready(Ok::<_, HandlerError>(()))
                })
                .await?;
            messaging.start().await?;
            timeout(PATIENCE, listening.attached()).await??;
            anyhow::Ok(())
        });
        opened?;
        let stop = Arc::<AtomicBool>::default();
        let mut busy = Vec::new();
        for key in 0..PUBLISHERS {
            let publishing = publish(
                messaging.clone(),
                topic,
                key,
                Arc::clone(&book),
                Arc::clone(&stop),
            );
            busy.push(task::spawn("publisher", publishing));
        }
        let guests = guests(
            messaging.clone(),
            topic,
            Arc::clone(&book),
            Arc::clone(&stop),
        );
        busy.push(task::spawn("guests", guests));
        Ok(Self {
            name: subject.name,
            stage,
            broker,
            messaging,
            book,
            stop,
            busy,
        })
    }

    pub(super) fn kill_server(&mut self) -> Result<()> {
        self.stage.server.kill()?;
        Ok(self.stage.server.restart()?)
    }

    /// Waits until the broker is well.
    pub(super) fn recovers(&self, runtime: &Runtime, limit: Duration) -> Result<()> {
        let well = async {
            while self.broker.health_check().await.is_err() {
                sleep(PAUSE).await;
            }
        };
        let well = runtime.block_on(async { timeout(limit, well).await });
        well.context("the broker did not become well again")
    }

    /// Ends the load, waits for the last message, and counts.
    pub(super) fn close(self, runtime: &Runtime) -> Result<Counts> {
        self.stop.store(true, Ordering::Release);
        runtime.block_on(async {
            for busy in self.busy {
                timeout(PATIENCE, busy).await.context("did not end")???;
            }
            let since = Instant::now();
            while !self.book.under_way().is_empty() && since.elapsed() < PATIENCE {
                sleep(PAUSE).await;
            }
            let deadline = Instant::now() + PATIENCE;
            self.messaging.shutdown(deadline).await?;
            anyhow::Ok(())
        })?;
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let book = &self.book;
        ensure!(count(&book.confirmed) > 0, "nothing was confirmed");
        Ok(Counts {
            confirmed: count(&book.confirmed),
            failed: count(&book.failed),
            again: count(&book.again),
            guests: count(&book.guests),
            lost: book.under_way().len() as u64,
        })
    }
}

/// Publishes at a steady pace; each until it is confirmed.
async fn publish(
    messaging: Messaging,
    topic: Topic<Numbered>,
    key: u32,
    book: Arc<Book>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for seq in 0.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        pace.tick().await;
        let message = Numbered { key, seq };
        book.begin(message);
        let since = Instant::now();
        while let Err(error) = messaging.publish(topic, &message).await {
            ensure!(since.elapsed() < PATIENCE, "{}", error.report());
            book.failed.fetch_add(1, Ordering::Relaxed);
            sleep(PAUSE).await;
        }
        book.confirmed(message);
    }
    Ok(())
}

/// Subscribers that come, take some messages and go, one after the other.
async fn guests(
    messaging: Messaging,
    topic: Topic<Numbered>,
    book: Arc<Book>,
    stop: Arc<AtomicBool>,
) -> Result<()> {
    while !stop.load(Ordering::Acquire) {
        let taken = Arc::<AtomicU64>::default();
        let own = Arc::clone(&taken);
        let listening = messaging.subscribe(topic).group("guests").without_inbox();
        let listening = listening
            .handle(move |_: Numbered| {
                own.fetch_add(1, Ordering::AcqRel);
                std::future::ready(Ok::<_, HandlerError>(()))
            })
            .await?;
        while taken.load(Ordering::Acquire) < STAY && !stop.load(Ordering::Acquire) {
            sleep(PAUSE).await;
        }
        listening.stop(Instant::now() + PATIENCE).await;
        book.guests.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
