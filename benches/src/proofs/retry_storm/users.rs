//! The users, and what they saw.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep, timeout};
use trunkline_core::{Context, task};

use super::database::{Database, Trouble};
use super::tiers::{Habits, TIERS, Tiers};

/// Time between the requests of one user, on average.
const PAUSE: u64 = 10;

/// How many users, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) users: usize,
    pub(super) seconds: u64,
    /// How long a user waits for an answer.
    pub(super) patience: Duration,
}

impl Load {
    /// Requests a second while all is well.
    pub(super) fn rate(&self) -> usize {
        self.users / usize::try_from(PAUSE).unwrap_or(1)
    }

    /// Requests a second that the database can answer.
    pub(super) fn capacity(&self) -> usize {
        self.rate() * 5 / 4
    }
}

/// What happened, by the second in which a request was made.
pub(super) struct Course {
    pub(super) made: Vec<u64>,
    pub(super) good: Vec<u64>,
    pub(super) arrivals: Vec<u64>,
    /// Attempts of each tier.
    pub(super) attempts: [u64; TIERS],
}

impl Course {
    pub(super) fn requests(&self) -> u64 {
        self.made.iter().sum()
    }

    /// The share of requests made in these seconds that were answered in time.
    pub(super) fn good_share(&self, seconds: Range<u64>) -> f64 {
        let sum = |counts: &[u64]| -> u64 {
            let within = counts
                .iter()
                .enumerate()
                .filter(|(second, _)| seconds.contains(&(*second as u64)));
            within.map(|(_, count)| count).sum()
        };
        sum(&self.good) as f64 / sum(&self.made).max(1) as f64
    }

    /// Seconds after this one from which on all went well; `None` when it never did again.
    pub(super) fn recovered(&self, after: u64) -> Option<u64> {
        let seconds = self.made.len() as u64;
        let bad = (after..seconds)
            .rev()
            .find(|second| self.good_share(*second..*second + 1) < 0.9);
        match bad {
            None => Some(0),
            Some(last) if last + 5 >= seconds => None,
            Some(last) => Some(last + 1 - after),
        }
    }

    pub(super) fn worst_second(&self) -> u64 {
        self.arrivals.iter().copied().max().unwrap_or_default()
    }
}

struct Seen {
    made: Vec<AtomicU64>,
    good: Vec<AtomicU64>,
}

/// Lets it happen, on a clock that jumps.
pub(super) fn run(habits: Habits, load: Load, trouble: Trouble) -> Result<Course> {
    fastrand::seed(4);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    Ok(runtime.block_on(happen(habits, load, trouble)))
}

async fn happen(habits: Habits, load: Load, trouble: Trouble) -> Course {
    let database = Database::new(load.capacity(), trouble);
    let tiers = Tiers::new(habits, database, load.seconds);
    let counts = || (0..load.seconds).map(|_| AtomicU64::new(0)).collect();
    let seen = Arc::new(Seen {
        made: counts(),
        good: counts(),
    });
    let began = Instant::now();
    let end = began + Duration::from_secs(load.seconds);
    let users: Vec<_> = (0..load.users)
        .map(|_| {
            let (tiers, seen) = (Arc::clone(&tiers), Arc::clone(&seen));
            task::spawn("user", async move {
                sleep(Duration::from_millis(fastrand::u64(..PAUSE * 1000))).await;
                while Instant::now() < end {
                    let second = usize::try_from(began.elapsed().as_secs()).unwrap_or(usize::MAX);
                    let context = Context::new().with_timeout(load.patience);
                    count(&seen.made, second);
                    let answer = timeout(load.patience, tiers.request(0, context)).await;
                    if matches!(answer, Ok(Ok(()))) {
                        count(&seen.good, second);
                    }
                    sleep(Duration::from_millis(fastrand::u64(
                        PAUSE * 950..PAUSE * 1050,
                    )))
                    .await;
                }
            })
        })
        .collect();
    for user in users {
        // A user that panicked has made fewer requests, which the counts show.
        drop(user.await);
    }
    let read = |counts: &[AtomicU64]| {
        counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect()
    };
    Course {
        made: read(&seen.made),
        good: read(&seen.good),
        arrivals: read(&tiers.arrivals),
        attempts: [0, 1, 2].map(|tier| tiers.attempts[tier].load(Ordering::Relaxed)),
    }
}

fn count(counts: &[AtomicU64], second: usize) {
    if let Some(count) = counts.get(second) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
