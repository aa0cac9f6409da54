//! What is wrong with a configuration: every problem at once, one line each.

use std::fmt;

use serde::Serialize;
use trunkline_core::Error;

use super::place::{Place, Source};

/// How much a [`Diagnostic`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, and probably does not do what was meant.
    Warning,
}

/// One problem: `file:line: key.path: what is wrong; did you mean; what is allowed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// Where the value was written, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The key, as it was written; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
}

impl Diagnostic {
    pub(crate) fn error(place: &Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, Some(place.clone()), message.into())
    }

    pub(crate) fn warning(place: &Place, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, Some(place.clone()), message.into())
    }

    pub(crate) fn new(severity: Severity, place: Option<Place>, message: String) -> Self {
        let key = place.as_ref().map_or("", Place::key).to_owned();
        Self {
            severity,
            place,
            key,
            message,
            suggestion: None,
            allowed: None,
        }
    }

    fn source(&self) -> Option<&Source> {
        self.place.as_ref().map(Place::source)
    }

    /// Names the key where the place does not know it, or knows a wider one.
    #[must_use]
    pub(crate) fn at_key(mut self, key: impl Into<String>) -> Self {
        self.key = key.into();
        self
    }

    #[must_use]
    pub(crate) fn allow(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    #[must_use]
    pub(crate) fn suggest(mut self, suggestion: Option<impl Into<String>>) -> Self {
        self.suggestion = suggestion.map(Into::into);
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; did you mean `{suggestion}`?")?;
        }
        if let Some(allowed) = &self.allowed {
            write!(f, "; allowed: {allowed}")?;
        }
        Ok(())
    }
}

/// Most problems that are listed. A file of another kind could hold tens of thousands.
const MOST: usize = 100;

/// Every problem found in a configuration, the first 100 of them. `Display` prints one line each; as JSON it is an array of objects.
///
/// An error of [`CommunicationConfig::load`](super::CommunicationConfig::load) carries one:
/// `error.find::<Diagnostics>()`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    /// Whether further problems would not be listed.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() > MOST
    }

    /// Whether the same value was found wrong before: once by its shape is enough.
    pub(crate) fn has_error_at(&self, diagnostic: &Diagnostic) -> bool {
        self.errors()
            .any(|known| known.key == diagnostic.key && known.source() == diagnostic.source())
    }

    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.is_full() {
            return;
        }
        if self.0.len() == MOST {
            let message = format!("there are more problems than these {MOST}; mend them first");
            self.0.push(Diagnostic::new(Severity::Error, None, message));
            return;
        }
        // An alias repeats what is wrong with its anchor.
        if !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many problems there are, warnings included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Every problem, in the order of files and lines.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// The problems that keep the configuration from being used.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|d| d.severity == Severity::Error)
    }

    /// The problems that do not.
    pub fn warnings(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter().filter(|d| d.severity == Severity::Warning)
    }

    /// Whether the configuration cannot be used.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors().next().is_some()
    }

    /// Orders the problems by file, line and column; files stay in the order in which they were first mentioned.
    pub(crate) fn sort(&mut self) {
        let mut files: Vec<Source> = Vec::new();
        for diagnostic in &self.0 {
            if let Some(place) = &diagnostic.place
                && !files.contains(place.source())
            {
                files.push(place.source().clone());
            }
        }
        self.0.sort_by_key(|diagnostic| {
            let place = diagnostic.place.as_ref().map(|place| {
                let file = files.iter().position(|known| known == place.source());
                (file, place.line(), place.column())
            });
            // What concerns no place stands at the end.
            (place.is_none(), place)
        });
    }

    pub(crate) fn into_error(self) -> Error {
        let count = self.errors().count();
        let message = match count {
            1 => "1 problem in the configuration".to_owned(),
            _ => format!("{count} problems in the configuration"),
        };
        Error::config(message).with_source(self)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, more: I) {
        for diagnostic in more {
            self.push(diagnostic);
        }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = std::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The known word that a wrong one most resembles, if it is close enough to have been meant.
pub(crate) fn closest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let folded = fold(wrong);
    known
        .into_iter()
        .map(|word| {
            let distance = strsim::damerau_levenshtein(&folded, &fold(word));
            (distance, word)
        })
        .filter(|(distance, word)| {
            let shorter = word.chars().count().min(wrong.chars().count());
            *distance <= (shorter / 3).max(1) && *distance < shorter
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// Without regard to case and to `-` or `_`, so that `failureThreshold` is close to `failure_threshold`.
fn fold(word: &str) -> String {
    word.chars()
        .filter(|c| !matches!(c, '-' | '_' | ' '))
        .flat_map(char::to_lowercase)
        .take(128)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_word_is_suggested_and_a_far_one_is_not() {
        let known = ["failure_threshold", "success_threshold", "enabled"];
        assert_eq!(
            closest("failure_treshold", known),
            Some("failure_threshold")
        );
        assert_eq!(
            closest("failureThreshold", known),
            Some("failure_threshold")
        );
        assert_eq!(closest("colour", known), None);
        assert_eq!(closest("x", ["y"]), None);
    }

    #[test]
    fn a_line_says_where_what_and_what_would_be_right() {
        let mut place = Place::file(&"communication.yaml".into(), 12, 5);
        place.set_key("http_client.timeout.read");
        let diagnostic = Diagnostic::error(&place, "`soon` is not a duration")
            .allow("\"30s\" or a number of seconds");
        assert_eq!(
            diagnostic.to_string(),
            "communication.yaml:12: http_client.timeout.read: `soon` is not a duration; allowed: \"30s\" or a number of \
             seconds"
        );
    }
}
