//! Several calls at once, each with an outcome of its own.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use trunkline_core::{BoxFuture, Context, Error, Retry, duration, task};

use super::result::ServiceResult;
use crate::error::ServiceError;
use crate::limits::after;

/// Calls of one batch that run at the same time, unless it says otherwise.
const AT_ONCE: usize = 16;

/// Time for a whole batch, unless it says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call of a batch. Its data becomes JSON, so that calls of different types can stand beside each other.
pub struct Job<'a>(BoxFuture<'a, ServiceResult>);

impl<'a> Job<'a> {
    /// Any future of a [`ServiceResult`] or `Result`. It starts when its turn has come.
    pub fn new<C>(call: C) -> Self
    where
        C: IntoFuture + Send + 'a,
        C::Output: Outcome<Data: Serialize>,
        C::IntoFuture: Send + 'a,
    {
        Self(Box::pin(async move {
            call.into_future().await.into_outcome().erased()
        }))
    }
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

/// What a call of a batch may answer: a `Result` or a [`ServiceResult`].
pub trait Outcome {
    /// The data after a success.
    type Data;

    /// The same as a [`ServiceResult`].
    fn into_outcome(self) -> ServiceResult<Self::Data>;
}

impl<T, E: Into<ServiceError>> Outcome for Result<T, E> {
    type Data = T;

    fn into_outcome(self) -> ServiceResult<T> {
        self.into()
    }
}

impl<T> Outcome for ServiceResult<T> {
    type Data = T;

    fn into_outcome(self) -> Self {
        self
    }
}

/// Several named calls at once; `.await` makes them. A call that fails, or panics, has no effect on the others. All run on
/// the task that awaits them: dropping it drops them.
#[must_use = "the calls are made by `.await`"]
pub struct Batch<'a> {
    calls: Vec<(String, Job<'a>)>,
    limits: BatchLimits,
}

#[derive(Clone, Copy)]
struct BatchLimits {
    at_once: usize,
    time: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            at_once: AT_ONCE,
            time: PATIENCE,
        }
    }
}

impl fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.calls.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl<'a> Batch<'a> {
    pub(super) fn new<N: Into<String>>(calls: impl IntoIterator<Item = (N, Job<'a>)>) -> Self {
        let calls = calls.into_iter().map(|(name, job)| (name.into(), job));
        Self {
            calls: calls.collect(),
            limits: BatchLimits::default(),
        }
    }

    /// Adds a call.
    pub fn add(mut self, name: impl Into<String>, call: Job<'a>) -> Self {
        self.calls.push((name.into(), call));
        self
    }

    /// How many run at the same time; the others wait, in order. Default 16; 0 is 1.
    pub const fn max_concurrent(mut self, calls: usize) -> Self {
        self.limits.at_once = if calls == 0 { 1 } else { calls };
        self
    }

    /// Time for the whole; the deadline of the running context counts as well, and the calls pass on which is sooner.
    /// What is not done by then is a `ServiceTimeout`. Default 30 s.
    pub const fn deadline(mut self, time: Duration) -> Self {
        self.limits.time = time;
        self
    }
}

impl<'a> IntoFuture for Batch<'a> {
    type Output = BatchResults;
    type IntoFuture = BoxFuture<'a, BatchResults>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            let (names, jobs): (Vec<String>, Vec<Job<'a>>) = self.calls.into_iter().unzip();
            let slots: Vec<Slot<_>> = names.iter().map(|_| Slot::default()).collect();
            let calls = jobs.into_iter().zip(&slots).enumerate();
            let calls = calls.map(|(place, (job, slot))| match twice(&names, place) {
                Some(error) => slot.fill(async { ServiceResult::failed(error) }),
                None => slot.fill(job.0),
            });
            let begun = run(calls.collect(), self.limits).await;
            let results = slots.into_iter().enumerate();
            let results = results
                .map(|(place, slot)| slot.take(self.limits, place < begun))
                .collect::<Vec<_>>();
            BatchResults(names.into_iter().zip(results).collect())
        })
    }
}

/// A name is how a result is found: of two calls by one name only the first is made.
fn twice(names: &[String], place: usize) -> Option<ServiceError> {
    let name = names.get(place)?;
    let known = names.iter().take(place).any(|earlier| earlier == name);
    known.then(|| Error::invalid(format!("the batch has another call by the name `{name}`")).into())
}

/// What the calls of a batch answered, in their order.
#[derive(Debug)]
pub struct BatchResults(Vec<(String, ServiceResult)>);

impl BatchResults {
    /// The outcome of a call by its name; the first, if the name was given twice.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ServiceResult> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, result)| result)
    }

    /// All of them, in the order of the calls.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ServiceResult)> {
        self.0.iter().map(|(name, result)| (name.as_str(), result))
    }

    /// How many calls there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there were none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every call succeeded.
    #[must_use]
    pub fn all_succeeded(&self) -> bool {
        self.0.iter().all(|(_, result)| result.success)
    }
}

impl IntoIterator for BatchResults {
    type Item = (String, ServiceResult);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

/// Where the outcome of a call is put.
struct Slot<T>(Mutex<Option<ServiceResult<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T: Send> Slot<T> {
    /// The call, which puts its outcome here, a panic as well.
    fn fill<'s, F>(&'s self, call: F) -> BoxFuture<'s, ()>
    where
        F: Future<Output: Outcome<Data = T>> + Send + 's,
    {
        Box::pin(async move {
            let outcome = match task::catch_panic(call).await {
                Ok(outcome) => outcome.into_outcome(),
                Err(panic) => ServiceResult::failed(panic.into()),
            };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        })
    }

    /// The outcome; if there is none, the batch was over before.
    fn take(self, limits: BatchLimits, begun: bool) -> ServiceResult<T> {
        let outcome = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.unwrap_or_else(|| {
            let time = duration::format(limits.time);
            let (text, retry) = if begun {
                (
                    format!("no answer by the deadline of the batch, {time} or the caller's"),
                    Retry::IfIdempotent,
                )
            } else {
                (
                    format!("not begun by the deadline of the batch, {time} or the caller's"),
                    Retry::Safe,
                )
            };
            ServiceResult::failed(Error::timeout(text).with_retry(retry).into())
        })
    }
}

/// Runs calls until all are done or time is over; says how many were begun, in order. The others are dropped.
async fn run(calls: Vec<BoxFuture<'_, ()>>, limits: BatchLimits) -> usize {
    let mut deadline = after(Instant::now(), limits.time);
    let context = Context::current();
    if let Some(sooner) = context.as_ref().and_then(Context::deadline) {
        deadline = deadline.min(sooner);
    }
    let mut begun = 0;
    let all = async {
        let mut waiting = calls.into_iter();
        let mut running: FuturesUnordered<_> = waiting.by_ref().take(limits.at_once).collect();
        begun = running.len();
        while running.next().await.is_some() {
            if let Some(call) = waiting.next() {
                begun += 1;
                running.push(call);
            }
        }
    };
    // That time is over is seen by what is missing.
    let ended = match context {
        // The services are told, too.
        Some(context) => {
            let context = context.with_deadline(deadline);
            timeout_at(deadline, context.scope(all)).await
        }
        None => timeout_at(deadline, all).await,
    };
    drop(ended);
    begun
}

/// A tuple of up to eight calls: futures of a [`ServiceResult`] or `Result`.
pub trait BatchTuple<'a> {
    /// What `.await` answers with a tuple of [`ServiceResult`]s.
    type Batch: Future + Send;

    /// All at once, within 30 s and the deadline of the running context.
    fn batch(self) -> Self::Batch;
}

macro_rules! tuple {
    ($($call:ident $place:tt),+) => {
        impl<'a, $($call),+> BatchTuple<'a> for ($($call,)+)
        where
            $(
                $call: IntoFuture + Send + 'a,
                $call::Output: Outcome,
                <$call::Output as Outcome>::Data: Send + 'a,
                $call::IntoFuture: Send + 'a,
            )+
        {
            type Batch = BoxFuture<'a, ($(ServiceResult<<$call::Output as Outcome>::Data>,)+)>;

            fn batch(self) -> Self::Batch {
                Box::pin(async move {
                    let limits = BatchLimits::default();
                    let slots = ($(Slot::<<$call::Output as Outcome>::Data>::default(),)+);
                    let calls = vec![$(slots.$place.fill(self.$place.into_future())),+];
                    run(calls, limits).await;
                    ($(slots.$place.take(limits, true),)+)
                })
            }
        }
    };
}

tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
