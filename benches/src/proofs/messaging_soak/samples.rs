//! What this process holds, looked at all the time.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use trunkline::core::task;
use trunkline_testing::faults::Relay;

use crate::machine;
use crate::report::{Report, Table};

/// The share of the time in which servers die.
pub(super) const DISTURBED: f64 = 0.9;
/// The windows in which the time is told.
const WINDOWS: usize = 10;
/// The windows in which it has just warmed up, each server having died by then, and the last ones. Three of each: a client of
/// Kafka that comes or goes takes or gives back a dozen MiB at once, which is the whole of a window now and then.
const WARM: Range<usize> = 2..5;
const LAST: Range<usize> = WINDOWS - 3..WINDOWS;

/// Looks that go on.
pub(super) struct Samples(JoinHandle<Result<Vec<Sample>>>);

/// One look.
#[derive(Clone, Copy)]
struct Sample {
    memory: f64,
    tasks: usize,
    connections: usize,
}

impl Samples {
    /// Looks as often as makes a good number in each window.
    pub(super) fn begin(length: Duration, links: Vec<Arc<Relay>>) -> Self {
        let end = Instant::now() + length;
        let pause = (length / 600).max(Duration::from_millis(50));
        Self(task::spawn("samples", async move {
            let mut samples = Vec::new();
            while Instant::now() < end {
                samples.push(Sample {
                    memory: machine::resident()?,
                    tasks: Handle::current().metrics().num_alive_tasks(),
                    connections: links.iter().map(|link| link.open()).sum(),
                });
                sleep(pause).await;
            }
            Ok(samples)
        }))
    }

    pub(super) async fn end(self) -> Result<Taken> {
        let samples = self.0.await??;
        ensure!(samples.len() >= 2 * WINDOWS, "too few looks");
        Ok(Taken(samples))
    }
}

/// All looks.
pub(super) struct Taken(Vec<Sample>);

impl Taken {
    /// The medians of each window.
    fn windows(&self) -> Vec<Sample> {
        let size = self.0.len().div_ceil(WINDOWS);
        self.0.chunks(size).map(middle_sample).collect()
    }

    pub(super) fn judge(&self, report: &mut Report, growth: f64) {
        let windows = self.windows();
        let mut table = Table::new(
            "What this process held, in each tenth of the time (medians)",
            ["tenth", "memory", "tasks", "connections"],
        );
        for (number, window) in windows.iter().enumerate() {
            table.row([
                (number + 1).to_string(),
                format!("{:.1} MiB", window.memory),
                window.tasks.to_string(),
                window.connections.to_string(),
            ]);
        }
        report.table(table);
        let (warm, last) = (middle_of(&windows, WARM), middle_of(&windows, LAST));
        report.check(
            "memory is flat",
            last.memory <= warm.memory * growth,
            format!(
                "{:.1} MiB when warm, {:.1} MiB at the end",
                warm.memory, last.memory
            ),
        );
        // Those of the subscriber that comes and goes are there or not.
        report.check(
            "tasks and connections do not become more",
            last.tasks <= warm.tasks + SLACK && last.connections <= warm.connections + SLACK,
            format!(
                "{} tasks and {} connections when warm, {} and {} at the end",
                warm.tasks, warm.connections, last.tasks, last.connections
            ),
        );
    }
}

/// What four guests hold when they are there.
const SLACK: usize = 12;

fn middle_of(windows: &[Sample], range: Range<usize>) -> Sample {
    middle_sample(windows.get(range).unwrap_or_default())
}

fn middle_sample(samples: &[Sample]) -> Sample {
    Sample {
        memory: middle(samples.iter().map(|sample| sample.memory)),
        tasks: middle(samples.iter().map(|sample| sample.tasks)),
        connections: middle(samples.iter().map(|sample| sample.connections)),
    }
}

fn middle<T: PartialOrd + Copy + Default>(values: impl Iterator<Item = T>) -> T {
    let mut sorted: Vec<T> = values.collect();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
