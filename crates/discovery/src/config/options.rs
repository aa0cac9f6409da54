//! The options of one kind of registry, read with all problems told at once.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};
use trunkline_core::{Error, Result, Secret};

/// Takes the options of a registry one by one, and tells all that is wrong with them at the end; for backends. Options
/// come from a file, with their types, or from a URL, all as text: both are understood.
///
/// ```
/// use std::time::Duration;
/// use trunkline_discovery::{OptionReader, ServiceDiscoveryConfig};
///
/// let config = ServiceDiscoveryConfig::from_url("consul://localhost?wait=10s&weit=5")?;
/// let mut options = OptionReader::new(&config);
/// assert_eq!(options.duration("wait"), Some(Duration::from_secs(10)));
/// let error = options.finish().unwrap_err();
/// assert!(error.message().contains("service_discovery.options.weit"));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Debug)]
pub struct OptionReader {
    kind: String,
    left: Map<String, Value>,
    asked: Vec<&'static str>,
    problems: Vec<String>,
}

impl OptionReader {
    /// Begins with all options of a configuration.
    #[must_use]
    pub fn new(config: &super::ServiceDiscoveryConfig) -> Self {
        Self {
            kind: config.kind.clone(),
            left: config.options.clone(),
            asked: Vec::new(),
            problems: Vec::new(),
        }
    }

    /// Takes a text; an empty one counts as absent.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => (!text.is_empty()).then_some(text),
            Value::Number(number) => Some(number.to_string()),
            other => self.wrong(name, &other, "a text"),
        }
    }

    /// Takes a text that is never shown.
    pub fn secret(&mut self, name: &'static str) -> Option<Secret<String>> {
        match self.take(name)? {
            Value::String(text) => (!text.is_empty()).then(|| Secret::new(text)),
            _ => {
                self.problem(name, "must be a text");
                None
            }
        }
    }

    /// Takes the path of a file.
    pub fn path(&mut self, name: &'static str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    /// Takes a span of time that is longer than nothing, such as `5s`.
    pub fn duration(&mut self, name: &'static str) -> Option<Duration> {
        let value = self.take(name)?;
        let span = value
            .as_str()
            .and_then(|text| trunkline_core::duration::parse(text).ok());
        match span {
            Some(span) if !span.is_zero() => Some(span),
            _ => self.wrong(name, &value, "a span of time longer than 0, such as `5s`"),
        }
    }

    /// Takes a whole number of at least 1.
    pub fn count(&mut self, name: &'static str) -> Option<u32> {
        let value = self.take(name)?;
        let number = match &value {
            Value::String(text) => text.parse::<u32>().ok(),
            other => other.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        match number {
            Some(number) if number > 0 => Some(number),
            _ => self.wrong(name, &value, "a whole number of at least 1"),
        }
    }

    /// Takes a yes or no.
    pub fn flag(&mut self, name: &'static str) -> Option<bool> {
        let value = self.take(name)?;
        match &value {
            Value::Bool(flag) => Some(*flag),
            Value::String(text) if text == "true" => Some(true),
            Value::String(text) if text == "false" => Some(false),
            _ => self.wrong(name, &value, "true or false"),
        }
    }

    /// Takes one of a few words.
    pub fn choice<T: Copy>(&mut self, name: &'static str, words: &[(&str, T)]) -> Option<T> {
        let value = self.take(name)?;
        let found = value
            .as_str()
            .and_then(|text| words.iter().find(|(word, _)| *word == text));
        if let Some((_, meant)) = found {
            return Some(*meant);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.wrong(name, &value, &format!("one of {}", known.join(", ")))
    }

    /// Takes a list of texts: a list, or one text with commas between.
    pub fn texts(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let texts = match &value {
            Value::String(text) => {
                Some(text.split(',').map(|word| word.trim().to_owned()).collect())
            }
            Value::Array(items) => {
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
                texts.collect::<Option<Vec<String>>>()
            }
            _ => None,
        };
        match texts {
            Some(texts) => Some(texts.into_iter().filter(|text| !text.is_empty()).collect()),
            None => self.wrong(name, &value, "a list of texts"),
        }
    }

    /// Takes a list of URLs: a list, or one text. Commas belong to a URL.
    pub fn urls(&mut self, name: &'static str) -> Option<Vec<String>> {
        let value = self.take(name)?;
        let urls = match &value {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Array(items) => {
                let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
                texts.collect::<Option<Vec<String>>>()
            }
            _ => None,
        };
        if urls.is_none() {
            // Not repeated: URLs may hold passwords.
            self.problem(name, "must be a list of URLs");
        }
        urls
    }

    /// Tells that an option, or how options stand to each other, is wrong.
    pub fn problem(&mut self, name: &str, what: impl Display) {
        self.problems
            .push(format!("service_discovery.options.{name}: {what}"));
    }

    /// Tells what is wrong with another setting of service discovery, such as `connection.host`.
    pub fn problem_at(&mut self, path: &str, what: impl Display) {
        self.problems
            .push(format!("service_discovery.{path}: {what}"));
    }

    /// Ends reading: what was not taken is not known.
    ///
    /// # Errors
    /// `Config` with every problem on a line of its own.
    pub fn finish(mut self) -> Result<()> {
        for name in std::mem::take(&mut self.left).keys() {
            let known = self.asked.join(", ");
            let kind = &self.kind;
            self.problems.push(format!(
                "service_discovery.options.{name}: `{kind}` has no such option; it has {known}"
            ));
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        Err(Error::config(self.problems.join("\n")))
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.asked.push(name);
        self.left.remove(name).filter(|value| !value.is_null())
    }

    fn wrong<T>(&mut self, name: &str, value: &Value, right: &str) -> Option<T> {
        self.problem(name, format_args!("`{value}` is wrong; it must be {right}"));
        None
    }
}
