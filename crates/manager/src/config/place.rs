//! Where a value was written.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// What a value came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The built-in value.
    Default,
    /// A file, by the path it was read from.
    File(Arc<str>),
    /// An environment variable, by name.
    Variable(Arc<str>),
    /// The program itself.
    Code,
}

/// Where a value was written: the file with line and column, the variable, the program, or nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Place(Arc<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    source: Source,
    line: u32,
    column: u32,
    key: String,
}

impl Place {
    /// Set by the program.
    #[must_use]
    pub fn code() -> Self {
        Self::of(Source::Code)
    }

    pub(crate) fn file(file: &Arc<str>, line: usize, column: usize) -> Self {
        Self(Arc::new(Inner {
            source: Source::File(Arc::clone(file)),
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            key: String::new(),
        }))
    }

    pub(crate) fn variable(name: &str) -> Self {
        Self::of(Source::Variable(name.into()))
    }

    fn of(source: Source) -> Self {
        Self(Arc::new(Inner {
            source,
            line: 0,
            column: 0,
            key: String::new(),
        }))
    }

    pub(crate) fn set_key(&mut self, key: &str) {
        key.clone_into(&mut Arc::make_mut(&mut self.0).key);
    }

    /// What the value came from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.0.source
    }

    /// The line in a file, counted from 1.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        (self.0.line > 0).then_some(self.0.line)
    }

    /// The column in a file, counted from 1.
    #[must_use]
    pub fn column(&self) -> Option<u32> {
        (self.0.line > 0).then_some(self.0.column)
    }

    /// The key as it was written there, such as `http_client.timeout.read`; empty where none was written.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }
}

/// `communication.yaml:12`, `environment variable LOG_LEVEL`, `code` or `default`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { source, line, .. } = self.0.as_ref();
        match source {
            Source::Default => f.write_str("default"),
            Source::File(file) if *line > 0 => write!(f, "{file}:{line}"),
            Source::File(file) => f.write_str(file),
            Source::Variable(name) => write!(f, "environment variable {name}"),
            Source::Code => f.write_str("code"),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        if let Some(column) = self.column() {
            write!(f, ":{column}")?;
        }
        Ok(())
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let Inner {
            source,
            line,
            column,
            key,
        } = self.0.as_ref();
        match source {
            Source::Default => map.serialize_entry("source", "default")?,
            Source::Code => map.serialize_entry("source", "code")?,
            Source::Variable(name) => {
                map.serialize_entry("source", "environment")?;
                map.serialize_entry("variable", name.as_ref())?;
            }
            Source::File(file) => {
                map.serialize_entry("source", "file")?;
                map.serialize_entry("file", file.as_ref())?;
                if *line > 0 {
                    map.serialize_entry("line", line)?;
                    map.serialize_entry("column", column)?;
                }
            }
        }
        if !key.is_empty() {
            map.serialize_entry("key", key)?;
        }
        map.end()
    }
}
