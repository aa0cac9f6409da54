//! What the lines of both formats show besides their own fields.

use std::error::Error;
use std::fmt;

use tracing::field::{Field, Visit};
use trunkline_core::Context;

use super::redact::{MASK, is_secret, mask_urls};

/// One value of a field, as a format writes it.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Text(&'a str),
    Bool(bool),
    Signed(i128),
    Unsigned(u128),
    Float(f64),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
        }
    }
}

/// Hands every field, masked where needed, to a format.
pub(super) struct Fields<F>(pub(super) F);

impl<F: FnMut(&str, Value<'_>)> Fields<F> {
    fn give(&mut self, field: &Field, value: Value<'_>) {
        // Raw identifiers and the bridge from `log` show in names.
        let name = field.name().trim_start_matches("r#");
        if is_secret(name) {
            return (self.0)(name, Value::Text(MASK));
        }
        match value {
            Value::Text(text) => (self.0)(name, Value::Text(&mask_urls(text))),
            other => (self.0)(name, other),
        }
    }
}

impl<F: FnMut(&str, Value<'_>)> Visit for Fields<F> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.give(field, Value::Text(&format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.give(field, Value::Text(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let mut text = value.to_string();
        let mut next = value.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            // Many errors repeat their cause in their own text.
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        self.give(field, Value::Text(&text));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.give(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.give(field, Value::Signed(value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.give(field, Value::Unsigned(value.into()));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.give(field, Value::Signed(value));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.give(field, Value::Unsigned(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.give(field, Value::Float(value));
    }
}

/// The ids that tie a line to its request: those that the event names itself win over those of the running scope.
#[derive(Default)]
pub(super) struct Ids {
    pub(super) correlation_id: Option<String>,
    pub(super) trace_id: Option<String>,
    pub(super) span_id: Option<String>,
}

impl Ids {
    /// Takes a field if it is one of the ids.
    pub(super) fn take(&mut self, name: &str, value: Value<'_>) -> bool {
        let Value::Text(text) = value else {
            return false;
        };
        let slot = match name {
            "correlation_id" => &mut self.correlation_id,
            "trace_id" => &mut self.trace_id,
            "span_id" => &mut self.span_id,
            _ => return false,
        };
        *slot = Some(text.to_owned());
        true
    }

    /// Fills what is missing from the scope that runs, unless the event belongs to another trace.
    pub(super) fn complete(&mut self) {
        let Some(context) = Context::current() else {
            return;
        };
        if self.correlation_id.is_none() {
            self.correlation_id = Some(context.correlation_id().to_string());
        }
        if self.trace_id.is_none() {
            self.trace_id = Some(context.trace().trace_id().to_string());
            self.span_id = Some(context.trace().span_id().to_string());
        }
    }
}
