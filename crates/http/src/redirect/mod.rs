//! Redirects: whether one is followed, where it leads, and what may go there (RFC 9110, 15.4).

mod config;
mod step;

pub use config::{FollowRedirects, RedirectConfig};
pub(crate) use step::{HARMLESS, Redirected, Step, leads_on};

/// More redirects were answered than are followed. A typed cause of errors of this crate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {limit} redirects, the last one to {last}")]
#[non_exhaustive]
pub struct TooManyRedirects {
    /// How many are followed.
    pub limit: u32,
    /// Scheme, host and port that the last one leads to.
    pub last: String,
}
