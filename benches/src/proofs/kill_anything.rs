//! Any process may die at any moment: what was confirmed stays, and nothing happens twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::customer::{About, Customer, Order};
use super::system::{MEMBERS, System};
use crate::entry::{Entry, Options};
use crate::report::{Report, Table};

/// Customers who order all the time.
const CUSTOMERS: usize = 8;
/// Time between two deaths.
const PEACE: Duration = Duration::from_millis(400);
/// How long notifications may take to catch up at the end.
const CATCHING_UP: Duration = Duration::from_secs(60);

pub(super) static ENTRY: Entry = Entry {
    name: "kill-anything",
    about: "kill -9 of each process of the demo, in turn and at random, while orders flow: no confirmed order and no notification is lost, none comes twice.",
    run,
};

fn run(options: &Options) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(prove(options))
}

async fn prove(options: &Options) -> Result<Report> {
    let seed = options.seed();
    let deaths = victims(options.choose(20, 5), seed);
    let system = System::start(options)?;
    let stop = AtomicBool::new(false);
    let customers = (0..CUSTOMERS).map(|n| keep_ordering(system.gateway(), n, &stop));
    let killing = async {
        for victim in &deaths {
            sleep(PEACE).await;
            system.kill(victim).await?;
        }
        sleep(PEACE).await;
        stop.store(true, Ordering::Release);
        anyhow::Ok(())
    };
    let (confirmed, killed) = tokio::join!(try_join_all(customers), killing);
    killed?;
    let confirmed: Vec<Order> = confirmed?.into_iter().flatten().collect();
    let mut report = Report::new();
    let mut table = Table::new("What was done", ["what", "how often"]);
    for member in MEMBERS {
        let times = deaths.iter().filter(|victim| *victim == &member).count();
        table.row([format!("kill -9 {member}"), times.to_string()]);
    }
    table.row(["orders confirmed".to_owned(), confirmed.len().to_string()]);
    report.table(table);
    report.note(format!(
        "the victims were chosen by the seed {seed}: {}",
        deaths.join(", ")
    ));
    judge(&mut report, &system, &confirmed).await?;
    let ended = system.stop()?;
    report.check(
        "the demo stops cleanly afterwards",
        ended.success(),
        ended.to_string(),
    );
    Ok(report)
}

/// Each process once, then at random.
fn victims(random: usize, seed: u64) -> Vec<&'static str> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut victims = MEMBERS.to_vec();
    victims.extend((0..random).filter_map(|_| chance.choice(MEMBERS)));
    victims
}

async fn keep_ordering(gateway: &str, n: usize, stop: &AtomicBool) -> Result<Vec<Order>> {
    let customer = Customer::new(gateway)?;
    let mut confirmed = Vec::new();
    while !stop.load(Ordering::Acquire) {
        confirmed.push(customer.order_until_confirmed(1 + n as u64 % 4).await?);
    }
    Ok(confirmed)
}

async fn judge(report: &mut Report, system: &System, confirmed: &[Order]) -> Result<()> {
    let customer = Customer::new(system.gateway())?;
    let listed = count(customer.list::<Order>("/api/v1/orders").await?, |order| {
        order.id
    });
    let lost = confirmed
        .iter()
        .filter(|order| !listed.contains_key(&order.id))
        .count();
    let twice = listed.values().filter(|count| **count > 1).count();
    report.check(
        "no confirmed order is lost",
        lost == 0,
        format!("{lost} of {}", confirmed.len()),
    );
    report.check(
        "no order is there twice",
        twice == 0,
        format!("{twice} of {}", listed.len()),
    );
    let told = told_in_the_end(system, &customer, &listed).await?;
    let untold = listed.keys().filter(|id| !told.contains_key(*id)).count();
    let again = told.values().filter(|count| **count > 1).count();
    report.check(
        "every order is told of",
        untold == 0,
        format!("{untold} of {} missing", listed.len()),
    );
    report.check(
        "no order is told of twice",
        again == 0,
        format!("{again} of {}", told.len()),
    );
    // Payments is another process by now, at another address: the gateway knows it.
    let charges: Vec<About> = customer.list("/api/v1/payments/charges").await?;
    let charges = count(charges, |charge| charge.order_id);
    let uncharged = listed
        .keys()
        .filter(|id| charges.get(*id) != Some(&1))
        .count();
    report.check(
        "every order is charged once",
        uncharged == 0,
        format!("{uncharged} of {} not so", listed.len()),
    );
    Ok(())
}

/// How often each order was told of, once nothing can come any more.
///
/// What a killed process had in its hands comes again. So there is a new process, which is given everything that was not
/// acknowledged, and then one more order: when that has been told of, all before it has been as well.
async fn told_in_the_end(
    system: &System,
    customer: &Customer,
    orders: &BTreeMap<String, usize>,
) -> Result<BTreeMap<String, usize>> {
    until_told(customer, orders).await?;
    system.replace("notifications").await?;
    let last = customer.order_until_confirmed(1).await?.id;
    let mut told = until_told(customer, &BTreeMap::from([(last.clone(), 1)])).await?;
    told.remove(&last);
    Ok(told)
}

async fn until_told(
    customer: &Customer,
    orders: &BTreeMap<String, usize>,
) -> Result<BTreeMap<String, usize>> {
    let end = Instant::now() + CATCHING_UP;
    loop {
        let notifications: Vec<About> = customer.list("/api/v1/notifications").await?;
        let told = count(notifications, |notification| notification.order_id);
        let complete = orders.keys().all(|id| told.contains_key(id));
        if complete || Instant::now() > end {
            return Ok(told);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn count<T>(items: Vec<T>, name: impl Fn(T) -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(name(item)).or_default() += 1;
    }
    counts
}
