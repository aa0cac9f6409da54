//! A JSON Schema that is ready to check payloads.

use std::fmt;
use std::sync::Arc;

use jsonschema::Validator;
use schemars::JsonSchema;
use serde_json::Value;
use trunkline_core::{Error, Result};

use super::PayloadCheck;
use crate::codec::{AnyCodec, Codec};
use crate::message::Message;
use crate::router::{Handled, HandlerError, Incoming, Middleware, Next};

/// The most places of a payload that are told of.
const MOST_TOLD: usize = 20;

/// A JSON Schema that payloads keep, whether they are written as JSON or as MessagePack.
///
/// As middleware of a handler ([`Subscribing::schema`](crate::Subscribing::schema)) it makes dead letters, at once, of what breaks
/// it; for topics that a service publishes to ([`MessagingBuilder::schema`](crate::MessagingBuilder::schema)) it refuses to send
/// such payloads. References lead to places of the document itself; no other one is fetched.
///
/// ```
/// use serde_json::json;
/// use trunkline_messaging::schema::PayloadSchema;
///
/// let schema = PayloadSchema::new(&json!({
///     "type": "object",
///     "required": ["id"],
///     "properties": { "id": { "type": "integer", "minimum": 1 } },
/// }))?;
/// assert!(schema.check(&json!({ "id": 7 })).is_ok());
/// let error = schema.check(&json!({ "id": 0 })).unwrap_err();
/// assert!(error.report().to_string().contains("/id"));
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone)]
pub struct PayloadSchema(Arc<Validator>);

/// Where a payload breaks its schema: a cause of errors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaViolation {
    /// Each place, as a JSON pointer (`/items/1/quantity`, empty for the whole payload), and what is wrong there; the first
    /// twenty.
    pub places: Vec<(String, String)>,
}

impl fmt::Display for SchemaViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (place, what)) in self.places.iter().enumerate() {
            let place = if place.is_empty() {
                "the payload"
            } else {
                place
            };
            let between = if n == 0 { "" } else { "; " };
            write!(f, "{between}{place}: {what}")?;
        }
        Ok(())
    }
}

impl std::error::Error for SchemaViolation {}

impl fmt::Debug for PayloadSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PayloadSchema")
    }
}

impl PayloadSchema {
    /// Of a document, by the draft that its `$schema` names; else the newest.
    ///
    /// # Errors
    /// `Config` when it is no JSON Schema, or refers to a document that is not in it.
    pub fn new(document: &Value) -> Result<Self> {
        let validator = jsonschema::validator_for(document);
        let validator = validator.map_err(|error| {
            let place = match error.instance_path().to_string() {
                place if place.is_empty() => place,
                place => format!(" at {place}"),
            };
            let what: String = error.to_string().chars().take(400).collect();
            Error::config(format!("the JSON Schema cannot be used{place}: {what}"))
        })?;
        Ok(Self(Arc::new(validator)))
    }

    /// Of a type, as `schemars` derives it.
    ///
    /// # Errors
    /// `Config` when the type's own schema cannot be used.
    pub fn of<T: JsonSchema>() -> Result<Self> {
        let schema = schemars::schema_for!(T);
        Self::new(schema.as_value())
    }

    /// Checks a value.
    ///
    /// # Errors
    /// `Invalid`, with [`SchemaViolation`] as its cause.
    pub fn check(&self, value: &Value) -> Result<()> {
        // Most are sound: to say so costs less than to look for what is wrong.
        if self.0.is_valid(value) {
            return Ok(());
        }
        let errors = self.0.iter_errors(value).take(MOST_TOLD);
        let places = errors.map(|error| {
            // What is wrong names the value, which may be large.
            let what: String = error.to_string().chars().take(200).collect();
            (error.instance_path().to_string(), what)
        });
        let places = places.collect();
        Err(Error::invalid("the payload breaks its JSON Schema")
            .with_source(SchemaViolation { places }))
    }
}

impl PayloadCheck for PayloadSchema {
    fn check(&self, message: &Message) -> Result<()> {
        let codec = AnyCodec::of(message.content_type.as_deref())?;
        Self::check(self, &codec.decode(&message.payload)?)
    }
}

impl Middleware for PayloadSchema {
    async fn handle(&self, incoming: Incoming, next: Next<'_>) -> Result<Handled, HandlerError> {
        PayloadCheck::check(self, incoming.message())
            .map_err(|error| HandlerError::Undecodable { error })?;
        next.run(incoming).await
    }
}

pub(super) fn compile(document: &Value) -> Result<Arc<dyn PayloadCheck>> {
    Ok(Arc::new(PayloadSchema::new(document)?))
}
