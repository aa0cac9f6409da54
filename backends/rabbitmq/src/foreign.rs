//! What clients that are not ours say in the properties of AMQP, and what ours say there to them.
//!
//! Ours say the same in headers, which is what is read where both are there. Answers go to a queue by its name, as AMQP has
//! it: the reply queue of a requester of ours is called like the topic that it listens to, and the address of somebody
//! else's is given on as the name of a queue that [`crate::names`] takes apart again.

use lapin::protocol::basic::AMQPProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use trunkline_core::Metadata;
use trunkline_core::names::{header as common, message_header as header};
use trunkline_messaging::Message;

use crate::names;
use crate::wire::is_own;

/// The header that stands for the property of that name.
const TYPE: &str = "type";
/// Correlation ids are no longer.
const LONGEST_CORRELATION: usize = 128;

/// Says in properties what headers say, as far as AMQP has a word for it.
pub(crate) fn write(mut properties: AMQPProperties, message: &Message) -> AMQPProperties {
    let headers = &message.headers;
    let get = |name: &str| headers.get(name).and_then(short);
    if let Some(encoding) = get(header::CONTENT_ENCODING) {
        properties = properties.with_content_encoding(encoding);
    }
    if let Some(kind) = get(TYPE).or_else(|| get(header::CE_TYPE)) {
        properties = properties.with_type(kind);
    }
    if let Some(service) = get(header::SERVICE) {
        properties = properties.with_app_id(service);
    }
    let correlation = match headers.get(header::REPLY_TO) {
        Some(address) => {
            let (queue, theirs) = match address.strip_prefix("queue ") {
                Some(queue) => names::reply_address(queue)
                    .map_or_else(|| (queue.to_owned(), None), |(queue, word)| (queue, word)),
                None => (address.to_owned(), Some(message.id.clone())),
            };
            if let Some(queue) = short(&queue) {
                properties = properties.with_reply_to(queue);
            }
            theirs
        }
        None => {
            let said = headers.get(header::IN_REPLY_TO);
            said.or_else(|| headers.get(common::CORRELATION_ID))
                .map(str::to_owned)
        }
    };
    if let Some(correlation) = correlation.as_deref().and_then(short) {
        properties = properties.with_correlation_id(correlation);
    }
    properties
}

/// Says in headers what properties say and no header does.
pub(crate) fn read(properties: &AMQPProperties, headers: &mut Metadata) {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let add = |headers: &mut Metadata, name: &str, value: Option<String>| {
        if let Some(value) = value
            && !headers.contains(name)
        {
            headers.append(name, value);
        }
    };
    add(
        headers,
        header::CONTENT_ENCODING,
        text(properties.content_encoding()),
    );
    if !headers.contains(header::CE_TYPE) {
        add(headers, TYPE, text(properties.kind()));
    }
    add(headers, header::SERVICE, text(properties.app_id()));
    let correlation = text(properties.correlation_id());
    match text(properties.reply_to()) {
        Some(_) if headers.contains(header::REPLY_TO) => return,
        Some(address) => {
            let name = names::reply_name(&address, correlation.as_deref());
            match name {
                Some(name) => headers.append(header::REPLY_TO, format!("queue {name}")),
                None => {
                    tracing::warn!(target: "trunkline", address, "an address for answers is too long");
                }
            }
        }
        // Ours correlate by headers.
        None if headers.contains(common::CORRELATION_ID) => return,
        None => add(headers, header::IN_REPLY_TO, correlation.clone()),
    }
    let fits = |id: &String| {
        (1..=LONGEST_CORRELATION).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic())
    };
    add(headers, common::CORRELATION_ID, correlation.filter(fits));
}

/// An id for a message whose sender gave it none: of all that stays the same when it comes again. Equal messages have the
/// same.
pub(crate) fn id(exchange: &str, key: &str, properties: &AMQPProperties, payload: &[u8]) -> String {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    let said = [
        text(properties.content_type()),
        text(properties.content_encoding()),
        text(properties.correlation_id()),
        text(properties.reply_to()),
        text(properties.kind()),
        text(properties.user_id()),
        text(properties.app_id()),
        properties.timestamp().map(|seconds| seconds.to_string()),
    ];
    let none = FieldTable::default();
    let table = properties.headers().as_ref().unwrap_or(&none);
    let headers: Vec<(&str, String)> = table
        .inner()
        .iter()
        .filter(|(name, _)| !is_own(name.as_str()))
        .map(|(name, value): (&ShortString, &AMQPValue)| (name.as_str(), format!("{value:?}")))
        .collect();
    let whole = format!("{exchange:?}{key:?}{said:?}{headers:?}");
    let parts = [whole.as_bytes(), payload];
    format!("amqp-{:032x}", names::fnv(&parts.concat()))
}

fn short(text: impl AsRef<str>) -> Option<ShortString> {
    ShortString::try_new(text.as_ref()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> AMQPProperties {
        AMQPProperties::default()
            .with_reply_to("amq.rabbitmq.reply-to.g1h/AA==.x+y".into())
            .with_correlation_id("one two".into())
    }

    fn read_of(properties: &AMQPProperties) -> Metadata {
        let mut headers = Metadata::new();
        read(properties, &mut headers);
        headers
    }

    #[test]
    fn a_foreign_question_says_where_its_answer_goes() {
        let headers = read_of(&asked());
        let address = headers.get(header::REPLY_TO).unwrap();
        let queue = address.strip_prefix("queue ").unwrap();
        // Whatever is put before it.
        for queue in [queue.to_owned(), format!("staging.{queue}")] {
            let (address, correlation) = names::reply_address(&queue).unwrap();
            assert_eq!(address, "amq.rabbitmq.reply-to.g1h/AA==.x+y");
            assert_eq!(correlation.as_deref(), Some("one two"));
        }
        assert!(!headers.contains(header::IN_REPLY_TO));
        assert!(!headers.contains(common::CORRELATION_ID), "it has a space");
        // A copy of it asks the same.
        let mut copy = Message::new("");
        copy.headers = headers;
        let written = write(AMQPProperties::default(), &copy);
        assert_eq!(written.reply_to(), asked().reply_to());
        assert_eq!(written.correlation_id(), asked().correlation_id());
    }

    #[test]
    fn questions_and_answers_of_ours_say_it_in_both_ways() {
        let question = Message::new("")
            .with_id("q")
            .with_header(common::CORRELATION_ID, "c")
            .with_header(header::REPLY_TO, "reply.me.1");
        let written = write(AMQPProperties::default(), &question);
        assert_eq!(written.reply_to(), &Some("reply.me.1".into()));
        assert_eq!(written.correlation_id(), &Some("q".into()));
        let mut headers = question.headers.clone();
        read(&written, &mut headers);
        assert_eq!(
            headers, question.headers,
            "nothing is added to what is ours"
        );
        let answer = AMQPProperties::default().with_correlation_id("q".into());
        assert_eq!(read_of(&answer).get(header::IN_REPLY_TO), Some("q"));
    }

    #[test]
    fn properties_are_headers_and_the_other_way_round() {
        let properties = AMQPProperties::default()
            .with_content_encoding("gzip".into())
            .with_type("order.created".into())
            .with_app_id("shop".into());
        let mut message = Message::new("");
        message.headers = read_of(&properties);
        for (name, value) in [
            (header::CONTENT_ENCODING, "gzip"),
            (TYPE, "order.created"),
            (header::SERVICE, "shop"),
        ] {
            assert_eq!(message.headers.get(name), Some(value));
        }
        assert_eq!(write(AMQPProperties::default(), &message), properties);
        let event = Message::new("").with_header(header::CE_TYPE, "paid");
        let written = write(AMQPProperties::default(), &event);
        assert_eq!(written.kind(), &Some("paid".into()));
        let mut headers = event.headers.clone();
        read(&written, &mut headers);
        assert_eq!(headers, event.headers);
    }

    #[test]
    fn a_repetition_has_the_same_id_and_another_message_has_not() {
        let mut table = FieldTable::default();
        table.insert("n".into(), AMQPValue::LongInt(5));
        let first = AMQPProperties::default().with_headers(table.clone());
        table.insert("x-delivery-count".into(), AMQPValue::LongLongInt(2));
        let again = AMQPProperties::default().with_headers(table.clone());
        let known = id("e", "k", &first, b"body");
        assert_eq!(id("e", "k", &again, b"body"), known);
        table.insert("n".into(), AMQPValue::LongInt(6));
        let other = AMQPProperties::default().with_headers(table);
        for other in [
            id("e", "k", &other, b"body"),
            id("e", "k", &first.clone().with_timestamp(7), b"body"),
            id("e", "k", &first, b"more"),
            id("e", "l", &first, b"body"),
        ] {
            assert_ne!(other, known);
        }
    }
}
