//! What came of it.

use std::time::Duration;

use super::plan::{Act, MOVES, Move};
use super::show::LEASE;
use crate::proofs::registries::Subject;
use crate::proofs::services::Call;
use crate::report::{Report, Table};

/// One act, and what followed.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) act: Act,
    pub(super) meanwhile: Move,
    /// How long it took until callers knew what the registry knew.
    pub(super) converged: Duration,
    /// How long it took until the registry knew all instances.
    pub(super) announced: Duration,
    /// Whether callers knew that the registry was silent, where it was for long.
    pub(super) noticed: Option<bool>,
}

/// A process that started without the registry.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) calls: usize,
    pub(super) errors: Vec<String>,
    pub(super) stale: bool,
    pub(super) age: Duration,
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    pub(super) calls: Vec<Call>,
    pub(super) played: Vec<Played>,
    pub(super) start: Option<Start>,
}

pub(super) fn judge(report: &mut Report, subject: &Subject, evidence: &Evidence) {
    table(report, &evidence.played);
    let failed: Vec<&Call> = evidence
        .calls
        .iter()
        .filter(|call| call.error.is_some())
        .collect();
    let first = failed.first().and_then(|call| call.error.clone());
    report.check(
        "no call fails: there was always an instance to go to",
        failed.is_empty(),
        format!(
            "{} of {} {}",
            failed.len(),
            evidence.calls.len(),
            first.unwrap_or_default()
        ),
    );
    let longest = |span: fn(&Played) -> Duration| evidence.played.iter().map(span).max();
    let converged = longest(|played| played.converged).unwrap_or_default();
    let announced = longest(|played| played.announced).unwrap_or_default();
    let bound = subject.bound.map(|bound| format!(" ({bound})"));
    report.check(
        format!(
            "callers know the truth within {} of the registry's return{}",
            seconds(subject.known_within),
            bound.unwrap_or_default()
        ),
        converged <= subject.known_within,
        format!("{} at the longest", seconds(converged)),
    );
    if subject.is_written() {
        report.note(format!(
            "{}: instances do not announce themselves; the proof writes where they are, as controllers do",
            subject.name
        ));
    } else {
        report.check(
            format!(
                "every announcement is back within one lease ({})",
                seconds(LEASE)
            ),
            announced <= LEASE,
            format!("{} at the longest", seconds(announced)),
        );
    }
    let spells: Vec<bool> = evidence.played.iter().filter_map(|it| it.noticed).collect();
    if !spells.is_empty() {
        report.check(
            "a registry that hangs is noticed though no connection ends",
            spells.iter().all(|noticed| *noticed),
            format!("{} times", spells.len()),
        );
    }
    if let Some(start) = &evidence.start {
        report.check(
            "a process that starts while the registry is down calls what an earlier one knew, and says that it is old",
            start.errors.is_empty() && start.stale && start.age > Duration::ZERO,
            format!(
                "{} of {} calls failed {}; {} old",
                start.errors.len(),
                start.calls,
                start.errors.first().map(String::as_str).unwrap_or_default(),
                seconds(start.age)
            ),
        );
    }
}

fn table(report: &mut Report, played: &[Played]) {
    let mut table = Table::new(
        "What was done to the registry, and how long it took afterwards at the longest",
        ["what", "how often", "announced again", "callers know"],
    );
    let mut acts: Vec<Act> = played.iter().map(|it| it.act).collect();
    acts.sort_unstable();
    acts.dedup();
    for act in acts {
        let these = || played.iter().filter(|it| it.act == act);
        let longest = |span: fn(&Played) -> Duration| these().map(span).max().unwrap_or_default();
        table.row([
            act.to_string(),
            these().count().to_string(),
            seconds(longest(|it| it.announced)),
            seconds(longest(|it| it.converged)),
        ]);
    }
    report.table(table);
    let mut table = Table::new("What the instances did meanwhile", ["what", "how often"]);
    for what in MOVES {
        let times = played.iter().filter(|it| it.meanwhile == what).count();
        table.row([what.to_string(), times.to_string()]);
    }
    report.table(table);
}

fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}
