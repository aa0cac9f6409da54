//! The processes of the benchmark `embedded-broker`: each plays one role, against the embedded broker or Redis Streams,
//! and says in one line of JSON what it measured.

pub(crate) mod clock;
mod embedded;
mod outcome;
mod redis;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};

pub(crate) use outcome::{Moment, Outcome};

/// Bytes of a message's body.
pub(crate) const PAYLOAD: usize = 256;

/// What a process does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// Publishes so many messages in batches of so many.
    Publish { count: usize, batch: usize },
    /// Gets and acknowledges so many.
    Consume { count: usize },
    /// Publishes one at a time from so many tasks, each awaiting its confirm, for so many seconds.
    Confirm { publishers: usize, seconds: u64 },
    /// Publishes so many, one every so many microseconds, and says when each was confirmed.
    Paced { count: usize, every: u64 },
    /// Gets so many and says when each was in the handler.
    Times { count: usize },
    /// Has so many subscriptions and nothing to do for so many seconds.
    Idle { subscriptions: usize, seconds: u64 },
}

impl Role {
    pub(crate) fn words(self) -> Vec<String> {
        let (name, first, second) = match self {
            Self::Publish { count, batch } => ("publish", count, batch as u64),
            Self::Consume { count } => ("consume", count, 0),
            Self::Confirm {
                publishers,
                seconds,
            } => ("confirm", publishers, seconds),
            Self::Paced { count, every } => ("paced", count, every),
            Self::Times { count } => ("times", count, 0),
            Self::Idle {
                subscriptions,
                seconds,
            } => ("idle", subscriptions, seconds),
        };
        vec![name.to_owned(), first.to_string(), second.to_string()]
    }

    fn parse(name: &str, first: &str, second: &str) -> Result<Self> {
        let first: usize = first.parse().context("the first number")?;
        let second: u64 = second.parse().context("the second number")?;
        Ok(match name {
            "publish" => Self::Publish {
                count: first,
                batch: usize::try_from(second)?,
            },
            "consume" => Self::Consume { count: first },
            "confirm" => Self::Confirm {
                publishers: first,
                seconds: second,
            },
            "paced" => Self::Paced {
                count: first,
                every: second,
            },
            "times" => Self::Times { count: first },
            "idle" => Self::Idle {
                subscriptions: first,
                seconds: second,
            },
            other => bail!("no role `{other}`"),
        })
    }
}

/// Runs the process: `embedded <directory> <role> <number> <number>`, or `redis <address> …`.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match play(&words) {
        Ok(outcome) => {
            println!("{outcome}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(words: &[String]) -> Result<String> {
    let [system, place, name, first, second] = words else {
        bail!("started by the benchmark `embedded-broker` only");
    };
    let role = Role::parse(name, first, second)?;
    let outcome = match system.as_str() {
        "embedded" => embedded::play(place, role)?,
        "redis" => redis::play(place.parse()?, role)?,
        other => bail!("no system `{other}`"),
    };
    Ok(serde_json::to_string(&outcome)?)
}
