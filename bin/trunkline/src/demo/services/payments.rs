//! The payments service: charges, once per idempotency key, and is flaky on demand.
//!
//! The charge and the record of its key are written in one transaction of the service's own database. Whenever a caller
//! repeats a charge — because an answer got lost, or a process was killed in between — the first charge is the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};
use trunkline::core::Id;
use trunkline::core::names::header::IDEMPOTENCY_KEY;
use trunkline::server::{Json, ProblemResponse};
use trunkline::sqlite::{EmbeddedDatabase, params};
use trunkline::{CommunicationManager, Result};

use crate::demo::narrator::STORY;

/// What a caller asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Charge {
    /// The order that is paid for.
    pub(crate) order_id: String,
    /// In cents.
    pub(crate) amount: u64,
}

/// A charge that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) charge_id: String,
    pub(crate) order_id: String,
    pub(crate) amount: u64,
}

/// How flaky it shall be.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Mood {
    /// Share of requests that fail with 503, 0 to 100.
    #[serde(default)]
    pub(crate) failing_percent: u32,
    /// Time every request takes longer, in milliseconds.
    #[serde(default)]
    pub(crate) delay_ms: u64,
}

#[derive(Clone)]
struct Payments {
    database: EmbeddedDatabase,
    failing_percent: Arc<AtomicU32>,
    delay_ms: Arc<AtomicU64>,
}

/// Serves until the process is asked to stop.
pub(crate) async fn run(manager: CommunicationManager) -> Result<()> {
    let database = manager.database("payments")?;
    database
        .write(|tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS charge (
                     idempotency_key TEXT PRIMARY KEY,
                     charge_id TEXT NOT NULL,
                     order_id TEXT NOT NULL,
                     amount INTEGER NOT NULL
                 ) STRICT, WITHOUT ROWID",
            )
        })
        .await?;
    let payments = Payments {
        database,
        failing_percent: Arc::default(),
        delay_ms: Arc::default(),
    };
    let router = Router::new()
        .route("/api/v1/payments/charges", post(charge).get(list))
        .route("/mood", put(set_mood))
        .route("/mood", get(mood))
        .with_state(payments);
    manager.serve(router).await
}

async fn charge(
    State(payments): State<Payments>,
    headers: HeaderMap,
    Json(charge): Json<Charge>,
) -> Result<(StatusCode, Json<Receipt>), ProblemResponse> {
    let key = headers
        .get(IDEMPOTENCY_KEY)
        .and_then(|key| key.to_str().ok())
        .ok_or_else(|| ProblemResponse::bad_request("a charge needs the header Idempotency-Key"))?
        .to_owned();
    payments.sulk().await?;
    let (receipt, is_new) = payments.charge_once(key, charge).await?;
    if is_new {
        tracing::info!(target: STORY, "charged {} for order {}", receipt.amount, receipt.order_id);
    }
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(receipt)))
}

impl Payments {
    /// Makes the charge, or finds the one that was made under this key.
    async fn charge_once(
        &self,
        key: String,
        charge: Charge,
    ) -> Result<(Receipt, bool), ProblemResponse> {
        let wanted = charge.clone();
        let made = self.database.write(move |tx| {
            let is_new = tx.execute(
                "INSERT INTO charge VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
                params![key, Id::new().to_string(), charge.order_id, charge.amount],
            )? == 1;
            let receipt = tx.query_row(
                "SELECT charge_id, order_id, amount FROM charge WHERE idempotency_key = ?1",
                [&key],
                |row| {
                    Ok(Receipt {
                        charge_id: row.get(0)?,
                        order_id: row.get(1)?,
                        amount: row.get(2)?,
                    })
                },
            )?;
            Ok((receipt, is_new))
        });
        let (receipt, is_new) = made.await?;
        let same = (&receipt.order_id, receipt.amount) == (&wanted.order_id, wanted.amount);
        if same {
            Ok((receipt, is_new))
        } else {
            Err(ProblemResponse::unprocessable(
                "this Idempotency-Key was used for another charge",
            ))
        }
    }

    /// Is slow and fails as often as was asked for.
    async fn sulk(&self) -> Result<(), ProblemResponse> {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if fastrand::u32(0..100) < self.failing_percent.load(Ordering::Relaxed) {
            return Err(ProblemResponse::unavailable(
                "payments is in a bad mood, as was asked for",
            ));
        }
        Ok(())
    }
}

async fn list(State(payments): State<Payments>) -> Result<Json<Vec<Receipt>>, ProblemResponse> {
    let charges = payments.database.read(|connection| {
        let mut select = connection
            .prepare_cached("SELECT charge_id, order_id, amount FROM charge ORDER BY charge_id")?;
        let rows = select.query_map([], |row| {
            Ok(Receipt {
                charge_id: row.get(0)?,
                order_id: row.get(1)?,
                amount: row.get(2)?,
            })
        })?;
        rows.collect()
    });
    Ok(Json(charges.await?))
}

async fn mood(State(payments): State<Payments>) -> Json<Mood> {
    Json(Mood {
        failing_percent: payments.failing_percent.load(Ordering::Relaxed),
        delay_ms: payments.delay_ms.load(Ordering::Relaxed),
    })
}

async fn set_mood(State(payments): State<Payments>, Json(mood): Json<Mood>) -> Json<Mood> {
    payments
        .failing_percent
        .store(mood.failing_percent.min(100), Ordering::Relaxed);
    payments.delay_ms.store(mood.delay_ms, Ordering::Relaxed);
    tracing::info!(target: STORY, "{} % of the charges fail now", mood.failing_percent);
    Json(mood)
}
