//! Configuration, from every source.

#[cfg(feature = "full")]
mod builder;
#[cfg(feature = "full")]
mod clients;
mod errors;
#[cfg(feature = "full")]
mod explain;
mod formats;
#[cfg(not(feature = "http"))]
mod lean;
#[cfg(feature = "full")]
mod printed;
mod properties;
#[cfg(feature = "full")]
mod reload;
#[cfg(feature = "full")]
mod schema;
mod schemas;
mod secrets;
#[cfg(feature = "full")]
mod settled;
#[cfg(feature = "full")]
mod sources;

use std::path::Path;

use trunkline_manager::{CommunicationConfig, ConfigLoader, Diagnostics, Environment};

/// A directory with files in it.
pub(crate) struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Self { directory };
        for (name, text) in files {
            made.write(name, text);
        }
        made
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn loader(&self, variables: &[(&str, &str)]) -> ConfigLoader {
        ConfigLoader::with_environment(Environment::from_pairs(variables.iter().copied()))
            .with_directory(self.path())
    }

    /// Loads, and shows every problem with file names as they are in the directory.
    pub(crate) fn load(
        &self,
        variables: &[(&str, &str)],
    ) -> Result<CommunicationConfig, Vec<String>> {
        let (config, found) = self.loader(variables).check();
        config.ok_or_else(|| self.lines(&found))
    }

    pub(crate) fn lines(&self, found: &Diagnostics) -> Vec<String> {
        let prefix = format!("{}/", self.path().display());
        found
            .iter()
            .map(|line| line.to_string().replace(&prefix, ""))
            .collect()
    }

    /// Every line that checking gives, errors and warnings.
    pub(crate) fn check(&self, variables: &[(&str, &str)]) -> Vec<String> {
        let (_, found) = self.loader(variables).check();
        self.lines(&found)
    }
}

/// A configuration of one YAML text.
pub(crate) fn yaml(text: &str) -> Result<CommunicationConfig, Vec<String>> {
    Files::new(&[("communication.yaml", text)]).load(&[])
}

/// Every line that checking one YAML text gives.
pub(crate) fn check_yaml(text: &str) -> Vec<String> {
    Files::new(&[("communication.yaml", text)]).check(&[])
}

/// The errors that checking one YAML text gives, without the warnings.
#[cfg(feature = "full")]
pub(crate) fn errors_in(text: &str) -> Vec<String> {
    let mut lines = check_yaml(text);
    lines.retain(|line| !line.contains(": warning: "));
    lines
}

/// Asserts that exactly one line came out, and that it holds all these parts.
pub(crate) fn assert_line(lines: &[String], parts: &[&str]) {
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_holds(&lines[0], parts);
}

pub(crate) fn assert_holds(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "`{part}` is not in: {line}");
    }
}
