//! TOML into a tree.

use std::ops::Range;
use std::sync::Arc;

use toml_edit::{Document, Item, Key, TableLike, Value as TomlValue};

use super::{Parsed, too_deep};
use crate::config::diagnostics::Diagnostic;
use crate::config::place::Place;
use crate::config::tree::{DEEPEST, Node, Scalar, ScalarKind, Table, Value};

pub(super) fn parse(text: &str, name: &Arc<str>) -> Parsed {
    let lines = Lines::new(text, name);
    let document = Document::parse(text).map_err(|error| {
        let place = lines.place(error.span());
        // The message may have further lines, which point at the text.
        let message = error
            .message()
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        vec![Diagnostic::error(&place, format!("not TOML: {message}"))]
    })?;
    let reader = Reader { lines };
    reader
        .table(document.as_table(), 0)
        .map(|table| Node {
            value: Value::Table(table),
            place: Place::file(name, 1, 1),
        })
        .map_err(|fatal| vec![fatal])
}

struct Reader<'t> {
    lines: Lines<'t>,
}

impl Reader<'_> {
    fn table(&self, from: &dyn TableLike, depth: usize) -> Result<Table, Diagnostic> {
        let mut table = Table::default();
        for (name, item) in from.iter() {
            let span = from.key(name).and_then(Key::span).or_else(|| item.span());
            let place = self.lines.place(span);
            let node = self.item(item, &place, depth + 1)?;
            table.insert(name, place, node);
        }
        Ok(table)
    }

    fn item(&self, item: &Item, key: &Place, depth: usize) -> Result<Node, Diagnostic> {
        if depth > DEEPEST {
            return Err(too_deep(key));
        }
        let value = match item {
            Item::None => Value::Null,
            Item::Value(value) => return self.value(value, key, depth),
            Item::Table(table) => Value::Table(self.table(table, depth)?),
            Item::ArrayOfTables(tables) => {
                let mut items = Vec::new();
                for table in tables {
                    let place = self.lines.place(table.span());
                    let value = Value::Table(self.table(table, depth)?);
                    items.push(Node { value, place });
                }
                Value::List(items)
            }
        };
        Ok(Node {
            value,
            place: key.clone(),
        })
    }

    fn value(&self, value: &TomlValue, key: &Place, depth: usize) -> Result<Node, Diagnostic> {
        let place = match value.span() {
            Some(span) => self.lines.place(Some(span)),
            None => key.clone(),
        };
        if depth > DEEPEST {
            return Err(too_deep(&place));
        }
        let value = match value {
            TomlValue::String(text) => scalar(text.value().as_str(), ScalarKind::Text),
            TomlValue::Integer(number) => scalar(&number.value().to_string(), ScalarKind::Number),
            TomlValue::Float(number) => scalar(
                &self.lines.text(number.span(), &number.value().to_string()),
                ScalarKind::Number,
            ),
            TomlValue::Boolean(truth) => scalar(&truth.value().to_string(), ScalarKind::Bool),
            TomlValue::Datetime(time) => scalar(&time.value().to_string(), ScalarKind::Text),
            TomlValue::Array(array) => {
                let items = array.iter().map(|item| self.value(item, &place, depth + 1));
                Value::List(items.collect::<Result<_, _>>()?)
            }
            TomlValue::InlineTable(table) => Value::Table(self.table(table, depth)?),
        };
        Ok(Node { value, place })
    }
}

fn scalar(text: &str, kind: ScalarKind) -> Value {
    Value::Scalar(Scalar::new(text, kind))
}

/// Turns offsets into lines and columns.
struct Lines<'t> {
    text: &'t str,
    name: &'t Arc<str>,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str, name: &'t Arc<str>) -> Self {
        let after_breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            name,
            starts: std::iter::once(0).chain(after_breaks).collect(),
        }
    }

    fn place(&self, span: Option<Range<usize>>) -> Place {
        let at = span.map_or(0, |span| span.start).min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= at);
        let start = self
            .starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(0);
        let column = self
            .text
            .get(start..at)
            .map_or(0, |head| head.chars().count());
        Place::file(self.name, line, column + 1)
    }

    /// A number as it was written, so that `2.0` stays `2.0` where a text is wanted.
    fn text(&self, span: Option<Range<usize>>, otherwise: &str) -> String {
        span.and_then(|span| self.text.get(span))
            .unwrap_or(otherwise)
            .replace('_', "")
    }
}
