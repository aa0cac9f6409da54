//! CloudEvents 1.0: what a message says about itself in words that other systems know.
//!
//! In binary mode the attributes are headers and the payload is the data; every message of ours is such an event. In
//! structured mode the payload is one JSON object with attributes and data. Both are read, whatever is written. Inside of
//! Trunkline attributes are the headers `ce-…`; a backend whose protocol has a binding of its own translates them (`ce_…` on
//! Kafka, `cloudEvents:…` on AMQP), and only it.

mod structured;

use std::collections::BTreeMap;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, Metadata, MetadataValue, Result};

use crate::message::Message;
use crate::router::{Extract, Incoming, ViaPart};
pub(crate) use structured::{fold, is_structured, unfold};

/// What attributes begin with among the headers of a message.
const PREFIX: &str = "ce-";

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CloudEventsMode {
    /// Attributes are headers, the payload is the data.
    #[default]
    Binary,
    /// Attributes and data are one JSON object, `application/cloudevents+json`, for readers that see no headers.
    Structured,
}

/// The attributes of a message, as an argument of a handler. Attributes that only some producers set are in
/// `extensions`.
///
/// ```
/// use trunkline_messaging::cloudevents::CloudEvent;
/// use trunkline_messaging::HandlerError;
///
/// async fn audit(order: serde_json::Value, event: CloudEvent) -> Result<(), HandlerError> {
///     println!("{} of {}: {order}", event.event_type, event.source);
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloudEvent {
    /// Unique among the events of its source.
    pub id: String,
    /// Who sent it.
    pub source: String,
    /// What happened.
    pub event_type: String,
    /// To whom it happened.
    pub subject: Option<String>,
    /// When it happened, RFC 3339.
    pub time: Option<String>,
    /// The media type of the data.
    pub data_content_type: Option<String>,
    /// What the data adheres to, a URI.
    pub data_schema: Option<String>,
    /// All other attributes, by name.
    pub extensions: BTreeMap<String, String>,
    /// The data.
    pub data: Bytes,
}

impl CloudEvent {
    /// Reads a message of either mode.
    ///
    /// # Errors
    /// `Invalid` when it is no event of version 1.0: an attribute that is required is missing, or what says that it is
    /// structured cannot be read.
    pub fn read(message: &Message) -> Result<Self> {
        let unfolded = unfold(message)?;
        let message = unfolded.as_ref().unwrap_or(message);
        let mut attributes: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in message.headers.iter() {
            if let (Some(name), Some(value)) = (attribute(name), value.as_str()) {
                attributes.insert(name.to_ascii_lowercase(), value.to_owned());
            }
        }
        let version = required(&mut attributes, "specversion")?;
        check_version(&version)?;
        Ok(Self {
            id: required(&mut attributes, "id")?,
            source: required(&mut attributes, "source")?,
            event_type: required(&mut attributes, "type")?,
            subject: attributes.remove("subject"),
            time: attributes.remove("time"),
            data_schema: attributes.remove("dataschema"),
            data_content_type: message.content_type.clone(),
            extensions: attributes,
            data: message.payload.clone(),
        })
    }
}

impl<P> Extract<P, ViaPart> for CloudEvent {
    fn extract(incoming: &Incoming) -> Result<Self> {
        Self::read(incoming.message())
    }
}

/// The id of a message that has none but that of the event in its headers: `<source>/<id>`, as an id is unique within its
/// source only; for backends.
#[must_use]
pub fn message_id(headers: &Metadata) -> Option<String> {
    let id = headers.get(header::CE_ID)?;
    Some(match headers.get(header::CE_SOURCE) {
        Some(source) => format!("{source}/{id}"),
        None => id.to_owned(),
    })
}

/// The header of an attribute.
///
/// # Errors
/// `Invalid` when the name is none that an attribute may have.
pub(crate) fn header_of(name: &str) -> Result<String> {
    if !is_name(name) || matches!(name, "data" | "datacontenttype" | "specversion") {
        return Err(Error::invalid(format!(
            "`{name}` is no attribute that can be set: names are of lower-case letters and digits; the media type is that of \
             the payload"
        )));
    }
    Ok(format!("{PREFIX}{name}"))
}

/// The name of the attribute that a header carries.
fn attribute(header: &str) -> Option<&str> {
    let start = header.get(..PREFIX.len())?;
    let name = header.get(PREFIX.len()..)?;
    start.eq_ignore_ascii_case(PREFIX).then_some(name)
}

fn is_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.bytes().all(is_part)
}

fn required(attributes: &mut BTreeMap<String, String>, name: &str) -> Result<String> {
    let value = attributes.remove(name).filter(|value| !value.is_empty());
    value.ok_or_else(|| Error::invalid(format!("the event has no attribute `{name}`")))
}

fn check_version(version: &str) -> Result<()> {
    if version == "1.0" {
        return Ok(());
    }
    Err(
        Error::invalid("the event is of another version of CloudEvents than 1.0")
            .with_context("specversion", version),
    )
}

/// Adds the attributes that are required, as far as they are missing.
pub(crate) fn complete(message: &mut Message, source: &str, topic: String, time: String) {
    let id = MetadataValue::from(message.id.as_str());
    let headers = &mut message.headers;
    headers.insert_if_absent(header::CE_SPECVERSION, "1.0");
    headers.insert_if_absent(header::CE_ID, id);
    headers.insert_if_absent(header::CE_SOURCE, source);
    headers.insert_if_absent(header::CE_TYPE, topic);
    headers.insert_if_absent(header::CE_TIME, time);
}
