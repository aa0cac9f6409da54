//! One JSON object a line.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;
use trunkline_core::SharedClock;

use super::LogOutput;
use super::visit::{Fields, Ids, Value};

/// `timestamp`, `level`, `target`, `message`, `service`, the ids, `fields`, and `spans` from the outermost on.
#[derive(Debug)]
pub(super) struct Json {
    service: Arc<str>,
    clock: SharedClock,
}

impl Json {
    pub(super) fn new(output: &LogOutput) -> Self {
        Self {
            service: Arc::clone(&output.service),
            clock: Arc::clone(&output.clock),
        }
    }
}

impl<S> FormatEvent<S, JsonFields> for Json
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = String::new();
        let mut fields = String::new();
        let mut ids = Ids::default();
        event.record(&mut Fields(|name: &str, value: Value<'_>| match value {
            Value::Text(text) if name == "message" => message = text.to_owned(),
            value if ids.take(name, value) => {}
            value => pair(&mut fields, name, value),
        }));
        ids.complete();

        let metadata = event.metadata();
        let mut line = String::with_capacity(256);
        let timestamp = self.clock.now().to_string();
        pair(&mut line, "timestamp", Value::Text(&timestamp));
        pair(&mut line, "level", Value::Text(metadata.level().as_str()));
        pair(&mut line, "target", Value::Text(metadata.target()));
        pair(&mut line, "message", Value::Text(&message));
        pair(&mut line, "service", Value::Text(&self.service));
        for (name, id) in [
            ("correlation_id", &ids.correlation_id),
            ("trace_id", &ids.trace_id),
            ("span_id", &ids.span_id),
        ] {
            if let Some(id) = id {
                pair(&mut line, name, Value::Text(id));
            }
        }
        if !fields.is_empty() {
            write!(line, ",\"fields\":{{{fields}}}")?;
        }
        if let Some(scope) = context.event_scope() {
            let mut spans = String::new();
            for span in scope.from_root() {
                if !spans.is_empty() {
                    spans.push(',');
                }
                let mut object = String::new();
                pair(&mut object, "name", Value::Text(span.name()));
                if let Some(own) = span.extensions().get::<FormattedFields<JsonFields>>()
                    && !own.is_empty()
                {
                    object.push(',');
                    object.push_str(own);
                }
                write!(spans, "{{{object}}}")?;
            }
            write!(line, ",\"spans\":[{spans}]")?;
        }
        writeln!(writer, "{{{line}}}")
    }
}

/// The fields of a span, as the inside of a JSON object.
#[derive(Debug)]
pub(super) struct JsonFields;

impl<'writer> FormatFields<'writer> for JsonFields {
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

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        let had_some = !current.is_empty();
        if had_some {
            current.fields.push(',');
        }
        self.format_fields(current.as_writer(), fields)
    }
}

/// Adds `"name":value`, after a comma unless it is the first.
fn pair(out: &mut String, name: &str, value: Value<'_>) {
    if !out.is_empty() {
        out.push(',');
    }
    quoted(out, name);
    out.push(':');
    match value {
        Value::Text(text) => quoted(out, text),
        // JSON has no such number.
        Value::Float(value) if !value.is_finite() => out.push_str("null"),
        other => out.push_str(&other.to_string()),
    }
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(text.get(plain..at).unwrap_or_default());
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            other => out.push_str(&format!("\\u{other:04x}")),
        }
    }
    out.push_str(text.get(plain..).unwrap_or_default());
    out.push('"');
}
