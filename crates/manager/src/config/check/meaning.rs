//! What only the whole can tell: references, combinations, what this build serves.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{backends, http, policies};
use crate::config::diagnostics::{Diagnostic, Diagnostics, Severity};
use crate::config::model::CommunicationConfig;
use crate::config::place::Place;

/// Checks a configuration whose values all have the right shape.
pub(super) fn check(
    config: &CommunicationConfig,
    places: &BTreeMap<String, Place>,
    problems: &mut Diagnostics,
) {
    let mut found = Found { places, problems };
    backends::check(config, &mut found);
    policies::check(config, &mut found);
    http::check(config, &mut found);
    found.positive("startup_timeout", config.startup_timeout);
    found.positive("health.interval", config.health.interval);
    found.positive("health.timeout", config.health.timeout);
    check_buckets(&config.metrics.latency_buckets, &mut found);
}

fn check_buckets(bounds: &[f64], found: &mut Found<'_>) {
    let positive = bounds.iter().all(|bound| *bound > 0.0 && bound.is_finite());
    if !positive || !bounds.is_sorted_by(|one, next| one < next) {
        found
            .error("metrics.latency_buckets", "the bounds do not ascend")
            .allow("seconds above 0, each greater than the one before");
    }
}

/// Where something was written, or the section it is in.
pub(super) fn nearest<'p>(places: &'p BTreeMap<String, Place>, path: &str) -> Option<&'p Place> {
    let mut path = path;
    loop {
        if let Some(place) = places.get(path) {
            return Some(place);
        }
        path = path
            .get(..path.rfind(['.', '[']).unwrap_or(0))
            .unwrap_or("");
        if path.is_empty() {
            return None;
        }
    }
}

/// Collects problems by the path of the value.
pub(super) struct Found<'a> {
    places: &'a BTreeMap<String, Place>,
    problems: &'a mut Diagnostics,
}

impl<'a> Found<'a> {
    pub(super) fn error<'f>(
        &'f mut self,
        path: &str,
        message: impl Into<String>,
    ) -> Pending<'f, 'a> {
        self.pending(Severity::Error, path, message.into())
    }

    pub(super) fn warning<'f>(
        &'f mut self,
        path: &str,
        message: impl Into<String>,
    ) -> Pending<'f, 'a> {
        self.pending(Severity::Warning, path, message.into())
    }

    fn pending<'f>(
        &'f mut self,
        severity: Severity,
        path: &str,
        message: String,
    ) -> Pending<'f, 'a> {
        let place = nearest(self.places, path);
        let exact = self
            .places
            .get(path)
            .is_some_and(|place| !place.key().is_empty());
        let mut diagnostic = Diagnostic::new(severity, place.cloned(), message);
        if !exact {
            diagnostic = diagnostic.at_key(path);
        }
        Pending {
            found: self,
            diagnostic: Some(diagnostic),
        }
    }

    /// Whether a value was written at all.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// Whether something in a section was refused, and so is not there.
    #[cfg(feature = "http")]
    pub(super) fn has_error_below(&self, path: &str) -> bool {
        let place = self.places.get(path).map(Place::key);
        let written = place.filter(|key| !key.is_empty()).unwrap_or(path);
        let mut errors = self.problems.errors();
        errors.any(|error| error.key.starts_with(written))
    }

    pub(super) fn positive(&mut self, path: &str, span: Duration) {
        if span.is_zero() {
            self.error(path, "it is zero")
                .allow("a duration above zero");
        }
    }
}

/// A problem that is noted when this is dropped, so that what is allowed can be added.
pub(super) struct Pending<'f, 'a> {
    found: &'f mut Found<'a>,
    diagnostic: Option<Diagnostic>,
}

impl Pending<'_, '_> {
    pub(super) fn allow(mut self, allowed: impl Into<String>) -> Self {
        self.diagnostic = self.diagnostic.take().map(|found| found.allow(allowed));
        self
    }

    pub(super) fn suggest(mut self, suggestion: Option<&str>) -> Self {
        self.diagnostic = self
            .diagnostic
            .take()
            .map(|found| found.suggest(suggestion));
        self
    }
}

impl Drop for Pending<'_, '_> {
    fn drop(&mut self) {
        if let Some(diagnostic) = self.diagnostic.take()
            && !self.found.problems.has_error_at(&diagnostic)
        {
            self.found.problems.push(diagnostic);
        }
    }
}
