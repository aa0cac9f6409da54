//! The HTTP client: typed calls, errors that say what happened, and a retry that does no harm.
//!
//! `cargo run -p trunkline-examples --example http_client`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use trunkline::ErrorKind;
use trunkline::http::{EnhancedHttpClient, ServiceError};
use trunkline::server::{Json, Path, ProblemResponse};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let service = trunkline_examples::serve(router()).await?;
    let users = EnhancedHttpClient::builder()
        .base_url(service.url())
        .timeout(Duration::from_secs(5))
        .header("accept-language", "es")
        .build()?;

    // Sends, turns 400 and above into an error, reads JSON.
    let ada: User = users.get("/users/1").fetch().await?;
    ensure!(ada.name == "Ada", "{ada:?}");

    // What went wrong, as a type; the problem document of the other side comes along.
    match users.get("/users/9").fetch::<User>().await {
        Err(ServiceError::Status(refused)) => {
            ensure!(refused.status == StatusCode::NOT_FOUND);
            println!("{refused}");
        }
        other => bail!("a user that does not exist: {other:?}"),
    }

    // The first answer is 503. A POST is repeated only because its key makes that harmless.
    let placed = users
        .post("/orders")
        .json(&ada)
        .idempotency_key("order-1")
        .await?;
    ensure!(placed.status() == StatusCode::CREATED, "{placed:?}");

    // The deadline holds for everything: attempts, pauses between them, and the body. The other side knows it too, and
    // gives up as well: whichever is first, it is a timeout.
    let slow = users.get("/slow").timeout(Duration::from_millis(100));
    let late = slow.fetch::<User>().await.map_err(trunkline::Error::from);
    let late = late.err().context("the deadline was not kept")?;
    ensure!(late.kind() == ErrorKind::Timeout, "{late:?}");
    println!("{late}");
    service.stop().await
}

fn router() -> Router {
    Router::new()
        .route("/users/{id}", get(user))
        .route("/orders", post(order))
        .route("/slow", get(std::future::pending::<()>))
}

async fn user(Path(id): Path<u64>) -> Result<Json<User>, ProblemResponse> {
    match id {
        1 => Ok(Json(User {
            id,
            name: "Ada".into(),
        })),
        _ => Err(ProblemResponse::not_found(format!("there is no user {id}"))),
    }
}

/// Not ready the first time.
async fn order() -> StatusCode {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    match ASKED.fetch_add(1, Ordering::Relaxed) {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CREATED,
    }
}
