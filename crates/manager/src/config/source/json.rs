//! JSON (RFC 8259) into a tree. Own, since positions are needed and YAML parsers read JSON's escapes differently.

use std::sync::Arc;

use super::{Parsed, too_deep, twice};
use crate::config::diagnostics::Diagnostic;
use crate::config::place::Place;
use crate::config::tree::{DEEPEST, Node, ScalarKind, Table, Value};

pub(super) fn parse(text: &str, name: &Arc<str>) -> Parsed {
    let mut reader = Reader {
        rest: text.chars().peekable(),
        name,
        line: 1,
        column: 1,
        problems: Vec::new(),
    };
    let tree = reader.document();
    match tree {
        Ok(tree) if reader.problems.is_empty() => Ok(tree),
        Ok(_) => Err(reader.problems),
        Err(fatal) => {
            reader.problems.push(fatal);
            Err(reader.problems)
        }
    }
}

struct Reader<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    name: &'t Arc<str>,
    line: usize,
    column: usize,
    problems: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn document(&mut self) -> Result<Node, Diagnostic> {
        self.space();
        let node = self.value(0)?;
        self.space();
        match self.rest.peek() {
            None => Ok(node),
            Some(_) => Err(self.wrong("something follows the value")),
        }
    }

    fn place(&self) -> Place {
        Place::file(self.name, self.line, self.column)
    }

    fn wrong(&self, message: &str) -> Diagnostic {
        Diagnostic::error(&self.place(), format!("not JSON: {message}"))
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line += 1;
            self.column = 1;
        } else {
            self.column += 1;
        }
        Some(c)
    }

    fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        let fits = self.rest.peek().is_some_and(|c| wanted(*c));
        if fits { self.next() } else { None }
    }

    fn space(&mut self) {
        while self
            .next_if(|c| matches!(c, ' ' | '\t' | '\n' | '\r'))
            .is_some()
        {}
    }

    fn value(&mut self, depth: usize) -> Result<Node, Diagnostic> {
        let place = self.place();
        if depth > DEEPEST {
            return Err(too_deep(&place));
        }
        match self.rest.peek() {
            Some('{') => self.table(depth).map(|table| Node {
                value: Value::Table(table),
                place,
            }),
            Some('[') => self.list(depth).map(|items| Node {
                value: Value::List(items),
                place,
            }),
            Some('"') => Ok(Node::scalar(self.text()?, ScalarKind::Text, place)),
            Some('-' | '0'..='9') => Ok(Node::scalar(self.number()?, ScalarKind::Number, place)),
            Some('a'..='z') => self.word(place),
            Some(_) => Err(self.wrong("a value must begin here")),
            None => Err(self.wrong("the file ends where a value is expected")),
        }
    }

    fn word(&mut self, place: Place) -> Result<Node, Diagnostic> {
        let mut word = String::new();
        while let Some(c) = self.next_if(|c| c.is_ascii_alphabetic()) {
            word.push(c);
        }
        match word.as_str() {
            "null" => Ok(Node {
                value: Value::Null,
                place,
            }),
            "true" | "false" => Ok(Node::scalar(word, ScalarKind::Bool, place)),
            _ => Err(Diagnostic::error(&place, "not JSON: an unquoted word")
                .allow("true, false, null, or a text in double quotes")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Diagnostic> {
        self.next();
        let mut items = Vec::new();
        self.space();
        if self.next_if(|c| c == ']').is_some() {
            return Ok(items);
        }
        loop {
            self.space();
            items.push(self.value(depth + 1)?);
            self.space();
            match self.next_if(|c| matches!(c, ',' | ']')) {
                Some(',') => {}
                Some(_) => return Ok(items),
                None => return Err(self.wrong("`,` or `]` is expected")),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Table, Diagnostic> {
        self.next();
        let mut table = Table::default();
        self.space();
        if self.next_if(|c| c == '}').is_some() {
            return Ok(table);
        }
        loop {
            self.space();
            let place = self.place();
            if self.rest.peek() != Some(&'"') {
                return Err(self.wrong("a key in double quotes is expected"));
            }
            let key = self.text()?;
            self.space();
            if self.next_if(|c| c == ':').is_none() {
                return Err(self.wrong("`:` is expected"));
            }
            self.space();
            let node = self.value(depth + 1)?;
            if let Some(first) = table.entries.get(&key) {
                self.problems.push(twice(&place, &key, &first.key));
            } else {
                table.insert(key, place, node);
            }
            self.space();
            match self.next_if(|c| matches!(c, ',' | '}')) {
                Some(',') => {}
                Some(_) => return Ok(table),
                None => return Err(self.wrong("`,` or `}` is expected")),
            }
        }
    }

    fn number(&mut self) -> Result<String, Diagnostic> {
        let mut text = String::new();
        text.extend(self.next_if(|c| c == '-'));
        match self.next_if(|c| c.is_ascii_digit()) {
            Some('0') => text.push('0'),
            Some(digit) => {
                text.push(digit);
                self.digits(&mut text);
            }
            None => return Err(self.wrong("a digit is expected")),
        }
        if self.next_if(|c| c == '.').is_some() {
            text.push('.');
            self.some_digits(&mut text)?;
        }
        if let Some(e) = self.next_if(|c| matches!(c, 'e' | 'E')) {
            text.push(e);
            text.extend(self.next_if(|c| matches!(c, '+' | '-')));
            self.some_digits(&mut text)?;
        }
        if !text.parse::<f64>().is_ok_and(f64::is_finite) {
            return Err(self.wrong("the number is out of range"));
        }
        Ok(text)
    }

    fn digits(&mut self, text: &mut String) {
        while let Some(digit) = self.next_if(|c| c.is_ascii_digit()) {
            text.push(digit);
        }
    }

    fn some_digits(&mut self, text: &mut String) -> Result<(), Diagnostic> {
        let before = text.len();
        self.digits(text);
        if text.len() == before {
            return Err(self.wrong("a digit is expected"));
        }
        Ok(())
    }

    fn text(&mut self) -> Result<String, Diagnostic> {
        self.next();
        let mut text = String::new();
        loop {
            let place = self.place();
            match self.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape(&place)?),
                Some(c) if c < ' ' => {
                    let message = "not JSON: a control character inside a text";
                    return Err(Diagnostic::error(&place, message).allow("an escape such as \\n"));
                }
                Some(c) => text.push(c),
                None => return Err(self.wrong("the file ends inside a text")),
            }
        }
    }

    fn escape(&mut self, place: &Place) -> Result<char, Diagnostic> {
        let wrong = || {
            Diagnostic::error(place, "not JSON: an unknown escape")
                .allow("\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX")
        };
        match self.next().ok_or_else(wrong)? {
            c @ ('"' | '\\' | '/') => Ok(c),
            'b' => Ok('\u{8}'),
            'f' => Ok('\u{c}'),
            'n' => Ok('\n'),
            'r' => Ok('\r'),
            't' => Ok('\t'),
            'u' => {
                let unit = self.unit().ok_or_else(wrong)?;
                if !(0xD800..=0xDBFF).contains(&unit) {
                    return char::from_u32(unit).ok_or_else(wrong);
                }
                // The first half of a pair; the second must follow.
                let follows = self.next() == Some('\\') && self.next() == Some('u');
                let low = self.unit().filter(|_| follows).ok_or_else(wrong)?;
                if !(0xDC00..=0xDFFF).contains(&low) {
                    return Err(wrong());
                }
                let code = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
                char::from_u32(code).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }

    fn unit(&mut self) -> Option<u32> {
        (0..4).try_fold(0, |unit, _| Some(unit * 16 + self.next()?.to_digit(16)?))
    }
}
