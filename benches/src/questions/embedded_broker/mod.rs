//! What the durable embedded broker can do with several processes, beside Redis Streams that sync as often.
//!
//! Every publisher and every consumer is a process of its own. The embedded broker syncs the disk before it confirms
//! (SQLite's `synchronous=FULL`), Redis before it answers (`appendfsync always`). How long one sync takes is printed.

mod processes;

use std::fs;
use std::io::Write as _;

use anyhow::{Context as _, Result};

use crate::entry::{Entry, Options};
use crate::load::{Outcome, Role};
use crate::race::{Better, Race};
use crate::report::{Report, Spread, Table, short};
use crate::stopwatch::Stopwatch;
use processes::{Place, Started};

pub(super) static ENTRY: Entry = Entry {
    name: "embedded-broker",
    about: "how many messages, and how fast, go from process to process through the durable embedded broker?",
    run,
};

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    report.note(format!(
        "one sync of the disk takes {} µs (median of 200)",
        short(sync_micros()?)
    ));
    throughput(options, &mut report)?;
    confirms(options, &mut report)?;
    latency(options, &mut report)?;
    writers(options, &mut report)?;
    idle(options, &mut report)?;
    report.note("messages of 256 bytes; every publisher and consumer is a process of its own");
    Ok(report)
}

/// Published by one process and acknowledged by another, in batches.
fn throughput(options: &Options, report: &mut Report) -> Result<()> {
    for batch in [100, 1000] {
        let count = options.choose(1_000_000, 100_000);
        let pipe = |place: Place| -> Result<f64> {
            let consumer = place.start(Role::Consume { count })?;
            let publisher = place.start(Role::Publish { count, batch })?;
            publisher.finish()?;
            Ok(consumer.finish()?.rate())
        };
        let results = Race::new(
            format!("published and acknowledged, batches of {batch}"),
            "messages/s",
            Better::Higher,
        )
        .peer("embedded", || pipe(Place::embedded()?))
        .peer("redis streams", || pipe(Place::redis()?))
        .run(options.rounds())?;
        results.put_into(report);
        let ours = results.spread("embedded").context("measured")?;
        report.target(
            format!("100 000 messages/s published and acknowledged in batches of {batch}"),
            times(ours, 1e-5),
            1.0,
        );
    }
    Ok(())
}

/// Many tasks, each awaiting the confirm of its message.
fn confirms(options: &Options, report: &mut Report) -> Result<()> {
    let role = Role::Confirm {
        publishers: 64,
        seconds: options.choose(5, 1),
    };
    let rate = |place: Place| Ok(place.start(role)?.finish()?.rate());
    let results = Race::new(
        "64 publishers, each awaiting its confirm",
        "messages/s",
        Better::Higher,
    )
    .peer("embedded", || rate(Place::embedded()?))
    .peer("redis streams", || rate(Place::redis()?))
    .run(options.rounds())?;
    results.put_into(report);
    let ours = results.spread("embedded").context("measured")?;
    report.target("50 000 confirms/s", times(ours, 1.0 / 50_000.0), 1.0);
    Ok(())
}

/// From the confirm in one process to the handler in another, at 200 messages a second.
fn latency(options: &Options, report: &mut Report) -> Result<()> {
    let count = options.choose(1000, 200);
    let median = |place: Place| -> Result<f64> {
        let consumer = place.start(Role::Times { count })?;
        let publisher = place.start(Role::Paced { count, every: 5000 })?;
        let confirmed = publisher.finish()?;
        let mut spans = spans_between(&confirmed, &consumer.finish()?);
        Ok(percentile(&mut spans, 0.5).max(1.0))
    };
    let results = Race::new(
        "from the confirm to the handler, 200 messages/s, median",
        "µs",
        Better::Lower,
    )
    .peer("embedded", || median(Place::embedded()?))
    .peer("redis streams", || median(Place::redis()?))
    .run(options.rounds())?;
    results.put_into(report);
    let ours = results.spread("embedded").context("measured")?;
    report.target(
        "1 ms from the confirm to the handler",
        inverse(ours, 1000.0),
        1.0,
    );
    Ok(())
}

/// Four processes that publish at the same time: nobody waits for long.
fn writers(options: &Options, report: &mut Report) -> Result<()> {
    let role = Role::Confirm {
        publishers: 1,
        seconds: options.choose(10, 2),
    };
    let mut table = Table::new(
        "four processes, one publish at a time each",
        ["round", "messages/s", "median µs", "p99 µs", "longest µs"],
    );
    let mut fairness = Vec::new();
    for round in 1..=options.rounds() {
        let place = Place::embedded()?;
        let started: Vec<Started> = (0..4).map(|_| place.start(role)).collect::<Result<_>>()?;
        let outcomes: Vec<Outcome> = started
            .into_iter()
            .map(Started::finish)
            .collect::<Result<_>>()?;
        let rate: f64 = outcomes.iter().map(Outcome::rate).sum();
        let mut spans: Vec<u64> = outcomes.into_iter().flat_map(|one| one.spans).collect();
        let median = percentile(&mut spans, 0.5);
        let longest = percentile(&mut spans, 1.0);
        fairness.push(20.0 * median / longest);
        table.row([
            round.to_string(),
            short(rate),
            short(median),
            short(percentile(&mut spans, 0.99)),
            short(longest),
        ]);
    }
    report.table(table);
    let fairness = Spread::of(&fairness).context("measured")?;
    report.target("the longest publish takes 20 medians", fairness, 1.0);
    Ok(())
}

/// Twenty subscriptions and nothing to do.
fn idle(options: &Options, report: &mut Report) -> Result<()> {
    let role = Role::Idle {
        subscriptions: 20,
        seconds: options.choose(10, 3),
    };
    let mut percents = Vec::new();
    for _ in 0..options.rounds() {
        let outcome = Place::embedded()?.start(role)?.finish()?;
        percents.push(outcome.cpu_seconds / outcome.seconds * 100.0);
    }
    let percent = Spread::of(&percents).context("measured")?;
    report.figure("idle with 20 subscriptions", "% of a core", percent);
    let mut table = Table::new("idle with 20 subscriptions", ["% of a core"]);
    table.row([percent.to_string()]);
    report.table(table);
    // A process that needs nothing at all would be infinitely better than asked for.
    let floor = |percent: f64| percent.max(0.01);
    let ratio = Spread {
        min: 1.0 / floor(percent.max),
        median: 1.0 / floor(percent.median),
        max: 1.0 / floor(percent.min),
    };
    report.target("1 % of a core when idle with 20 subscriptions", ratio, 1.0);
    Ok(())
}

fn times(spread: Spread, factor: f64) -> Spread {
    Spread {
        min: spread.min * factor,
        median: spread.median * factor,
        max: spread.max * factor,
    }
}

fn inverse(spread: Spread, budget: f64) -> Spread {
    Spread {
        min: budget / spread.max,
        median: budget / spread.median,
        max: budget / spread.min,
    }
}

/// Microseconds from one moment of each message to the other.
fn spans_between(before: &Outcome, after: &Outcome) -> Vec<u64> {
    let seen: std::collections::HashMap<u64, u64> = after
        .moments
        .iter()
        .map(|moment| (moment.message, moment.at))
        .collect();
    let span = |moment: &crate::load::Moment| {
        let seen = seen.get(&moment.message)?;
        // A handler may have the message before the publisher has the answer.
        Some(seen.saturating_sub(moment.at))
    };
    before.moments.iter().filter_map(span).collect()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index of a list in memory"
)]
fn percentile(spans: &mut [u64], share: f64) -> f64 {
    spans.sort_unstable();
    let at = spans.len().saturating_sub(1) as f64 * share;
    spans.get(at as usize).copied().unwrap_or(0) as f64
}

/// How long the disk takes to sync a small change, where the measured files are.
fn sync_micros() -> Result<f64> {
    let place = processes::scratch()?;
    let mut file = fs::File::create(place.path().join("sync"))?;
    file.write_all(&vec![0; 4 << 20])?;
    file.sync_all()?;
    let mut spans = Vec::new();
    for _ in 0..200 {
        file.write_all(&[7; 4096])?;
        let watch = Stopwatch::start();
        file.sync_all()?;
        spans.push(u64::try_from(watch.elapsed().as_micros())?);
    }
    Ok(percentile(&mut spans, 0.5))
}
