//! How fast a client of this process is, on one thread.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};
use trunkline_core::task;

use super::{ANSWER, AT_ONCE};
use crate::stopwatch::Stopwatch;

/// What one measurement saw; times in microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Sample {
    pub(super) per_second: f64,
    pub(super) median: f64,
    pub(super) p99: f64,
    pub(super) cpu: f64,
}

/// Makes so many requests, [`AT_ONCE`] at once, after a tenth of them as a warm-up.
pub(super) fn measure<C, Connect, R>(
    requests: usize,
    connect: impl Fn() -> Connect,
    request: impl Fn(C) -> R + Clone + Send + 'static,
) -> Result<Sample>
where
    C: Send + 'static,
    R: Future<Output = Result<(C, Bytes)>> + Send,
    Connect: Future<Output = Result<C>>,
{
    runtime()?.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE {
            clients.push(connect().await?);
        }
        let (clients, _) = all(clients, requests / 10, &request).await?;
        let (watch, cpu) = (Stopwatch::start(), cpu_time());
        let (_, mut times) = all(clients, requests, &request).await?;
        let (seconds, cpu) = (watch.seconds(), cpu_time().saturating_sub(cpu));
        times.sort_unstable();
        let made = times.len();
        let at = |hundredths: usize| {
            let time = times.get(made * hundredths / 100);
            time.map(|time| time.as_secs_f64() * 1e6)
                .context("nothing was measured")
        };
        Ok(Sample {
            per_second: count(made) / seconds,
            median: at(50)?,
            p99: at(99)?,
            cpu: cpu.as_secs_f64() * 1e6 / count(made),
        })
    })
}

/// Each client makes its share of the requests, one after the other, on a task of its own.
async fn all<C, R>(
    clients: Vec<C>,
    requests: usize,
    request: &(impl Fn(C) -> R + Clone + Send + 'static),
) -> Result<(Vec<C>, Vec<Duration>)>
where
    C: Send + 'static,
    R: Future<Output = Result<(C, Bytes)>> + Send,
{
    let share = requests / clients.len();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let request = request.clone();
            task::spawn("requests", async move {
                let mut times = Vec::with_capacity(share);
                for _ in 0..share {
                    let watch = Stopwatch::start();
                    let (same, answer) = request(client).await?;
                    times.push(watch.elapsed());
                    ensure!(answer == ANSWER, "another answer came back");
                    client = same;
                }
                Ok((client, times))
            })
        })
        .collect();
    let (mut clients, mut times) = (Vec::new(), Vec::new());
    for task in tasks {
        let (client, own) = task.await??;
        clients.push(client);
        times.extend(own);
    }
    Ok((clients, times))
}

fn count(requests: usize) -> f64 {
    u32::try_from(requests).map_or(f64::NAN, f64::from)
}

/// What this thread, which is that of the client, has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

pub(super) fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
