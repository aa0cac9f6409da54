//! Opening a database file, always with the same settings.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use trunkline_core::{Error, Result};

use crate::error::from_sqlite;

/// Before this version a WAL that several processes write could be damaged.
const OLDEST_SQLITE: i32 = 3_051_003;
/// Statements that a connection keeps prepared.
const STATEMENTS: usize = 64;
/// The turnstile orders our writers; this is for other programs that hold a lock for a moment.
const FOREIGN_LOCK: Duration = Duration::from_secs(5);
/// A WAL that grew beyond this during a burst is cut back.
const WAL_KEPT: i64 = 64 << 20;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Write,
    Read,
}

/// Opens a connection. The one that creates the file must have the turn to write.
pub(super) fn open(path: &Path, purpose: Purpose) -> Result<Connection> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(Error::unsupported(format!(
            "SQLite {} can damage a database that several processes write; 3.51.3 or newer is needed",
            rusqlite::version()
        )));
    }
    let sql = |error| from_sqlite("open", error, path);
    let create = if purpose == Purpose::Write {
        OpenFlags::SQLITE_OPEN_CREATE
    } else {
        OpenFlags::empty()
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | create;
    let connection = Connection::open_with_flags(path, flags).map_err(sql)?;
    configure(&connection, purpose).map_err(sql)?;
    Ok(connection)
}

fn configure(connection: &Connection, purpose: Purpose) -> rusqlite::Result<()> {
    connection.busy_timeout(FOREIGN_LOCK)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "trusted_schema", "OFF")?;
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT)?;
    match purpose {
        Purpose::Write => {
            make(connection)?;
            connection.pragma_update(None, "cache_size", -8192)?;
        }
        Purpose::Read => {
            connection.pragma_update(None, "cache_size", -2048)?;
            connection.pragma_update(None, "query_only", "ON")?;
        }
    }
    Ok(())
}

/// What is kept in the file itself. Setting it writes, so only the one who has the turn may do it.
fn make(connection: &Connection) -> rusqlite::Result<()> {
    let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
    if pages == 0 {
        // Pages that become free can be given back to the disk.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")
}
