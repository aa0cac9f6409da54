//! Lines for people.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;
use trunkline_core::SharedClock;

use super::LogOutput;
use super::visit::{Fields, Ids, Value};

/// Characters of a correlation id that are enough to tell requests apart by eye: the end is what differs.
const ID_SHOWN: usize = 8;

/// Where the time of day stands in `2025-01-09T10:30:00.123Z`.
const TIME: std::ops::Range<usize> = 11..23;

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// `10:30:00.123  INFO target message name=value … [correlation id]`.
#[derive(Debug)]
pub(super) struct Pretty {
    color: bool,
    clock: SharedClock,
}

impl Pretty {
    pub(super) fn new(output: &LogOutput) -> Self {
        Self {
            color: output.color,
            clock: output.clock.clone(),
        }
    }

    fn paint(&self, code: &'static str) -> &'static str {
        if self.color { code } else { "" }
    }
}

impl<S> FormatEvent<S, PrettyFields> for Pretty
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, PrettyFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = String::new();
        let mut fields = String::new();
        let mut ids = Ids::default();
        event.record(&mut Fields(|name: &str, value: Value<'_>| match value {
            Value::Text(text) if name == "message" => message = one_line(text),
            value if ids.take(name, value) => {}
            value => pair(&mut fields, name, value),
        }));
        ids.complete();

        let metadata = event.metadata();
        let (dim, reset) = (self.paint(DIM), self.paint(RESET));
        let level = self.paint(color(*metadata.level()));
        let timestamp = format!("{:.3}", self.clock.now());
        let time = timestamp.get(TIME).unwrap_or(&timestamp);
        let time = time.trim_end_matches('Z');
        write!(
            writer,
            "{dim}{time:<12}{reset} {level}{:>5}{reset} ",
            metadata.level().as_str()
        )?;
        write!(writer, "{dim}{}{reset} {message}", metadata.target())?;
        if !fields.is_empty() {
            write!(writer, "{fields}")?;
        }
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                let extensions = span.extensions();
                let own = extensions.get::<FormattedFields<PrettyFields>>();
                let own = own.map_or("", |own| own.fields.as_str());
                write!(
                    writer,
                    "{dim} {}{{{}}}{reset}",
                    span.name(),
                    own.trim_start()
                )?;
            }
        }
        if let Some(id) = &ids.correlation_id {
            let start = id.len().saturating_sub(ID_SHOWN);
            let end = id.get(start..).unwrap_or(id);
            write!(writer, "{dim} [{end}]{reset}")?;
        }
        writeln!(writer)
    }
}

const fn color(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// The fields of a span as ` name=value`.
#[derive(Debug)]
pub(super) struct PrettyFields;

impl<'writer> FormatFields<'writer> for PrettyFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut text = String::new();
        let mut visitor = Fields(|name: &str, value: Value<'_>| pair(&mut text, name, value));
        fields.record(&mut visitor);
        writer.write_str(&text)
    }
}

fn pair(out: &mut String, name: &str, value: Value<'_>) {
    for part in [" ", name, "=", &one_line(&value.to_string())] {
        out.push_str(part);
    }
}

/// Control characters escaped, so that a value can neither break the line nor speak to the terminal.
fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
