//! redis-rs: its connection manager, which connects again by itself; what dead consumers held is claimed.

use std::time::Duration;

use anyhow::Result;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::streams::{
    StreamAutoClaimOptions, StreamAutoClaimReply, StreamId, StreamReadOptions, StreamReadReply,
};
use redis::{AsyncCommands, Client, RedisResult};
use tokio::time::{Instant, sleep};

use crate::{Consumer, GROUP, say};

/// What has not been acknowledged for so long, another may have; looked for as often.
const STALLED: Duration = Duration::from_secs(10);
/// How long a read waits, in milliseconds.
const WAIT: usize = 1_000;
/// Time after a command that failed.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Publisher {
    connection: ConnectionManager,
    stream: String,
}

impl Publisher {
    pub async fn open(url: &str, name: &str) -> Result<Self> {
        Ok(Self {
            connection: ConnectionManager::new(Client::open(url)?).await?,
            stream: name.to_owned(),
        })
    }

    pub async fn publish(&self, line: &str) -> Result<()> {
        let mut connection = self.connection.clone();
        let id: Option<String> = connection
            .xadd(&self.stream, "*", &[("line", line)])
            .await?;
        anyhow::ensure!(id.is_some(), "not added");
        Ok(())
    }
}

pub async fn consume(mut to: Consumer, leave: impl Future<Output = Result<()>>) -> Result<()> {
    // A read waits longer than an answer may take.
    let config = ConnectionManagerConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
    let client = Client::open(to.url.as_str())?;
    let mut connection = ConnectionManager::new_with_config(client, config).await?;
    let made: RedisResult<()> = connection
        .xgroup_create_mkstream(&to.name, GROUP, "0")
        .await;
    if let Err(error) = made
        && error.code() != Some("BUSYGROUP")
    {
        return Err(error.into());
    }
    say("ready");
    tokio::pin!(leave);
    let mut claimed = Instant::now();
    loop {
        let entries = tokio::select! {
            entries = take(&mut connection, &to, &mut claimed) => entries,
            left = &mut leave => return left,
        };
        let done = match entries {
            Ok(entries) => settle(&mut connection, &mut to, entries).await?,
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            eprintln!("{error}");
            sleep(PAUSE).await;
        }
    }
}

/// The next entries: what others have left, now and then, or new ones.
async fn take(
    connection: &mut ConnectionManager,
    to: &Consumer,
    claimed: &mut Instant,
) -> RedisResult<Vec<StreamId>> {
    if claimed.elapsed() > STALLED {
        let options = StreamAutoClaimOptions::default().count(100);
        let idle = STALLED.as_millis() as u64;
        let left: StreamAutoClaimReply = connection
            .xautoclaim_options(&to.name, GROUP, &to.number, idle, "0", options)
            .await?;
        if !left.claimed.is_empty() {
            return Ok(left.claimed);
        }
        *claimed = Instant::now();
    }
    let options = StreamReadOptions::default()
        .group(GROUP, &to.number)
        .count(32)
        .block(WAIT);
    let read: Option<StreamReadReply> = connection
        .xread_options(&[&to.name], &[">"], &options)
        .await?;
    let keys = read.into_iter().flat_map(|read| read.keys);
    Ok(keys.flat_map(|key| key.ids).collect())
}

async fn settle(
    connection: &mut ConnectionManager,
    to: &mut Consumer,
    entries: Vec<StreamId>,
) -> Result<RedisResult<()>> {
    for entry in entries {
        let line: Option<Vec<u8>> = entry.get("line");
        to.handle(&line.unwrap_or_default())?;
        let acknowledged: RedisResult<()> = connection.xack(&to.name, GROUP, &[&entry.id]).await;
        if acknowledged.is_err() {
            return Ok(acknowledged);
        }
    }
    Ok(Ok(()))
}
