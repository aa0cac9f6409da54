//! An instance of a service dies without a word while it is called.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};
use trunkline::backends;
use trunkline::discovery::{Discovery, Instances, ServiceDiscoveryConfig, ServiceName};
use trunkline::http::{EnhancedHttpClient, HttpClientConfig};

use super::services::{Call, Calls, Process};
use crate::entry::{Entry, Options};
use crate::report::{Report, Table};

pub(super) static ENTRY: Entry = Entry {
    name: "instance-kill",
    about: "kill -9 of an instance under load: with retries no caller sees an error, without only those whose request was in flight there.",
    run,
};

const SERVICE: &str = "shop";
const INSTANCES: usize = 5;
const CALLS_A_SECOND: u32 = 200;
/// How long the work of each call takes, so that there are always some under way.
const WORK: Duration = Duration::from_millis(50);
/// Far longer than the proof: nobody is told of a death by the end of a lease.
const LEASE: Duration = Duration::from_secs(60);
/// Twice this lies between two deaths: longer than the first back-off, so that what one of them hit has been tried again before the
/// next. Who is hit by each of several deaths in turn runs out of attempts, as it should.
const PEACE: Duration = Duration::from_millis(1200);
/// How long it takes until callers have read that a connection is closed; what is sent meanwhile is lost as well.
const NEWS: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);

/// What was seen of one way of calling.
struct Seen {
    calls: Vec<Call>,
    deaths: Vec<Death>,
}

/// When it was killed: between these.
struct Death {
    before: Instant,
    after: Instant,
}

fn run(options: &Options) -> Result<Report> {
    let deaths = options.choose(20, 3);
    let mut report = Report::new();
    let mut table = Table::new(
        "What callers saw",
        [
            "retries",
            "kill -9",
            "calls",
            "in flight when it died, at all instances",
            "failed",
        ],
    );
    for retries in [true, false] {
        let seen = watch(retries, deaths)?;
        let failed: Vec<&Call> = seen.calls.iter().filter(|it| it.error.is_some()).collect();
        let in_flight = |call: &Call| {
            let under_way =
                |death: &Death| call.began <= death.after + NEWS && call.ended >= death.before;
            seen.deaths.iter().any(under_way)
        };
        table.row([
            if retries { "on" } else { "off" }.to_owned(),
            seen.deaths.len().to_string(),
            seen.calls.len().to_string(),
            seen.calls
                .iter()
                .filter(|it| in_flight(it))
                .count()
                .to_string(),
            failed.len().to_string(),
        ]);
        let why = |call: &&Call| call.error.clone().unwrap_or_default();
        if retries {
            let first = failed.first().map(why).unwrap_or_default();
            report.check(
                "with retries no caller sees an error",
                failed.is_empty(),
                format!("{} of {} {first}", failed.len(), seen.calls.len()),
            );
        } else {
            let others: Vec<_> = failed.iter().filter(|it| !in_flight(it)).copied().collect();
            let first = others.first().map(why).unwrap_or_default();
            report.check(
                "without, only requests that were in flight fail",
                others.is_empty(),
                format!("{} of {} {first}", others.len(), failed.len()),
            );
            report.check(
                "and some were: the proof could have failed",
                !failed.is_empty(),
                format!("{} failed", failed.len()),
            );
        }
    }
    report.table(table);
    Ok(report)
}

fn watch(retries: bool, deaths: usize) -> Result<Seen> {
    let directory = tempfile::tempdir()?;
    let url = format!("embedded://{}", directory.path().display());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let entered = runtime.enter();
    let config = ServiceDiscoveryConfig::from_url(&url)?;
    let (registry, resolver) = backends::open_discovery(&config)?;
    let discovery = Discovery::builder()
        .config(&config)
        .registry(registry)
        .resolver(resolver)
        .build();
    let instances = discovery.instances(&ServiceName::new(SERVICE)?);
    let mut config = HttpClientConfig::default();
    if !retries {
        // Else a request whose connection breaks off before an answer is sent again at once: that is no retry, but what
        // RFC 9110 (9.2.2) allows for what is idempotent.
        config.retry.methods = Some(Vec::new());
    }
    let client = EnhancedHttpClient::builder()
        .config(config)
        .service(SERVICE)
        .discovery(&discovery)
        .retry_enabled(retries)
        .circuit_breaker_enabled(false)
        .build()?;
    drop(entered);
    let start = || Process::start(&url, SERVICE, LEASE);
    let mut processes = (0..INSTANCES)
        .map(|_| start())
        .collect::<Result<Vec<_>>>()?;
    wait_for(&runtime, &instances, &processes)?;
    let calls = Calls::begin(client, CALLS_A_SECOND, WORK, runtime.handle());
    let mut seen = Vec::new();
    for _ in 0..deaths {
        runtime.block_on(async { sleep(PEACE).await });
        let victim = processes.first_mut().context("there are some")?;
        let before = Instant::now();
        victim.kill()?;
        seen.push(Death {
            before,
            after: Instant::now(),
        });
        runtime.block_on(async { sleep(PEACE).await });
        processes.remove(0);
        processes.push(start()?);
        wait_for(&runtime, &instances, &processes)?;
    }
    let calls = calls.end(runtime.handle())?;
    for process in processes {
        process.left()?;
    }
    runtime.block_on(discovery.shutdown(Instant::now() + PATIENCE))?;
    ensure!(!calls.is_empty(), "nothing was called");
    Ok(Seen {
        calls,
        deaths: seen,
    })
}

/// Waits until callers know exactly these instances.
fn wait_for(runtime: &Runtime, instances: &Instances, processes: &[Process]) -> Result<()> {
    let mut there: Vec<String> = processes.iter().map(Process::authority).collect();
    there.sort_unstable();
    let known = async {
        loop {
            let set = instances.snapshot();
            let mut known: Vec<String> = set.instances().map(|it| it.authority()).collect();
            known.sort_unstable();
            if known == there {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    runtime
        .block_on(async { timeout(PATIENCE, known).await })
        .context("callers do not learn who the instances are")
}
