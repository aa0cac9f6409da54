//! Which release wrote a file, and bringing an older one up to date.
//!
//! A step of a schema only adds to what is there, so that the release before can go on working in the same file. A file
//! that is one step newer is therefore taken as it is; one that is further ahead is refused.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};
use trunkline_core::{Error, Result};

use crate::error::{DamagedFile, SchemaTooNew, from_sqlite};

/// `TRNK`: tells our files from those of other programs.
const APPLICATION: i64 = 0x5452_4E4B;

/// The tables of one kind of file.
#[derive(Debug)]
pub(crate) struct Schema {
    /// What each version adds to the one before; the first makes everything.
    pub(crate) steps: &'static [&'static str],
}

impl Schema {
    fn version(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Checks the file, and makes or completes its tables. The caller has the turn to write.
    pub(super) fn prepare(&self, connection: &mut Connection, path: &Path) -> Result<()> {
        let sql = |error| from_sqlite("open", error, path);
        let found = version(connection).map_err(sql)?;
        let application: i64 = connection
            .query_row("PRAGMA application_id", [], |row| row.get(0))
            .map_err(sql)?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(sql)?;
        if application != APPLICATION && (application != 0 || tables != 0 || found != 0) {
            let cause = DamagedFile {
                path: path.to_owned(),
                why: "it is a database of another program".to_owned(),
            };
            return Err(Error::config(cause.to_string()).with_source(cause));
        }
        let newest = self.version() + 1;
        if found > newest {
            let cause = SchemaTooNew {
                path: path.to_owned(),
                found,
                newest,
            };
            return Err(Error::config(cause.to_string()).with_source(cause));
        }
        if found < self.version() {
            self.complete(connection, found).map_err(sql)?;
        }
        Ok(())
    }

    fn complete(&self, connection: &mut Connection, found: u32) -> rusqlite::Result<()> {
        let missing = self.steps.iter().skip(found as usize);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for step in missing {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", self.version())?;
        transaction.commit()
    }
}

fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Schema = Schema {
        steps: &["CREATE TABLE a(x)"],
    };
    const TWO: Schema = Schema {
        steps: &["CREATE TABLE a(x)", "CREATE TABLE b(x)"],
    };
    const FOUR: Schema = Schema {
        steps: &["CREATE TABLE a(x)", "SELECT 1", "SELECT 1", "SELECT 1"],
    };

    fn prepare(schema: &Schema, connection: &mut Connection) -> Result<()> {
        schema.prepare(connection, Path::new("x.db"))
    }

    #[test]
    fn an_older_file_is_completed_and_the_older_release_still_works() {
        let mut file = Connection::open_in_memory().unwrap();
        prepare(&ONE, &mut file).unwrap();
        prepare(&TWO, &mut file).unwrap();
        file.execute("INSERT INTO b VALUES(1)", []).unwrap();
        prepare(&ONE, &mut file).unwrap();
        assert_eq!(
            version(&file).unwrap(),
            2,
            "the older release leaves it alone"
        );
    }

    #[test]
    fn a_file_of_a_distant_release_is_refused() {
        let mut file = Connection::open_in_memory().unwrap();
        prepare(&FOUR, &mut file).unwrap();
        let error = prepare(&ONE, &mut file).unwrap_err();
        let cause = error.find::<SchemaTooNew>().unwrap();
        assert_eq!((cause.found, cause.newest), (4, 2));
    }

    #[test]
    fn a_database_of_another_program_is_refused() {
        let mut file = Connection::open_in_memory().unwrap();
        file.execute_batch("CREATE TABLE theirs(x)").unwrap();
        let error = prepare(&ONE, &mut file).unwrap_err();
        assert!(error.find::<DamagedFile>().is_some());
    }
}
