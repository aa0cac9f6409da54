//! Arguments of a command.

use std::collections::VecDeque;
use std::fmt;

use anyhow::Result;

/// A mistake in how a command was called.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// What stands after the command's name. Each question takes its answer out; [`Arguments::finish`]
/// refuses what nobody asked for.
#[derive(Debug)]
pub(crate) struct Arguments(VecDeque<String>);

impl Arguments {
    pub(crate) fn new(words: impl IntoIterator<Item = String>) -> Self {
        Self(words.into_iter().collect())
    }

    /// Whether `--help` or `-h` stands before any `--`.
    pub(crate) fn wants_help(&self) -> bool {
        self.0
            .iter()
            .take_while(|word| *word != "--")
            .any(|word| word == "--help" || word == "-h")
    }

    /// Whether a flag is there, which stays.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    /// Takes a flag such as `--quick`.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|word| word != name);
        self.0.len() != before
    }

    /// Takes the next word if it is not an option.
    pub(crate) fn positional(&mut self) -> Option<String> {
        self.0
            .front()
            .is_some_and(|word| !word.starts_with('-'))
            .then(|| self.0.pop_front())?
    }

    /// Takes everything that is left.
    pub(crate) fn rest(self) -> Vec<String> {
        self.0.into()
    }

    /// Refuses whatever is left.
    pub(crate) fn finish(self) -> Result<()> {
        match self.0.front() {
            None => Ok(()),
            Some(word) => Err(Usage(format!("unexpected argument `{word}`")).into()),
        }
    }
}

/// The candidate that looks most like `word`, if one is close.
pub(crate) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(b.bytes()) {
            let substitute = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = substitute.min(left + 1).min(diagonal + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::new(words.iter().map(|&word| word.to_owned()))
    }

    #[test]
    fn flags_are_taken_wherever_they_stand() {
        let mut given = arguments(&["demo", "--quick"]);
        assert!(given.has("--quick") && given.flag("--quick"));
        assert!(!given.has("--quick") && !given.flag("--quick"));
        assert_eq!(given.positional().as_deref(), Some("demo"));
        given.finish().unwrap();
    }

    #[test]
    fn option_is_not_a_positional() {
        let mut given = arguments(&["--lib"]);
        assert_eq!(given.positional(), None);
        assert_eq!(given.rest(), ["--lib"]);
    }

    #[test]
    fn leftovers_are_refused_as_usage() {
        let error = arguments(&["--qiuck"]).finish().unwrap_err();
        assert!(error.is::<Usage>());
        assert!(error.to_string().contains("--qiuck"));
    }

    #[test]
    fn help_after_dashes_belongs_to_somebody_else() {
        assert!(arguments(&["-h"]).wants_help());
        assert!(!arguments(&["--", "--help"]).wants_help());
    }

    #[test]
    fn distance_counts_edits() {
        for (a, b, edits) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("tidy", "tidy", 0),
            ("ab", "ba", 2),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn close_word_is_proposed_and_a_strange_one_is_not() {
        assert_eq!(closest("tets", ["test", "tidy"]), Some("test"));
        assert_eq!(closest("provee", ["prove", "bench"]), Some("prove"));
        assert_eq!(closest("xyzzy", ["test", "tidy"]), None);
    }
}
