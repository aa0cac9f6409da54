//! The state machine of a circuit breaker: pure, told the time, locked by [`super::Breaker`].

use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Timestamp;

use super::hot::Hot;
use super::settings::{BreakerSettings, WindowKind};
use super::window::Window;
use crate::failure::Outcome;
use crate::window::{Sample, reaches};

/// Whether calls pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Calls pass; failures are counted.
    Closed,
    /// Calls are refused until the recovery timeout has passed.
    Open,
    /// A few calls pass as probes; their results decide.
    HalfOpen,
}

impl State {
    /// The state as one word, as metrics and JSON show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who decides about the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// The results of the calls.
    #[default]
    Automatic,
    /// An operator: everything is refused.
    ForcedOpen,
    /// An operator: everything passes; results are counted, and change nothing.
    ForcedClosed,
    /// Nobody: everything passes and nothing is counted.
    Disabled,
}

/// What a change of state needs to be told to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(super) from: State,
    pub(super) to: State,
    pub(super) generation: u32,
    pub(super) failures: u32,
}

/// A call that was let through: where it belongs, and the probe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) generation: u32,
    /// Not zero for a probe; below [`Hot::PROBES`].
    pub(super) probe: u32,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        successes: u32,
        probes: Vec<Probe>,
        last_probe: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    id: u32,
    /// When it stops blocking others.
    lease: Instant,
}

/// The state machine. Every method that may change the state returns the change.
#[derive(Debug)]
pub(super) struct Machine {
    settings: BreakerSettings,
    control: Control,
    phase: Phase,
    /// Counts the changes of state. Results of calls admitted under an earlier one decide nothing.
    generation: u32,
    window: Window,
    /// Failures in a row, or in the window at the latest failure; kept while open, for whoever looks.
    failures: u32,
    last_failure: Option<Timestamp>,
    changed: Instant,
    /// When successes were last taken over from the count that needs no lock: those counted since belong here.
    counting_since: Instant,
}

impl Machine {
    pub(super) fn new(settings: BreakerSettings, now: Instant) -> Self {
        let settings = settings.within_bounds();
        Self {
            settings,
            control: Control::Automatic,
            phase: Phase::Closed,
            generation: 0,
            window: Window::new(&settings, now),
            failures: 0,
            last_failure: None,
            changed: now,
            counting_since: now,
        }
    }

    pub(super) fn counting_from(mut self, generation: u32) -> Self {
        self.generation = generation;
        self
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    pub(super) fn control(&self) -> Control {
        self.control
    }

    pub(super) fn settings(&self) -> &BreakerSettings {
        &self.settings
    }

    /// Failures in a row, or in the window; while not closed, those that opened the circuit and of probes since.
    pub(super) fn failures(&self, now: Instant) -> u32 {
        match (&self.phase, self.settings.window.kind) {
            (Phase::Closed, WindowKind::Count | WindowKind::Time) => {
                u32::try_from(self.window.totals(now).failures).unwrap_or(u32::MAX)
            }
            _ => self.failures,
        }
    }

    pub(super) fn last_failure(&self) -> Option<Timestamp> {
        self.last_failure
    }

    /// When the present state began.
    pub(super) fn changed(&self) -> Instant {
        self.changed
    }

    /// What calls may do without the lock.
    pub(super) fn hot(&self) -> Hot {
        let timed = self.settings.slow_call.is_some();
        let in_a_row = self.settings.window.kind == WindowKind::Consecutive;
        let path = match (&self.phase, &self.window) {
            _ if self.control == Control::Disabled => {
                return Hot::new(Hot::OFF, false, self.generation);
            }
            (Phase::Open { .. } | Phase::HalfOpen { .. }, _) => Hot::LOCKED,
            // A success has failures to forgive.
            (Phase::Closed, _) if in_a_row && self.failures > 0 => Hot::NOISY,
            (Phase::Closed, Window::None) => Hot::QUIET,
            (Phase::Closed, Window::Count(_) | Window::Time(_)) => Hot::COUNTED,
        };
        Hot::new(path, timed, self.generation)
    }

    /// Takes over the successes that were counted without the lock.
    pub(super) fn absorb(&mut self, successes: u64) {
        if matches!(self.phase, Phase::Closed) {
            self.window.record_successes(successes, self.counting_since);
        }
    }

    /// Until when successes may be counted without the lock; `None` where time does not matter.
    pub(super) fn count_until(&mut self, now: Instant) -> Option<Instant> {
        self.counting_since = self.counting_since.max(now);
        match &self.window {
            Window::None | Window::Count(_) => None,
            Window::Time(window) => Some(window.next_tick(self.counting_since)),
        }
    }

    /// From when on a call is slow.
    pub(super) fn slow_from(&self) -> Option<Duration> {
        self.settings.slow_call.map(|limit| limit.duration)
    }

    /// Calls in the window; none where failures in a row need none.
    pub(super) fn calls(&self, now: Instant) -> u64 {
        self.window.totals(now).calls
    }

    /// Lets a call through, or says how long it had better wait.
    pub(super) fn admit(&mut self, now: Instant) -> (Result<Admission, Duration>, Option<Change>) {
        let mut change = None;
        if let Phase::Open { until } = self.phase {
            if self.control == Control::ForcedOpen {
                return (Err(self.settings.recovery_timeout), None);
            }
            if now < until {
                return (Err(until - now), None);
            }
            change = Some(self.enter(half_open(), now));
        }
        let generation = self.generation;
        let Phase::HalfOpen {
            probes, last_probe, ..
        } = &mut self.phase
        else {
            let admission = Admission {
                generation,
                probe: 0,
            };
            return (Ok(admission), change);
        };
        probes.retain(|probe| now < probe.lease);
        if probes.len() >= self.settings.half_open_max_calls as usize {
            let next = probes.iter().map(|probe| probe.lease).min();
            let wait = next.map_or(Duration::ZERO, |lease| lease - now);
            return (Err(wait.min(LONGEST_HINT_WHILE_PROBING)), change);
        }
        // Zero means "no probe": numbers begin at one, also after a wrap.
        *last_probe = (*last_probe % (Hot::PROBES - 1)) + 1;
        let probe = *last_probe;
        probes.push(Probe {
            id: probe,
            lease: now + self.settings.probe_timeout,
        });
        (Ok(Admission { generation, probe }), change)
    }

    /// Takes the result of a call. `took` is known where slow calls are looked at; `wall` gives the wall time of a
    /// failure.
    pub(super) fn record(
        &mut self,
        admission: Admission,
        outcome: Outcome,
        took: Option<Duration>,
        now: Instant,
        wall: impl FnOnce() -> Timestamp,
    ) -> Option<Change> {
        let known = self.release(admission);
        if admission.generation != self.generation || self.control == Control::Disabled {
            return None;
        }
        let sample = Sample {
            failed: match outcome {
                Outcome::Failure => true,
                Outcome::Success => false,
                Outcome::Ignored => return None,
            },
            slow: self
                .settings
                .slow_call
                .zip(took)
                .is_some_and(|(limit, took)| took >= limit.duration),
        };
        if sample.failed {
            self.last_failure = Some(wall());
        }
        match &mut self.phase {
            Phase::Closed => self.record_closed(sample, now),
            Phase::Open { .. } => None,
            // A probe whose lease ran out has been replaced: its successor decides.
            Phase::HalfOpen { .. } if !known => None,
            Phase::HalfOpen { successes, .. } => {
                if sample.failed || sample.slow {
                    self.failures = self.failures.saturating_add(1);
                    return Some(self.open(now));
                }
                *successes += 1;
                let enough = *successes >= self.settings.success_threshold;
                enough.then(|| self.close(now))
            }
        }
    }

    fn record_closed(&mut self, sample: Sample, now: Instant) -> Option<Change> {
        self.window.record(sample, now);
        let consecutive = self.settings.window.kind == WindowKind::Consecutive;
        if consecutive && !sample.failed {
            self.failures = 0;
        }
        // Only bad news opens a circuit: a success that completes the minimum of calls does not.
        if !sample.failed && !sample.slow {
            return None;
        }
        let totals = self.window.totals(now);
        if sample.failed {
            self.failures = if consecutive {
                self.failures.saturating_add(1)
            } else {
                u32::try_from(totals.failures).unwrap_or(u32::MAX)
            };
        }
        let enough = totals.calls >= self.window.minimum(&self.settings);
        let failing = sample.failed
            && if consecutive {
                self.failures >= self.settings.failure_threshold
            } else {
                let percent = self.settings.window.failure_percent;
                enough && reaches(totals.failures, totals.calls, percent)
            };
        let slow = sample.slow
            && enough
            && self
                .settings
                .slow_call
                .is_some_and(|limit| reaches(totals.slow, totals.calls, limit.percent));
        let opens = (failing || slow) && self.control == Control::Automatic;
        opens.then(|| self.open(now))
    }

    /// Frees the place of a probe; says whether it still had one. Everything else has none to free.
    pub(super) fn release(&mut self, admission: Admission) -> bool {
        if admission.probe == 0 || admission.generation != self.generation {
            return false;
        }
        let Phase::HalfOpen { probes, .. } = &mut self.phase else {
            return false;
        };
        let before = probes.len();
        probes.retain(|probe| probe.id != admission.probe);
        probes.len() < before
    }

    /// Hands the decision to an operator, or back. Handing it back closes the circuit and forgets what was counted.
    pub(super) fn force(&mut self, control: Control, now: Instant) -> Option<Change> {
        self.control = control;
        let before = self.state();
        let change = match control {
            Control::ForcedOpen => self.open(now),
            Control::Automatic | Control::ForcedClosed | Control::Disabled => self.close(now),
        };
        (change.to != before).then_some(change)
    }

    /// Takes new numbers and keeps the state. A window of another shape starts empty.
    pub(super) fn reconfigure(&mut self, settings: BreakerSettings, now: Instant) {
        let settings = settings.within_bounds();
        let old = std::mem::replace(&mut self.settings, settings);
        let reshaped = old.window.kind != settings.window.kind
            || old.window.size != settings.window.size
            || old.window.duration != settings.window.duration
            || old.slow_call.is_some() != settings.slow_call.is_some();
        if reshaped {
            self.window = Window::new(&settings, now);
            if matches!(self.phase, Phase::Closed) {
                self.failures = 0;
            }
        }
        if let Phase::Open { until } = &mut self.phase {
            *until = self.changed + settings.recovery_timeout;
        }
    }

    /// How long an open circuit stays so; zero in the other states.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        match self.phase {
            Phase::Open { .. } if self.control == Control::ForcedOpen => {
                self.settings.recovery_timeout
            }
            Phase::Open { until } => until.saturating_duration_since(now),
            Phase::Closed | Phase::HalfOpen { .. } => Duration::ZERO,
        }
    }

    #[cfg(test)]
    pub(super) fn probes(&self) -> usize {
        match &self.phase {
            Phase::HalfOpen { probes, .. } => probes.len(),
            Phase::Closed | Phase::Open { .. } => 0,
        }
    }

    fn open(&mut self, now: Instant) -> Change {
        let until = now + self.settings.recovery_timeout;
        self.enter(Phase::Open { until }, now)
    }

    fn close(&mut self, now: Instant) -> Change {
        self.window.clear();
        self.failures = 0;
        self.enter(Phase::Closed, now)
    }

    fn enter(&mut self, phase: Phase, now: Instant) -> Change {
        let from = self.state();
        self.phase = phase;
        self.generation = self.generation.wrapping_add(1);
        self.changed = now;
        Change {
            from,
            to: self.state(),
            generation: self.generation,
            failures: self.failures,
        }
    }
}

fn half_open() -> Phase {
    Phase::HalfOpen {
        successes: 0,
        probes: Vec::new(),
        last_probe: 0,
    }
}

/// While probes are under way nobody knows when the circuit closes: callers are told to look again soon.
const LONGEST_HINT_WHILE_PROBING: Duration = Duration::from_secs(1);
