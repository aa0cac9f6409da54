//! What a handler says when it did not succeed.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use trunkline_core::{BoxError, Error};
use trunkline_resilience::RetryAfter;

/// Why a handler did not succeed, and what is to become of the message.
///
/// Any error becomes [`HandlerError::Retry`] through `?`: the message is tried again as the settings say, then it is a
/// dead letter.
///
/// ```
/// use trunkline_messaging::HandlerError;
///
/// async fn charge(amount: String) -> Result<(), HandlerError> {
///     let amount: u64 = amount.parse().map_err(HandlerError::dead_letter)?; // no retry makes it a number
///     if amount == 0 {
///         return Err(HandlerError::reject("nothing to charge"));
///     }
///     std::fs::metadata("/dev/null")?; // may work the next time
///     Ok(())
/// }
/// ```
#[non_exhaustive]
pub enum HandlerError {
    /// It may work the next time.
    Retry {
        /// What went wrong.
        error: BoxError,
        /// No earlier than this; default is what the settings say.
        after: Option<Duration>,
    },
    /// The message is not wanted and is forgotten. Counted and logged.
    Reject {
        /// Why.
        reason: String,
    },
    /// It will never work: the message becomes a dead letter at once.
    DeadLetter {
        /// What is wrong with it.
        error: BoxError,
    },
    /// It is not known to be genuine ([`Untrusted`](crate::protection::Untrusted)): it becomes a dead letter at once.
    Untrusted {
        /// What is wrong with it.
        error: Error,
    },
    /// The payload, or another argument of the handler, could not be read: the message becomes a dead letter at once.
    Undecodable {
        /// What is wrong with it.
        error: Error,
    },
}

impl HandlerError {
    /// It may work the next time.
    #[must_use]
    pub fn retry(error: impl Into<BoxError>) -> Self {
        let error = error.into();
        Self::Retry { error, after: None }
    }

    /// It may work, but no earlier than after this span.
    #[must_use]
    pub fn retry_after(error: impl Into<BoxError>, after: Duration) -> Self {
        Self::Retry {
            error: error.into(),
            after: Some(after),
        }
    }

    /// The message is not wanted.
    #[must_use]
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject {
            reason: reason.into(),
        }
    }

    /// It will never work.
    #[must_use]
    pub fn dead_letter(error: impl Into<BoxError>) -> Self {
        Self::DeadLetter {
            error: error.into(),
        }
    }

    /// What went wrong with every cause, on one line.
    #[must_use]
    pub fn report(&self) -> String {
        match self {
            Self::Retry { error, .. } | Self::DeadLetter { error } => chain(error.as_ref()),
            Self::Reject { reason } => reason.clone(),
            Self::Undecodable { error } | Self::Untrusted { error } => error.report().to_string(),
        }
    }
}

fn chain(error: &(dyn StdError + Send + Sync + 'static)) -> String {
    if let Some(own) = error.downcast_ref::<Error>() {
        return own.report().to_string();
    }
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Libraries often repeat the cause in their own message; once is enough.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl<E: StdError + Send + Sync + 'static> From<E> for HandlerError {
    fn from(error: E) -> Self {
        let error: BoxError = Box::new(error);
        let own = error.downcast_ref::<Error>();
        let asked = own.and_then(|own| own.find::<RetryAfter>());
        let after = asked.map(|asked| asked.0);
        Self::Retry { error, after }
    }
}

impl From<HandlerError> for Error {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Retry { error, .. } | HandlerError::DeadLetter { error } => {
                Self::from_boxed(error)
            }
            HandlerError::Reject { reason } => Self::invalid(reason),
            HandlerError::Undecodable { error } | HandlerError::Untrusted { error } => error,
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Retry { .. } => "Retry",
            Self::Reject { .. } => "Reject",
            Self::DeadLetter { .. } => "DeadLetter",
            Self::Undecodable { .. } => "Undecodable",
            Self::Untrusted { .. } => "Untrusted",
        };
        write!(f, "{kind}({})", self.report())
    }
}
