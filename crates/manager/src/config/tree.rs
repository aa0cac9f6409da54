//! What every source is read into: values that know where they were written.

use std::sync::Arc;

use indexmap::IndexMap;

use super::place::Place;

/// Deepest nesting that is read; beyond it a file is refused.
pub(crate) const DEEPEST: usize = 64;

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing: what a lower layer says is taken back.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Table(Table),
}

/// A single value as text; what it is, the schema decides.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    pub(crate) kind: ScalarKind,
}

/// What the source says about a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    /// Nothing: plain YAML, a variable, or the outcome of `${…}`.
    Plain,
    /// It was quoted, or the format knows texts only.
    Text,
    Bool,
    Number,
}

/// Keys in the order in which they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) entries: IndexMap<String, Entry>,
}

/// A value and where its key was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Place,
    pub(crate) node: Node,
}

/// Values may be secret, so that only their length is shown.
impl std::fmt::Debug for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}({} bytes)", self.kind, self.text.len())
    }
}

impl Scalar {
    pub(crate) fn new(text: impl Into<String>, kind: ScalarKind) -> Self {
        Self {
            text: text.into(),
            kind,
        }
    }
}

impl Node {
    pub(crate) fn scalar(text: impl Into<String>, kind: ScalarKind, place: Place) -> Self {
        Self {
            value: Value::Scalar(Scalar::new(text, kind)),
            place,
        }
    }

    pub(crate) fn table(place: Place) -> Self {
        Self {
            value: Value::Table(Table::default()),
            place,
        }
    }

    pub(crate) fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            Value::Null | Value::Scalar(_) | Value::List(_) => None,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            Value::Null | Value::List(_) | Value::Table(_) => None,
        }
    }

    /// One word for messages.
    pub(crate) fn what(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Table(_) => "a section with keys",
        }
    }

    /// Notes in every place the key under which it was written.
    pub(crate) fn set_keys(&mut self, path: &str) {
        self.place.set_key(path);
        match &mut self.value {
            Value::Null | Value::Scalar(_) => {}
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    item.set_keys(&format!("{path}[{index}]"));
                }
            }
            Value::Table(table) => {
                for (key, entry) in &mut table.entries {
                    let path = join(path, key);
                    entry.key.set_key(&path);
                    entry.node.set_keys(&path);
                }
            }
        }
    }
}

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries.get(key).map(|entry| &entry.node)
    }

    pub(crate) fn insert(&mut self, key: impl Into<String>, place: Place, node: Node) {
        self.entries.insert(key.into(), Entry { key: place, node });
    }

    /// Takes an entry out; the order of the others stays.
    pub(crate) fn take(&mut self, key: &str) -> Option<Entry> {
        self.entries.shift_remove(key)
    }

    /// The table under a dotted path, made where it is missing. `None` if something other than a table is in the way.
    pub(crate) fn table_at(&mut self, path: &[&str], place: &Place) -> Option<&mut Self> {
        let mut table = self;
        for segment in path {
            let entry = table
                .entries
                .entry((*segment).to_owned())
                .or_insert_with(|| Entry {
                    key: place.clone(),
                    node: Node::table(place.clone()),
                });
            if entry.node.value == Value::Null {
                entry.node = Node::table(place.clone());
            }
            table = match &mut entry.node.value {
                Value::Table(next) => next,
                Value::Null | Value::Scalar(_) | Value::List(_) => return None,
            };
        }
        Some(table)
    }
}

/// Adds a key to a dotted path; a key that is not a plain word is quoted.
pub(crate) fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let quoted = if !key.is_empty() && key.chars().all(plain) {
        key.to_owned()
    } else {
        format!("\"{key}\"")
    };
    if path.is_empty() {
        quoted
    } else {
        format!("{path}.{quoted}")
    }
}

/// The name of a file as it is shown in places.
pub(crate) fn file_name(path: &std::path::Path) -> Arc<str> {
    path.display().to_string().into()
}
