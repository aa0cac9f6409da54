//! Things by name, with errors that tell what there is.

use indexmap::IndexMap;
use trunkline_core::{Error, ErrorKind, Result};

/// The name that stands for the only entry too.
pub(crate) const DEFAULT: &str = "default";

/// Why something that is configured is not there; told whenever it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Missing {
    kind: ErrorKind,
    message: String,
}

impl Missing {
    pub(crate) fn new(error: &Error) -> Self {
        Self {
            kind: error.kind(),
            message: error.report().to_string(),
        }
    }

    pub(crate) fn error(&self) -> Error {
        Error::new(self.kind, self.message.clone())
    }
}

/// Entries of one sort, in the order of the configuration.
#[derive(Debug)]
pub(crate) struct Named<T> {
    what: &'static str,
    entries: IndexMap<String, Result<T, Missing>>,
}

impl<T> Named<T> {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            entries: IndexMap::new(),
        }
    }

    pub(crate) fn insert(&mut self, name: String, entry: Result<T, Missing>) {
        self.entries.insert(name, entry);
    }

    /// The entry of a name. `default` is also the only entry; with several it must be one of the names.
    pub(crate) fn get(&self, name: &str) -> Result<&T> {
        match self.find(name) {
            Some(Ok(entry)) => Ok(entry),
            Some(Err(missing)) => Err(missing.error()),
            None => Err(self.unknown(name)),
        }
    }

    /// The name that `default` stands for.
    pub(crate) fn default_name(&self) -> Option<&str> {
        let only = || {
            (self.entries.len() == 1)
                .then(|| self.names().next())
                .flatten()
        };
        self.entries
            .get_key_value(DEFAULT)
            .map(|(name, _)| name.as_str())
            .or_else(only)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Result<T, Missing>)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    fn find(&self, name: &str) -> Option<&Result<T, Missing>> {
        let only = || (name == DEFAULT && self.entries.len() == 1).then(|| &self.entries[0]);
        self.entries.get(name).or_else(only)
    }

    fn unknown(&self, name: &str) -> Error {
        let what = self.what;
        let known: Vec<&str> = self.names().collect();
        let message = match known.as_slice() {
            [] => format!("there is no {what} `{name}`: none is configured"),
            known if name == DEFAULT => format!(
                "there are several {what}s and none is named `default`; ask for one of: {}",
                known.join(", ")
            ),
            known => format!("there is no {what} `{name}`; known: {}", known.join(", ")),
        };
        Error::not_found(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers(names: &[&str]) -> Named<u8> {
        let mut named = Named::new("message broker");
        for (name, value) in names.iter().zip(1..) {
            named.insert((*name).to_owned(), Ok(value));
        }
        named
    }

    #[test]
    fn x46_a_single_entry_is_the_default_as_well() {
        assert_eq!(brokers(&["rabbitmq"]).get("default").unwrap(), &1);
        assert_eq!(brokers(&["redis", "default"]).get("default").unwrap(), &2);
    }

    #[test]
    fn x46_with_several_the_default_must_be_named() {
        let error = brokers(&["rabbitmq", "redis"]).get("default").unwrap_err();
        assert!(
            error.message().ends_with("ask for one of: rabbitmq, redis"),
            "{error}"
        );
    }

    #[test]
    fn man4_an_unknown_name_lists_the_known_ones() {
        let error = brokers(&["rabbitmq", "redis"]).get("kafka").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.message(),
            "there is no message broker `kafka`; known: rabbitmq, redis"
        );
        let error = brokers(&[]).get("default").unwrap_err();
        assert_eq!(
            error.message(),
            "there is no message broker `default`: none is configured"
        );
    }

    #[test]
    fn an_entry_that_could_not_be_made_says_why_each_time() {
        let mut named = brokers(&[]);
        named.insert(
            "kafka".to_owned(),
            Err(Missing::new(&Error::unsupported("not in this build"))),
        );
        for _ in 0..2 {
            let error = named.get("kafka").map(|_: &u8| ()).unwrap_err();
            assert_eq!(
                (error.kind(), error.message()),
                (ErrorKind::Unsupported, "not in this build")
            );
        }
    }
}
