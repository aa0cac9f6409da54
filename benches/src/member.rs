//! A process that handles messages, for proofs that kill it: `messaging-member <url> <topic> <group> <directory>`.
//!
//! A handled message is a row in a database of the directory, written in the same transaction as the record that it was
//! handled; every run of the handler is a row as well, so that repetitions can be counted. The process says `ready` when
//! its subscription is attached, and leaves in good order when its input ends.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::time::Instant;
use trunkline::core::Lifecycle as _;
use trunkline::messaging::{HandlerError, Message, MessageBrokerConfig, Messaging, Start, Topic};
use trunkline::sqlite::{EmbeddedDatabase, inbox, params};

/// Messages that one member handles at a time.
const AT_ONCE: usize = 32;
/// How long the broker waits for a sign of life before it gives a message to another member.
const LEASE: Duration = Duration::from_secs(10);
/// How long handlers may take to finish when the member leaves.
const LEAVING: Duration = Duration::from_secs(20);

/// One of the messages: the `seq`th of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbered {
    pub(crate) key: u32,
    pub(crate) seq: u32,
}

/// Opens the database of a directory, with its tables.
pub(crate) async fn effects(directory: &str) -> Result<EmbeddedDatabase> {
    let database = EmbeddedDatabase::new(directory, "effects")?;
    database
        .write(|tx| {
            tx.execute_batch(
                "CREATE TABLE IF NOT EXISTS effect (
                     id INTEGER PRIMARY KEY, key INTEGER NOT NULL, seq INTEGER NOT NULL
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS run (
                     id INTEGER PRIMARY KEY, key INTEGER NOT NULL, seq INTEGER NOT NULL
                 ) STRICT;",
            )
        })
        .await?;
    Ok(database)
}

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(&words)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("messaging-member: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[String]) -> Result<()> {
    let [url, topic, group, directory] = words else {
        bail!("usage: messaging-member <url> <topic> <group> <directory>");
    };
    let database = effects(directory).await?;
    let broker = trunkline::backends::open_broker(&MessageBrokerConfig::from_url(url)?)?;
    let messaging = Messaging::builder(broker).service("member").build();
    let (scope, shared) = (group.clone(), database.clone());
    let listening = messaging
        .subscribe(Topic::<Numbered>::new(topic.clone().leak()))
        .group(group)
        .start(Start::Latest)
        .concurrency(AT_ONCE)
        .prefetch(2 * AT_ONCE as u32)
        .lease(LEASE)
        .without_inbox()
        .handle(move |numbered: Numbered, message: Message| {
            handle(shared.clone(), scope.clone(), numbered, message.id)
        })
        .await?;
    messaging.start().await.context("the broker is not there")?;
    listening.attached().await?;
    let mut out = std::io::stdout();
    writeln!(out, "ready").and_then(|()| out.flush())?;
    // Whoever started this holds the other end.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    let deadline = Instant::now() + LEAVING;
    let leaving = Instant::now();
    messaging.drain(deadline).await.context("cannot drain")?;
    let drained = leaving.elapsed();
    messaging
        .shutdown(deadline)
        .await
        .with_context(|| format!("cannot shut down, drained after {drained:?}"))?;
    Ok(())
}

async fn handle(
    database: EmbeddedDatabase,
    scope: String,
    numbered: Numbered,
    id: String,
) -> Result<(), HandlerError> {
    let Numbered { key, seq } = numbered;
    let written = database.write(move |tx| {
        tx.execute(
            "INSERT INTO run (key, seq) VALUES (?1, ?2)",
            params![key, seq],
        )?;
        if inbox::record(tx, &scope, &id)? {
            tx.execute(
                "INSERT INTO effect (key, seq) VALUES (?1, ?2)",
                params![key, seq],
            )?;
        }
        Ok(())
    });
    written.await?;
    Ok(())
}
