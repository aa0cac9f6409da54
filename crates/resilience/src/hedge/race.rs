//! Requests that run beside each other until the first good answer. Knows no policies: it starts, waits and drops.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep};

use super::{HedgeSettings, Latencies};
use crate::retry::{Reservation, RetryBudget};

/// By which rules hedges start.
#[derive(Clone, Copy)]
pub(crate) struct Race<'a> {
    pub(crate) settings: &'a HedgeSettings,
    pub(crate) latencies: &'a Latencies,
    pub(crate) budget: Option<&'a RetryBudget>,
    pub(crate) began: Instant,
    /// Hedges that may be started.
    pub(crate) allowed: u32,
}

/// What a request's result is to the race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It ends the race.
    Good,
    /// Another one may do better, if one runs.
    Bad,
    /// Nothing was sent.
    Refused,
}

/// What the race tells while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// A hedge starts.
    Started,
    /// The budget refused one.
    NoBudget,
}

/// How a race ended.
pub(crate) struct Raced<O> {
    /// The first good result, else the last bad one, else the refusal.
    pub(crate) result: O,
    /// Whether that is a hedge's.
    pub(crate) by_hedge: bool,
    /// The other bad results, in the order in which they came.
    pub(crate) failed: Vec<(u32, O)>,
}

/// Starts a request, and beside it hedges as long as no good answer has come. What is under way when it ends is dropped,
/// which cancels it. Dropped itself, it drops them all.
pub(crate) async fn race<'a, O, F>(
    rules: Race<'a>,
    mut start: impl FnMut(u32, Option<Reservation<'a>>) -> F,
    verdict: impl Fn(&O) -> Verdict,
    tell: impl Fn(Told),
) -> Raced<O>
where
    F: Future<Output = O>,
{
    let delay = rules.latencies.delay(rules.settings, rules.began);
    let mut timer = delay.filter(|_| rules.allowed > 0).map(sleep).map(Box::pin);
    let mut running = vec![(0, Box::pin(start(0, None)))];
    let mut hedges = 0;
    let mut failed: Vec<(u32, O)> = Vec::new();
    loop {
        let Some((number, result)) = next(&mut running, &mut timer).await else {
            timer = None;
            let now = Instant::now();
            let paid = rules.budget.map(|budget| budget.reserve(now));
            if matches!(paid, Some(None)) {
                // What runs goes on.
                tell(Told::NoBudget);
                continue;
            }
            hedges += 1;
            tell(Told::Started);
            running.push((hedges, Box::pin(start(hedges, paid.flatten()))));
            timer = delay
                .filter(|_| hedges < rules.allowed)
                .map(sleep)
                .map(Box::pin);
            continue;
        };
        let verdict = verdict(&result);
        rules.measure(number, verdict, delay, &running);
        if verdict != Verdict::Good && !running.is_empty() {
            if verdict == Verdict::Bad {
                failed.push((number, result));
            }
            continue;
        }
        // That a hedge was refused is no reason to hide what a request that was made has said.
        let (number, result) = match failed.pop() {
            Some(made) if verdict == Verdict::Refused => made,
            made => {
                failed.extend(made);
                (number, result)
            }
        };
        return Raced {
            result,
            by_hedge: number > 0,
            failed,
        };
    }
}

impl Race<'_> {
    /// Counts how long the first request took. One that a hedge has beaten took at least so long: left out, the slow ones
    /// would vanish from the estimate and ever more calls would be hedged. A quick failure is no quick answer.
    fn measure<F>(
        &self,
        number: u32,
        verdict: Verdict,
        delay: Option<std::time::Duration>,
        running: &[(u32, F)],
    ) {
        let beaten = number > 0
            && verdict == Verdict::Good
            && running.iter().any(|(number, _)| *number == 0);
        let now = Instant::now();
        let took = now.saturating_duration_since(self.began);
        let slow = delay.is_some_and(|delay| took >= delay);
        if beaten
            || (number == 0 && (verdict == Verdict::Good || (verdict == Verdict::Bad && slow)))
        {
            self.latencies.record(took, now);
        }
    }
}

/// The next result, or `None` when it is time for a hedge. A result that is there wins over time that is over.
async fn next<O, F: Future<Output = O>>(
    running: &mut Vec<(u32, Pin<Box<F>>)>,
    timer: &mut Option<Pin<Box<Sleep>>>,
) -> Option<(u32, O)> {
    poll_fn(|cx: &mut Context<'_>| {
        for at in 0..running.len() {
            let Some((number, future)) = running.get_mut(at) else {
                break;
            };
            if let Poll::Ready(result) = future.as_mut().poll(cx) {
                let number = *number;
                running.remove(at);
                return Poll::Ready(Some((number, result)));
            }
        }
        match timer {
            Some(timer) => timer.as_mut().poll(cx).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}
