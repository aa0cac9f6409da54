//! The cache of the HTTP client against the public suite of tests for HTTP caches (<https://cache-tests.fyi>).
//!
//! The suite comes from its npm package when the proof is run: its definitions, its server and its client are used as they
//! are. Between its client and its server stands a small proxy whose requests go through our client with a private cache,
//! so every case is what it would be in a program that uses the client. Whatever does not hold has its reason here.

mod known;
mod proxy;
mod suite;

use anyhow::Result;

use crate::entry::{Entry, Options};
use crate::report::{Report, Table};
use known::{KNOWN, Known};
use suite::{Case, Kind};

pub(super) static ENTRY: Entry = Entry {
    name: "http-cache",
    about: "The cache of the HTTP client holds what the public HTTP cache test suite requires; each case that does not has its reason.",
    run,
};

fn run(_: &Options) -> Result<Report> {
    let suite = suite::Suite::fetch()?;
    let server = suite.serve()?;
    let proxy = proxy::Proxy::start(server.port())?;
    let cases = suite.run(&server, &format!("http://127.0.0.1:{}", proxy.port()))?;
    let mut report = Report::new();
    report.note(format!(
        "{} {}, run by Node",
        suite::PACKAGE,
        suite::VERSION
    ));
    let applies = |case: &&Case| known::exempt(&case.id).is_none();
    for (kind, what) in [
        (Kind::Required, "what a cache must do"),
        (Kind::Optimal, "what a good cache does beside"),
        (Kind::Check, "how it behaves where it may choose"),
    ] {
        let of: Vec<&Case> = cases
            .iter()
            .filter(|case| case.kind == kind)
            .filter(applies)
            .collect();
        let passed = of.iter().filter(|case| case.passed).count();
        let unexplained: Vec<&str> = of
            .iter()
            .filter(|case| !case.passed && known::reason(&case.id).is_none())
            .filter(|_| kind != Kind::Check)
            .map(|case| case.id.as_str())
            .collect();
        report.check(
            format!("{what}: it holds, or there is a reason"),
            unexplained.is_empty() && passed > 0,
            match unexplained.is_empty() {
                true => format!("{passed} of {} hold", of.len()),
                false => format!(
                    "{passed} of {}; without a reason: {}",
                    of.len(),
                    unexplained.join(", ")
                ),
            },
        );
    }
    let outdated: Vec<&str> = KNOWN
        .iter()
        .filter(|known| {
            !cases
                .iter()
                .any(|case| known.speaks_of(&case.id) && !case.passed)
        })
        .map(|known| known.cases)
        .collect();
    report.check(
        "every reason is needed",
        outdated.is_empty(),
        if outdated.is_empty() {
            "yes".to_owned()
        } else {
            outdated.join(", ")
        },
    );
    report.table(by_suite(&cases));
    report.table(explained(&cases));
    Ok(report)
}

fn by_suite(cases: &[Case]) -> Table {
    let mut table = Table::new(
        "Cases that hold, by the suite's own groups",
        ["group", "required", "optimal", "choice: yes"],
    );
    let mut groups: Vec<&str> = Vec::new();
    for case in cases {
        if !groups.contains(&case.suite.as_str()) {
            groups.push(&case.suite);
        }
    }
    for group in groups {
        let of = |kind| {
            let of: Vec<&Case> = cases
                .iter()
                .filter(|case| case.suite == group && case.kind == kind)
                .filter(|case| known::exempt(&case.id).is_none())
                .collect();
            let passed = of.iter().filter(|case| case.passed).count();
            if of.is_empty() {
                String::new()
            } else {
                format!("{passed} of {}", of.len())
            }
        };
        table.row([
            group.to_owned(),
            of(Kind::Required),
            of(Kind::Optimal),
            of(Kind::Check),
        ]);
    }
    table
}

fn explained(cases: &[Case]) -> Table {
    let mut table = Table::new(
        "Cases that do not hold, or do not apply",
        ["case", "kind", "seen", "why"],
    );
    for case in cases
        .iter()
        .filter(|case| !case.passed && case.kind != Kind::Check)
    {
        let why = known::exempt(&case.id).or_else(|| known::reason(&case.id));
        table.row([
            case.id.clone(),
            case.kind.to_string(),
            case.seen.clone(),
            why.map_or("?", Known::why).to_owned(),
        ]);
    }
    table
}
