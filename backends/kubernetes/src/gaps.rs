//! Namespaces that this account may not read, or that nobody serves: they count as empty while others answer, and that is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use trunkline_core::{Error, ErrorKind, Result};

/// How many things are remembered that are told once.
const REMEMBERED: usize = 1024;

#[derive(Default)]
pub(crate) struct Gaps {
    /// What was said of each namespace that is missing now.
    missing: Mutex<BTreeMap<String, String>>,
    told: Mutex<BTreeSet<String>>,
}

/// Whether asking again gives the same: nothing is said of what stands there.
pub(crate) fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Denied | ErrorKind::NotFound)
}

impl Gaps {
    /// A namespace has refused, and others may not have.
    pub(crate) fn refused(&self, namespace: &str, error: &Error) {
        let why = error.report().to_string();
        let known = lock(&self.missing).insert(namespace.to_owned(), why);
        if known.is_none() {
            tracing::warn!(
                target: "trunkline::discovery",
                namespace, error = %error.report(),
                "a namespace cannot be read and counts as empty"
            );
        }
    }

    pub(crate) fn readable(&self, namespace: &str) {
        if lock(&self.missing).remove(namespace).is_some() {
            tracing::info!(
                target: "trunkline::discovery",
                namespace, "a namespace that could not be read can be read now"
            );
        }
    }

    /// What is missing now.
    pub(crate) fn told(&self) -> Option<Error> {
        let missing = lock(&self.missing);
        let (_, why) = missing.first_key_value()?;
        let mut text = String::from("these namespaces cannot be read and count as empty: ");
        for (n, name) in missing.keys().enumerate() {
            let between = if n == 0 { "" } else { ", " };
            // Writing to a text does not fail.
            let _infallible = write!(text, "{between}{name}");
        }
        let _infallible = write!(text, " ({why})");
        Some(Error::new(ErrorKind::Denied, text))
    }

    /// Whether this is the first time that it is to be told.
    pub(crate) fn first(&self, what: String) -> bool {
        let mut told = lock(&self.told);
        told.len() < REMEMBERED && told.insert(what)
    }

    /// All that was answered, by namespace: the others count without those that refuse, as long as there are others.
    pub(crate) fn passed_by<'a, T>(
        &self,
        answers: impl Iterator<Item = (&'a str, Result<T>)>,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        let mut readable = Vec::new();
        let mut refused = Vec::new();
        for (namespace, answer) in answers {
            match answer {
                Ok(answer) => {
                    found.push(answer);
                    readable.push(namespace);
                }
                Err(error) if is_refusal(&error) => refused.push((namespace, error)),
                Err(error) => return Err(error),
            }
        }
        if found.is_empty()
            && let Some((_, error)) = refused.pop()
        {
            return Err(error);
        }
        for namespace in readable {
            self.readable(namespace);
        }
        for (namespace, error) in refused {
            self.refused(namespace, &error);
        }
        Ok(found)
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_is_passed_by_while_others_answer() {
        let denied = || Error::new(ErrorKind::Denied, "may not");
        let gaps = Gaps::default();
        let answers = [("a", Ok(1)), ("b", Err(denied()))];
        assert_eq!(gaps.passed_by(answers.into_iter()).unwrap(), [1]);
        let told = gaps.told().unwrap();
        assert!(told.message().contains("empty: b (may not"), "{told}");
        let none: [(&str, Result<()>); 2] = [("a", Err(denied())), ("b", Err(denied()))];
        assert!(gaps.passed_by(none.into_iter()).is_err());
        let away = [("a", Ok(1)), ("b", Err(Error::unavailable("away")))];
        assert!(gaps.passed_by(away.into_iter()).is_err());
        let both = [("a", Ok(1)), ("b", Ok(2))];
        assert_eq!(gaps.passed_by(both.into_iter()).unwrap(), [1, 2]);
        assert!(gaps.told().is_none());
    }

    #[test]
    fn what_is_told_once_is_told_once() {
        let gaps = Gaps::default();
        assert!(gaps.first("a".to_owned()) && !gaps.first("a".to_owned()));
        for n in 0..REMEMBERED {
            gaps.first(n.to_string());
        }
        assert!(!gaps.first("too many".to_owned()));
    }
}
