//! What the commands print: tables and lines for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize;
use serde::Serialize;
use trunkline::Error;

use crate::exit::{self, ReaderGone};

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables and lines.
    #[default]
    Text,
    /// One JSON document, or one object a line where results come one by one.
    Json,
}

/// Where results and errors go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    format: Format,
    color: bool,
}

impl Output {
    pub(crate) fn new(format: Format, no_color: bool) -> Self {
        let unwanted = no_color || std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
        Self {
            format,
            color: !unwanted && io::stdout().is_terminal() && io::stderr().is_terminal(),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// One line for people. Nothing in JSON.
    pub(crate) fn line(self, text: impl AsRef<str>) -> anyhow::Result<()> {
        if self.is_json() {
            return Ok(());
        }
        print(text.as_ref())
    }

    /// Bytes as they are, ended with a line feed.
    pub(crate) fn bytes(self, bytes: &[u8]) -> anyhow::Result<()> {
        let end: &[u8] = if bytes.ends_with(b"\n") { b"" } else { b"\n" };
        write(&[bytes, end])
    }

    /// Something that went wrong and is no reason to end, on stderr; as JSON where asked.
    pub(crate) fn warn(self, text: impl AsRef<str>) {
        if self.is_json() {
            complain(&serde_json::json!({ "warning": text.as_ref() }).to_string());
        } else {
            complain(&self.bad(text.as_ref()));
        }
    }

    /// A remark on stderr that is no result. Nothing in JSON.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if !self.is_json() {
            complain(text.as_ref());
        }
    }

    /// One JSON object on a line of its own.
    pub(crate) fn json_line(self, value: &impl Serialize) -> anyhow::Result<()> {
        print(&serde_json::to_string(value)?)
    }

    /// A JSON document, whatever the format.
    pub(crate) fn json_document(self, value: &impl Serialize) -> anyhow::Result<()> {
        print(&serde_json::to_string_pretty(value)?)
    }

    /// A JSON document for programs, or what `text` makes of it for people.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.is_json() {
            self.json_document(value)
        } else {
            print(text(value).trim_end())
        }
    }

    /// An error on stderr, as JSON where asked.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let message = describe(error);
        if self.is_json() {
            complain_as_json(&message, exit::kind_of(error));
        } else if self.color {
            complain(&format!("{} {message}", "error:".red().bold()));
        } else {
            complain(&format!("error: {message}"));
        }
    }

    /// Green, where colours are wanted.
    pub(crate) fn good(self, text: &str) -> String {
        if self.color {
            text.green().to_string()
        } else {
            text.to_owned()
        }
    }

    /// Red, where colours are wanted.
    pub(crate) fn bad(self, text: &str) -> String {
        if self.color {
            text.red().to_string()
        } else {
            text.to_owned()
        }
    }

    /// Faint, where colours are wanted.
    pub(crate) fn faint(self, text: &str) -> String {
        if self.color {
            text.dimmed().to_string()
        } else {
            text.to_owned()
        }
    }
}

/// A table without frames, so that it can be cut and pasted.
pub(crate) fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// The whole chain on one line, each cause once.
fn describe(error: &anyhow::Error) -> String {
    let mut shown = String::new();
    for cause in error.chain() {
        let own = cause.downcast_ref::<Error>();
        let text = own.map_or_else(|| cause.to_string(), |own| own.report().to_string());
        if !shown.contains(&text) {
            if !shown.is_empty() {
                shown.push_str(": ");
            }
            shown.push_str(&text);
        }
        // Its report has told the rest of the chain.
        if own.is_some() {
            break;
        }
    }
    shown
}

/// An error as programs read it.
pub(crate) fn complain_as_json(message: &str, kind: &str) {
    complain(&serde_json::json!({ "error": message, "kind": kind }).to_string());
}

fn print(text: &str) -> anyhow::Result<()> {
    write(&[text.as_bytes(), b"\n"])
}

/// Writes all of it now, so that what could not be written is known before anything is done about it.
fn write(parts: &[&[u8]]) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = parts
        .iter()
        .try_for_each(|part| stdout.write_all(part))
        .and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => ReaderGone.into(),
        _ => anyhow::Error::new(error).context("cannot print the result"),
    })
}

fn complain(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}
