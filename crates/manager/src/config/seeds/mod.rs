//! Puts the words of one layer into ours: other names, short forms, flat keys, URLs, milliseconds, secrets in files.
//!
//! Every layer is normalised before the layers are merged, so that a higher layer may use other words than a lower one.
//! The places stay, so that messages speak of what was written.

mod address;
mod root;
pub(crate) mod words;

use std::path::{Path, PathBuf};

use indexmap::map::Entry as MapEntry;

use super::check::scalar::whole;
use super::diagnostics::{Diagnostic, Diagnostics};
use super::place::Place;
use super::schema::{Bounds, MapShape, ROOT, Scalar as Wanted, Schemas, Section, Shape};
use super::source;
use super::tree::{Entry, Node, Scalar, ScalarKind, Table, Value};
use words::{How, Rule};

/// What normalising needs beside the tree.
pub(crate) struct Surroundings<'a> {
    /// Where files with secrets are looked for.
    pub(crate) directory: &'a Path,
    /// The files with secrets that were named.
    pub(crate) secret_files: &'a mut Vec<PathBuf>,
    pub(crate) problems: &'a mut Diagnostics,
}

/// Normalises the tree of one file.
pub(crate) fn file(tree: Node, around: &mut Surroundings<'_>) -> Node {
    let tree = root::unwrap(tree, around.problems);
    layer(tree, around)
}

/// Normalises a layer that has no other root.
pub(crate) fn layer(mut tree: Node, around: &mut Surroundings<'_>) -> Node {
    let schemas = Schemas::of_build();
    let mut normaliser = Normaliser {
        schemas,
        directory: around.directory,
        secret_files: around.secret_files,
        problems: around.problems,
    };
    normaliser.node(&mut tree, Shape::Section(schemas.root()));
    tree
}

struct Normaliser<'a> {
    schemas: &'static Schemas,
    directory: &'a Path,
    secret_files: &'a mut Vec<PathBuf>,
    problems: &'a mut Diagnostics,
}

impl Normaliser<'_> {
    fn node(&mut self, node: &mut Node, shape: Shape<'_>) {
        match (shape, &mut node.value) {
            (Shape::Section(section), Value::Table(table)) => self.section(table, section),
            (Shape::Map(map), Value::Table(table)) => self.map(table, map),
            (Shape::List(item), Value::List(items)) => {
                let shape = self.schemas.shape(item);
                for item in items {
                    self.node(item, shape);
                }
            }
            _ => {}
        }
    }

    fn section(&mut self, table: &mut Table, section: Section<'_>) {
        self.drop_unserved(table, section);
        self.milliseconds(table, section);
        for (key, entry) in &mut table.entries {
            if let Some(property) = section.property(key) {
                spell_out(&mut entry.node, self.schemas.shape(property));
            }
        }
        for rule in words::RULES {
            if rule.applies_to(section.name) {
                self.apply(table, section, rule);
            }
        }
        self.take_urls(table, section);
        self.read_secrets(table, section);
        for (key, entry) in &mut table.entries {
            if let Some(property) = section.property(key) {
                let shape = self.schemas.shape(property);
                // A rule may have moved a short form here.
                spell_out(&mut entry.node, shape);
                self.node(&mut entry.node, shape);
            }
        }
    }

    fn map(&mut self, table: &mut Table, map: MapShape<'_>) {
        let shape = self.schemas.shape(map.item);
        let mut renamed = Table::default();
        for (name, mut entry) in std::mem::take(&mut table.entries) {
            spell_out(&mut entry.node, shape);
            self.node(&mut entry.node, shape);
            match renamed.entries.entry(name_in_map(&name, map.format)) {
                MapEntry::Vacant(free) => {
                    free.insert(entry);
                }
                MapEntry::Occupied(taken) => {
                    let first = &taken.get().key;
                    let message =
                        format!("`{name}` names the same as `{}` at {first}", first.key());
                    self.problems
                        .push(Diagnostic::error(&entry.key, message).allow("one of the two"));
                }
            }
        }
        *table = renamed;
    }

    fn drop_unserved(&mut self, table: &mut Table, section: Section<'_>) {
        table.entries.retain(|key, entry| {
            if section.property(key).is_some() {
                return true;
            }
            if section.name == ROOT
                && let Some(feature) = words::left_out(key)
            {
                let message = format!(
                    "is left out of this build and ignored; it needs the feature `{feature}`"
                );
                self.problems.push(Diagnostic::warning(&entry.key, message));
                return false;
            }
            let Some(what) = words::unserved(section.name, key) else {
                return true;
            };
            // What is switched off is not missed.
            let off = entry.node.as_text() == Some("false") || entry.node.value == Value::Null;
            if !off {
                let message =
                    format!("{what} is not available in this version; the setting is ignored");
                self.problems.push(Diagnostic::warning(&entry.key, message));
            }
            false
        });
    }

    /// `delay_ms: 250` is `delay: 250ms`.
    fn milliseconds(&mut self, table: &mut Table, section: Section<'_>) {
        let keys: Vec<String> = table
            .entries
            .keys()
            .filter(|key| section.property(key).is_none())
            .filter(|key| {
                key.strip_suffix("_ms")
                    .is_some_and(|base| self.takes_duration(section, base))
            })
            .cloned()
            .collect();
        for key in keys {
            let Some(mut entry) = table.take(&key) else {
                continue;
            };
            let base = key.strip_suffix("_ms").unwrap_or(&key);
            if !to_millis(&mut entry.node) {
                let problem =
                    Diagnostic::error(&entry.node.place, "it is not a number of milliseconds");
                self.problems.push(problem.allow("a bare number"));
                continue;
            }
            self.put(table, base, entry);
        }
    }

    fn takes_duration(&self, section: Section<'_>, key: &str) -> bool {
        let rule = words::RULES
            .iter()
            .find(|rule| rule.applies_to(section.name) && rule.word == key);
        let target: Vec<&str> = rule.map_or(key, |rule| rule.target).split('.').collect();
        match self.schemas.below(section, &target) {
            Some(Shape::Scalar(Wanted::Duration)) => true,
            Some(Shape::Section(section)) => section.name == "TimeoutConfig",
            _ => false,
        }
    }

    fn apply(&mut self, table: &mut Table, section: Section<'_>, rule: &Rule) {
        let target: Vec<&str> = rule.target.split('.').collect();
        if self.schemas.below(section, &target).is_none() {
            let free_form = target.first() == Some(&"options");
            // `password_file` and the like are read and taken away before the schema is asked.
            if !free_form && !rule.target.ends_with("_file") {
                return;
            }
        }
        let Some(mut entry) = take_at(table, rule.word) else {
            return;
        };
        match rule.how {
            How::Same => {}
            How::OneMore => {
                let wanted = self.schemas.below(section, &target);
                if let Err(problem) = one_more(&mut entry.node, wanted) {
                    self.problems.push(problem);
                    return;
                }
            }
            How::Millis => {
                to_millis(&mut entry.node);
            }
        }
        let Some((last, sections)) = target.split_last() else {
            return;
        };
        match table.table_at(sections, &entry.key) {
            Some(inner) => self.put(inner, last, entry),
            None => {
                let message = format!(
                    "it belongs into the section `{}`, which is a single value",
                    sections.join(".")
                );
                self.problems.push(Diagnostic::error(&entry.key, message));
            }
        }
    }

    /// Puts an entry where it belongs; two words for the same setting in one layer are an error.
    fn put(&mut self, table: &mut Table, key: &str, entry: Entry) {
        match table.entries.entry(key.to_owned()) {
            MapEntry::Vacant(free) => {
                free.insert(entry);
            }
            MapEntry::Occupied(mut taken) if taken.get().node.value == Value::Null => {
                taken.insert(entry);
            }
            MapEntry::Occupied(taken) => {
                let problem = says_the_same(&entry.key, &taken.get().key);
                self.problems.push(problem);
            }
        }
    }

    fn take_urls(&mut self, table: &mut Table, section: Section<'_>) {
        let mut found: Option<Entry> = None;
        for word in words::url_words(section.name) {
            if section.property(word).is_some() {
                continue;
            }
            let Some(entry) = table.take(word) else {
                continue;
            };
            match &found {
                _ if entry.node.value == Value::Null => {}
                Some(first) => self.problems.push(says_the_same(&entry.key, &first.key)),
                None => found = Some(entry),
            }
        }
        if let Some(entry) = found {
            address::split(section.name, table, &entry, self.problems);
        }
    }

    /// `password_file: /run/secrets/rabbit` reads `password` from that file.
    fn read_secrets(&mut self, table: &mut Table, section: Section<'_>) {
        let secrets: Vec<&str> = section
            .keys()
            .filter(|key| self.is_secret(section, key))
            .collect();
        for secret in secrets {
            let Some(entry) = table.take(&format!("{secret}_file")) else {
                continue;
            };
            let Some(path) = entry.node.as_text() else {
                continue;
            };
            let file = self.directory.join(path);
            self.secret_files.push(file.clone());
            match source::read_text(&file) {
                Ok(Some(text)) => {
                    let text = text.strip_suffix('\n').unwrap_or(&text);
                    let text = text.strip_suffix('\r').unwrap_or(text);
                    let node = Node::scalar(text, ScalarKind::Text, entry.node.place.clone());
                    let key = entry.key;
                    self.put(table, secret, Entry { key, node });
                }
                Ok(None) => {
                    let problem =
                        Diagnostic::error(&entry.node.place, format!("there is no file `{path}`"));
                    self.problems
                        .push(problem.allow("a file that holds the secret"));
                }
                Err(why) => {
                    let problem =
                        Diagnostic::error(&entry.node.place, format!("the file `{path}` {why}"));
                    self.problems.push(problem);
                }
            }
        }
    }

    fn is_secret(&self, section: Section<'_>, key: &str) -> bool {
        let shape = section
            .property(key)
            .map(|property| self.schemas.shape(property));
        matches!(
            shape,
            Some(Shape::Scalar(Wanted::Text { secret: true, .. }))
        )
    }
}

fn says_the_same(place: &Place, first: &Place) -> Diagnostic {
    Diagnostic::error(
        place,
        format!("it says the same as `{}` at {first}", first.key()),
    )
    .allow("one of the two")
}

/// Turns a short form into the section it stands for; nothing is an empty section.
fn spell_out(node: &mut Node, shape: Shape<'_>) {
    let (Shape::Section(_) | Shape::Map(_)) = shape else {
        return;
    };
    let place = node.place.clone();
    match (&node.value, shape) {
        (Value::Null, _) => node.value = Value::Table(Table::default()),
        (Value::Scalar(scalar), Shape::Section(section)) => {
            if let Some(key) = words::short_form(section.name, &scalar.text) {
                let mut table = Table::default();
                let inner = Node::scalar(scalar.text.clone(), scalar.kind, place.clone());
                table.insert(key, place, inner);
                node.value = Value::Table(table);
            }
        }
        _ => {}
    }
}

/// Names that are equal but for their spelling become one.
fn name_in_map(name: &str, format: Option<&str>) -> String {
    match format {
        Some("services") => name.to_ascii_lowercase().replace('_', "-"),
        Some("endpoints") => match name.trim().split_once(char::is_whitespace) {
            Some((method, path)) => {
                format!("{} {}", method.to_ascii_uppercase(), path.trim_start())
            }
            None => name.to_owned(),
        },
        _ => name.to_owned(),
    }
}

/// Takes an entry out by its word; a dotted word is looked for one section down.
fn take_at(table: &mut Table, word: &str) -> Option<Entry> {
    let Some((outer, inner)) = word.split_once('.') else {
        return table.take(word);
    };
    let Value::Table(section) = &mut table.entries.get_mut(outer)?.node.value else {
        return None;
    };
    let entry = section.take(inner)?;
    if section.entries.is_empty() {
        table.take(outer);
    }
    Some(entry)
}

/// Retries become attempts. What is no single value is left to the walk, which says so.
fn one_more(node: &mut Node, wanted: Option<Shape<'_>>) -> Result<(), Diagnostic> {
    let (Value::Scalar(scalar), Some(Shape::Scalar(Wanted::Integer(attempts)))) =
        (&mut node.value, wanted)
    else {
        return Ok(());
    };
    let retries = Bounds {
        least: attempts.least.map(|least| least - 1.0),
        most: attempts.most.map(|most| most - 1.0),
    };
    let number = whole(&scalar.text, retries).map_err(|refused| {
        let mut problem = Diagnostic::error(&node.place, refused.message);
        problem.allowed = refused.allowed;
        problem
    })?;
    *scalar = Scalar::new((number + 1).to_string(), scalar.kind);
    Ok(())
}

fn to_millis(node: &mut Node) -> bool {
    match &mut node.value {
        Value::Scalar(scalar) if scalar.text.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
            *scalar = Scalar::new(format!("{}ms", scalar.text.trim()), ScalarKind::Plain);
            true
        }
        Value::Null => true,
        Value::Scalar(_) | Value::List(_) | Value::Table(_) => false,
    }
}
