//! A retry storm on a clock that jumps: thousands of virtual clients, three tiers, one database that is slow for ten
//! seconds. What runs is the policies themselves, with the configuration that the table names; only the database and the
//! users are made up.
//!
//! The database does not notice that nobody waits for an answer any more and works on, as many do: that is what makes a
//! storm outlive its cause.

mod database;
mod picture;
mod tiers;
mod users;

use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use crate::entry::{Entry, Options};
use crate::report::{Report, Table};
use database::Trouble;
use tiers::{Habits, TIERS};
use users::{Course, Load};

pub(super) static ENTRY: Entry = Entry {
    name: "retry-storm",
    about: "Thousands of clients, three tiers deep: naive retries turn ten seconds of trouble into a lasting outage, Trunkline's defaults recover, and retries of all tiers together stay within one budget.",
    run,
};

/// When the database is slow, in seconds.
const SLOW_FROM: u64 = 30;
const SLOW_UNTIL: u64 = 40;

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let load = Load {
        users: options.choose(4_000, 2_000),
        seconds: 180,
        patience: Duration::from_secs(3),
    };
    let slow = Trouble::Slow {
        from: SLOW_FROM,
        until: SLOW_UNTIL,
        factor: 20,
    };
    let courses = [
        (
            "no retries",
            Habits::careful(
                json!({ "retry": { "enabled": false }, "circuit_breaker": { "enabled": false } }),
            )?,
        ),
        ("naive retries", Habits::naive()?),
        (
            "budget without breaker",
            Habits::careful(json!({ "circuit_breaker": { "enabled": false } }))?,
        ),
        ("Trunkline's defaults", Habits::careful(json!({}))?),
    ];
    let mut seen = Vec::new();
    for (name, habits) in courses {
        let course = users::run(habits, load, slow)?;
        seen.push((name, course));
    }
    storm_table(&mut report, &load, &seen);
    for (name, course) in &seen {
        report.check(
            format!("{name}: all is well before the trouble"),
            course.good_share(10..SLOW_FROM) >= 0.999,
            percent(course.good_share(10..SLOW_FROM)),
        );
    }
    let (naive, ours) = (&seen[1].1, &seen[3].1);
    let last = load.seconds.saturating_sub(60)..load.seconds;
    report.check(
        "naive retries: goodput collapses and is still down in the last minute, 80 s after the trouble has ended",
        naive.good_share(last.clone()) < 0.1,
        percent(naive.good_share(last.clone())),
    );
    report.check(
        "Trunkline's defaults: goodput is back in the last minute",
        ours.good_share(last.clone()) >= 0.999,
        percent(ours.good_share(last)),
    );
    let factor = ours.attempts[TIERS - 1] as f64 / ours.requests() as f64;
    report.check(
        "Trunkline's defaults: the database sees at most (1 + budget) × the requests of the users",
        factor <= 1.2,
        format!("{factor:.3}"),
    );
    report.picture(
        "docs/guide/retry-storm.svg",
        picture::draw(&seen, SLOW_FROM..SLOW_UNTIL),
    );
    amplification(&mut report, options)?;
    Ok(report)
}

fn storm_table(report: &mut Report, load: &Load, seen: &[(&str, Course)]) {
    let mut table = Table::new(
        format!(
            "{} users, a request each ten seconds, {TIERS} tiers; the database has {} % more capacity than that and is 20 times slower from second {SLOW_FROM} to {SLOW_UNTIL}",
            load.users,
            (100 * load.capacity() / load.rate()) - 100,
        ),
        [
            "policy",
            "requests",
            "answered in time",
            "in the last minute",
            "recovered after",
            "attempts of the tiers, per request",
            "the database's worst second",
        ],
    );
    for (name, course) in seen {
        let requests = course.requests() as f64;
        let attempts = course
            .attempts
            .map(|count| format!("{:.2}", count as f64 / requests));
        let recovered = course.recovered(SLOW_UNTIL);
        table.row([
            (*name).to_owned(),
            course.requests().to_string(),
            percent(course.good_share(0..load.seconds)),
            percent(course.good_share(load.seconds - 60..load.seconds)),
            recovered.map_or("never".to_owned(), |seconds| format!("{seconds} s")),
            attempts.join(", "),
            format!("{} attempts", course.worst_second()),
        ]);
    }
    report.table(table);
    report.note(
        "A request counts as answered when its answer comes within the three seconds that the user waits. `Recovered after`: \
         from so long after the end of the trouble on, every second is at 90 % of its requests or better. Naive: three \
         attempts at every tier, 100 ms apart, a fixed limit for each attempt, no deadline, no budget, no breaker, and \
         whoever gave up is worked for all the same. The others pass the deadline on and cancel. Without a \
         breaker goodput is back once the backlog is worked off, which the database does not say; the circuits next to it \
         open for their `recovery_timeout` (60 s unless configured otherwise) and spare it everything meanwhile.",
    );
}

/// The worst case for retries: everything fails at once, and no breaker helps.
fn amplification(report: &mut Report, options: &Options) -> Result<()> {
    let load = Load {
        users: options.choose(4_000, 2_000),
        seconds: 60,
        patience: Duration::from_secs(30),
    };
    let no_floor = json!({
        "circuit_breaker": { "enabled": false }, "retry": { "delay": "100ms", "budget": { "min_per_second": 0 } }
    });
    let mut table = Table::new(
        "Everything fails, nothing is ever slow, no breaker and no floor of the budget: attempts per request",
        [
            "policy",
            "first tier",
            "second tier",
            "third tier, at the database",
        ],
    );
    let mut ratios = Vec::new();
    for (name, habits) in [
        ("naive retries", Habits::naive()?),
        (
            "budget at each tier, which do not know of each other",
            Habits::careful(no_floor.clone())?.alone(),
        ),
        (
            "budget at each tier, as Trunkline's tiers work together",
            Habits::careful(no_floor)?,
        ),
    ] {
        let course = users::run(habits, load, Trouble::Down)?;
        let ratio = course
            .attempts
            .map(|count| count as f64 / course.requests() as f64);
        table.row(
            [name.to_owned()]
                .into_iter()
                .chain(ratio.map(|ratio| format!("{ratio:.2}"))),
        );
        ratios.push(ratio);
    }
    report.table(table);
    let (naive, ours) = (ratios[0], ratios[2]);
    report.check(
        "naive retries multiply: 3 × 3 × 3",
        naive[TIERS - 1] > 20.0,
        format!("{:.2}", naive[TIERS - 1]),
    );
    report.check(
        "with budgets, no tier makes more than (1 + budget) × the requests of the users, the third one included",
        ours.iter().all(|ratio| *ratio <= 1.2),
        ours.map(|ratio| format!("{ratio:.3}")).join(", "),
    );
    report.check(
        "the budget was really used: it is retries that are limited",
        ours[TIERS - 1] > 1.1,
        format!("{:.3}", ours[TIERS - 1]),
    );
    Ok(())
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
