//! What the process says when it ends.

use std::ffi::{OsStr, OsString};

use clap::error::ErrorKind as Refused;
use trunkline::core::Origin;
use trunkline::{Error, ErrorKind};

use crate::output::complain_as_json;

/// The exit codes, as the help documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitCode {
    /// It was done.
    Done = 0,
    /// It was not done.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The time allowed ran out.
    TimedOut = 3,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

/// A wrong use of the command line that clap could not see.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// The time that the user allowed ran out.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TimedOut(pub(crate) String);

/// Whoever read the results went away (`| head`): no error, and nothing is left to do.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the results any more")]
pub(crate) struct ReaderGone;

/// Prints what clap refused (or was asked to show) and says how to exit.
pub(crate) fn refused(refused: &clap::Error) -> std::process::ExitCode {
    if !refused.use_stderr() {
        // Help that nobody reads is no failure.
        drop(refused.print());
        return ExitCode::Done.into();
    }
    if json_is_asked(std::env::args_os().skip(1)) {
        complain_as_json(&usage_of(refused), ErrorKind::Invalid.as_str());
    } else {
        // Nothing is left to do when even this cannot be printed.
        drop(refused.print());
    }
    ExitCode::Usage.into()
}

/// What clap would have read from a command line that it refused.
fn json_is_asked(words: impl Iterator<Item = OsString>) -> bool {
    let is_json = |word: &OsStr| word == "json";
    let (mut asked, mut is_format) = (None, false);
    for word in words.take_while(|word| word != "--") {
        if is_format {
            asked = Some(is_json(&word));
        } else if let Some(format) = word
            .to_str()
            .and_then(|word| word.strip_prefix("--output="))
        {
            asked = Some(format == "json");
        }
        is_format = word == "--output";
    }
    asked.unwrap_or_else(|| std::env::var_os("TRUNKLINE_OUTPUT").is_some_and(|set| is_json(&set)))
}

fn usage_of(refused: &clap::Error) -> String {
    if refused.kind() == Refused::DisplayHelpOnMissingArgumentOrSubcommand {
        return "a command is missing; --help lists them".to_owned();
    }
    let text = refused.to_string();
    let text = text.trim();
    text.strip_prefix("error: ").unwrap_or(text).to_owned()
}

/// The kind of failure as one word, for programs.
pub(crate) fn kind_of(error: &anyhow::Error) -> &'static str {
    for cause in error.chain() {
        if cause.is::<UsageError>() {
            return ErrorKind::Invalid.as_str();
        }
        if cause.is::<TimedOut>() {
            return ErrorKind::Timeout.as_str();
        }
        if let Some(own) = cause.downcast_ref::<Error>() {
            return own.kind().as_str();
        }
    }
    "failed"
}

/// The exit code that tells what kind of failure it was.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    for cause in error.chain() {
        if cause.is::<UsageError>() {
            return ExitCode::Usage;
        }
        if cause.is::<TimedOut>() {
            return ExitCode::TimedOut;
        }
        if let Some(own) = cause.downcast_ref::<Error>() {
            return match own.kind() {
                ErrorKind::Config | ErrorKind::Unsupported => ExitCode::Usage,
                // Refused before anything was sent: a name, a pattern, a URL that was typed here.
                ErrorKind::Invalid if own.origin() == Origin::Local => ExitCode::Usage,
                ErrorKind::Timeout => ExitCode::TimedOut,
                _ => ExitCode::Failed,
            };
        }
    }
    ExitCode::Failed
}
