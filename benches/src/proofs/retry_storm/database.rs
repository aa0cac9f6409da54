//! A database with so many workers, a queue, and no idea whether anybody still waits for an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, sleep};
use trunkline_core::{Error, task};

/// What an answer takes.
const SERVICE_TIME: Duration = Duration::from_millis(50);

/// Seconds of work that may wait; more is refused at once.
const QUEUE_SECONDS: usize = 20;

/// What is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// Answers take so many times longer between these seconds.
    Slow { from: u64, until: u64, factor: u32 },
    /// Everything is refused at once.
    Down,
}

pub(super) struct Database {
    began: Instant,
    trouble: Trouble,
    workers: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
}

impl Database {
    /// One that answers so many requests a second.
    pub(super) fn new(capacity: usize, trouble: Trouble) -> Self {
        let workers = capacity * usize::try_from(SERVICE_TIME.as_millis()).unwrap_or(1) / 1000;
        Self {
            began: Instant::now(),
            trouble,
            workers: Arc::new(Semaphore::new(workers.max(1))),
            waiting: Arc::default(),
            most_waiting: capacity * QUEUE_SECONDS,
        }
    }

    /// Asks it. Whoever is dropped meanwhile is worked for all the same.
    pub(super) async fn ask(&self) -> Result<(), Error> {
        if matches!(self.trouble, Trouble::Down) {
            return Err(Error::unavailable("the database is down"));
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.most_waiting {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Error::unavailable("the queue of the database is full"));
        }
        let (done, answer) = oneshot::channel();
        let (workers, waiting) = (Arc::clone(&self.workers), Arc::clone(&self.waiting));
        let (began, trouble) = (self.began, self.trouble);
        task::spawn("request", async move {
            let worker = workers.acquire().await;
            waiting.fetch_sub(1, Ordering::Relaxed);
            sleep(service_time(began.elapsed(), trouble)).await;
            drop(worker);
            // That nobody waits for it any more is news to nobody.
            done.send(()).unwrap_or_default();
        });
        answer
            .await
            .map_err(|_| Error::cancelled("the database has stopped"))
    }
}

fn service_time(at: Duration, trouble: Trouble) -> Duration {
    match trouble {
        Trouble::Slow {
            from,
            until,
            factor,
        } if (from..until).contains(&at.as_secs()) => SERVICE_TIME * factor,
        Trouble::Slow { .. } | Trouble::Down => SERVICE_TIME,
    }
}
