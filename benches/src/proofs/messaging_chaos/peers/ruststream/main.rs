//! RustStream as its documentation says. What it is told and says: programs.rs.

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::OnceLock;

#[cfg(feature = "kafka")]
use self::kafka as system;
#[cfg(feature = "nats")]
use self::nats as system;
#[cfg(feature = "rabbitmq")]
use self::rabbitmq as system;
#[cfg(feature = "redis")]
use self::redis as system;

use anyhow::{Context, Result, bail};
use ruststream::prelude::*;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::task::JoinSet;

#[derive(Clone, Copy, Debug, Serialize, Deserialize, Outgoing)]
#[outgoing(name = "chaos")]
pub struct Numbered {
    pub key: u32,
    pub seq: u32,
}

static HANDLED: OnceLock<(File, String)> = OnceLock::new();

/// The handler.
pub fn handle(numbered: &Numbered) -> HandlerOutcome {
    let Some((mut file, number)) = HANDLED.get().map(|(file, number)| (file, number)) else {
        return HandlerOutcome::retry();
    };
    let line = format!("{number} {} {}\n", numbered.key, numbered.seq);
    match file.write_all(line.as_bytes()) {
        Ok(()) => HandlerOutcome::ack(),
        Err(_) => HandlerOutcome::retry(),
    }
}

fn say(line: &str) {
    // One call for a line: others speak at the same time.
    print!("{line}\n");
    io::stdout().flush().ok();
}

/// Publishes each line of the input as it comes, and ends with it.
pub async fn publish_all<P, F, E>(publish: P) -> io::Result<()>
where
    P: Fn(Numbered) -> F,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    say("ready");
    let mut lines = BufReader::new(stdin()).lines();
    let mut under_way = JoinSet::new();
    while let Some(line) = lines.next_line().await? {
        let mut words = line.split(' ').filter_map(|word| word.parse().ok());
        let (Some(key), Some(seq)) = (words.next(), words.next()) else {
            return Err(io::Error::other(line));
        };
        let published = publish(Numbered { key, seq });
        under_way.spawn(async move {
            match published.await {
                Ok(()) => say(&format!("ok {line}")),
                Err(error) => {
                    eprintln!("{error}");
                    say(&format!("failed {line}"));
                }
            }
        });
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
    std::process::exit(0)
}

/// Until the input ends.
async fn leave() {
    let mut lines = BufReader::new(stdin()).lines();
    while let Ok(Some(_)) = lines.next_line().await {}
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, _, url, _, handled, number] = words.as_slice() else {
        bail!("called with {words:?}");
    };
    let file = OpenOptions::new().append(true).open(handled)?;
    if HANDLED.set((file, number.clone())).is_err() {
        bail!("set twice");
    }
    let info = AppInfo::new("chaos", "0.1.0");
    if role == "publisher" {
        let app = system::publisher(info, url);
        app.run_until(std::future::pending()).await?;
    } else {
        system::prepare(url).await.context("preparing")?;
        let app = system::consumer(info, url);
        let app = app.after_startup(|_| async {
            say("ready");
            Ok::<_, io::Error>(())
        });
        app.run_until(leave()).await?;
    }
    Ok(())
}
