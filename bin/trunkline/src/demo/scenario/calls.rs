//! Plain requests: what works, and what is refused.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use trunkline::http::Response;

use super::shop::{Shop, fresh_key};

const ORDERS: usize = 20;

pub(super) async fn place_and_read(shop: &Shop) -> anyhow::Result<String> {
    let before = shop.orders().await?.len();
    for n in 0..ORDERS {
        let user = 1 + (n as u64 % 4);
        let placed = shop.order(user, &fresh_key()).await?;
        let read = shop.read_order(&placed.id).await?;
        ensure!(read == placed, "order {} reads back as {read:?}", placed.id);
    }
    let listed = shop.orders().await?.len() - before;
    ensure!(listed == ORDERS, "{listed} of {ORDERS} orders are listed");
    Ok(format!("{ORDERS} orders placed, read back, listed"))
}

pub(super) async fn unknown_user(shop: &Shop) -> anyhow::Result<String> {
    let answer = shop.try_order(99, &fresh_key()).await?;
    let problem = problem(answer, 404).await?;
    let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
    ensure!(
        detail.contains("99"),
        "the detail does not say who: {detail:?}"
    );
    Ok(format!("404: {detail}"))
}

pub(super) async fn malformed(shop: &Shop) -> anyhow::Result<String> {
    let body = json!({ "user_id": "one", "item": "book", "amount": 1999 });
    let problem = problem(shop.post_raw(&body).await?, 422).await?;
    let text = problem.to_string();
    ensure!(text.contains("user_id"), "the field is not named: {text}");
    Ok(format!(
        "422: {}",
        problem["detail"].as_str().unwrap_or_default()
    ))
}

pub(super) async fn repeated(shop: &Shop, payments: &str) -> anyhow::Result<String> {
    let key = fresh_key();
    let first = shop.order(1, &key).await?;
    let second = shop.order(1, &key).await?;
    ensure!(
        first == second,
        "the repetition gave {second:?} instead of {first:?}"
    );
    let listed = shop
        .orders()
        .await?
        .iter()
        .filter(|order| order.id == first.id)
        .count();
    ensure!(listed == 1, "the order is listed {listed} times");
    let charges = shop.charges(payments).await?;
    let charged = charges.iter().filter(|charge| charge.order_id == first.id);
    let charged = charged.count();
    ensure!(charged == 1, "the order was charged {charged} times");
    // Another user's order under the same key is no repetition.
    let other = shop.try_order(2, &key).await?;
    problem(other, 422).await?;
    let unfit = shop.try_order(1, "no.such/key").await?;
    problem(unfit, 400).await?;
    Ok(format!("twice the order {}, charged once", first.id))
}

/// The body of a problem with this status.
pub(super) async fn problem(answer: Response, status: u16) -> anyhow::Result<Value> {
    let got = answer.status().as_u16();
    ensure!(got == status, "the answer is {got}, not {status}");
    let media = answer
        .headers()
        .get("content-type")
        .and_then(|kind| kind.to_str().ok());
    let media = media.context("the answer has no content type")?.to_owned();
    ensure!(
        media.starts_with("application/problem+json"),
        "the answer is {media}, no problem"
    );
    Ok(answer.json().await?)
}
