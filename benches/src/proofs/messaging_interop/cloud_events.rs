//! CloudEvents, written and read by the package of their project.

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use trunkline::core::Timestamp;
use trunkline::messaging::cloudevents::{CloudEvent, CloudEventsMode};
use trunkline::messaging::{Message, Messaging, Topic};

use super::wire::Told;
use super::{Meeting, Outcome, Row};

/// Text that has to be encoded in some places.
const SUBJECT: &str = "Grüße, 100 % \"neu\"";

const MODES: [(CloudEventsMode, &str); 2] = [
    (CloudEventsMode::Binary, "binary"),
    (CloudEventsMode::Structured, "structured"),
];

/// An event as `cloud_events.py` has it.
#[derive(Debug, Serialize, Deserialize)]
struct Event {
    attributes: Map<String, Value>,
    data: Value,
}

/// Events in each binding that the client knows, in each mode, both ways.
pub(super) fn exchange(meeting: &Meeting<'_>) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (at, binding) in meeting.client.bindings.iter().enumerate() {
        for (mode, name) in MODES {
            // Ours look one way only.
            let theirs = match at {
                0 => Outcome::of(meeting.insist(|| read_by_them(meeting, binding, mode))?),
                _ => Outcome::Lacking("written as the first binding says"),
            };
            rows.push(Row {
                what: format!("CloudEvent, {name}, binding `{binding}`"),
                theirs,
                ours: Outcome::of(read_by_us(meeting, binding, name)?),
            });
        }
    }
    Ok(rows)
}

fn data() -> Value {
    json!({ "order": 7, "note": "Grüße 世界 🚀" })
}

/// Publishes as a service does and has the package read it.
fn read_by_them(
    meeting: &Meeting<'_>,
    binding: &str,
    mode: CloudEventsMode,
) -> Result<Option<String>> {
    let (client, topic) = (meeting.client, meeting.topic()?);
    let place = client.place(topic.as_str());
    let reader = meeting
        .foreign
        .read(client.script, &meeting.url, &place, 1)?;
    let messaging = Messaging::builder(meeting.broker.clone())
        .service("orders")
        .build();
    let name: &'static str = topic.to_string().leak();
    let receipt = meeting.runtime.block_on(
        messaging
            .to(Topic::<Value>::new(name))
            .attribute("subject", SUBJECT)
            .attribute("tenant", "acme")
            .cloudevents(mode)
            .send(&data()),
    )?;
    let told = reader.finish()?;
    let events: Vec<Event> = meeting.foreign.events(&["read", binding], &told)?;
    let event = events.into_iter().next().context("no event came")?;
    let wanted = [
        ("specversion", "1.0"),
        ("id", receipt.id.as_str()),
        ("source", "orders"),
        ("type", name),
        ("subject", SUBJECT),
        ("tenant", "acme"),
        ("datacontenttype", "application/json"),
    ];
    for (attribute, wanted) in wanted {
        let seen = event.attributes.get(attribute).and_then(Value::as_str);
        if seen != Some(wanted) {
            return Ok(Some(format!("{attribute} {seen:?}, not {wanted:?}")));
        }
    }
    let time = event.attributes.get("time").and_then(Value::as_str);
    if time.is_none_or(|time| time.parse::<Timestamp>().is_err()) {
        return Ok(Some(format!("time {time:?}")));
    }
    let differs = event.data != data();
    Ok(differs.then(|| format!("data {}, not {}", event.data, data())))
}

/// Has the package write an event and reads it.
fn read_by_us(meeting: &Meeting<'_>, binding: &str, mode: &str) -> Result<Option<String>> {
    let (client, topic) = (meeting.client, meeting.topic()?);
    let attributes = json!({
        "specversion": "1.0", "id": "event-7", "source": "/billing/eu", "type": "invoice.paid",
        "subject": SUBJECT, "time": "2025-06-01T10:20:30.5Z", "datacontenttype": "application/json",
        "tenant": "acme",
    });
    let attributes = attributes.as_object().cloned().unwrap_or_default();
    let given = Event {
        attributes,
        data: data(),
    };
    let written: Vec<Told> = meeting
        .foreign
        .events(&["write", binding, mode], &[&given])?;
    ensure!(written.len() == 1, "one event is one message");
    let mut subscription = meeting.listen(&topic)?;
    let place = client.place(topic.as_str());
    meeting
        .foreign
        .write(client.script, &meeting.url, &place, &written)?;
    let messages = meeting.take(&mut subscription, 1)?;
    let message = messages.first().context("no message came")?;
    if mode == "binary" && message.id != "/billing/eu/event-7" {
        return Ok(Some(format!("the message's id is {}", message.id)));
    }
    Ok(differs(&given, message))
}

fn differs(given: &Event, message: &Message) -> Option<String> {
    let event = match CloudEvent::read(message) {
        Ok(event) => event,
        Err(error) => return Some(error.report().to_string()),
    };
    let moment = |text: Option<&str>| text.and_then(|text| text.parse::<Timestamp>().ok());
    for (attribute, wanted) in &given.attributes {
        let wanted = wanted.as_str();
        let seen = match attribute.as_str() {
            "specversion" => continue,
            "id" => Some(event.id.as_str()),
            "source" => Some(event.source.as_str()),
            "type" => Some(event.event_type.as_str()),
            "subject" => event.subject.as_deref(),
            "time" => event.time.as_deref(),
            "datacontenttype" => event.data_content_type.as_deref(),
            other => event.extensions.get(other).map(String::as_str),
        };
        let equal = match attribute.as_str() {
            "time" => moment(seen) == moment(wanted),
            _ => seen == wanted,
        };
        if !equal {
            return Some(format!("{attribute} {seen:?}, not {wanted:?}"));
        }
    }
    let data: Option<Value> = serde_json::from_slice(&event.data).ok();
    (data.as_ref() != Some(&given.data)).then(|| format!("data {:?}", event.data))
}
