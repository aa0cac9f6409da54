//! Finds everything that is wrong with a configuration, and makes the value from what is right.
//!
//! First the shape of every value against the schema, then what only the whole can tell.

mod backends;
mod http;
mod meaning;
mod policies;
pub(crate) mod scalar;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value as Json;
use serde_path_to_error::Segment;

use super::diagnostics::{Diagnostic, Diagnostics, Severity};
use super::model::CommunicationConfig;
use super::place::Place;
use super::provenance::Provenance;
use super::tree::{Node, Scalar, ScalarKind, Table, Value, join};
use walk::{Walked, walk};

impl CommunicationConfig {
    /// Everything that is wrong or odd with this configuration as it is now, whether it was loaded or made in code.
    #[must_use]
    pub fn check(&self) -> Diagnostics {
        let mut problems = Diagnostics::default();
        let value = match serde_json::to_value(self) {
            Ok(value) => value,
            Err(error) => {
                problems.push(Diagnostic::error(&Place::code(), error.to_string()));
                return problems;
            }
        };
        let tree = self.tree_of(&value, "");
        let Walked { places, .. } = walk(&tree, &mut problems);
        meaning::check(self, &places, &mut problems);
        problems.sort();
        problems
    }

    /// The tree that would have been read to get this value.
    fn tree_of(&self, value: &Json, path: &str) -> Node {
        let inner = match value {
            Json::Null => Value::Null,
            Json::Bool(truth) => scalar(truth.to_string(), ScalarKind::Bool),
            Json::Number(number) => scalar(number.to_string(), ScalarKind::Number),
            Json::String(text) => scalar(text.clone(), ScalarKind::Text),
            Json::Array(items) => {
                let items = items.iter().enumerate();
                let nodes =
                    items.map(|(index, item)| self.tree_of(item, &format!("{path}[{index}]")));
                Value::List(nodes.collect())
            }
            Json::Object(object) => {
                let mut table = Table::default();
                for (key, value) in object {
                    let node = self.tree_of(value, &join(path, key));
                    table.insert(key, node.place.clone(), node);
                }
                Value::Table(table)
            }
        };
        Node {
            value: inner,
            place: self.place_now(path, value),
        }
    }

    /// Where the value that is there now was written: what the program changed since, it wrote.
    pub(crate) fn place_now(&self, path: &str, value: &Json) -> Place {
        let unchanged = at(self.provenance.loaded(), path) == Some(value);
        match self.provenance.place(path) {
            Some(place) if unchanged || value.is_object() => place.clone(),
            _ => {
                let mut place = Place::code();
                place.set_key(path);
                place
            }
        }
    }
}

fn scalar(text: String, kind: ScalarKind) -> Value {
    Value::Scalar(Scalar::new(text, kind))
}

/// The value under a path as [`join`] writes it.
pub(crate) fn at<'v>(value: &'v Json, path: &str) -> Option<&'v Json> {
    let mut value = value;
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"')?;
            value = value.get(quoted.get(..end)?)?;
            rest = quoted.get(end + 1..)?;
        } else if let Some(index) = rest.strip_prefix('[') {
            let (index, tail) = index.split_once(']')?;
            value = value.get(index.parse::<usize>().ok()?)?;
            rest = tail;
        } else {
            let end = rest.find(['.', '[']).unwrap_or(rest.len());
            value = value.get(rest.get(..end)?)?;
            rest = rest.get(end..)?;
        }
    }
    Some(value)
}

/// Makes the configuration from the merged layers. There is none when there are errors.
pub(crate) fn finish(
    tree: &Node,
    profile: String,
    files: Vec<PathBuf>,
    mut problems: Diagnostics,
) -> (Option<CommunicationConfig>, Diagnostics) {
    let Walked { value, places } = walk(tree, &mut problems);
    let config = deserialize(value, &places, &mut problems);
    let Some(mut config) = config else {
        problems.sort();
        return (None, problems);
    };
    config.environment = profile;
    meaning::check(&config, &places, &mut problems);
    problems.sort();
    if problems.has_errors() {
        return (None, problems);
    }
    let loaded = serde_json::to_value(&config).unwrap_or(Json::Null);
    config.provenance = Provenance::new(places, loaded, problems.clone(), files);
    (Some(config), problems)
}

/// What the walk let through fits the types but for rules that no schema can state.
fn deserialize(
    value: Json,
    places: &BTreeMap<String, Place>,
    problems: &mut Diagnostics,
) -> Option<CommunicationConfig> {
    match serde_path_to_error::deserialize(value) {
        Ok(config) => Some(config),
        Err(error) => {
            // Not as it shows itself: keys that have dots stand in quotes here.
            let segments = error.path().iter();
            let path = segments.fold(String::new(), |path, segment| match segment {
                Segment::Seq { index } => format!("{path}[{index}]"),
                Segment::Map { key } => join(&path, key),
                Segment::Enum { variant } => join(&path, variant),
                Segment::Unknown => path,
            });
            let place = meaning::nearest(places, &path);
            let message = error.into_inner().to_string();
            let problem = Diagnostic::new(Severity::Error, place.cloned(), message);
            problems.push(problem.at_key(path));
            None
        }
    }
}
