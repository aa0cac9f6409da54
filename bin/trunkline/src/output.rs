//! What the commands print: tables and lines for people, JSON for programs.

use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use owo_colors::OwoColorize;
use serde::Serialize;
use trunkline::Error;

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
            color: !unwanted && io::stdout().is_terminal(),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// One line for people. Nothing in JSON.
    pub(crate) fn line(self, text: impl AsRef<str>) {
        if !self.is_json() {
            print(text.as_ref());
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
        print(&serde_json::to_string(value)?);
        Ok(())
    }

    /// A JSON document, whatever the format.
    pub(crate) fn json_document(self, value: &impl Serialize) -> anyhow::Result<()> {
        print(&serde_json::to_string_pretty(value)?);
        Ok(())
    }

    /// A JSON document for programs, or what `text` makes of it for people.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.is_json() {
            self.json_document(value)?;
        } else {
            print(text(value).trim_end());
        }
        Ok(())
    }

    /// An error on stderr, as JSON where asked.
    pub(crate) fn error(self, error: &anyhow::Error) {
        let own = error
            .chain()
            .find_map(|cause| cause.downcast_ref::<Error>());
        let message = describe(error);
        if self.is_json() {
            let body = serde_json::json!({
                "error": message,
                "kind": own.map_or("failed", |own| own.kind().as_str()),
            });
            complain(&body.to_string());
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
        let text = match cause.downcast_ref::<Error>() {
            Some(own) => own.report().to_string(),
            None => cause.to_string(),
        };
        if shown.contains(&text) {
            continue;
        }
        if !shown.is_empty() {
            shown.push_str(": ");
        }
        shown.push_str(&text);
    }
    shown
}

/// A reader that went away (`| head`) is no error of ours.
fn print(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

fn complain(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}
