//! A stop under load: what was begun is finished, including what it has to send, and the process ends with 0.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};
use trunkline::discovery::{Resolver as _, ServiceDiscoveryConfig, ServiceName};
use trunkline::{Id, backends};

use super::customer::{About, Answer, Customer};
use super::system::{MEMBERS, Service};
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
    confirmed: Vec<String>,
    /// Answered with something else than a confirmed order.
    refused: Vec<u16>,
    /// The connection was never made: the request was not sent.
    not_taken: usize,
    /// The connection was made and no answer came.
    cut_off: Vec<String>,
}

async fn prove(options: &Options) -> Result<Report> {
    let mut shop = Shop::start(options).await?;
    let mut report = Report::new();
    let under_load = options.choose(Duration::from_secs(3), Duration::from_secs(1));
    let mut confirmed = Vec::new();
    for member in ["gateway", "notifications", "orders"] {
        // Whoever takes orders is asked directly, so that its own stop is what customers see.
        let url = if member == "gateway" {
            shop.gateway.clone()
        } else {
            shop.directory.find("order-service").await?
        };
        let stop = AtomicBool::new(false);
        let load = join_all((0..CUSTOMERS).map(|_| order_until(&url, &stop)));
        let stopping = async {
            sleep(under_load).await;
            let ended = shop.terminate(member).await;
            stop.store(true, Ordering::Release);
            ended
        };
        let (fates, ended) = tokio::join!(load, stopping);
        let (ended, seconds) = ended?;
        let fates = fates.into_iter().collect::<Result<Vec<_>>>()?;
        confirmed.extend(fates.iter().flat_map(|fate| fate.confirmed.clone()));
        judge(&mut report, member, fates);
        report.check(
            format!("{member} ended with 0 within the grace time"),
            ended.success() && seconds <= GRACE,
            format!("{ended} after {seconds:.2} s"),
        );
        shop.start_again(options, member).await?;
    }
    told(&mut report, &shop, &confirmed).await?;
    for member in ["payments", "users"] {
        let (ended, _) = shop.terminate(member).await?;
        report.check(
            format!("{member} ended with 0"),
            ended.success(),
            ended.to_string(),
        );
    }
    Ok(report)
}

/// Handlers that were asked to stop have finished what they had in hand, or given it back.
async fn told(report: &mut Report, shop: &Shop, confirmed: &[String]) -> Result<()> {
    let notifications = shop.directory.find("notification-service").await?;
    let customer = Customer::new(&notifications)?;
    let end = Instant::now() + PATIENCE;
    let copies = |told: &[About], id: &String| told.iter().filter(|n| n.order_id == *id).count();
    let told = loop {
        let told: Vec<About> = customer.list("/api/v1/notifications").await?;
        let complete = confirmed.iter().all(|id| copies(&told, id) > 0);
        if complete || Instant::now() > end {
            break told;
        }
        sleep(Duration::from_millis(50)).await;
    };
    let wrong = confirmed.iter().filter(|id| copies(&told, id) != 1).count();
    report.check(
        "every confirmed order was told of once, over the stop of notifications",
        wrong == 0,
        format!("{wrong} of {} not so", confirmed.len()),
    );
    Ok(())
}

/// The services of the demo, each a child of this process.
struct Shop {
    services: BTreeMap<&'static str, Service>,
    port: u16,
    gateway: String,
    directory: Directory,
}

impl Shop {
    async fn start(options: &Options) -> Result<Self> {
        let directory = Directory::new()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut shop = Self {
            services: BTreeMap::new(),
            port,
            gateway: format!("http://127.0.0.1:{port}"),
            directory,
        };
        for member in MEMBERS {
            shop.start_again(options, member).await?;
        }
        let payments = shop.directory.find("payment-service").await?;
        let mood = json!({ "delay_ms": SLOW.as_millis() as u64 });
        Customer::new(&payments)?.set_mood(&mood).await?;
        Ok(shop)
    }

    async fn start_again(&mut self, options: &Options, member: &'static str) -> Result<()> {
        let port = if member == "gateway" { self.port } else { 0 };
        let service = Service::start(options, member, port, &self.directory.0)?;
        self.services.insert(member, service);
        match member {
            "gateway" => Customer::new(&self.gateway)?.until_ready().await,
            "users" => self.directory.find("user-service").await.map(drop),
            "payments" => self.directory.find("payment-service").await.map(drop),
            "notifications" => self.directory.find("notification-service").await.map(drop),
            _ => self.directory.find("order-service").await.map(drop),
        }
    }

    /// Asks a member to stop and says how it ended, and how long that took.
    async fn terminate(&mut self, member: &str) -> Result<(ExitStatus, f64)> {
        let service = self.services.remove(member);
        let mut service = service.with_context(|| format!("{member} is not running"))?;
        let watch = Stopwatch::start();
        service.terminate()?;
        let ended = tokio::task::spawn_blocking(move || service.wait()).await??;
        Ok((ended, watch.seconds()))
    }
}

async fn order_until(url: &str, stop: &AtomicBool) -> Result<Fate> {
    let customer = Customer::with_fresh_connections(url)?;
    let mut fate = Fate::default();
    while !stop.load(Ordering::Acquire) {
        match customer.order(1, &Id::new().to_string()).await {
            Ok(Answer::Confirmed(order)) => fate.confirmed.push(order.id),
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

fn judge(report: &mut Report, stopped: &str, fates: Vec<Fate>) {
    let confirmed: usize = fates.iter().map(|fate| fate.confirmed.len()).sum();
    let not_taken: usize = fates.iter().map(|fate| fate.not_taken).sum();
    let refused: Vec<u16> = fates.iter().flat_map(|fate| fate.refused.clone()).collect();
    let cut_off: Vec<String> = fates.into_iter().flat_map(|fate| fate.cut_off).collect();
    let mut table = Table::new(
        format!("What became of the requests while {stopped} was stopped"),
        ["fate", "requests"],
    );
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
        format!("{stopped}: there was load"),
        confirmed >= CUSTOMERS,
        format!("{confirmed} orders confirmed"),
    );
    report.check(
        format!("{stopped}: nothing was cut off"),
        cut_off.is_empty(),
        cut_off
            .first()
            .cloned()
            .unwrap_or_else(|| "0 requests".to_owned()),
    );
    report.check(
        format!("{stopped}: whatever was taken was done, calls to other services included"),
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
