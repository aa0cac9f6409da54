//! What one case of a suite gets: names of its own and a deadline.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use trunkline_core::Id;

/// How long one case may take in all.
const CASE_TIME: Duration = Duration::from_secs(60);

/// Long enough for something that must not happen to happen.
const SILENCE: Duration = Duration::from_millis(250);

/// Unique names and a deadline for one case, so that cases share nothing and never hang.
#[derive(Clone, PartialEq, Eq)]
pub struct Scope {
    case: &'static str,
    unique: String,
    deadline: Instant,
}

impl Scope {
    /// A scope for a case that begins now and may take a minute.
    #[must_use]
    pub fn new(case: &'static str) -> Self {
        let id = Id::new().to_string().replace('-', "");
        // The end of a UUID version 7 is random; its beginning is the time.
        let unique = id.get(18..).unwrap_or(&id).to_owned();
        Self {
            case,
            unique,
            deadline: Instant::now() + CASE_TIME,
        }
    }

    /// The name of the case.
    #[must_use]
    pub fn case(&self) -> &'static str {
        self.case
    }

    /// Letters and digits that no other scope has.
    #[must_use]
    pub fn unique(&self) -> &str {
        &self.unique
    }

    /// A name that no other scope has.
    #[must_use]
    pub fn name(&self, what: &str) -> String {
        format!("{what}-{}", self.unique)
    }

    /// When the case must be done.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits for something that must happen.
    ///
    /// # Panics
    /// When it has not happened by the deadline; says what was missing.
    ///
    /// # Cancel safety
    /// As safe as the future within.
    pub async fn within<F: Future>(&self, what: &str, future: F) -> F::Output {
        match tokio::time::timeout_at(self.deadline, future).await {
            Ok(value) => value,
            Err(_) => panic!("{}: {what} did not happen within {CASE_TIME:?}", self.case),
        }
    }

    /// Waits a while for something that must not happen.
    ///
    /// # Panics
    /// When it happens.
    ///
    /// # Cancel safety
    /// As safe as the future within.
    pub async fn never<F: Future>(&self, what: &str, future: F)
    where
        F::Output: fmt::Debug,
    {
        if let Ok(value) = tokio::time::timeout(SILENCE, future).await {
            panic!("{}: {what} must not happen: {value:?}", self.case);
        }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} {})", self.case, self.unique)
    }
}
