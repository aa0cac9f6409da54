//! Payments is killed and comes back.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use trunkline::core::names::metric;
use trunkline::core::{HealthDocument, Status};
use trunkline::http::HttpClient;

use super::calls::problem;
use super::health;
use super::shop::{Shop, fresh_key};
use crate::demo::members::Member;
use crate::demo::system::System;

/// What a customer waits at most for a refusal: the deadline of the call to payments, and some for the way.
const IN_TIME: Duration = Duration::from_secs(3);
/// How long payments would keep a customer waiting, were it not killed: longer than anybody waits.
const HELD: Duration = Duration::from_secs(10);
/// Customers who order at the same time, more than the failures that open a circuit.
const CUSTOMERS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(15);

/// The part of `/circuits` that matters here.
#[derive(Deserialize)]
struct Circuit {
    service: String,
    endpoint: Option<String>,
    state: String,
}

pub(super) async fn begins(system: &mut System, shop: &Shop) -> anyhow::Result<String> {
    let orders = system.url(Member::Orders).await?;
    health::until(&orders, HealthDocument::is_healthy).await?;
    let payments = HttpClient::new(&system.url(Member::Payments).await?)?;
    shop.delay_charges(&payments, HELD).await?;
    // The registry forgets a dead process within moments, and a call that finds nobody is no failure. So the customers
    // are at payments when it dies, and what they lose there opens the circuit.
    let customers = join_all((0..CUSTOMERS).map(|_| refusal(shop)));
    let killed = async {
        until_busy(&payments).await?;
        system.kill(Member::Payments).await
    };
    let (refusals, killed) = tokio::join!(customers, killed);
    killed?;
    let refusals: Vec<Duration> = refusals.into_iter().collect::<anyhow::Result<_>>()?;
    let refused = refusals.len();
    let slowest = refusals.into_iter().max().unwrap_or_default();
    let state = circuit(system).await?;
    ensure!(
        state == "open",
        "the circuit is {state} after {refused} refusals"
    );
    // With the circuit open nothing is waited for.
    let open = refusal(shop).await?;
    let document = health::until(&orders, |document| !document.is_healthy()).await?;
    ensure!(
        document.overall_status == Status::Degraded,
        "health is {}",
        document.overall_status
    );
    Ok(format!(
        "open after {refused} refusals, slowest {} ms, when open {} ms; health degraded",
        slowest.as_millis(),
        open.as_millis()
    ))
}

pub(super) async fn ends(system: &mut System, shop: &Shop) -> anyhow::Result<String> {
    let begun = Instant::now();
    system.launch(Member::Payments)?;
    system.until_ready(Member::Payments).await?;
    let key = fresh_key();
    let mut tries = 0;
    loop {
        tries += 1;
        if shop.try_order(1, &key).await?.status().as_u16() == 201 {
            break;
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "no order was placed in {tries} tries"
        );
        sleep(Duration::from_millis(100)).await;
    }
    let placed = begun.elapsed();
    while circuit(system).await? != "closed" {
        ensure!(
            begun.elapsed() < PATIENCE,
            "the circuit is {}",
            circuit(system).await?
        );
        shop.order(1, &fresh_key()).await?;
    }
    let orders = system.url(Member::Orders).await?;
    health::until(&orders, HealthDocument::is_healthy).await?;
    charged_once(system, shop).await?;
    Ok(format!(
        "first order after {} ms, circuit closed; health healthy",
        placed.as_millis()
    ))
}

/// Places an order that must be refused with 503, and says how long that took.
async fn refusal(shop: &Shop) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let answer = shop.try_order(1, &fresh_key()).await?;
    let took = begun.elapsed();
    let body: Value = problem(answer, 503).await?;
    ensure!(
        took <= IN_TIME,
        "the refusal took {} ms: {body}",
        took.as_millis()
    );
    Ok(took)
}

/// The state of the circuit from orders to the one endpoint of payments that it calls.
async fn circuit(system: &System) -> anyhow::Result<String> {
    let orders = HttpClient::new(&system.url(Member::Orders).await?)?;
    let circuits: Vec<Circuit> = orders.get("/circuits").send().await?.json().await?;
    let charges = circuits.into_iter().find(|circuit| {
        circuit.service == Member::Payments.service() && circuit.endpoint.is_some()
    });
    Ok(charges.context("orders has no circuit to payments")?.state)
}

/// Waits until every customer is at payments.
async fn until_busy(payments: &HttpClient) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    let gauge = metric::HTTP_SERVER_ACTIVE;
    loop {
        let metrics = payments.get("/metrics").send().await?.text().await?;
        let mut lines = metrics.lines();
        let active: Option<usize> =
            lines.find_map(|line| line.strip_prefix(gauge)?.trim().parse().ok());
        if active.is_some_and(|active| active >= CUSTOMERS) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "payments serves {active:?} requests");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Every order has exactly one charge; a charge without an order is one whose customer was refused.
async fn charged_once(system: &System, shop: &Shop) -> anyhow::Result<()> {
    let charges = shop.charges(&system.url(Member::Payments).await?).await?;
    for order in shop.orders().await? {
        let count = charges
            .iter()
            .filter(|charge| charge.order_id == order.id)
            .count();
        ensure!(count == 1, "order {} has {count} charges", order.id);
    }
    Ok(())
}
