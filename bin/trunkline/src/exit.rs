//! What the process says when it ends.

use trunkline::{Error, ErrorKind};

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

/// Prints what clap refused (or was asked to show) and says how to exit.
pub(crate) fn refused(refused: &clap::Error) -> std::process::ExitCode {
    // Nothing is left to do when even this cannot be printed.
    drop(refused.print());
    if refused.use_stderr() {
        ExitCode::Usage.into()
    } else {
        ExitCode::Done.into()
    }
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
                ErrorKind::Timeout => ExitCode::TimedOut,
                _ => ExitCode::Failed,
            };
        }
    }
    ExitCode::Failed
}
