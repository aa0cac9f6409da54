//! A service's own tables in the embedded directory, written by the same engine.

pub mod inbox;

use std::path::Path;

use rusqlite::{Connection, ErrorCode};
use trunkline_core::Result;

use crate::engine::{Manner, Schema, Stop, Tx};
use crate::error::from_sqlite;
use crate::part::Part;

static SCHEMA: Schema = Schema {
    steps: &[inbox::TABLE],
};

/// A SQLite file of the service's own in the embedded directory. Clones share it.
///
/// Transactions of all tasks share one sync of the disk, and processes take turns without waiting in SQLite. What a
/// handler writes and the record that it was handled ([`inbox::record`]) go into one transaction, so that a message that
/// comes twice has its effect once.
///
/// ```
/// use trunkline_sqlite::{EmbeddedDatabase, inbox};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let directory = directory.path();
/// let database = EmbeddedDatabase::new(directory, "mailer")?;
/// database.write(|tx| tx.execute_batch("CREATE TABLE IF NOT EXISTS mail (recipient TEXT NOT NULL)")).await?;
/// for _ in 0..2 {
///     database.write(|tx| {
///         if inbox::record(tx, "mailer", "message-1")? {
///             tx.execute("INSERT INTO mail VALUES (?1)", ["ada@example.com"])?;
///         }
///         Ok(())
///     }).await?;
/// }
/// let mails: i64 = database.read(|connection| {
///     connection.query_row("SELECT count(*) FROM mail", [], |row| row.get(0))
/// }).await?;
/// assert_eq!(mails, 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddedDatabase {
    part: Part,
}

impl EmbeddedDatabase {
    /// A database of a directory; opened when it is first used.
    ///
    /// # Errors
    /// `Config` when the name has anything but letters, digits, `-` and `_`.
    pub fn new(directory: impl AsRef<Path>, name: &str) -> Result<Self> {
        let file = crate::file_name("app", name)?;
        Ok(Self {
            part: Part::new(directory.as_ref(), file, &SCHEMA),
        })
    }

    /// Runs a function in a transaction and returns when that is on the disk. Nothing of it stays when the function
    /// fails.
    ///
    /// The function may run twice, when others whose transaction it shared could not be written. It must not begin or
    /// end a transaction itself, and runs on the writer's thread: keep it short.
    ///
    /// # Errors
    /// `Conflict` for a violated constraint, `Exhausted` with [`DiskFull`](crate::DiskFull), else what the function
    /// stumbled over; `Timeout` when it could not be written by the deadline of the running context, or within 30 s;
    /// `Cancelled` after shutdown.
    ///
    /// # Cancel safety
    /// When dropped, it may have been written or not, as a whole.
    pub async fn write<T, F>(&self, function: F) -> Result<T>
    where
        F: Fn(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let database = self.part.database("write").await?;
        let path = database.path().to_owned();
        let manner = Manner::durable("write", Part::deadline());
        let apart = move |tx: &mut Tx<'_>| undone_on_failure(tx.connection(), &path, &function);
        database.calls().write(manner, apart).await
    }

    /// Runs a function that only reads; it sees one state of the database.
    ///
    /// # Errors
    /// What the function stumbled over; `Timeout`; `Cancelled` after shutdown.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn read<T, F>(&self, function: F) -> Result<T>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let database = self.part.database("read").await?;
        database
            .readers()
            .read("read", Part::deadline(), function)
            .await
    }

    /// Whether it can be read and written.
    ///
    /// # Errors
    /// `Unavailable`, `Exhausted`, `Timeout`; `Cancelled` after shutdown.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn health_check(&self) -> Result<()> {
        self.part
            .database("health_check")
            .await?
            .health_check(Part::deadline())
            .await
    }

    /// Ends it: later calls fail with `Cancelled`.
    pub fn shutdown(&self) {
        self.part.close();
    }
}

/// Runs a function so that its failure undoes what it wrote, and nothing of the others in the same transaction.
fn undone_on_failure<T>(
    connection: &Connection,
    path: &Path,
    function: &impl Fn(&Connection) -> rusqlite::Result<T>,
) -> Result<T, Stop> {
    connection.prepare_cached("SAVEPOINT own")?.execute([])?;
    let outcome = function(connection);
    if connection.is_autocommit() || outcome.as_ref().is_err_and(concerns_everybody) {
        // The whole transaction is lost, or should be: the writer deals with that.
        return outcome.map_err(Stop::Sql);
    }
    if outcome.is_err() {
        connection.prepare_cached("ROLLBACK TO own")?.execute([])?;
    }
    connection.prepare_cached("RELEASE own")?.execute([])?;
    outcome.map_err(|error| Stop::Refused(from_sqlite("write", error, path)))
}

fn concerns_everybody(error: &rusqlite::Error) -> bool {
    let codes = [
        ErrorCode::DiskFull,
        ErrorCode::SystemIoFailure,
        ErrorCode::DatabaseCorrupt,
    ];
    error
        .sqlite_error_code()
        .is_some_and(|code| codes.contains(&code))
}
