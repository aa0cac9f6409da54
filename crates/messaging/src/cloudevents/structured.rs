//! An event as one JSON object.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;
use trunkline_core::names::{header as common, message_header as header};
use trunkline_core::{Error, Result};

use super::{PREFIX, attribute, check_version, is_name};
use crate::codec::{AnyCodec, Undecodable};
use crate::message::Message;

const MEDIA_TYPE: &str = "application/cloudevents+json";
/// The context of a trace, which is an extension of CloudEvents as well as a header.
const TRACE: [&str; 2] = [common::TRACEPARENT, common::TRACESTATE];

/// Whether a message says that it is a structured event.
pub(crate) fn is_structured(message: &Message) -> bool {
    let content_type = message.content_type.as_deref().unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(MEDIA_TYPE)
}

/// Writes attributes and payload of a message into one object. JSON stands in it as it is where `verbatim` does not ask
/// for its very bytes; everything else as Base64.
pub(crate) fn fold(message: &mut Message, verbatim: bool) -> Result<()> {
    let mut event = serde_json::Map::new();
    for (name, value) in message.headers.iter() {
        if let (Some(name), Some(value)) = (attribute(name), value.as_str()) {
            event.insert(name.to_ascii_lowercase(), value.into());
        }
    }
    for name in TRACE {
        if let Some(value) = message.headers.get(name) {
            event.insert(name.to_owned(), value.into());
        }
    }
    if let Some(content_type) = &message.content_type {
        event.insert("datacontenttype".to_owned(), content_type.as_str().into());
    }
    let json = Some(&message.payload)
        .filter(|_| !verbatim && is_json(message.content_type.as_deref()))
        .and_then(|payload| serde_json::from_slice::<Box<RawValue>>(payload).ok());
    let attributes = serde_json::to_string(&event).map_err(unwritable)?;
    let (name, data) = match &json {
        Some(json) => ("data", json.get().to_owned()),
        None => {
            let text = STANDARD.encode(&message.payload);
            ("data_base64", format!("\"{text}\""))
        }
    };
    // An object of strings ends with its bracket and is not empty: a message has an id.
    let attributes = attributes.trim_end_matches('}');
    message.payload = Bytes::from(format!("{attributes},\"{name}\":{data}}}"));
    message.content_type = Some(format!("{MEDIA_TYPE}; charset=utf-8"));
    let names: Vec<String> = message
        .headers
        .iter()
        .filter(|(name, _)| attribute(name).is_some())
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in names {
        message.headers.remove(&name);
    }
    Ok(())
}

/// The message that a structured event stands for; `None` for any other message.
///
/// # Errors
/// `Invalid`, with [`Undecodable`] as its cause, when it says that it is one and is not.
pub(crate) fn unfold(message: &Message) -> Result<Option<Message>> {
    if !is_structured(message) {
        return Ok(None);
    }
    read(message).map(Some).map_err(|error| {
        let content_type = message.content_type.as_deref().unwrap_or_default();
        Undecodable::error::<super::CloudEvent>(content_type, error)
    })
}

fn read(message: &Message) -> Result<Message> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_slice(&message.payload)
        .map_err(|error| Error::invalid("it is no JSON object").with_source(error))?;
    let mut unfolded = message.clone();
    unfolded.payload = Bytes::new();
    unfolded.content_type = None;
    let (mut data, mut base64) = (None, None);
    for (name, raw) in members {
        match name.as_str() {
            "data" => data = Some(raw),
            "data_base64" => base64 = Some(raw),
            name => {
                let Some(value) = text(name, raw)? else {
                    continue;
                };
                if name == "datacontenttype" {
                    unfolded.content_type = Some(value);
                    continue;
                }
                if TRACE.contains(&name) {
                    unfolded.headers.insert_if_absent(name, value);
                    continue;
                }
                unfolded.headers.insert(format!("{PREFIX}{name}"), value);
            }
        }
    }
    for needed in [
        header::CE_SPECVERSION,
        header::CE_ID,
        header::CE_SOURCE,
        header::CE_TYPE,
    ] {
        if unfolded.headers.get(needed).is_none_or(str::is_empty) {
            let name = needed.trim_start_matches(PREFIX);
            return Err(Error::invalid(format!(
                "the event has no attribute `{name}`"
            )));
        }
    }
    check_version(
        unfolded
            .headers
            .get(header::CE_SPECVERSION)
            .unwrap_or_default(),
    )?;
    unfolded.payload = match (data, base64) {
        (Some(_), Some(_)) => {
            return Err(Error::invalid("it has both `data` and `data_base64`"));
        }
        (None, None) => Bytes::new(),
        (None, Some(raw)) => decoded(raw)?,
        (Some(raw), None) => plain(raw, unfolded.content_type.as_deref())?,
    };
    if unfolded.content_type.is_none() && data.is_some() {
        unfolded.content_type = Some("application/json".to_owned());
    }
    identify(&mut unfolded);
    Ok(unfolded)
}

/// An id is unique among the events of one source only: of an event that somebody else wrote, both are the identity.
fn identify(message: &mut Message) {
    let attribute = |name| message.headers.get(name).unwrap_or_default();
    let (id, source) = (attribute(header::CE_ID), attribute(header::CE_SOURCE));
    if id != message.id {
        message.id = format!("{source}/{id}");
    }
}

/// The value of an attribute in its canonical text; none for `null`.
fn text(name: &str, raw: &RawValue) -> Result<Option<String>> {
    // Some producers write underscores, which the specification does not allow and which do no harm.
    if !is_name(&name.replace('_', "")) {
        return Err(Error::invalid(format!(
            "`{}` is no name of an attribute",
            name.escape_debug()
        )));
    }
    match serde_json::from_str(raw.get()) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::String(text)) => Ok(Some(text)),
        Ok(Value::Bool(value)) => Ok(Some(value.to_string())),
        Ok(Value::Number(number)) if !number.is_f64() => Ok(Some(number.to_string())),
        _ => Err(Error::invalid(format!(
            "the attribute `{name}` is neither text, nor a whole number, nor true or false"
        ))),
    }
}

fn decoded(raw: &RawValue) -> Result<Bytes> {
    let text: String = serde_json::from_str(raw.get())
        .map_err(|error| Error::invalid("`data_base64` is no text").with_source(error))?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|error| Error::invalid("`data_base64` is no Base64").with_source(error))?;
    Ok(bytes.into())
}

/// Data that stands in the object: JSON as it is written there, other text as what it says.
fn plain(raw: &RawValue, content_type: Option<&str>) -> Result<Bytes> {
    if content_type.is_none() || is_json(content_type) {
        return Ok(Bytes::copy_from_slice(raw.get().as_bytes()));
    }
    let text: String = serde_json::from_str(raw.get()).map_err(|error| {
        let content_type = content_type.unwrap_or_default();
        Error::invalid(format!(
            "`data` of the media type {content_type} is no text"
        ))
        .with_source(error)
    })?;
    Ok(text.into())
}

fn is_json(content_type: Option<&str>) -> bool {
    content_type.is_some() && matches!(AnyCodec::of(content_type), Ok(AnyCodec::Json))
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::invalid("the event cannot be written as JSON").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Message {
        Message::recorded("of-the-broker", text.to_owned())
            .with_content_type("Application/CloudEvents+JSON; charset=UTF-8")
    }

    #[test]
    fn an_event_of_the_specification_is_read() {
        let message = event(
            r#"{"specversion":"1.0","type":"com.example.someevent","source":"/mycontext","subject":null,"id":"C234-1234-1234",
            "time":"2018-04-05T17:31:00Z","comexampleextension1":"value","comexampleothervalue":5,"flag":true,
            "datacontenttype":"application/vnd.apache.thrift.binary","data_base64":"AAEC/w=="}"#,
        );
        let read = unfold(&message).unwrap().unwrap();
        assert_eq!(read.payload, Bytes::from_static(&[0, 1, 2, 255]));
        assert_eq!(read.id, "/mycontext/C234-1234-1234");
        let event = super::super::CloudEvent::read(&message).unwrap();
        assert_eq!(event.event_type, "com.example.someevent");
        assert_eq!((event.subject, event.id.as_str()), (None, "C234-1234-1234"));
        assert_eq!(event.extensions["comexampleothervalue"], "5");
        assert_eq!(event.extensions["flag"], "true");
        assert_eq!(
            event.data_content_type.as_deref(),
            Some("application/vnd.apache.thrift.binary")
        );
    }

    #[test]
    fn data_is_json_unless_it_says_otherwise() {
        let with = |rest: &str| {
            let text = format!(r#"{{"specversion":"1.0","type":"t","source":"s","id":"1"{rest}}}"#);
            unfold(&event(&text)).unwrap().unwrap()
        };
        let json = with(r#","data":{"a" : 1}"#);
        assert_eq!(&json.payload[..], br#"{"a" : 1}"#);
        assert_eq!(json.content_type.as_deref(), Some("application/json"));
        let text = with(r#","datacontenttype":"text/xml","data":"<a\/>""#);
        assert_eq!(&text.payload[..], b"<a/>");
        let said = with(r#","datacontenttype":"text/json","data":"a""#);
        assert_eq!(&said.payload[..], br#""a""#);
        assert_eq!(with("").payload.len(), 0);
    }

    #[test]
    fn what_is_no_event_says_what_is_wrong() {
        for (text, what) in [
            ("[]", "no JSON object"),
            ("{", "no JSON object"),
            (r#"{"specversion":"1.0"}"#, "no attribute `id`"),
            (
                r#"{"specversion":"0.3","type":"t","source":"s","id":"1"}"#,
                "another version",
            ),
            (
                r#"{"specversion":"1.0","type":"t","source":"s","id":"1","data":1,"data_base64":"AA=="}"#,
                "both",
            ),
            (
                r#"{"specversion":"1.0","type":"t","source":"s","id":"1","data_base64":"?"}"#,
                "no Base64",
            ),
            (
                r#"{"specversion":"1.0","type":"t","source":"s","id":"1","a\r\nb":"x"}"#,
                "no name",
            ),
            (
                r#"{"specversion":"1.0","type":"t","source":"s","id":"1","ext":{}}"#,
                "neither text",
            ),
        ] {
            let error = unfold(&event(text)).unwrap_err();
            assert!(error.find::<Undecodable>().is_some());
            let report = error.report().to_string();
            assert!(report.contains(what), "{report}");
        }
    }

    #[test]
    fn what_is_folded_is_unfolded() {
        for (content_type, payload, verbatim) in [
            ("application/json", &br#"{ "b": 1, "a": 2 }"#[..], false),
            ("application/json", br#"{ "b": 1, "a": 2 }"#, true),
            ("application/json", b"not json", false),
            ("application/msgpack", &[0x81, 0xff], false),
        ] {
            let mut message = Message::new(payload.to_vec()).with_content_type(content_type);
            message.headers.insert("tenant", "a");
            message.headers.insert(common::TRACEPARENT, "00-1-2-03");
            super::super::complete(&mut message, "shop", "order".into(), "2020".into());
            let mut folded = message.clone();
            fold(&mut folded, verbatim).unwrap();
            assert!(folded.headers.get(header::CE_ID).is_none());
            let value: Value = serde_json::from_slice(&folded.payload).unwrap();
            assert_eq!(value["traceparent"], "00-1-2-03");
            let back = unfold(&folded).unwrap().unwrap();
            assert_eq!((&back.payload, &back.id), (&message.payload, &message.id));
            assert_eq!(back.content_type, message.content_type);
            for (name, value) in message.headers.iter() {
                assert_eq!(back.headers.value(name), Some(value), "{name}");
            }
        }
    }
}
