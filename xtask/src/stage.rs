//! Stages of a long command, each with its time.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::process;

/// Stages that have run.
#[derive(Debug, Default)]
pub(crate) struct Stages(Vec<(String, Duration)>);

impl Stages {
    /// Runs one stage and prints its name before, its time after.
    pub(crate) fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n=== {name}");
        let (result, took) = process::timed(work);
        self.0.push((name.to_owned(), took));
        println!("=== {name}: {:.1} s", took.as_secs_f64());
        result.with_context(|| format!("{name} failed"))
    }

    /// All stages and their times, as lines.
    pub(crate) fn summary(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, took) in &self.0 {
            text.push_str(&format!("  {name:width$}  {:7.1} s\n", took.as_secs_f64()));
        }
        let total: Duration = self.0.iter().map(|(_, took)| *took).sum();
        text.push_str(&format!(
            "  {:width$}  {:7.1} s\n",
            "total",
            total.as_secs_f64()
        ));
        text
    }
}
