//! YAML 1.2 into a tree, with anchors, aliases and merge keys.
//!
//! Plain scalars keep their text: the schema decides what they are, so that `version: 1.0` stays `1.0` where a text is
//! wanted and `no` is no surprise.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::{Parsed, too_deep, twice};
use crate::config::diagnostics::Diagnostic;
use crate::config::place::Place;
use crate::config::tree::{DEEPEST, Entry, Node, Scalar, ScalarKind, Table, Value};

/// Most values a file may hold, those that aliases repeat included.
const MOST: usize = 50_000;

pub(super) fn parse(text: &str, name: &Arc<str>) -> Parsed {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        name,
        anchors: HashMap::new(),
        values: 0,
        problems: Vec::new(),
    };
    match reader.document() {
        Ok(tree) if reader.problems.is_empty() => Ok(tree),
        Ok(_) => Err(reader.problems),
        Err(fatal) => {
            reader.problems.push(fatal);
            Err(reader.problems)
        }
    }
}

struct Reader<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    name: &'t Arc<str>,
    /// Values by anchor; `None` while the anchored value is being read.
    anchors: HashMap<usize, Option<Node>>,
    values: usize,
    problems: Vec<Diagnostic>,
}

/// What cannot be read past.
type Fatal = Diagnostic;

impl<'t> Reader<'t> {
    fn document(&mut self) -> Result<Node, Fatal> {
        let mut tree = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd => {}
                Event::StreamEnd | Event::Nothing => break,
                event if tree.is_none() => tree = Some(self.node(event, span, 0)?),
                _ => {
                    let place = self.place(span);
                    return Err(Diagnostic::error(&place, "a second document begins here")
                        .allow("one document in a file"));
                }
            }
        }
        let empty = || Node {
            value: Value::Null,
            place: Place::file(self.name, 1, 1),
        };
        Ok(tree.unwrap_or_else(empty))
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Fatal> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let mark = error.marker();
                let place = Place::file(self.name, mark.line().max(1), mark.col() + 1);
                Err(Diagnostic::error(
                    &place,
                    format!("not YAML: {}", error.info()),
                ))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn place(&self, span: Span) -> Place {
        Place::file(self.name, span.start.line().max(1), span.start.col() + 1)
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fatal> {
        let place = self.place(span);
        self.count(1, &place)?;
        if depth > DEEPEST {
            return Err(too_deep(&place));
        }
        let (anchor, value) = match event {
            Event::Alias(anchor) => return self.alias(anchor, &place),
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, self.scalar(&text, style, tag.as_deref(), &place))
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["seq"], &place);
                self.open(anchor);
                (anchor, Value::List(self.list(depth)?))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_tag(tag.as_deref(), &["map"], &place);
                self.open(anchor);
                (anchor, Value::Table(self.table(depth)?))
            }
            _ => return Err(Diagnostic::error(&place, "a value is missing here")),
        };
        let node = Node { value, place };
        if anchor > 0 {
            self.anchors.insert(anchor, Some(node.clone()));
        }
        Ok(node)
    }

    fn open(&mut self, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, None);
        }
    }

    fn count(&mut self, values: usize, place: &Place) -> Result<(), Fatal> {
        self.values += values;
        if self.values > MOST {
            return Err(Diagnostic::error(
                place,
                format!(
                    "the file holds more than {MOST} values, those repeated by aliases included"
                ),
            ));
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, place: &Place) -> Result<Node, Fatal> {
        match self.anchors.get(&anchor) {
            Some(Some(node)) => {
                let node = node.clone();
                self.count(size(&node), place)?;
                Ok(node)
            }
            Some(None) => Err(Diagnostic::error(
                place,
                "the alias stands inside the value that it repeats",
            )),
            None => Err(Diagnostic::error(place, "the alias has no anchor")),
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        place: &Place,
    ) -> Value {
        self.check_tag(tag, &["str", "int", "float", "bool", "null"], place);
        let tagged = tag.map(|tag| tag.suffix.as_str());
        let kind = match (tagged, style) {
            (Some("str"), _) => ScalarKind::Text,
            (None, ScalarStyle::Plain) if is_null(text) => return Value::Null,
            (Some("null"), _) => return Value::Null,
            (None | Some(_), ScalarStyle::Plain) => ScalarKind::Plain,
            _ => ScalarKind::Text,
        };
        Value::Scalar(Scalar::new(text, kind))
    }

    fn check_tag(&mut self, tag: Option<&Tag>, known: &[&str], place: &Place) {
        let Some(tag) = tag else { return };
        if !tag.is_yaml_core_schema() || !known.contains(&tag.suffix.as_str()) {
            let problem = Diagnostic::error(place, format!("the tag {tag} has no meaning here"));
            self.problems.push(problem.allow("no tag"));
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fatal> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (Event::StreamEnd, span) => return Err(self.cut_off(span)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Table, Fatal> {
        let mut table = Table::default();
        let mut merges = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            if event == Event::StreamEnd {
                return Err(self.cut_off(span));
            }
            let plain = matches!(&event, Event::Scalar(_, ScalarStyle::Plain, _, _));
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            match key.value {
                Value::Scalar(scalar) if plain && scalar.text == "<<" => merges.push(node),
                Value::Scalar(scalar) => self.put(&mut table, scalar.text, key.place, node),
                Value::Null | Value::List(_) | Value::Table(_) => {
                    let problem = Diagnostic::error(&key.place, "a key must be a single value");
                    self.problems.push(problem);
                }
            }
        }
        for merge in merges {
            self.merge(&mut table, merge);
        }
        Ok(table)
    }

    fn cut_off(&self, span: Span) -> Fatal {
        Diagnostic::error(&self.place(span), "the file ends in the middle of a value")
    }

    fn put(&mut self, table: &mut Table, key: String, place: Place, node: Node) {
        if let Some(first) = table.entries.get(&key) {
            self.problems.push(twice(&place, &key, &first.key));
        } else {
            table.entries.insert(key, Entry { key: place, node });
        }
    }

    /// `<<: *base` adds what is not there; of a list the earlier ones win.
    fn merge(&mut self, table: &mut Table, from: Node) {
        match from.value {
            Value::Table(base) => {
                for (key, entry) in base.entries {
                    table.entries.entry(key).or_insert(entry);
                }
            }
            Value::List(bases) => {
                for base in bases {
                    self.merge(table, base);
                }
            }
            Value::Null | Value::Scalar(_) => self.problems.push(
                Diagnostic::error(&from.place, "`<<` merges sections")
                    .allow("an alias of a section, or a list of them"),
            ),
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar(_) => 1,
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Table(table) => {
            1 + table
                .entries
                .values()
                .map(|entry| size(&entry.node))
                .sum::<usize>()
        }
    }
}
