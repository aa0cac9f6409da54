//! A bare driver as its documentation says. What it is told and says: programs.rs.

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[cfg(feature = "redis")]
mod redis;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;

#[cfg(feature = "kafka")]
use self::kafka as system;
#[cfg(feature = "nats")]
use self::nats as system;
#[cfg(feature = "rabbitmq")]
use self::rabbitmq as system;
#[cfg(feature = "redis")]
use self::redis as system;

use anyhow::{Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader, stdin};

pub const GROUP: &str = "members";

/// What a process consumes from, and where it notes what it has handled.
pub struct Consumer {
    pub url: String,
    pub name: String,
    pub number: String,
    handled: File,
}

impl Consumer {
    /// The handler.
    pub fn handle(&mut self, body: &[u8]) -> Result<()> {
        let line = format!("{} {}\n", self.number, std::str::from_utf8(body)?);
        Ok(self.handled.write_all(line.as_bytes())?)
    }
}

pub fn say(line: &str) {
    // One call for a line: others speak at the same time.
    print!("{line}\n");
    std::io::stdout().flush().ok();
}

/// Publishes each line of the input as it comes.
async fn publish_all(url: &str, name: &str) -> Result<()> {
    let publisher = Arc::new(system::Publisher::open(url, name).await?);
    say("ready");
    let mut lines = BufReader::new(stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let publisher = Arc::clone(&publisher);
        tokio::spawn(async move {
            match publisher.publish(&line).await {
                Ok(()) => say(&format!("ok {line}")),
                Err(error) => {
                    eprintln!("{error:#}");
                    say(&format!("failed {line}"));
                }
            }
        });
    }
    Ok(())
}

async fn leave() -> Result<()> {
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {}
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [role, _, url, name, handled, number] = words.as_slice() else {
        bail!("called with {words:?}");
    };
    if role == "publisher" {
        return publish_all(url, name).await;
    }
    let consumer = Consumer {
        url: url.clone(),
        name: name.clone(),
        number: number.clone(),
        handled: OpenOptions::new().append(true).open(handled)?,
    };
    system::consume(consumer, leave()).await
}
