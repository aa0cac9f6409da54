//! The state machine, told the time.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use trunkline_core::Timestamp;

use super::settings::{BreakerSettings, SlowCallSettings, WindowKind};
use super::state::{Admission, Control, Machine, State};
use crate::failure::Outcome;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    machine: Machine,
    now: Instant,
}

impl Bench {
    fn new(settings: BreakerSettings) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(settings, now),
            now,
        }
    }

    fn admit(&mut self) -> Result<Admission, Duration> {
        self.machine.admit(self.now).0
    }

    fn finish(&mut self, admission: Admission, outcome: Outcome, took: Option<Duration>) {
        let wall = || Timestamp::UNIX_EPOCH;
        self.machine
            .record(admission, outcome, took, self.now, wall);
    }

    fn call(&mut self, outcome: Outcome) {
        self.call_taking(outcome, None);
    }

    fn call_taking(&mut self, outcome: Outcome, took: Option<Duration>) {
        let admission = self.admit().expect("the call is let through");
        self.finish(admission, outcome, took);
    }

    fn calls(&mut self, outcomes: &[(Outcome, usize)]) {
        for (outcome, times) in outcomes {
            for _ in 0..*times {
                self.call(*outcome);
            }
        }
    }

    fn state(&self) -> State {
        self.machine.state()
    }
}

fn opened() -> Bench {
    let mut bench = Bench::new(BreakerSettings::default());
    bench.calls(&[(Outcome::Failure, 5)]);
    bench
}

fn half_open() -> Bench {
    let mut bench = opened();
    bench.now += 60 * SECOND;
    bench
}

#[test]
fn five_failures_in_a_row_open_it_for_a_minute() {
    let mut bench = Bench::new(BreakerSettings::default());
    bench.calls(&[(Outcome::Failure, 4)]);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.machine.failures(bench.now), 4);
    bench.call(Outcome::Failure);
    assert_eq!(bench.state(), State::Open);
    assert_eq!(bench.admit(), Err(60 * SECOND));
    bench.now += 59 * SECOND;
    assert_eq!(bench.admit(), Err(SECOND));
    bench.now += SECOND;
    assert!(bench.admit().is_ok());
    assert_eq!(bench.state(), State::HalfOpen);
}

#[test]
fn a_success_forgives_what_was_before_and_an_ignored_call_does_not() {
    let mut bench = Bench::new(BreakerSettings::default());
    bench.calls(&[
        (Outcome::Failure, 4),
        (Outcome::Success, 1),
        (Outcome::Failure, 4),
    ]);
    assert_eq!(bench.state(), State::Closed);
    bench.calls(&[(Outcome::Ignored, 3), (Outcome::Failure, 1)]);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn two_successful_probes_close_it_one_at_a_time() {
    let mut bench = half_open();
    let first = bench.admit().expect("one probe is let through");
    assert!(bench.admit().is_err());
    bench.finish(first, Outcome::Success, None);
    assert_eq!(bench.state(), State::HalfOpen);
    bench.call(Outcome::Success);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.machine.failures(bench.now), 0);
}

#[test]
fn a_failed_probe_opens_it_for_the_whole_time_again() {
    let mut bench = half_open();
    bench.calls(&[(Outcome::Success, 1), (Outcome::Failure, 1)]);
    assert_eq!(bench.state(), State::Open);
    assert_eq!(bench.admit(), Err(60 * SECOND));
}

#[test]
fn an_ignored_probe_frees_its_place_and_decides_nothing() {
    let mut bench = half_open();
    for _ in 0..10 {
        bench.call(Outcome::Ignored);
        let probe = bench.admit().expect("the place is free again");
        bench.machine.release(probe);
    }
    assert_eq!(bench.state(), State::HalfOpen);
    assert_eq!(bench.machine.probes(), 0);
}

#[test]
fn a_probe_that_never_reports_blocks_until_its_lease_is_over_and_its_late_word_counts_for_nothing()
{
    let mut bench = half_open();
    let lost = bench.admit().expect("one probe is let through");
    bench.now += 59 * SECOND;
    assert!(bench.admit().is_err());
    bench.now += SECOND;
    let next = bench.admit().expect("the lease is over");
    bench.finish(lost, Outcome::Failure, None);
    assert_eq!(bench.state(), State::HalfOpen);
    assert_eq!(bench.machine.probes(), 1);
    bench.finish(next, Outcome::Success, None);
    bench.call(Outcome::Success);
    assert_eq!(bench.state(), State::Closed);
}

#[test]
fn results_from_before_a_change_of_state_decide_nothing() {
    let mut bench = Bench::new(BreakerSettings::default());
    let early: Vec<_> = (0..20).map(|_| bench.admit().expect("closed")).collect();
    bench.calls(&[(Outcome::Failure, 5)]);
    bench.now += 60 * SECOND;
    let probe = bench.admit().expect("half-open");
    for admission in early {
        bench.finish(admission, Outcome::Success, None);
        bench.finish(admission, Outcome::Failure, None);
    }
    assert_eq!(bench.state(), State::HalfOpen);
    bench.finish(probe, Outcome::Success, None);
    assert_eq!(bench.state(), State::HalfOpen);
}

fn windowed(kind: WindowKind, size: u32, minimum_calls: u32) -> BreakerSettings {
    let mut settings = BreakerSettings::default();
    settings.window.kind = kind;
    settings.window.size = size;
    settings.window.minimum_calls = minimum_calls;
    settings
}

#[test]
fn half_of_the_last_calls_failing_opens_a_count_window() {
    let mut bench = Bench::new(windowed(WindowKind::Count, 10, 10));
    bench.calls(&[(Outcome::Failure, 5), (Outcome::Success, 5)]);
    // The share was reached by a success, and bad news alone opens.
    assert_eq!(bench.state(), State::Closed);
    bench.calls(&[(Outcome::Success, 2), (Outcome::Failure, 1)]);
    assert_eq!(bench.state(), State::Closed, "four of the last ten failed");
    bench.calls(&[(Outcome::Failure, 2)]);
    assert_eq!(
        bench.state(),
        State::Closed,
        "the oldest failures left the window"
    );
    bench.calls(&[
        (Outcome::Failure, 1),
        (Outcome::Success, 1),
        (Outcome::Failure, 1),
    ]);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn too_few_calls_open_nothing() {
    for kind in [WindowKind::Count, WindowKind::Time] {
        let mut bench = Bench::new(windowed(kind, 100, 10));
        bench.calls(&[(Outcome::Failure, 9)]);
        assert_eq!(bench.state(), State::Closed);
        bench.call(Outcome::Failure);
        assert_eq!(bench.state(), State::Open);
    }
}

#[test]
fn a_window_smaller_than_the_minimum_of_calls_can_still_open() {
    let mut bench = Bench::new(windowed(WindowKind::Count, 5, 20));
    bench.calls(&[(Outcome::Failure, 5)]);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn a_time_window_forgets() {
    let mut bench = Bench::new(windowed(WindowKind::Time, 100, 10));
    bench.calls(&[(Outcome::Failure, 9)]);
    bench.now += 61 * SECOND;
    bench.calls(&[(Outcome::Failure, 9)]);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.machine.failures(bench.now), 9);
}

fn slow_calls(kind: WindowKind) -> BreakerSettings {
    let mut settings = windowed(kind, 10, 10);
    settings.slow_call = Some(SlowCallSettings::new(SECOND, 50.0));
    settings
}

#[test]
fn slow_calls_open_it_in_every_window() {
    for kind in [WindowKind::Consecutive, WindowKind::Count, WindowKind::Time] {
        let mut bench = Bench::new(slow_calls(kind));
        for _ in 0..5 {
            bench.call_taking(Outcome::Success, Some(SECOND / 2));
            bench.call_taking(Outcome::Success, Some(SECOND));
        }
        assert_eq!(bench.state(), State::Open, "{kind:?}");
        bench.now += 60 * SECOND;
        bench.call_taking(Outcome::Success, Some(2 * SECOND));
        assert_eq!(bench.state(), State::Open, "a slow probe fails");
    }
}

#[test]
fn forced_states_hold_whatever_happens() {
    let mut bench = Bench::new(BreakerSettings::default());
    bench.machine.force(Control::ForcedOpen, bench.now);
    bench.now += 3600 * SECOND;
    assert_eq!(bench.admit(), Err(60 * SECOND));
    bench.machine.force(Control::ForcedClosed, bench.now);
    bench.calls(&[(Outcome::Failure, 50)]);
    assert_eq!(bench.state(), State::Closed);
    assert_eq!(bench.machine.failures(bench.now), 50);
    bench.machine.force(Control::Disabled, bench.now);
    bench.calls(&[(Outcome::Failure, 50)]);
    assert_eq!(bench.machine.failures(bench.now), 0);
    bench.machine.force(Control::Automatic, bench.now);
    bench.calls(&[(Outcome::Failure, 5)]);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn new_numbers_keep_the_state() {
    let mut bench = opened();
    let mut settings = BreakerSettings {
        recovery_timeout: 10 * SECOND,
        ..BreakerSettings::default()
    };
    bench.machine.reconfigure(settings, bench.now);
    assert_eq!(bench.admit(), Err(10 * SECOND));

    let mut bench = Bench::new(BreakerSettings::default());
    bench.calls(&[(Outcome::Failure, 4)]);
    settings.failure_threshold = 4;
    bench.machine.reconfigure(settings, bench.now);
    assert_eq!(bench.state(), State::Closed);
    bench.call(Outcome::Failure);
    assert_eq!(bench.state(), State::Open);
}

#[test]
fn numbers_without_sense_do_not_panic() {
    let mut settings = windowed(WindowKind::Time, 0, 0);
    settings.failure_threshold = 0;
    settings.success_threshold = 0;
    settings.half_open_max_calls = 0;
    settings.recovery_timeout = Duration::MAX;
    settings.probe_timeout = Duration::MAX;
    settings.window.duration = Duration::MAX;
    settings.window.failure_percent = f64::NAN;
    let mut bench = Bench::new(settings);
    bench.calls(&[(Outcome::Failure, 100)]);
    settings.window.kind = WindowKind::Consecutive;
    bench.machine.reconfigure(settings, bench.now);
    bench.call(Outcome::Failure);
    assert_eq!(bench.state(), State::Open);
    bench.now += Duration::from_secs(366 * 24 * 3600);
    assert!(bench.admit().is_ok());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Admit,
    /// Ends one of the calls under way.
    Finish(usize, Outcome),
    /// A call is cancelled or panics: its permit is dropped.
    Cancel(usize),
    /// A permit that is never dropped.
    Lose(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        Just(Outcome::Success),
        Just(Outcome::Failure),
        Just(Outcome::Ignored)
    ];
    prop_oneof![
        4 => Just(Step::Admit),
        3 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::Finish(which, outcome)),
        1 => any::<usize>().prop_map(Step::Cancel),
        1 => any::<usize>().prop_map(Step::Lose),
        2 => (0u64..3000).prop_map(Step::Wait),
    ]
}

fn settings() -> impl Strategy<Value = BreakerSettings> {
    let kind = prop_oneof![
        Just(WindowKind::Consecutive),
        Just(WindowKind::Count),
        Just(WindowKind::Time)
    ];
    (kind, 1u32..4, 1u32..4, 1u32..4, any::<bool>()).prop_map(
        |(kind, failures, successes, probes, slow)| {
            let mut settings = windowed(kind, 8, failures);
            settings.failure_threshold = failures;
            settings.success_threshold = successes;
            settings.half_open_max_calls = probes;
            settings.recovery_timeout = SECOND;
            settings.probe_timeout = 2 * SECOND;
            settings.slow_call = slow.then_some(SlowCallSettings::new(SECOND, 50.0));
            settings
        },
    )
}

fn is_legal(from: State, to: State) -> bool {
    matches!(
        (from, to),
        (State::Closed, State::Open)
            | (State::Open, State::HalfOpen)
            | (State::HalfOpen, State::Open | State::Closed)
    )
}

proptest! {
    /// Whatever happens to the calls, probes stay within their number, states follow each other as they may, and the
    /// circuit closes again once the other side works.
    #[test]
    fn probes_are_conserved_and_it_never_wedges(
        settings in settings(),
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let start = Instant::now();
        let mut machine = Machine::new(settings, start);
        let mut now = start;
        let mut running: Vec<(Admission, Instant)> = Vec::new();
        for step in steps {
            let before = machine.state();
            let change = match step {
                Step::Wait(millis) => {
                    now += Duration::from_millis(millis);
                    None
                }
                Step::Admit => {
                    let (admitted, change) = machine.admit(now);
                    running.extend(admitted.ok().map(|admission| (admission, now)));
                    change
                }
                Step::Finish(which, outcome) if !running.is_empty() => {
                    let (admission, began) = running.swap_remove(which % running.len());
                    machine.record(admission, outcome, Some(now - began), now, || Timestamp::UNIX_EPOCH)
                }
                Step::Cancel(which) if !running.is_empty() => {
                    let (admission, _) = running.swap_remove(which % running.len());
                    machine.record(admission, Outcome::Ignored, None, now, || Timestamp::UNIX_EPOCH)
                }
                Step::Lose(which) if !running.is_empty() => {
                    running.swap_remove(which % running.len());
                    None
                }
                Step::Finish(..) | Step::Cancel(_) | Step::Lose(_) => None,
            };
            match change {
                Some(change) => {
                    prop_assert_eq!(change.from, before);
                    prop_assert_eq!(change.to, machine.state());
                    prop_assert!(is_legal(change.from, change.to));
                }
                None => prop_assert_eq!(machine.state(), before),
            }
            prop_assert!(machine.probes() <= settings.half_open_max_calls as usize);
            let lease = settings.probe_timeout;
            let generation = machine.hot().generation();
            let probing = running
                .iter()
                .filter(|(a, began)| a.probe != 0 && a.generation == generation && now - *began < lease)
                .count();
            prop_assert!(probing <= settings.half_open_max_calls as usize);
        }
        // Everything that runs is lost, and the other side works again.
        now += settings.recovery_timeout + settings.probe_timeout;
        for _ in 0..settings.success_threshold {
            let (admitted, _) = machine.admit(now);
            prop_assert!(admitted.is_ok(), "wedged: {:?}", machine);
            let admission = admitted.unwrap();
            machine.record(admission, Outcome::Success, Some(Duration::ZERO), now, || Timestamp::UNIX_EPOCH);
        }
        prop_assert_eq!(machine.state(), State::Closed);
    }
}
