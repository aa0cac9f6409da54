//! Reads events out of a stream of bytes, as the HTML standard says (section 9.2.6), within a limit.

use std::time::Duration;

use super::ServerEvent;

/// A byte order mark, which may stand at the very beginning.
const BOM: &[u8] = &[0xef, 0xbb, 0xbf];

/// What the pieces of one connection have given so far.
#[derive(Debug)]
pub(super) struct Parser {
    /// Of the line that has not ended yet.
    line: Vec<u8>,
    /// The last line ended with CR: an LF that follows belongs to it.
    after_cr: bool,
    started: bool,
    name: String,
    data: String,
    has_data: bool,
    /// Of the event that is being read; it counts once that is whole.
    id: Option<String>,
    limit: usize,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Event(ServerEvent),
    /// An event without data, which is none but may have a new id.
    Id(String),
    /// How long to wait before connecting again.
    Retry(Duration),
    /// A line or an event longer than allowed.
    TooLarge,
}

impl Parser {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            line: Vec::new(),
            after_cr: false,
            started: false,
            name: String::new(),
            data: String::new(),
            has_data: false,
            id: None,
            limit,
        }
    }

    /// Reads a piece; what is found is handed over in its order. `last_id` is that of the last event that had one.
    pub(super) fn read(&mut self, piece: &[u8], last_id: &str, mut found: impl FnMut(Found)) {
        let mut last_id = last_id.to_owned();
        for &byte in piece {
            let follows_cr = std::mem::take(&mut self.after_cr);
            match byte {
                b'\n' if follows_cr => {}
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let mut line = std::mem::take(&mut self.line);
                    if !std::mem::replace(&mut self.started, true) && line.starts_with(BOM) {
                        line.drain(..BOM.len());
                    }
                    let ended = self.line(&String::from_utf8_lossy(&line), &mut last_id);
                    if let Some(ended) = ended {
                        found(ended);
                    }
                    line.clear();
                    self.line = line;
                }
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > self.limit {
                found(Found::TooLarge);
                return;
            }
        }
    }

    fn line(&mut self, line: &str, last_id: &mut String) -> Option<Found> {
        if line.is_empty() {
            return self.dispatch(last_id);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                let millis = value.parse().ok()?;
                return Some(Found::Retry(Duration::from_millis(millis)));
            }
            // A comment, or a field that nobody knows yet.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self, last_id: &mut String) -> Option<Found> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        let id = self.id.take();
        if let Some(id) = &id {
            last_id.clone_from(id);
        }
        if !std::mem::take(&mut self.has_data) {
            return id.map(Found::Id);
        }
        Some(Found::Event(ServerEvent {
            event: if name.is_empty() {
                "message".to_owned()
            } else {
                name
            },
            data,
            id: last_id.clone(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Vec<Found> {
        let mut parser = Parser::new(1000);
        let (mut all, mut last) = (Vec::new(), String::new());
        for piece in pieces {
            let before = all.len();
            parser.read(piece, &last, |found| all.push(found));
            for found in &all[before..] {
                if let Found::Event(ServerEvent { id, .. }) | Found::Id(id) = found {
                    last.clone_from(id);
                }
            }
        }
        all
    }

    fn event(event: &str, data: &str, id: &str) -> Found {
        Found::Event(ServerEvent {
            event: event.to_owned(),
            data: data.to_owned(),
            id: id.to_owned(),
        })
    }

    /// The examples of the standard, and its corners.
    const TEXT: &str = "\u{feff}: comment\n\ndata: YHOO\r\ndata: +2\rdata: 10\n\nevent: add\nid: 1\ndata:  two spaces\n\n\
        data\n\ndata\ndata\n\nid\ndata: no id\n\nid: 7\n\nretry: 250\nretry: soon\nevent: none\n\nid: a\0b\ndata: kept\n\n\
        unknown: x\ndata:é\n\ndata: cut off";

    fn expected() -> Vec<Found> {
        vec![
            event("message", "YHOO\n+2\n10", ""),
            event("add", " two spaces", "1"),
            event("message", "", "1"),
            event("message", "\n", "1"),
            event("message", "no id", ""),
            Found::Id("7".to_owned()),
            Found::Retry(Duration::from_millis(250)),
            event("message", "kept", "7"),
            event("message", "é", "7"),
        ]
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        assert_eq!(parse(&[TEXT.as_bytes()]), expected());
    }

    #[test]
    fn what_is_too_large_is_refused_before_it_is_kept() {
        assert_eq!(parse(&[&[b'x'; 2000]]), [Found::TooLarge]);
        let many = "data: 0123456789\n".repeat(200);
        assert_eq!(parse(&[many.as_bytes()]), [Found::TooLarge]);
    }

    proptest! {
        #[test]
        fn wherever_the_pieces_are_cut_the_events_are_the_same(cuts in prop::collection::vec(0..TEXT.len(), 0..20)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&TEXT.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&TEXT.as_bytes()[from..]);
            prop_assert_eq!(parse(&pieces), expected());
        }

        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            parse(&[&bytes]);
        }
    }
}
