//! A stop under load: what was begun is finished, including what it has to send, and the process ends with 0.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};
use trunkline::discovery::{Resolver as _, ServiceDiscoveryConfig, ServiceName};
use trunkline::{Id, backends};

use super::customer::{Answer, Customer};
use super::system::Service;
use crate::entry::{Entry, Options};
use crate::report::{Report, Table};
use crate::stopwatch::Stopwatch;

const CUSTOMERS: usize = 16;
/// How long each order takes at the least, in payments: so there are always some under way.
const SLOW: Duration = Duration::from_millis(200);
/// The drain timeout of the demo's services.
const GRACE: f64 = 5.0;
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) static ENTRY: Entry = Entry {
    name: "graceful-stop",
    about: "SIGTERM under load: running requests finish, outbound calls still work meanwhile, nothing is cut off, exit 0 within the grace time.",
    run,
};

fn run(options: &Options) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(prove(options))
}

/// What became of the requests of one customer.
#[derive(Default)]
struct Fate {
    confirmed: usize,
    /// Answered with something else than a confirmed order.
    refused: Vec<u16>,
    /// The connection was never made: the request was not sent.
    not_taken: usize,
    /// The connection was made and no answer came.
    cut_off: Vec<String>,
}

async fn prove(options: &Options) -> Result<Report> {
    let directory = Directory::new()?;
    let _users = Service::start(options, "users", &directory.0)?;
    let mut payments = Service::start(options, "payments", &directory.0)?;
    let mut orders = Service::start(options, "orders", &directory.0)?;
    let mut notifications = Service::start(options, "notifications", &directory.0)?;
    let (orders_url, payments_url) = (
        directory.find("order-service").await?,
        directory.find("payment-service").await?,
    );
    directory.find("user-service").await?;
    directory.find("notification-service").await?;
    let mood = json!({ "delay_ms": SLOW.as_millis() as u64 });
    Customer::new(&payments_url)?.set_mood(&mood).await?;

    let stop = AtomicBool::new(false);
    let load = join_all((0..CUSTOMERS).map(|_| order_until(&orders_url, &stop)));
    let stopping = async {
        sleep(options.choose(Duration::from_secs(3), Duration::from_secs(1))).await;
        let watch = Stopwatch::start();
        orders.terminate()?;
        let ended = tokio::task::spawn_blocking(move || orders.wait()).await??;
        let seconds = watch.seconds();
        stop.store(true, Ordering::Release);
        anyhow::Ok((ended, seconds))
    };
    let (fates, stopped) = tokio::join!(load, stopping);
    let (ended, seconds) = stopped?;
    let mut report = Report::new();
    judge(&mut report, fates.into_iter().collect::<Result<Vec<_>>>()?);
    report.check(
        "orders ended with 0 within the grace time",
        ended.success() && seconds <= GRACE,
        format!("{ended} after {seconds:.2} s"),
    );
    for (name, service) in [
        ("notifications", &mut notifications),
        ("payments", &mut payments),
    ] {
        service.terminate()?;
        let ended = service.wait()?;
        report.check(
            format!("{name} ended with 0"),
            ended.success(),
            ended.to_string(),
        );
    }
    Ok(report)
}

async fn order_until(url: &str, stop: &AtomicBool) -> Result<Fate> {
    let customer = Customer::with_fresh_connections(url)?;
    let mut fate = Fate::default();
    while !stop.load(Ordering::Acquire) {
        match customer.order(1, &Id::new().to_string()).await {
            Ok(Answer::Confirmed(_)) => fate.confirmed += 1,
            Ok(Answer::Refused(status)) => fate.refused.push(status),
            Err(error) if error.find::<trunkline::http::ConnectFailed>().is_some() => {
                fate.not_taken += 1;
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => fate.cut_off.push(error.report().to_string()),
        }
    }
    Ok(fate)
}

fn judge(report: &mut Report, fates: Vec<Fate>) {
    let confirmed: usize = fates.iter().map(|fate| fate.confirmed).sum();
    let not_taken: usize = fates.iter().map(|fate| fate.not_taken).sum();
    let refused: Vec<u16> = fates.iter().flat_map(|fate| fate.refused.clone()).collect();
    let cut_off: Vec<String> = fates.into_iter().flat_map(|fate| fate.cut_off).collect();
    let mut table = Table::new("What became of the requests", ["fate", "requests"]);
    for (fate, count) in [
        ("confirmed", confirmed),
        ("answered otherwise", refused.len()),
        ("not taken: no connection", not_taken),
        ("cut off", cut_off.len()),
    ] {
        table.row([fate.to_owned(), count.to_string()]);
    }
    report.table(table);
    report.check(
        "there was load",
        confirmed >= CUSTOMERS,
        format!("{confirmed} orders confirmed"),
    );
    report.check(
        "nothing was cut off",
        cut_off.is_empty(),
        cut_off
            .first()
            .cloned()
            .unwrap_or_else(|| "0 requests".to_owned()),
    );
    report.check(
        "whatever was taken was done, calls to other services included",
        refused.is_empty(),
        format!("{} answered otherwise: {refused:?}", refused.len()),
    );
}

/// A directory that the services share.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("trunkline-stop-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Waits until a service is registered and says where it is.
    async fn find(&self, service: &str) -> Result<String> {
        let url = format!("embedded://{}", self.0.join("data").display());
        let (_, resolver) = backends::open_discovery(&ServiceDiscoveryConfig::from_url(&url)?)?;
        let (name, end) = (ServiceName::new(service)?, Instant::now() + PATIENCE);
        loop {
            let list = resolver.resolve(&name).await?;
            if let Some(instance) = list.instances.first() {
                return Ok(instance.base_url());
            }
            if Instant::now() > end {
                bail!("{service} was not registered in time");
            }
            sleep(Duration::from_millis(25)).await;
        }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
