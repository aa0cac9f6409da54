//! Many orders at once, while notifications is killed and comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use trunkline::core::{HealthDocument, Status};

use super::health;
use super::shop::{Shop, fresh_key};
use crate::demo::members::Member;
use crate::demo::system::System;

/// Customers who order at the same time.
const CUSTOMERS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) async fn run(system: &mut System, shop: &Shop, orders: usize) -> anyhow::Result<String> {
    let begun = Instant::now();
    let (placed, progress) = watch::channel(0usize);
    let ordering = place_all(shop, orders, &placed);
    let killing = kill_in_the_middle(system, progress, orders);
    let (confirmed, killed) = tokio::join!(ordering, killing);
    let (mut confirmed, ()) = (confirmed?, killed?);
    let ordered = begun.elapsed();
    until_told(shop, &confirmed).await?;
    let told = begun.elapsed();
    // Whatever was handled and not acknowledged when a process ended comes again, to the next process, and before one
    // more order: when that has been told of, a notification that is there twice can be seen.
    system.restart(Member::Notifications).await?;
    confirmed.push(shop.order(1, &fresh_key()).await?.id);
    let copies = until_told(shop, &confirmed).await?;
    let twice = copies.values().filter(|count| **count > 1).count();
    ensure!(twice == 0, "{twice} orders were told of twice");
    let rate = orders as f64 / ordered.as_secs_f64();
    let behind = told.saturating_sub(ordered);
    Ok(format!(
        "{orders} orders at {rate:.0}/s, all told, none twice, the last {} ms after the last order; health degraded, then healthy",
        behind.as_millis()
    ))
}

async fn place_all(
    shop: &Shop,
    orders: usize,
    placed: &watch::Sender<usize>,
) -> anyhow::Result<Vec<String>> {
    let placing = stream::iter(0..orders).map(|n| async move {
        let order = shop.order(1 + n as u64 % 4, &fresh_key()).await?;
        placed.send_modify(|count| *count += 1);
        anyhow::Ok(order.id)
    });
    let ids: Vec<_> = placing.buffer_unordered(CUSTOMERS).collect().await;
    ids.into_iter().collect()
}

/// Kills notifications when half the orders are placed. It comes back when two thirds are and the gateway's health has
/// shown that nobody is there.
async fn kill_in_the_middle(
    system: &mut System,
    mut placed: watch::Receiver<usize>,
    orders: usize,
) -> anyhow::Result<()> {
    placed.wait_for(|count| *count >= orders / 2).await?;
    system.kill(Member::Notifications).await?;
    let gateway = system.gateway_url();
    health::until(&gateway, |document| {
        status(document) == Some(Status::Degraded)
    })
    .await?;
    placed.wait_for(|count| *count >= orders * 2 / 3).await?;
    system.launch(Member::Notifications)?;
    system.until_ready(Member::Notifications).await?;
    health::until(&gateway, |document| {
        status(document) == Some(Status::Healthy)
    })
    .await?;
    Ok(())
}

/// What the gateway says of notifications.
fn status(document: &HealthDocument) -> Option<Status> {
    let client = format!("http_client_{}", Member::Notifications.service());
    Some(document.component_status(&client)?.status)
}

/// How often each order was told of, once every one has been.
async fn until_told(shop: &Shop, orders: &[String]) -> anyhow::Result<BTreeMap<String, usize>> {
    let end = Instant::now() + PATIENCE;
    loop {
        let mut copies: BTreeMap<String, usize> = BTreeMap::new();
        for notification in shop.notifications().await? {
            *copies.entry(notification.order_id).or_default() += 1;
        }
        let missing = orders.iter().filter(|id| !copies.contains_key(*id)).count();
        if missing == 0 {
            return Ok(copies);
        }
        ensure!(
            Instant::now() < end,
            "{missing} of {} orders were never told of",
            orders.len()
        );
        sleep(Duration::from_millis(50)).await;
    }
}
