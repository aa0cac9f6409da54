//! The task that keeps the connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use trunkline_core::task::catch_panic;
use trunkline_core::{Error, Result, Retry};
use trunkline_resilience::retry::{RetrySettings, Schedule};

use super::connect::{Connect, Reconnect};
use super::link::{Generation, Shared};

/// How long what is left of a lost connection may take to close.
const CLEAN_UP: Duration = Duration::from_secs(1);

/// Connects, waits until the connection is lost, and begins anew, until it is told to stop.
pub(super) async fn keep<C: Connect>(shared: Arc<Shared<C>>, stop: CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = for_ever(&shared) => {}
    }
    // When the last handle was dropped, nobody else says it.
    if let Some(connection) = shared.end() {
        close(&shared, connection).await;
    }
}

async fn for_ever<C: Connect>(shared: &Shared<C>) {
    let schedule = schedule(&shared.settings);
    let mut generation = Generation::default();
    let mut failures = 0;
    loop {
        match attempt(shared).await {
            Ok(connection) => {
                generation = generation.next();
                tracing::info!(target: "trunkline", connection = generation.number(), "connected");
                let since = Instant::now();
                let lost = attend(shared, connection, generation).await;
                if since.elapsed() >= shared.settings.longest_delay {
                    failures = 0;
                }
                tracing::warn!(target: "trunkline", error = %lost.report(), "connection lost");
            }
            Err(error) => {
                tracing::debug!(target: "trunkline", error = %error.report(), "cannot connect");
                shared.down(Arc::new(error));
            }
        }
        failures += 1;
        tokio::select! {
            () = tokio::time::sleep(schedule.before(failures + 1)) => {}
            () = shared.hurry.notified() => {}
        }
    }
}

async fn attempt<C: Connect>(shared: &Shared<C>) -> Result<C::Connection> {
    let limit = shared.settings.attempt_timeout;
    match tokio::time::timeout(limit, catch_panic(shared.connector.connect())).await {
        Ok(outcome) => outcome?,
        Err(_) => {
            let text = format!("no connection within {limit:?}");
            Err(Error::timeout(text).with_retry(Retry::Safe))
        }
    }
}

/// Offers a connection until it is lost, then closes what is left of it.
async fn attend<C: Connect>(
    shared: &Shared<C>,
    connection: C::Connection,
    generation: Generation,
) -> Arc<Error> {
    if let Err(unwanted) = shared.up(connection.clone(), generation) {
        close(shared, unwanted).await;
        return std::future::pending().await;
    }
    let lost = catch_panic(shared.connector.lost(&connection));
    let error = tokio::select! {
        lost = lost => Arc::new(lost.unwrap_or_else(|panic| panic)),
        condemned = shared.is_condemned(generation) => condemned,
    };
    shared.down(Arc::clone(&error));
    close(shared, connection).await;
    error
}

/// Closes a connection that is most likely dead: nothing depends on how that ends.
async fn close<C: Connect>(shared: &Shared<C>, connection: C::Connection) {
    let deadline = Instant::now() + CLEAN_UP;
    let closing = catch_panic(shared.connector.close(connection, deadline));
    let outcome = tokio::time::timeout_at(deadline, closing).await;
    if let Ok(Ok(Err(error)) | Err(error)) = outcome {
        tracing::debug!(target: "trunkline", error = %error.report(), "a lost connection was not closed cleanly");
    }
}

fn schedule(settings: &Reconnect) -> Schedule {
    let mut schedule = RetrySettings::default().schedule();
    schedule.delay = settings.first_delay;
    schedule.backoff = 2.0;
    schedule.max_delay = settings.longest_delay;
    schedule.jitter = true;
    schedule
}
