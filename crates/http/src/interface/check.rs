//! Checks of endpoints whose methods are marked `health_check`.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderValue};
use trunkline_core::Error;

use super::parameter::{self, Parameter};

/// What a check of an endpoint asks for: the path, and the parameters that have a default.
#[derive(Debug, Default)]
pub struct Check {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    asked: bool,
    pub(super) wrong: Option<Error>,
}

impl Check {
    pub(super) fn of(base_path: &str, fill: fn(&mut Self)) -> Self {
        let mut check = Self {
            path: base_path.to_owned(),
            ..Self::default()
        };
        fill(&mut check);
        check
    }

    /// Adds what stands in the template.
    pub fn literal(&mut self, text: &str) {
        self.path.push_str(text);
    }

    /// Adds a parameter of the query.
    pub fn query(&mut self, name: &str, value: &(impl Parameter + ?Sized)) {
        parameter::query(&mut self.path, &mut self.asked, name, &value);
    }

    /// Adds a header.
    pub fn header(&mut self, name: &'static str, value: &(impl Parameter + ?Sized)) {
        match HeaderValue::try_from(value.to_string()) {
            Ok(value) => drop(self.headers.insert(name, value)),
            Err(error) => {
                let what = format!("the default of header `{name}` cannot be sent");
                self.wrong = Some(Error::invalid(what).with_source(error));
            }
        }
    }
}

/// Whether the checks of a client have begun: with the client, or with its first call where the client was made outside
/// a runtime.
pub(super) struct Checks(Option<AtomicBool>);

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checks")
    }
}

impl Checks {
    pub(super) fn new(any: bool) -> Self {
        Self(any.then(AtomicBool::default))
    }

    /// Whether they are to begin now; of those who ask only one is told so.
    pub(super) fn are_due(&self) -> bool {
        self.0.as_ref().is_some_and(|begun| {
            !begun.load(Ordering::Relaxed)
                && tokio::runtime::Handle::try_current().is_ok()
                && !begun.swap(true, Ordering::Relaxed)
        })
    }
}
