//! A service's own tables: transactions that share a sync and nothing else.

use futures_util::future::join_all;
use trunkline_core::ErrorKind;
use trunkline_sqlite::{Connection, EmbeddedDatabase, SqlResult, inbox};

async fn with_table(directory: &tempfile::TempDir) -> EmbeddedDatabase {
    let database = EmbeddedDatabase::new(directory.path(), "mailer").unwrap();
    let table = "CREATE TABLE IF NOT EXISTS mail (message TEXT NOT NULL UNIQUE)";
    database.write(|tx| tx.execute_batch(table)).await.unwrap();
    database
}

async fn count(database: &EmbeddedDatabase) -> i64 {
    let counted = database.read(|c| c.query_row("SELECT count(*) FROM mail", [], |row| row.get(0)));
    counted.await.unwrap()
}

fn tell_once(tx: &Connection, message: &str) -> SqlResult<bool> {
    let is_new = inbox::record(tx, "mailer", message)?;
    if is_new {
        tx.execute("INSERT INTO mail VALUES (?1)", [message])?;
    }
    Ok(is_new)
}

#[tokio::test]
async fn an_effect_and_its_record_are_written_once_however_many_try() {
    let directory = tempfile::tempdir().unwrap();
    let database = with_table(&directory).await;
    let tries = (0..200).map(|n| {
        let message = format!("message-{}", n % 50);
        database.write(move |tx| tell_once(tx, &message))
    });
    let first = join_all(tries)
        .await
        .into_iter()
        .filter(|told| *told.as_ref().unwrap())
        .count();
    assert_eq!((first, count(&database).await), (50, 50));
}

#[tokio::test]
async fn a_failed_function_undoes_its_own_writes_and_nobody_elses() {
    let directory = tempfile::tempdir().unwrap();
    let database = with_table(&directory).await;
    let writes = (0..100).map(|n| {
        let message = format!("message-{n}");
        database.write(move |tx| {
            tell_once(tx, &message)?;
            if n % 2 == 1 {
                // Violates the constraint after a write that must go with it.
                tx.execute("INSERT INTO mail VALUES (?1)", [&message])?;
            }
            Ok(())
        })
    });
    for (n, outcome) in join_all(writes).await.into_iter().enumerate() {
        match outcome {
            Ok(()) => assert_eq!(n % 2, 0),
            Err(error) => assert_eq!((n % 2, error.kind()), (1, ErrorKind::Conflict)),
        }
    }
    assert_eq!(count(&database).await, 50);
    // The record went too: the message is handled when it comes again.
    assert!(
        database
            .write(|tx| tell_once(tx, "message-1"))
            .await
            .unwrap()
    );
}

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let database = with_table(&directory).await;
    database.write(|tx| tell_once(tx, "kept")).await.unwrap();
    database.shutdown();
    let error = database.write(|_| Ok(())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    let again = with_table(&directory).await;
    assert!(!again.write(|tx| tell_once(tx, "kept")).await.unwrap());
}

#[test]
fn a_name_that_is_no_file_name_is_refused() {
    for name in ["", "../up", "a b", &"x".repeat(65)] {
        let error = EmbeddedDatabase::new("/nowhere", name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{name}");
    }
}
