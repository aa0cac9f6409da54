use std::time::Duration;

use trunkline_core::{BoxError, Error, ErrorKind, Origin, Retry};
use trunkline_resilience::bulkhead::{Bulkhead, BulkheadSettings};
use trunkline_resilience::timeout::Limit;
use trunkline_resilience::{Classify, Elapsed, Outcome, RetryAfter, Standard};

type Answer = Result<(), Error>;

fn judged(error: Error) -> (Outcome, Retry, bool) {
    let result: Answer = Err(error);
    (
        Standard.outcome(&result),
        Standard.retry(&result),
        Standard.wants_fallback(&result),
    )
}

#[test]
fn errors_are_judged_by_what_they_are() {
    use ErrorKind as Kind;
    use Outcome::{Failure, Ignored, Success};
    let local = |kind| Error::new(kind, "x");
    let remote = |kind| Error::new(kind, "x").with_origin(Origin::Remote);
    for (error, outcome, fallback) in [
        (local(Kind::Unavailable), Failure, true),
        (remote(Kind::Unavailable), Failure, true),
        (local(Kind::Timeout), Failure, true),
        (remote(Kind::RateLimited), Failure, true),
        (remote(Kind::Internal), Failure, true),
        (remote(Kind::Exhausted), Failure, true),
        (local(Kind::Internal), Ignored, false),
        (local(Kind::Exhausted), Ignored, false),
        (local(Kind::Rejected), Ignored, true),
        (local(Kind::Cancelled), Ignored, false),
        (local(Kind::Config), Ignored, false),
        (local(Kind::Unsupported), Ignored, false),
        (remote(Kind::NotFound), Success, false),
        (remote(Kind::Conflict), Success, false),
        (remote(Kind::Invalid), Success, false),
        (remote(Kind::Unauthenticated), Success, false),
        (remote(Kind::Denied), Success, false),
    ] {
        let text = format!("{error:?}");
        let (seen, _, wants) = judged(error);
        assert_eq!((seen, wants), (outcome, fallback), "{text}");
    }
}

#[test]
fn an_error_says_itself_whether_it_may_be_repeated() {
    for retry in [Retry::Never, Retry::Safe, Retry::IfIdempotent] {
        let error = Error::unavailable("x").with_retry(retry);
        assert_eq!(judged(error).1, retry);
    }
    let no_instance = Error::rejected("no instance of users");
    assert_eq!(judged(no_instance).1, Retry::Safe);
}

#[tokio::test(start_paused = true)]
async fn whoever_was_refused_here_does_not_insist() {
    let mut settings = BulkheadSettings::default();
    settings.max_queue = 0;
    settings.max_concurrent = 1;
    let bulkhead = Bulkhead::new(settings);
    let _place = bulkhead.try_acquire();
    let full = bulkhead.acquire(None).await.unwrap_err();
    let error = Error::from(full);
    assert_eq!(error.retry(), Retry::Safe);
    assert_eq!(judged(error).1, Retry::Never);
}

#[test]
fn boxed_and_foreign_errors_are_judged_too() {
    let boxed: Result<(), BoxError> = Err(Box::new(Error::not_found("x")));
    assert_eq!(Standard.outcome(&boxed), Outcome::Success);
    let foreign: Result<(), BoxError> = Err("something".into());
    assert_eq!(Standard.outcome(&foreign), Outcome::Failure);
    assert_eq!(Standard.retry(&foreign), Retry::IfIdempotent);
    let text: Result<(), &str> = Err("something");
    assert_eq!(Standard.outcome(&text), Outcome::Failure);
    assert!(Standard.wants_fallback(&text));
}

#[test]
fn a_hint_is_found_under_the_error() {
    let wait = Duration::from_secs(3);
    let result: Answer =
        Err(Error::new(ErrorKind::RateLimited, "429").with_source(RetryAfter(wait)));
    assert_eq!(Standard.retry_after(&result), Some(wait));
    let without: Answer = Err(Error::unavailable("x"));
    assert_eq!(Standard.retry_after(&without), None);
}

#[test]
fn a_timeout_is_a_failure_that_may_have_been_processed() {
    let error = Error::from(Elapsed::new(Limit::Attempt, Duration::from_secs(2)));
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(
        error.to_string(),
        "no answer within 2s: the attempt's timeout ran out"
    );
    let (outcome, retry, _) = judged(error);
    assert_eq!((outcome, retry), (Outcome::Failure, Retry::IfIdempotent));
}

#[test]
fn a_closure_says_what_a_failure_is_and_a_failure_may_have_been_processed() {
    let judge = |result: &Result<u16, Error>| match result {
        Ok(status) if *status >= 500 => Outcome::Failure,
        _ => Outcome::Success,
    };
    assert_eq!(judge.retry(&Ok(503)), Retry::IfIdempotent);
    assert_eq!(judge.retry(&Ok(200)), Retry::Never);
    assert!(judge.wants_fallback(&Ok(503)));
    assert!(!judge.wants_fallback(&Err(Error::unavailable("x"))));
}
