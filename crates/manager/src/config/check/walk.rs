//! Walks a tree along the schema: finds every wrong key and value, and hands out what is right.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::scalar::{self, Refused};
use crate::config::diagnostics::{Diagnostic, Diagnostics, closest};
use crate::config::place::Place;
use crate::config::schema::{self, Schemas, Section, Shape};
use crate::config::seeds::words;
use crate::config::tree::{Node, Scalar, Table, Value, join};

/// Longest list of allowed keys that a message repeats.
const FEW: usize = 16;

/// What was right, as JSON for serde, and where each value was written.
pub(crate) struct Walked {
    pub(crate) value: Json,
    pub(crate) places: BTreeMap<String, Place>,
}

/// Walks a whole configuration. Wrong values are left out of the outcome, so that what follows can still look at the
/// rest.
pub(crate) fn walk(tree: &Node, problems: &mut Diagnostics) -> Walked {
    let schemas = Schemas::of_build();
    let mut walker = Walker {
        schemas,
        problems,
        places: BTreeMap::new(),
    };
    let value = walker.node(tree, Shape::Section(schemas.root()), "");
    Walked {
        value: value.unwrap_or_else(|| Json::Object(Map::new())),
        places: walker.places,
    }
}

struct Walker<'a> {
    schemas: &'static Schemas,
    problems: &'a mut Diagnostics,
    places: BTreeMap<String, Place>,
}

impl Walker<'_> {
    /// The value, or nothing if it is wrong or not set.
    fn node(&mut self, node: &Node, shape: Shape<'_>, path: &str) -> Option<Json> {
        let value = match (shape, &node.value) {
            (_, Value::Null) => None,
            (Shape::Free, _) => Some(self.free(node)),
            (Shape::Section(section), Value::Table(table)) => {
                self.section(table, section, node, path)
            }
            (Shape::Map(map), Value::Table(table)) => Some(self.map(table, map, path)),
            (Shape::List(item), Value::List(items)) => Some(self.list(items, item, path)),
            (Shape::Scalar(wanted), Value::Scalar(scalar)) => {
                self.scalar(scalar, wanted, &node.place)
            }
            (wanted, _) => {
                let problem = Diagnostic::error(&node.place, format!("it is {}", node.what()));
                self.problems.push(problem.allow(describe(wanted)));
                None
            }
        };
        if value.is_some() {
            self.places.insert(path.to_owned(), node.place.clone());
        }
        value
    }

    fn section(
        &mut self,
        table: &Table,
        section: Section<'_>,
        node: &Node,
        path: &str,
    ) -> Option<Json> {
        let mut object = Map::new();
        for (key, entry) in &table.entries {
            let Some(property) = section.property(key) else {
                self.unknown(key, &entry.key, section);
                continue;
            };
            let shape = self.schemas.shape(property);
            if let Some(value) = self.node(&entry.node, shape, &join(path, key)) {
                object.insert(key.clone(), value);
            }
        }
        for required in section.required() {
            if !object.contains_key(required) {
                if !table.entries.contains_key(required) {
                    let missing =
                        Diagnostic::error(&node.place, format!("`{required}` is missing"));
                    self.problems.push(missing);
                }
                return None;
            }
        }
        Some(Json::Object(object))
    }

    fn unknown(&mut self, key: &str, place: &Place, section: Section<'_>) {
        if self.problems.is_full() {
            return;
        }
        let known: Vec<&str> = section.keys().collect();
        let meant = closest(
            key,
            known.iter().copied().chain(words::of_section(section.name)),
        );
        let mut problem = Diagnostic::error(place, "unknown key").suggest(meant);
        if meant.is_none() || known.len() <= FEW {
            problem = problem.allow(known.join(", "));
        }
        self.problems.push(problem);
    }

    fn map(&mut self, table: &Table, map: schema::MapShape<'_>, path: &str) -> Json {
        let shape = self.schemas.shape(map.item);
        let mut object = Map::new();
        for (name, entry) in &table.entries {
            if let Err(refused) = scalar::check_name(name, map.format) {
                self.refuse(&entry.key, refused);
                continue;
            }
            if let Some(value) = self.node(&entry.node, shape, &join(path, name)) {
                object.insert(name.clone(), value);
            }
        }
        Json::Object(object)
    }

    fn list(&mut self, items: &[Node], item: &Json, path: &str) -> Json {
        let shape = self.schemas.shape(item);
        let walked = items
            .iter()
            .enumerate()
            .filter_map(|(index, node)| self.node(node, shape, &format!("{path}[{index}]")));
        Json::Array(walked.collect())
    }

    fn scalar(
        &mut self,
        scalar: &Scalar,
        wanted: schema::Scalar<'_>,
        place: &Place,
    ) -> Option<Json> {
        let is_duration = matches!(wanted, schema::Scalar::Duration);
        if is_duration && scalar::is_long_bare_number(&scalar.text) {
            let seconds = scalar::shown(&scalar.text);
            let warning =
                Diagnostic::warning(place, format!("{seconds} is seconds, more than an hour"));
            self.problems
                .push(warning.allow("\"250ms\" if milliseconds are meant, \"2h\" if hours are"));
        }
        match scalar::convert(scalar, wanted) {
            Ok(value) => Some(value),
            Err(refused) => {
                self.refuse(place, refused);
                None
            }
        }
    }

    fn refuse(&mut self, place: &Place, refused: Refused) {
        let mut problem = Diagnostic::error(place, refused.message).suggest(refused.suggestion);
        problem.allowed = refused.allowed;
        self.problems.push(problem);
    }

    fn free(&self, node: &Node) -> Json {
        match &node.value {
            Value::Null => Json::Null,
            Value::Scalar(scalar) => scalar::free(scalar),
            Value::List(items) => items.iter().map(|item| self.free(item)).collect(),
            Value::Table(table) => {
                let entries = table.entries.iter();
                let pairs = entries.map(|(key, entry)| (key.clone(), self.free(&entry.node)));
                Json::Object(pairs.collect())
            }
        }
    }
}

fn describe(wanted: Shape<'_>) -> String {
    match wanted {
        Shape::Section(section) => {
            let keys: Vec<&str> = section.keys().take(FEW).collect();
            format!("a section with the keys {}", keys.join(", "))
        }
        Shape::Map(_) => "a section with names as keys".to_owned(),
        Shape::List(_) => "a list".to_owned(),
        Shape::Free => "anything".to_owned(),
        Shape::Scalar(scalar) => match scalar {
            schema::Scalar::Duration => "\"30s\", \"250ms\", \"1m30s\" or a number of seconds",
            schema::Scalar::Size => "\"4MiB\", \"64KB\" or a number of bytes",
            schema::Scalar::Bool => "true, false",
            schema::Scalar::Integer(_) => "a whole number",
            schema::Scalar::Number(_) => "a number",
            schema::Scalar::Text { .. } => "a text",
            schema::Scalar::Word(_, schema) => return schema::Scalar::words(schema).join(", "),
        }
        .to_owned(),
    }
}
