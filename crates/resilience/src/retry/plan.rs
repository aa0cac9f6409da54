//! Decides after each attempt whether there is another one. Pure: told the time, it waits for nothing.

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Retry;

use super::exhausted::{AttemptFailure, FailedAttempt, RetryExhausted, Stopped};
use super::{Reservation, RetryBudget, RetrySettings};
use crate::failure::Classify;

/// What bounds the attempts of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Whether a second time does no harm.
    pub(crate) repeatable: bool,
    pub(crate) attempts: u32,
    pub(crate) began: Instant,
    /// When the call has to be over.
    pub(crate) deadline: Option<Instant>,
    /// With less than this left no attempt is started.
    pub(crate) floor: Duration,
}

/// The course of one call.
pub(crate) struct Plan<'a, C, E> {
    settings: &'a RetrySettings,
    budget: Option<&'a RetryBudget>,
    judge: &'a C,
    bounds: Bounds,
    /// The attempt under way.
    number: u32,
    earlier: Vec<FailedAttempt<E>>,
}

/// What comes after an attempt.
pub(crate) enum Next<'a, T, E> {
    /// Nothing: this is the result of the call.
    Done(Result<T, E>, Option<Stopped>),
    /// Another attempt after a wait, paid from the budget where there is one.
    Again(Duration, Option<Reservation<'a>>),
}

impl<'a, C, E> Plan<'a, C, E> {
    pub(crate) const fn new(
        settings: &'a RetrySettings,
        budget: Option<&'a RetryBudget>,
        judge: &'a C,
        bounds: Bounds,
    ) -> Self {
        Self {
            settings,
            budget,
            judge,
            bounds,
            number: 1,
            earlier: Vec::new(),
        }
    }

    /// The number of the attempt under way.
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// Whether the result of the attempt under way is that of the call without further ado, as it is of most: looked at where
    /// it is, for a result is large to hand about. Else it is to be given to [`Plan::after`].
    #[inline]
    pub(crate) fn is_over<T>(&self, result: &Result<T, E>) -> bool
    where
        C: Classify<Result<T, E>>,
    {
        self.number == 1 && self.judge.retry(result) == Retry::Never
    }

    /// Takes the result of a hedge beside the attempt under way, which did not end it.
    pub(crate) fn beside<T>(&mut self, result: Result<T, E>)
    where
        C: Classify<Result<T, E>>,
    {
        let failure = self.failure(result);
        let attempt = FailedAttempt::new(self.number, failure, None);
        self.earlier.push(attempt);
    }

    fn failure<T>(&self, result: Result<T, E>) -> AttemptFailure<E>
    where
        C: Classify<Result<T, E>>,
    {
        match result {
            Err(error) => AttemptFailure::Error(error),
            Ok(_) => AttemptFailure::Answer(self.judge.describe(&result)),
        }
    }

    /// Takes the result of the attempt under way.
    pub(crate) fn after<T>(&mut self, result: Result<T, E>) -> Next<'a, T, E>
    where
        C: Classify<Result<T, E>>,
        E: From<RetryExhausted<E>>,
    {
        match self.next(&result) {
            Ok((delay, reservation)) => {
                let failure = self.failure(result);
                let attempt = FailedAttempt::new(self.number, failure, Some(delay));
                self.earlier.push(attempt);
                self.number += 1;
                Next::Again(delay, reservation)
            }
            Err(stopped) => {
                let made = self.made::<T>();
                let mut result = result.map_err(|error| self.conclude(error, made, stopped));
                if result.is_ok() && self.is_news(stopped) {
                    let earlier = std::mem::take(&mut self.earlier);
                    self.judge.gave_up(&mut result, earlier, made, stopped);
                }
                Next::Done(result, Some(stopped))
            }
        }
    }

    /// The error of the call when the attempt under way was refused here. No further one is made: a refusal is there to
    /// be quick.
    pub(crate) fn refused(&mut self, error: E) -> E
    where
        E: From<RetryExhausted<E>>,
    {
        self.conclude(error, self.number, Stopped::Refused)
    }

    /// Attempts made so far, whoever asked for them.
    fn made<T>(&self) -> u32
    where
        C: Classify<Result<T, E>>,
    {
        self.number.saturating_add(self.judge.unasked())
    }

    fn next<T>(&self, result: &Result<T, E>) -> Result<(Duration, Option<Reservation<'a>>), Stopped>
    where
        C: Classify<Result<T, E>>,
    {
        match self.judge.retry(result) {
            Retry::Safe => {}
            Retry::IfIdempotent if self.bounds.repeatable => {}
            Retry::IfIdempotent | Retry::Never => return Err(Stopped::Final),
        }
        if !self.is_of_a_kind(result) {
            return Err(Stopped::Final);
        }
        if self.made::<T>() >= self.bounds.attempts {
            return Err(Stopped::Attempts);
        }
        let previous = self.earlier.iter().rev().find_map(|attempt| attempt.delay);
        let planned = self.settings.schedule().after(previous, self.number + 1);
        let asked = self.judge.retry_after(result).unwrap_or_default();
        let delay = match self.bounds.deadline {
            Some(_) => planned.max(asked),
            // Nobody else bounds the wait.
            None => planned.max(asked.min(self.settings.max_delay)),
        };
        let now = Instant::now();
        let left = |until: Instant| until.saturating_duration_since(now);
        if let Some(deadline) = self.bounds.deadline
            && left(deadline) <= delay.saturating_add(self.bounds.floor)
        {
            return Err(Stopped::Deadline);
        }
        let spent = now.saturating_duration_since(self.bounds.began);
        if let Some(longest) = self.settings.max_elapsed
            && spent.saturating_add(delay) > longest
        {
            return Err(Stopped::Elapsed);
        }
        let reservation = match self.budget {
            Some(budget) => Some(budget.reserve(now).ok_or(Stopped::Budget)?),
            None => None,
        };
        Ok((delay, reservation))
    }

    /// Whether an error is of a kind that is worth another attempt. What has no kind is.
    fn is_of_a_kind<T>(&self, result: &Result<T, E>) -> bool
    where
        C: Classify<Result<T, E>>,
    {
        let Some(kinds) = &self.settings.on_error else {
            return true;
        };
        let kind = self.judge.kind(result);
        kind.is_none_or(|kind| kinds.contains(&kind))
    }

    /// One attempt that failed speaks for itself, unless it is news that there was no second one.
    fn conclude(&mut self, last: E, made: u32, stopped: Stopped) -> E
    where
        E: From<RetryExhausted<E>>,
    {
        if !self.is_news(stopped) {
            return last;
        }
        let earlier = std::mem::take(&mut self.earlier);
        RetryExhausted::new(earlier, made, last, stopped).into()
    }

    fn is_news(&self, stopped: Stopped) -> bool {
        !self.earlier.is_empty() || stopped == Stopped::Budget
    }
}
