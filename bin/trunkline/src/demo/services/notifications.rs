//! The notifications service: tells each customer once about each order.
//!
//! A notification *is* a row. It is written in the same transaction as the record that its message was handled, so that
//! a message that comes twice — and at-least-once means that it may — finds the record and changes nothing.

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use trunkline::messaging::{HandlerError, Message, Start};
use trunkline::server::{Json, ProblemResponse, Query};
use trunkline::sqlite::{EmbeddedDatabase, inbox, params};
use trunkline::{CommunicationManager, Context, Result};

use super::orders::{ORDER_CREATED, Order};
use crate::demo::narrator::STORY;

/// The group whose members share the work.
pub(crate) const GROUP: &str = "notifications";

/// What a customer was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Notification {
    pub(crate) order_id: String,
    pub(crate) email: String,
    pub(crate) text: String,
    pub(crate) correlation_id: String,
}

/// Serves until the process is asked to stop.
pub(crate) async fn run(manager: CommunicationManager) -> Result<()> {
    let database = manager.database("notifications")?;
    database
        .write(|tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS notification (
                     id INTEGER PRIMARY KEY,
                     order_id TEXT NOT NULL,
                     email TEXT NOT NULL,
                     text TEXT NOT NULL,
                     correlation_id TEXT NOT NULL
                 ) STRICT",
            )
        })
        .await?;
    let handler_database = database.clone();
    manager
        .messaging()?
        .subscribe(ORDER_CREATED)
        .group(GROUP)
        .start(Start::Earliest)
        .handle(move |order: Order, message: Message, context: Context| {
            notify(handler_database.clone(), order, message.id, context)
        })
        .await?;
    let router = Router::new()
        .route("/api/v1/notifications", get(list))
        .with_state(database);
    manager.serve(router).await
}

/// Writes the notification and the record that its message was handled, both or neither.
async fn notify(
    database: EmbeddedDatabase,
    order: Order,
    message_id: String,
    context: Context,
) -> Result<(), HandlerError> {
    let text = format!("Thank you! Your order of {} is on its way.", order.item);
    let (order_id, email) = (order.id.clone(), order.email.clone());
    let correlation_id = context.correlation_id().to_string();
    let is_new = database.write(move |tx| {
        if !inbox::record(tx, GROUP, &message_id)? {
            return Ok(false);
        }
        tx.execute(
            "INSERT INTO notification (order_id, email, text, correlation_id) VALUES (?1, ?2, ?3, ?4)",
            params![order_id, email, text, correlation_id],
        )?;
        Ok(true)
    });
    if is_new.await? {
        tracing::info!(target: STORY, "told {} about order {}", order.email, order.id);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Filter {
    order_id: Option<String>,
}

/// Every notification, oldest first, or those of one order.
async fn list(
    State(database): State<EmbeddedDatabase>,
    Query(filter): Query<Filter>,
) -> Result<Json<Vec<Notification>>, ProblemResponse> {
    let notifications = database.read(move |connection| {
        let mut select = connection.prepare_cached(
            "SELECT order_id, email, text, correlation_id FROM notification
             WHERE ?1 IS NULL OR order_id = ?1 ORDER BY id",
        )?;
        let rows = select.query_map([&filter.order_id], |row| {
            Ok(Notification {
                order_id: row.get(0)?,
                email: row.get(1)?,
                text: row.get(2)?,
                correlation_id: row.get(3)?,
            })
        })?;
        rows.collect()
    });
    Ok(Json(notifications.await?))
}
