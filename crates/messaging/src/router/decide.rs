//! What becomes of a message after a failed attempt: a pure decision.

use std::time::Duration;

use super::error::HandlerError;
use crate::capabilities::Capabilities;
use crate::policies::ConsumeSettings;

/// Why a message becomes a dead letter, as headers and metrics say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Every attempt failed.
    Attempts,
    /// Too many consumers ended without settling it.
    Crashes,
    /// It cannot be read.
    Undecodable,
    /// It is not known to be genuine.
    Untrusted,
    /// The handler said so.
    Handler,
}

impl Reason {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Crashes => "crashes",
            Self::Undecodable => "undecodable",
            Self::Untrusted => "untrusted",
            Self::Handler => "handler",
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Give it up.
    DeadLetter(Reason),
    /// Forget it.
    Reject,
    /// Try again: wait here for so long, then by this way.
    Again { hold: Duration, way: Way },
}

/// How a message comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The broker gives it out again, after a delay, and counts the attempt.
    Requeue(Option<Duration>),
    /// A copy that carries its attempts goes to the group's own retry queue, after a delay.
    Copy(Option<Duration>),
    /// It is tried again right here.
    Here,
}

/// Decides. The broker's own redelivery is used where it counts attempts, so that a cap holds across crashes; where it
/// does not count, a copy carries the count; where there is no place for a copy, this process counts: the backend, if it
/// can wait without a worker, else the worker that waits.
pub(super) fn decide(
    error: &HandlerError,
    attempt: u32,
    settings: &ConsumeSettings,
    capabilities: &Capabilities,
    has_retry_queue: bool,
    counts_returns: bool,
) -> Verdict {
    let asked = match error {
        HandlerError::Undecodable { .. } => return Verdict::DeadLetter(Reason::Undecodable),
        HandlerError::Untrusted { .. } => return Verdict::DeadLetter(Reason::Untrusted),
        HandlerError::DeadLetter { .. } => return Verdict::DeadLetter(Reason::Handler),
        HandlerError::Reject { .. } => return Verdict::Reject,
        HandlerError::Retry { after, .. } => *after,
    };
    if attempt >= settings.max_attempts {
        return Verdict::DeadLetter(Reason::Attempts);
    }
    let delay = asked.unwrap_or_else(|| settings.delay_before(attempt + 1));
    let delay = Some(delay).filter(|delay| !delay.is_zero());
    // What the broker cannot delay is held here.
    let held = held(delay, settings, capabilities);
    let (now, later) = (Duration::ZERO, held);
    let waits = counts_returns && capabilities.delayed_redelivery;
    if capabilities.redelivery && (capabilities.attempts || waits && !has_retry_queue) {
        let (hold, delay) = match capabilities.delayed_redelivery {
            true => (now, delay),
            false => (later, None),
        };
        let way = Way::Requeue(delay);
        Verdict::Again { hold, way }
    } else if has_retry_queue {
        let (hold, delay) = match capabilities.delayed_publish {
            true => (now, delay),
            false => (later, None),
        };
        let way = Way::Copy(delay);
        Verdict::Again { hold, way }
    } else {
        let (hold, way) = (later, Way::Here);
        Verdict::Again { hold, way }
    }
}

/// How much of a delay a message can be held for.
pub(super) fn held(
    delay: Option<Duration>,
    settings: &ConsumeSettings,
    capabilities: &Capabilities,
) -> Duration {
    delay.map_or(Duration::ZERO, |delay| match capabilities.lease_extension {
        true => delay,
        false => delay.min(settings.lease / 2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ConsumeSettings {
        let mut settings = ConsumeSettings {
            max_attempts: 3,
            lease: Duration::from_secs(1),
            ..ConsumeSettings::default()
        };
        settings.schedule.jitter = false;
        settings
    }

    fn able() -> Capabilities {
        Capabilities {
            redelivery: true,
            attempts: true,
            delayed_redelivery: true,
            delayed_publish: true,
            lease_extension: true,
            queues: true,
            ..Capabilities::none()
        }
    }

    fn after(attempt: u32, capabilities: &Capabilities, retry_queue: bool) -> Verdict {
        let error = HandlerError::retry("failed");
        decide(
            &error,
            attempt,
            &settings(),
            capabilities,
            retry_queue,
            false,
        )
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_last_attempt_is_the_last() {
        let none = Capabilities::none();
        for capabilities in [able(), none] {
            let dead = Verdict::DeadLetter(Reason::Attempts);
            assert_eq!(after(3, &capabilities, true), dead);
            assert_eq!(after(4, &capabilities, true), dead);
            assert_ne!(after(2, &capabilities, true), dead);
        }
    }

    #[test]
    fn an_able_broker_does_it_itself() {
        let expected = |seconds| Verdict::Again {
            hold: Duration::ZERO,
            way: Way::Requeue(Some(SECOND * seconds)),
        };
        assert_eq!(after(1, &able(), true), expected(1));
        assert_eq!(after(2, &able(), true), expected(2));
    }

    #[test]
    fn a_delay_that_the_broker_cannot_do_is_held_here() {
        let mut capabilities = able();
        capabilities.delayed_redelivery = false;
        let verdict = after(2, &capabilities, true);
        let expected = Verdict::Again {
            hold: SECOND * 2,
            way: Way::Requeue(None),
        };
        assert_eq!(verdict, expected);
        capabilities.lease_extension = false;
        let expected = Verdict::Again {
            hold: SECOND / 2,
            way: Way::Requeue(None),
        };
        assert_eq!(after(2, &capabilities, true), expected);
    }

    #[test]
    fn a_broker_that_does_not_count_gets_a_copy_that_does() {
        let mut capabilities = able();
        capabilities.attempts = false;
        let expected = Verdict::Again {
            hold: Duration::ZERO,
            way: Way::Copy(Some(SECOND)),
        };
        assert_eq!(after(1, &capabilities, true), expected);
        capabilities.delayed_publish = false;
        let expected = Verdict::Again {
            hold: SECOND,
            way: Way::Copy(None),
        };
        assert_eq!(after(1, &capabilities, true), expected);
        let expected = Verdict::Again {
            hold: SECOND,
            way: Way::Here,
        };
        assert_eq!(after(1, &capabilities, false), expected);
    }

    #[test]
    fn where_no_copy_may_go_the_broker_waits_if_it_counts_meanwhile() {
        let mut capabilities = able();
        capabilities.attempts = false;
        let error = HandlerError::retry("failed");
        let decided = |copies, counts| {
            let settings = settings();
            match decide(&error, 2, &settings, &capabilities, copies, counts) {
                Verdict::Again { hold, way } => (hold, way),
                other => panic!("{other:?}"),
            }
        };
        let (now, later) = (Duration::ZERO, Some(SECOND * 2));
        assert_eq!(decided(false, true), (now, Way::Requeue(later)));
        assert_eq!(decided(true, true), (now, Way::Copy(later)));
        assert_eq!(decided(false, false), (SECOND * 2, Way::Here));
    }

    #[test]
    fn a_handler_may_ask_for_another_wait_and_for_the_end() {
        let asked = HandlerError::retry_after("later", SECOND * 9);
        let expected = Verdict::Again {
            hold: Duration::ZERO,
            way: Way::Requeue(Some(SECOND * 9)),
        };
        assert_eq!(
            decide(&asked, 1, &settings(), &able(), true, false),
            expected
        );
        let now = HandlerError::retry_after("now", Duration::ZERO);
        let expected = Verdict::Again {
            hold: Duration::ZERO,
            way: Way::Requeue(None),
        };
        assert_eq!(decide(&now, 1, &settings(), &able(), true, false), expected);
        for (error, expected) in [
            (HandlerError::reject("no"), Verdict::Reject),
            (
                HandlerError::dead_letter("never"),
                Verdict::DeadLetter(Reason::Handler),
            ),
        ] {
            assert_eq!(
                decide(&error, 1, &settings(), &able(), true, false),
                expected
            );
        }
    }
}
