//! The policies under callers that do everything wrong: cancelled, panicking, silent about their results, judged by a
//! classifier that panics, while clocks jump, operators intervene and configuration is reloaded.
//!
//! Twice: on a runtime whose time jumps, many callers at once, where a seed repeats a run; and on real threads, where the
//! machine decides about interleavings.

mod act;
mod judge;
mod settings;
mod threads;
mod virtual_time;

use std::collections::BTreeMap;

use anyhow::Result;

use crate::entry::{Entry, Options};
use crate::report::{Report, Table};

pub(super) static ENTRY: Entry = Entry {
    name: "breaker-fuzz",
    about: "Cancelled, panicking and silent callers, panicking classifiers and observers, jumping clocks, reloads: no circuit is ever wedged, every permit comes back.",
    run,
};

/// How often each thing was done, and what did not hold.
#[derive(Debug, Default)]
struct Tally {
    done: BTreeMap<&'static str, u64>,
    broken: Vec<String>,
}

impl Tally {
    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn of(&self, what: &str) -> u64 {
        self.done.get(what).copied().unwrap_or(0)
    }

    fn add(&mut self, other: Self) {
        for (what, times) in other.done {
            *self.done.entry(what).or_default() += times;
        }
        self.broken.extend(other.broken);
    }
}

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let mut table = Table::new(
        "What was done to the policies",
        ["what", "virtual time", "threads"],
    );

    let seeds = options.choose(2_000, 150);
    let virtual_time = virtual_time::run(0..seeds)?;
    let rounds = options.choose(60, 6);
    let threads = threads::run(0..rounds, options.choose(4_000, 1_000))?;
    let mut kinds: Vec<&str> = virtual_time
        .done
        .keys()
        .chain(threads.done.keys())
        .copied()
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    for what in kinds {
        table.row([
            what.to_owned(),
            virtual_time.of(what).to_string(),
            threads.of(what).to_string(),
        ]);
    }
    report.table(table);

    held(
        &mut report,
        "on a clock that jumps",
        &virtual_time,
        format!("{seeds} seeds"),
    );
    held(
        &mut report,
        "on real threads",
        &threads,
        format!("{rounds} rounds"),
    );
    for what in act::MUST_HAPPEN {
        let times = virtual_time.of(what).min(threads.of(what));
        report.check(
            format!("it was really done: {what}"),
            times > 0,
            format!("{times} times at the least"),
        );
    }
    for (what, found) in judge::controls()? {
        report.check(
            format!("the judge is not blind: {what}"),
            found.is_some(),
            found.unwrap_or_else(|| "not seen".to_owned()),
        );
    }
    Ok(report)
}

fn held(report: &mut Report, place: &str, tally: &Tally, extent: String) {
    let seen = match tally.broken.first() {
        None => extent,
        Some(first) => format!("{} times not; first: {first}", tally.broken.len()),
    };
    report.check(
        format!("{place}: never wedged, every permit, place and reservation came back"),
        tally.broken.is_empty(),
        seen,
    );
}
