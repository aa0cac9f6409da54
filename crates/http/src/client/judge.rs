//! What the results of an attempt mean, in HTTP.

use std::borrow::Cow;
use std::time::{Duration, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use trunkline_core::{Clock, Error, ErrorKind, Origin as Side, Problem, Retry, SystemClock};
use trunkline_resilience::breaker::LateReport;
use trunkline_resilience::retry::{FailedAttempt, Stopped};
use trunkline_resilience::{Attempt, Classify, Outcome, RetryExhausted, Standard};

use super::destination::Tried;
use crate::body::Body;
use crate::error::Attempts;
use crate::pool::{PoolFull, PoolTimeout};
use crate::redirect::Redirected;
use crate::transport::Reply;

type Answered = Result<Reply, Error>;

/// Judges the attempts of one call.
pub(crate) struct Judge<'a> {
    /// Statuses that are worth another attempt.
    pub(crate) on_status: &'a [u16],
    /// Whether the request can be sent once more: its body may have been a stream that has passed.
    pub(crate) repeatable: &'a (dyn Fn() -> bool + Send + Sync),
    /// What the attempts have seen of the instances.
    pub(crate) tried: &'a Tried,
}

/// What an answer says about the other side: 5xx and 429 speak against it, every other answer for it.
pub(crate) fn outcome_of_status(status: StatusCode) -> Outcome {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Outcome::Failure
    } else {
        Outcome::Success
    }
}

/// The same; but one that was retried at the tier below, or refused by its circuit, speaks neither way.
pub(crate) fn outcome_of_answer(response: &Response<Body>) -> Outcome {
    match outcome_of_status(response.status()) {
        Outcome::Failure if is_retried(response.headers()) => Outcome::Ignored,
        outcome => outcome,
    }
}

/// Whether the answer is judged by how its body ends. Events have no end to wait for: their head has to do.
pub(crate) fn goes_on(response: &mut Response<Body>) -> bool {
    response.body_mut().is_coming() && !is_of_events(response.headers())
}

fn is_of_events(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let kind = kind.and_then(|kind| kind.get(..EVENTS.len()));
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

/// Whether what went wrong is that there was too little time, here or at the other side.
pub(crate) fn ran_out_of_time(result: &Answered) -> bool {
    match result {
        Ok(response) => response.status() == StatusCode::GATEWAY_TIMEOUT,
        Err(_) => Standard.ran_out_of_time(result),
    }
}

/// Whether it is certain that nothing was processed.
pub(crate) fn was_not_processed(result: &Answered) -> bool {
    match result {
        Ok(response) => refuses(response.status()) && !was_led_on(response),
        Err(error) => error.retry() == Retry::Safe,
    }
}

/// Whether the answer is that of a place to which who had processed the request has led.
fn was_led_on(response: &Response<Body>) -> bool {
    let redirected = response.extensions().get::<Redirected>();
    redirected.is_some_and(|redirected| redirected.processed)
}

/// Whether who answers so has processed nothing.
pub(crate) fn refuses(status: StatusCode) -> bool {
    match status.as_u16() {
        408 => false,
        501 | 505 => true,
        status => (400..500).contains(&status),
    }
}

/// How long an answer asks for no more requests.
pub(crate) fn busy_for(response: &Response<Body>) -> Option<Duration> {
    let is_busy = matches!(response.status().as_u16(), 429 | 503);
    is_busy.then(|| retry_after(response.headers(), &SystemClock))?
}

impl Classify<Answered> for Judge<'_> {
    fn outcome(&self, result: &Answered) -> Outcome {
        match result {
            Ok(response) => outcome_of_answer(response),
            Err(_) => Standard.outcome(result),
        }
    }

    fn retry(&self, result: &Answered) -> Retry {
        let retry = match result {
            // The status first: most answers are good, and the headers of those are not looked at.
            Ok(response) if self.names(response.status()) && !is_retried(response.headers()) => {
                Retry::IfIdempotent
            }
            Ok(_) => Retry::Never,
            // Waiting for a connection is what was just done for as long as it is allowed.
            Err(error) if no_connection(error) => Retry::Never,
            Err(_) => Standard.retry(result),
        };
        if retry != Retry::Never && !(self.repeatable)() {
            return Retry::Never;
        }
        retry
    }

    fn ran_out_of_time(&self, result: &Answered) -> bool {
        ran_out_of_time(result)
    }

    fn goes_on(&self, result: &mut Answered) -> bool {
        result.as_mut().is_ok_and(|reply| goes_on(reply))
    }

    fn hand_over(&self, result: &mut Answered, attempt: &Attempt, report: LateReport) {
        let fair = attempt.fair;
        if let Ok(response) = result {
            response.body_mut().when_ended(move |ended| {
                report.record(match ended.of_one_place {
                    true => Outcome::Ignored,
                    false => ended.end.outcome(fair),
                });
            });
        }
    }

    fn concerns_one_place(&self, attempt: &Attempt) -> bool {
        self.tried.is_dispensed_with(attempt)
    }

    fn is_overload(&self, result: &Answered) -> bool {
        match result {
            Ok(response) => matches!(response.status().as_u16(), 429 | 503 | 504),
            Err(_) => Standard.is_overload(result),
        }
    }

    /// A mistake of ours is not to be covered up by what another service, or nobody, says.
    fn wants_fallback(&self, result: &Answered) -> bool {
        match result {
            Ok(response) => outcome_of_answer(response) != Outcome::Success,
            Err(_) => Standard.wants_fallback(result),
        }
    }

    fn kind(&self, result: &Answered) -> Option<ErrorKind> {
        Standard.kind(result)
    }

    fn retry_after(&self, result: &Answered) -> Option<Duration> {
        match result {
            Ok(response) => retry_after(response.headers(), &SystemClock),
            Err(_) => Standard.retry_after(result),
        }
    }

    fn unasked(&self) -> u32 {
        u32::from(self.tried.has_resent())
    }

    fn gave_up(
        &self,
        result: &mut Answered,
        earlier: Vec<FailedAttempt<Error>>,
        attempts: u32,
        stopped: Stopped,
    ) {
        if let Ok(response) = result
            && (response.status().is_client_error() || response.status().is_server_error())
        {
            let status = response.status();
            let last = Error::new(
                Problem::kind_of(status.as_u16()),
                format!("the answer was {status}"),
            )
            .with_origin(Side::Remote)
            .with_retry(Retry::Never);
            let exhausted = RetryExhausted::new(earlier, attempts, last, stopped);
            response.extensions_mut().insert(Attempts::new(exhausted));
        }
    }

    fn describe(&self, result: &Answered) -> Cow<'static, str> {
        match result {
            Ok(response) => Cow::Owned(response.status().to_string()),
            Err(error) => Cow::Owned(error.to_string()),
        }
    }
}

/// The name of [`trunkline_core::names::header::RETRIES_EXHAUSTED`], as header maps want it.
const RETRIES_EXHAUSTED: HeaderName = HeaderName::from_static("x-retries-exhausted");

/// Whether who answered has retried already.
pub(crate) fn is_retried(headers: &HeaderMap) -> bool {
    headers.contains_key(RETRIES_EXHAUSTED)
}

impl Judge<'_> {
    /// Whether a status is one of those that are retried. By hand: they are a few, and a search that is good at long lists
    /// has hardly been set up.
    #[expect(clippy::manual_contains, reason = "it is what costs more")]
    fn names(&self, status: StatusCode) -> bool {
        let status = status.as_u16();
        self.on_status.iter().any(|known| *known == status)
    }

    /// Marks an answer that was worth another attempt and is final all the same: whoever hands it on, as an answer or as an
    /// error, tells its caller that retries had their turn.
    pub(crate) fn mark(&self, result: &mut Answered) {
        if let Ok(response) = result
            && self.names(response.status())
        {
            let yes = HeaderValue::from_static("true");
            response.headers_mut().insert(RETRIES_EXHAUSTED, yes);
        }
    }
}

pub(crate) fn no_connection(error: &Error) -> bool {
    error.find::<PoolTimeout>().is_some() || error.find::<PoolFull>().is_some()
}

/// `Retry-After`: seconds, or a date of HTTP.
fn retry_after(headers: &HeaderMap, clock: &dyn Clock) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    let date = date.duration_since(UNIX_EPOCH).ok()?;
    let now = u64::try_from(clock.now().unix_millis()).ok()?;
    Some(date.saturating_sub(Duration::from_millis(now)))
}

#[cfg(test)]
mod tests {
    use trunkline_core::{ManualClock, Timestamp};

    use super::*;

    fn judge(tried: &Tried) -> Judge<'_> {
        Judge {
            on_status: &[429, 502, 503, 504],
            repeatable: &|| true,
            tried,
        }
    }

    fn answer(status: u16) -> Answered {
        let answer = Response::builder().status(status).body(Body::empty());
        Ok(Box::new(answer.unwrap()))
    }

    #[test]
    fn statuses_speak_for_or_against_the_other_side() {
        let tried = Tried::default();
        for (status, outcome, retry) in [
            (200, Outcome::Success, Retry::Never),
            (304, Outcome::Success, Retry::Never),
            (404, Outcome::Success, Retry::Never),
            (408, Outcome::Success, Retry::Never),
            (429, Outcome::Failure, Retry::IfIdempotent),
            (500, Outcome::Failure, Retry::Never),
            (501, Outcome::Failure, Retry::Never),
            (502, Outcome::Failure, Retry::IfIdempotent),
            (503, Outcome::Failure, Retry::IfIdempotent),
            (504, Outcome::Failure, Retry::IfIdempotent),
        ] {
            assert_eq!(judge(&tried).outcome(&answer(status)), outcome, "{status}");
            assert_eq!(judge(&tried).retry(&answer(status)), retry, "{status}");
        }
    }

    #[test]
    fn errors_say_themselves_whether_to_repeat() {
        let tried = Tried::default();
        for (kind, said, retry) in [
            (ErrorKind::Unavailable, Retry::Safe, Retry::Safe),
            (
                ErrorKind::Unavailable,
                Retry::IfIdempotent,
                Retry::IfIdempotent,
            ),
            (ErrorKind::Timeout, Retry::IfIdempotent, Retry::IfIdempotent),
            (ErrorKind::Invalid, Retry::Never, Retry::Never),
        ] {
            let result = Err(Error::new(kind, "failed").with_retry(said));
            assert_eq!(judge(&tried).retry(&result), retry, "{kind}");
        }
        let passed = Judge {
            on_status: &[503],
            repeatable: &|| false,
            tried: &tried,
        };
        assert_eq!(passed.retry(&answer(503)), Retry::Never);
    }

    #[test]
    fn the_pause_asked_for_is_read_in_both_forms() {
        let clock = ManualClock::new(Timestamp::from_unix_millis(784_111_777_000));
        for (text, pause) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-5", None),
            ("soon", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            assert_eq!(
                retry_after(&headers, &clock),
                pause.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
