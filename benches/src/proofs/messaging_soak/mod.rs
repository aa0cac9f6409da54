//! Every durable broker at once, for ten minutes: a steady rate, subscribers that come and go, servers that die, links that
//! break. Nothing that was confirmed may be missing afterwards, and this process may hold no more at the end than it did
//! when it had warmed up.

mod line;
mod samples;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::runtime::Runtime;
use tokio::time::Instant;

use self::line::{Counts, Line};
use self::samples::Samples;
use super::brokers;
use crate::entry::{Entry, Options};
use crate::report::{Report, Table};

pub(super) static ENTRY: Entry = Entry {
    name: "messaging-soak",
    about: "RabbitMQ, Kafka, Redis Streams and NATS JetStream for ten minutes, with a steady rate, subscribers that come and go, servers that die and links that break: memory, tasks and connections stay where they are, and no confirmed message is lost.",
    run,
};

/// How long anything may take to be noticed, or to recover.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two disturbances.
const REST: Duration = Duration::from_secs(7);
/// What the process may hold more at the end than when it had warmed up: memory that is free is not always given back.
const GROWTH: f64 = 1.1;
/// As long as it takes to warm up, a quick run is over.
const GROWTH_WHILE_WARMING: f64 = 1.5;

fn run(options: &Options) -> Result<Report> {
    let seed = options.seed();
    soak(options, seed).with_context(|| format!("with the seed {seed}"))
}

fn soak(options: &Options, seed: u64) -> Result<Report> {
    let length = Duration::from_secs(options.choose(600, 20));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut lines = Vec::new();
    for subject in brokers::ALL {
        let line = Line::open(subject, &runtime);
        lines.push(line.with_context(|| subject.name.to_owned())?);
    }
    let samples = {
        let links: Vec<_> = lines
            .iter()
            .map(|line| Arc::clone(&line.stage.link))
            .collect();
        let _entered = runtime.enter();
        Samples::begin(length, links)
    };
    let kills = disturb(&mut lines, &runtime, length, seed)?;
    let samples = runtime.block_on(samples.end())?;
    let mut report = Report::new();
    let mut table = Table::new(
        "What went through",
        [
            "broker",
            "confirmed",
            "publishes repeated",
            "handlers run again",
            "guests",
            "server killed",
            "links reset",
            "missing",
        ],
    );
    let mut missing = 0;
    for (line, (killed, reset)) in lines.into_iter().zip(kills) {
        let name = line.name;
        let Counts {
            confirmed,
            failed,
            again,
            guests,
            lost,
        } = line.close(&runtime).with_context(|| name.to_owned())?;
        missing += lost;
        let counts = [confirmed, failed, again, guests, killed, reset, lost];
        table.row(std::iter::once(name.to_owned()).chain(counts.map(|count| count.to_string())));
    }
    report.table(table);
    samples.judge(&mut report, options.choose(GROWTH, GROWTH_WHILE_WARMING));
    report.check(
        "no confirmed message is lost",
        missing == 0,
        format!("{missing} missing"),
    );
    report.note(format!("seed {seed}"));
    Ok(report)
}

/// Kills servers and breaks links in turn, as chance has it; how often each, by line.
fn disturb(
    lines: &mut [Line],
    runtime: &Runtime,
    length: Duration,
    seed: u64,
) -> Result<Vec<(u64, u64)>> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut done = vec![(0, 0); lines.len()];
    // The last part is as calm as the one that it is compared with.
    let end = Instant::now() + length.mul_f64(samples::DISTURBED);
    let mut turn = 0;
    while Instant::now() + REST < end {
        runtime.block_on(async { tokio::time::sleep(REST).await });
        let place = turn % lines.len();
        turn += 1;
        let (Some(line), Some((killed, reset))) = (lines.get_mut(place), done.get_mut(place))
        else {
            continue;
        };
        if chance.bool() {
            line.kill_server()?;
            *killed += 1;
        } else {
            line.stage.link.reset_all();
            *reset += 1;
        }
        line.recovers(runtime, PATIENCE)
            .with_context(|| line.name.to_owned())?;
    }
    Ok(done)
}
