use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_core::{Error, ErrorKind, Retry};
use trunkline_resilience::config::Strategy;
use trunkline_resilience::retry::{
    AttemptFailure, BudgetSettings, RetryBudget, RetryLayer, RetrySettings, Stopped,
};
use trunkline_resilience::{Call, Outcome, RetryAfter, RetryExhausted};

const SECOND: Duration = Duration::from_secs(1);

fn steady() -> RetrySettings {
    let mut settings = RetrySettings::default();
    settings.jitter = false;
    settings
}

fn down(_: u32) -> std::future::Ready<Result<(), Error>> {
    std::future::ready(Err(Error::unavailable("down").with_retry(Retry::Safe)))
}

fn exhausted(error: &Error) -> &RetryExhausted {
    error.find::<RetryExhausted>().expect("it was tried again")
}

#[tokio::test(start_paused = true)]
async fn three_attempts_with_growing_waits_and_all_of_them_in_the_error() {
    let began = Instant::now();
    let error = RetryLayer::new(steady())
        .run(Call::default(), down)
        .await
        .unwrap_err();
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.retry(), Retry::Safe, "no attempt was processed");
    let exhausted = exhausted(&error);
    assert_eq!(
        (exhausted.attempts, exhausted.stopped),
        (3, Stopped::Attempts)
    );
    assert_eq!(exhausted.last.message(), "down");
    let earlier: Vec<_> = exhausted
        .earlier
        .iter()
        .map(|attempt| (attempt.number, attempt.delay))
        .collect();
    assert_eq!(earlier, [(1, Some(SECOND)), (2, Some(2 * SECOND))]);
    assert!(
        matches!(&exhausted.earlier[0].failure, AttemptFailure::Error(error) if error.message() == "down")
    );
    assert_eq!(
        error.report().to_string(),
        "gave up after 3 attempts: no attempts are left (attempt_1=down, then waited 1s, attempt_2=down, then waited 2s): down"
    );
}

#[tokio::test(start_paused = true)]
async fn each_decorrelated_wait_is_drawn_by_the_one_before() {
    let mut settings = RetrySettings::default();
    settings.strategy = Strategy::Decorrelated;
    settings.max_attempts = 6;
    settings.max_delay = 3600 * SECOND;
    settings.budget = None;
    let mut grew = false;
    for _ in 0..200 {
        let layer = RetryLayer::new(settings.clone());
        let error = layer.run(Call::default(), down).await.unwrap_err();
        let earlier = exhausted(&error).earlier.iter();
        let waits: Vec<Duration> = earlier.filter_map(|attempt| attempt.delay).collect();
        assert_eq!(waits.len(), 5);
        assert!((SECOND..=3 * SECOND).contains(&waits[0]), "{waits:?}");
        for pair in waits.windows(2) {
            // A nanosecond for rounding.
            let most = 3 * pair[0] + Duration::from_nanos(1);
            assert!((SECOND..=most).contains(&pair[1]), "{waits:?}");
        }
        grew |= waits[4] > 9 * SECOND;
    }
    assert!(grew, "no wait grew with those before it");
}

#[tokio::test(start_paused = true)]
async fn chance_shortens_a_wait_by_at_most_a_half() {
    for _ in 0..50 {
        let began = Instant::now();
        let call = Call::default().with_max_attempts(2);
        let failed = RetryLayer::new(RetrySettings::default())
            .run(call, down)
            .await;
        assert!(failed.is_err());
        // The timer of the runtime counts in milliseconds.
        assert!((SECOND / 2..=SECOND + Duration::from_millis(1)).contains(&began.elapsed()));
    }
}

#[tokio::test(start_paused = true)]
async fn stops_at_the_first_success() {
    let result = RetryLayer::new(steady())
        .run(Call::default(), |number| async move {
            if number < 3 {
                return Err(Error::unavailable("not yet").with_retry(Retry::Safe));
            }
            Ok(number)
        })
        .await;
    assert_eq!(result.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_processed_is_repeated_only_where_that_does_no_harm() {
    for (repeatable, retry, expected) in [
        (false, Retry::Safe, 3),
        (false, Retry::IfIdempotent, 1),
        (true, Retry::IfIdempotent, 3),
        (true, Retry::Never, 1),
    ] {
        let made = Cell::new(0);
        let call = Call::default().repeatable(repeatable);
        let error = RetryLayer::new(steady())
            .run(call, |_| {
                made.set(made.get() + 1);
                async move { Err::<(), _>(Error::unavailable("down").with_retry(retry)) }
            })
            .await
            .unwrap_err();
        assert_eq!(made.get(), expected, "{repeatable} {retry:?}");
        assert_eq!(error.find::<RetryExhausted>().is_some(), expected > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_whole_is_as_safe_to_repeat_as_its_least_safe_attempt() {
    let call = Call::default().repeatable(true).with_max_attempts(2);
    let error = RetryLayer::new(steady())
        .run(call, |number| async move {
            let retry = if number == 1 {
                Retry::IfIdempotent
            } else {
                Retry::Safe
            };
            Err::<(), _>(Error::unavailable("down").with_retry(retry))
        })
        .await
        .unwrap_err();
    assert_eq!(error.retry(), Retry::IfIdempotent);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_asked_for_is_kept() {
    let began = Instant::now();
    let result = RetryLayer::new(steady())
        .run(Call::default(), |number| async move {
            if number == 1 {
                let pause = RetryAfter(7 * SECOND);
                return Err(Error::unavailable("busy")
                    .with_retry(Retry::Safe)
                    .with_source(pause));
            }
            Ok(())
        })
        .await;
    assert!(result.is_ok());
    assert_eq!(began.elapsed(), 7 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_pause_beyond_all_measure_is_bounded() {
    for deadline in [None, Some(10 * SECOND)] {
        let began = Instant::now();
        let mut call = Call::default().with_max_attempts(2);
        call.deadline = deadline.map(|span| began + span);
        let error = RetryLayer::new(steady())
            .run(call, |_| async {
                let pause = RetryAfter(Duration::MAX);
                let error = Error::unavailable("busy").with_retry(Retry::Safe);
                Err::<(), _>(error.with_source(pause))
            })
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let waited = if deadline.is_some() { 0 } else { 30 };
        assert_eq!(began.elapsed().as_secs(), waited);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_after_the_deadline_and_nobody_waits_for_it() {
    let began = Instant::now();
    let mut call = Call::default();
    call.deadline = Some(began + 2 * SECOND);
    let error = RetryLayer::new(steady()).run(call, down).await.unwrap_err();
    let exhausted = exhausted(&error);
    assert_eq!(
        (exhausted.attempts, exhausted.stopped),
        (2, Stopped::Deadline)
    );
    assert_eq!(
        began.elapsed(),
        SECOND,
        "the wait for the third would have ended too late"
    );
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_after_max_elapsed() {
    let mut settings = steady();
    settings.max_attempts = 10;
    settings.max_elapsed = Some(4 * SECOND);
    let error = RetryLayer::new(settings)
        .run(Call::default(), down)
        .await
        .unwrap_err();
    let exhausted = exhausted(&error);
    assert_eq!(
        (exhausted.attempts, exhausted.stopped),
        (3, Stopped::Elapsed)
    );
}

#[tokio::test(start_paused = true)]
async fn a_used_up_budget_stops_new_retries_and_leaves_those_under_way_alone() {
    let mut numbers = BudgetSettings::default();
    numbers.percent = 0.0;
    numbers.min_per_second = 1;
    let budget = Arc::new(RetryBudget::new(numbers));
    let layer = RetryLayer::new(steady()).budget(Arc::clone(&budget));
    let call = Call::default().with_max_attempts(2);
    let calls: Vec<_> = (0..15)
        .map(|_| {
            layer.run(call, |number| async move {
                if number == 1 {
                    return Err(Error::unavailable("down").with_retry(Retry::Safe));
                }
                Ok(())
            })
        })
        .collect();
    let results = futures_util::future::join_all(calls).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 10);
    let refused = results
        .iter()
        .find_map(|result| result.as_ref().err())
        .unwrap();
    let exhausted = exhausted(refused);
    assert_eq!(
        (exhausted.attempts, exhausted.stopped),
        (1, Stopped::Budget)
    );
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_is_cancelled_while_it_waits_is_paid_back() {
    let mut numbers = BudgetSettings::default();
    numbers.percent = 100.0;
    numbers.min_per_second = 0;
    let budget = Arc::new(RetryBudget::new(numbers));
    let layer = RetryLayer::new(steady()).budget(Arc::clone(&budget));
    let call = layer.run(Call::default(), down);
    assert!(tokio::time::timeout(SECOND / 2, call).await.is_err());
    assert!(
        budget.reserve(Instant::now()).is_some(),
        "one call was made, no retry"
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_be_tried_again_and_is_returned_as_it_is_in_the_end() {
    let judge = |result: &Result<u16, Error>| match result {
        Ok(500..) => Outcome::Failure,
        _ => Outcome::Success,
    };
    let made = Cell::new(0);
    let layer = RetryLayer::new(steady()).classify(judge);
    let call = Call::default().repeatable(true);
    let result = layer
        .run(call, |_| {
            made.set(made.get() + 1);
            async { Ok::<_, Error>(503) }
        })
        .await;
    assert_eq!((result.unwrap(), made.get()), (503, 3));
}

#[tokio::test(start_paused = true)]
async fn switched_off_it_makes_one_attempt() {
    let mut settings = steady();
    settings.enabled = false;
    let began = Instant::now();
    let error = RetryLayer::new(settings)
        .run(Call::default(), down)
        .await
        .unwrap_err();
    assert!(error.find::<RetryExhausted>().is_none());
    assert_eq!(began.elapsed(), Duration::ZERO);
    sleep(Duration::ZERO).await;
}

#[tokio::test(start_paused = true)]
async fn only_errors_of_the_kinds_that_were_chosen_are_repeated() {
    use std::sync::Arc;
    for (kinds, expected) in [
        (None, 3),
        (Some(vec![ErrorKind::Unavailable]), 3),
        (Some(vec![ErrorKind::Timeout, ErrorKind::RateLimited]), 1),
        (Some(vec![]), 1),
    ] {
        let mut settings = steady();
        settings.on_error = kinds.clone().map(Arc::from);
        let attempts = Cell::new(0);
        let failed = RetryLayer::new(settings)
            .run(Call::default(), |number| {
                attempts.set(number);
                down(number)
            })
            .await;
        assert!(failed.is_err());
        assert_eq!(attempts.get(), expected, "{kinds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn waits_grow_by_the_strategy_that_was_chosen() {
    use trunkline_resilience::retry::Strategy;
    for (strategy, seconds) in [
        (Strategy::Fixed, 3),
        (Strategy::Linear, 1 + 2 + 3),
        (Strategy::Exponential, 1 + 2 + 4),
    ] {
        let mut settings = steady();
        settings.strategy = strategy;
        settings.max_attempts = 4;
        let began = Instant::now();
        let failed = RetryLayer::new(settings).run(Call::default(), down).await;
        assert!(failed.is_err());
        assert_eq!(began.elapsed(), seconds * SECOND, "{strategy:?}");
    }
}
