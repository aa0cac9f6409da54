//! Asking several at once.

use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use trunkline_core::Result;

/// What came of a question to each; none where there was no answer in time.
pub(super) type Answers<T> = Vec<(usize, Option<Result<T>>)>;

/// Asks all at once and waits for all; once one has answered well, for the others no longer than `patience`. Those that
/// are still under way then are dropped.
pub(super) async fn gather<T, F>(
    questions: impl IntoIterator<Item = (usize, F)>,
    patience: Duration,
) -> Answers<T>
where
    F: Future<Output = Result<T>>,
{
    let questions = questions.into_iter();
    gather_each(questions.map(|(at, question)| (at, patience, question))).await
}

/// As [`gather`], with a patience for each.
pub(super) async fn gather_each<T, F>(
    questions: impl IntoIterator<Item = (usize, Duration, F)>,
) -> Answers<T>
where
    F: Future<Output = Result<T>>,
{
    let mut answers: Answers<T> = Vec::new();
    let mut waiting: Vec<(usize, Duration)> = Vec::new();
    let mut asked: FuturesUnordered<_> = questions
        .into_iter()
        .map(|(at, patience, question)| {
            answers.push((at, None));
            waiting.push((at, patience));
            async move { (at, question.await) }
        })
        .collect();
    let mut first: Option<Instant> = None;
    loop {
        let longest = waiting.iter().map(|(_, patience)| *patience).max();
        let until = first.map(|first| first + longest.unwrap_or_default());
        let patient = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let (at, answer) = tokio::select! {
            biased;
            answer = asked.next() => match answer {
                Some(answer) => answer,
                None => return answers,
            },
            () = patient => return answers,
        };
        if answer.is_ok() {
            first.get_or_insert_with(Instant::now);
        }
        waiting.retain(|(of, _)| *of != at);
        if let Some(kept) = answers.iter_mut().find(|(of, _)| *of == at) {
            kept.1 = Some(answer);
        }
    }
}
