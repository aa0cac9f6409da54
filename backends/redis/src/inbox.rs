//! The inbox in Redis: doing a thing once although it is asked for twice, by any process of any machine.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};
use tokio::time::Instant;
use trunkline_core::{Error, Result};
use trunkline_messaging::inbox::{Claim, ClaimRequest, ClaimToken, InboxStore};

use crate::config::RedisConfig;
use crate::link::{Line, Listeners, line};
use crate::script::Script;
use crate::wire;

/// Remembers in Redis what was done; shared by all processes that name the same server and `key_prefix`. Clones share it.
///
/// What is done is forgotten after its time, as Redis forgets a key. Its room is the server's: with the policy `noeviction`
/// a full server refuses, with any other it may forget too early.
///
/// ```no_run
/// use std::time::Duration;
/// use trunkline_messaging::inbox::{Claim, ClaimRequest, InboxStore};
/// use trunkline_redis::{RedisConfig, RedisInbox};
///
/// # async fn example() -> trunkline_core::Result<()> {
/// let inbox = RedisInbox::new(RedisConfig::from_url("redis://localhost:6379/0")?)?;
/// if let Claim::Granted(token) = inbox.claim(ClaimRequest::new("mail", "message-1")).await? {
///     inbox.complete(token, "sent".into(), Duration::from_secs(3600)).await?;
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisInbox {
    line: Line,
    config: Arc<RedisConfig>,
}

impl fmt::Debug for RedisInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisInbox").finish_non_exhaustive()
    }
}

impl RedisInbox {
    /// An inbox with these settings; connects when it is first used.
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

    async fn run(&self, fill: impl Fn(&mut Cmd)) -> Result<(String, Bytes)> {
        self.line.start();
        let deadline = crate::link::deadline(self.config.request_timeout);
        let link = crate::link::live(&self.line, deadline).await?;
        let answer = link
            .run(Script::Inbox, &self.config.key_prefix, deadline, fill)
            .await
            .map_err(Error::from)?;
        let mut parts = wire::list(answer)?.into_iter();
        let mut part = || wire::bytes(parts.next().unwrap_or(Value::Nil));
        let word = String::from_utf8_lossy(&part()?).into_owned();
        Ok((word, Bytes::from(part()?)))
    }

    /// Lengths keep scopes and keys apart whatever is in them.
    fn key(&self, scope: &str, key: &str) -> String {
        let prefix = &self.config.key_prefix;
        format!("{prefix}inbox:{}:{scope}:{key}", scope.len())
    }
}

fn settled(word: &str) -> Result<()> {
    match word {
        "OK" => Ok(()),
        "LOST" => Err(Error::conflict("the claim was lost to another, or is done")),
        _ => Err(crate::error::unexpected("an inbox")),
    }
}

fn number(bytes: &Bytes) -> Result<u64> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    text.parse()
        .map_err(|_| crate::error::unexpected("an inbox"))
}

impl InboxStore for RedisInbox {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        let key = self.key(&request.scope, &request.key);
        let (word, value) = self
            .run(|command| {
                let fingerprint = request.fingerprint.as_deref().unwrap_or_default();
                command
                    .arg("claim")
                    .arg(&key)
                    .arg(crate::link::millis(request.lease))
                    .arg(fingerprint);
            })
            .await?;
        Ok(match word.as_str() {
            "GRANTED" => {
                Claim::Granted(ClaimToken::new(request.scope, request.key, number(&value)?))
            }
            "BUSY" => Claim::InProgress {
                retry_after: Duration::from_millis(number(&value)?),
            },
            "DONE" => Claim::Done(value),
            "MISMATCH" => Claim::Mismatch,
            _ => return Err(crate::error::unexpected("an inbox")),
        })
    }

    async fn complete(&self, token: ClaimToken, result: Bytes, keep: Duration) -> Result<()> {
        let key = self.key(&token.scope, &token.key);
        let (word, _) = self
            .run(|command| {
                command
                    .arg("complete")
                    .arg(&key)
                    .arg(token.generation)
                    .arg(result.as_ref())
                    .arg(crate::link::millis(keep).max(1));
            })
            .await?;
        settled(&word)
    }

    async fn extend(&self, token: &ClaimToken, lease: Duration) -> Result<()> {
        let key = self.key(&token.scope, &token.key);
        let (word, _) = self
            .run(|command| {
                command
                    .arg("extend")
                    .arg(&key)
                    .arg(token.generation)
                    .arg(crate::link::millis(lease));
            })
            .await?;
        settled(&word)
    }

    async fn release(&self, token: ClaimToken) -> Result<()> {
        let key = self.key(&token.scope, &token.key);
        let (word, _) = self
            .run(|command| {
                command.arg("release").arg(&key).arg(token.generation);
            })
            .await?;
        match word.as_str() {
            // Another has it, or it is done: there is nothing to give back.
            "LOST" => Ok(()),
            word => settled(word),
        }
    }
}
