//! The tier of a response cache in Redis: what one process was answered, all of them have.

use std::fmt;
use std::sync::Arc;

use redis::{Cmd, Value};
use tokio::time::Instant;
use trunkline_core::{Error, Result, Retry};
use trunkline_messaging::supervisor::LinkState;
use trunkline_resilience::cache::{CacheTier, Selector, TierEntry};

use crate::config::RedisConfig;
use crate::error::unexpected;
use crate::link::{Line, Listeners, line};
use crate::script::Script;
use crate::wire;

/// Keeps in Redis what the response caches of several processes share; shared by all that name the same server and
/// `key_prefix`. Clones share it.
///
/// An entry is forgotten after its time, as Redis forgets a key. Its room is the server's: give it `maxmemory` and a policy
/// that evicts (`allkeys-lru`), on a server, or at least a database, that holds nothing else. In a cluster all entries of
/// one prefix are in one shard. While Redis cannot be reached it fails at once, so that calls go on without it.
///
/// ```no_run
/// use trunkline_redis::{RedisCacheTier, RedisConfig};
///
/// # fn example() -> trunkline_core::Result<()> {
/// let tier = RedisCacheTier::new(RedisConfig::from_url("redis://localhost:6379/1")?)?;
/// // Then: ResponseCache::builder().tier(tier).build(), of trunkline-http.
/// # let _ = tier;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisCacheTier {
    line: Line,
    config: Arc<RedisConfig>,
}

impl fmt::Debug for RedisCacheTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCacheTier").finish_non_exhaustive()
    }
}

impl RedisCacheTier {
    /// A tier with these settings; connects when it is first used.
    ///
    /// # Errors
    /// `Config` when the settings are wrong; the message names every problem.
    pub fn new(config: RedisConfig) -> Result<Self> {
        config.check()?;
        Ok(Self {
            line: line(&config, Arc::new(Listeners::default())),
            config: Arc::new(config),
        })
    }

    /// Ends it: later calls fail with `Cancelled`.
    ///
    /// # Errors
    /// `Timeout` when the connection was not closed by the deadline.
    ///
    /// # Cancel safety
    /// Not cancel safe: the connection may be left to be dropped.
    pub async fn shutdown(&self, deadline: Instant) -> Result<()> {
        self.line.close(deadline).await
    }

    async fn run(&self, fill: impl Fn(&mut Cmd)) -> Result<Vec<Value>> {
        self.line.start();
        // Whoever asks a cache has better things to do than to wait for it.
        if let LinkState::Down { reason } = &*self.line.state().borrow() {
            let error = Error::unavailable(format!("Redis cannot be reached: {reason}"));
            return Err(error.with_retry(Retry::Safe));
        }
        let deadline = crate::link::deadline(self.config.request_timeout);
        let link = crate::link::live(&self.line, deadline).await?;
        let prefix = &self.config.key_prefix;
        let answer = link.run(Script::Cache, prefix, deadline, fill).await;
        wire::list(answer.map_err(Error::from)?)
    }
}

impl CacheTier for RedisCacheTier {
    async fn get(&self, key: &str) -> Result<Option<Arc<[u8]>>> {
        let found = self.run(|command| {
            command.arg("get").arg(key);
        });
        let value = found.await?.into_iter().next();
        value
            .map(|value| wire::bytes(value).map(|bytes| Arc::from(&*bytes)))
            .transpose()
    }

    async fn put(&self, key: &str, entry: TierEntry) -> Result<()> {
        let ttl = crate::link::millis(entry.ttl).max(1);
        let put = self.run(|command| {
            command.arg("put").arg(key).arg(&*entry.value).arg(ttl);
            for tag in &entry.tags {
                command.arg(tag);
            }
        });
        put.await.map(drop)
    }

    async fn remove(&self, selector: &Selector) -> Result<u64> {
        let (action, word) = match selector {
            Selector::Key(key) => ("key", key),
            Selector::Prefix(prefix) => ("prefix", prefix),
            Selector::Tag(tag) => ("tag", tag),
            _ => return Err(Error::unsupported("Redis cannot remove by this selector")),
        };
        let mut removed = 0;
        loop {
            let step = self.run(|command| {
                command.arg(action).arg(word);
            });
            let [Value::Int(some), Value::Int(more)] = step.await?[..] else {
                return Err(unexpected("the cache"));
            };
            removed += u64::try_from(some).unwrap_or(0);
            if more == 0 {
                return Ok(removed);
            }
        }
    }
}
