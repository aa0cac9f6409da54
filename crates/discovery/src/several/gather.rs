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
    let mut answers: Answers<T> = Vec::new();
    let mut asked: FuturesUnordered<_> = questions
        .into_iter()
        .map(|(at, question)| {
            answers.push((at, None));
            async move { (at, question.await) }
        })
        .collect();
    let mut until: Option<Instant> = None;
    loop {
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
        if answer.is_ok() && until.is_none() {
            until = Some(Instant::now() + patience);
        }
        if let Some(kept) = answers.iter_mut().find(|(of, _)| *of == at) {
            kept.1 = Some(answer);
        }
    }
}
