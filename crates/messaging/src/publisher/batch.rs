//! Several messages as one call of their policy.

use std::sync::{Mutex, MutexGuard, PoisonError};

use trunkline_core::{Error, Result, Retry};

use crate::message::{Publish, Receipt};

/// The messages of a batch and what became of each. Shared by the attempts, which carry what is left.
pub(super) struct Batch {
    messages: Vec<Publish>,
    outcomes: Mutex<Vec<Option<Result<Receipt>>>>,
}

impl Batch {
    pub(super) fn new(messages: Vec<Publish>) -> Self {
        let outcomes = messages.iter().map(|_| None).collect();
        Self {
            messages,
            outcomes: Mutex::new(outcomes),
        }
    }

    /// The messages for the next attempt, and which they are: those that may be tried again. What the attempt before
    /// said of them is forgotten.
    pub(super) fn left(&self) -> (Vec<usize>, Vec<Publish>) {
        let mut outcomes = self.lock();
        let mut left = Vec::new();
        for (at, outcome) in outcomes.iter_mut().enumerate() {
            if outcome.as_ref().is_none_or(is_open) {
                *outcome = None;
                left.push(at);
            }
        }
        let messages = left.iter().map(|at| self.messages[*at].clone()).collect();
        (left, messages)
    }

    /// Takes the answers of an attempt. An error that the policy may try again stands for the attempt; one that is final
    /// does where nothing was published, so that the policy learns what a message alone would have told it. It comes
    /// back by [`Batch::close`].
    pub(super) fn answered(&self, asked: &[usize], answers: Vec<Result<Receipt>>) -> Result<()> {
        let mut outcomes = self.lock();
        let mut answers = answers.into_iter();
        for at in asked {
            let missing = || Err(Error::internal("the broker gave too few outcomes"));
            outcomes[*at] = Some(answers.next().unwrap_or_else(missing));
        }
        let of = |at: &usize| outcomes[*at].as_ref();
        let open = asked.iter().find(|at| of(at).is_some_and(is_open));
        let none_went = || asked.iter().all(|at| of(at).is_some_and(Result::is_err));
        let telling = open.or_else(|| asked.first().filter(|_| none_went()));
        match telling.and_then(|at| outcomes[*at].take()) {
            Some(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Every message with its outcome. What has none of its own has that of the call: it was refused, or not answered.
    pub(super) fn close(self, call: Result<()>) -> Vec<(Publish, Result<Receipt>)> {
        let outcomes = self
            .outcomes
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let missing = || Error::internal("a message of a batch has no outcome");
        let shared = call.err();
        let copy = shared.as_ref().map(duplicate);
        let mut whole = shared;
        let mut of_call = move || whole.take().or_else(|| copy.as_ref().map(duplicate));
        let outcomes = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|| Err(of_call().unwrap_or_else(missing))));
        self.messages.into_iter().zip(outcomes).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Result<Receipt>>>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another attempt may lead to something else.
fn is_open(outcome: &Result<Receipt>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|error| error.retry() != Retry::Never)
}

/// An error for each of several that failed for the same reason.
pub(crate) fn duplicate(error: &Error) -> Error {
    Error::new(error.kind(), error.message().to_owned())
        .with_retry(error.retry())
        .with_origin(error.origin())
}
