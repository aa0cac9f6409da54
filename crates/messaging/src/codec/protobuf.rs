//! Protocol Buffers, by the types that prost generates.

use bytes::Bytes;
use prost::Message as ProstMessage;
use trunkline_core::{Error, Result};

use super::Undecodable;

/// A payload in Protocol Buffers: what a topic is declared with, and what its handlers take.
///
/// Written by [`Outgoing::send_protobuf`](crate::Outgoing::send_protobuf) as `application/x-protobuf`. Schemas change by the
/// rules of the format itself: numbers of fields stay, new ones are added.
///
/// ```
/// use trunkline_messaging::codec::Protobuf;
/// use trunkline_messaging::{MessageBroker, Messaging, Topic, memory::MemoryBroker};
///
/// // In place of `String`, a type that prost has generated.
/// const HIRED: Topic<Protobuf<String>> = Topic::new("user.hired");
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// # let broker = MemoryBroker::default().erase();
/// # broker.connect().await?;
/// # let messaging = Messaging::builder(broker).service("shop").build();
/// messaging.subscribe(HIRED).handle(|name: Protobuf<String>| async move {
///     println!("{} is hired", name.0);
/// }).await?;
/// messaging.publisher().to(HIRED).send_protobuf(&"Ada".to_owned()).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protobuf<T>(pub T);

impl<T> Protobuf<T> {
    /// What is written into the content type.
    pub const CONTENT_TYPE: &str = "application/x-protobuf";
}

impl<T: ProstMessage + Default> Protobuf<T> {
    /// Reads a message of this type.
    ///
    /// # Errors
    /// `Invalid`, with [`Undecodable`] as its cause: the content type is another one, or the bytes are not such a message.
    pub fn decode(content_type: Option<&str>, payload: &[u8]) -> Result<Self> {
        let shown = content_type.unwrap_or("no content type");
        // Who writes Protocol Buffers without saying so is read, as a handler that wants them knows better.
        if content_type.is_some_and(|it| !is_protobuf(it)) {
            let cause = Undecodable {
                wanted: std::any::type_name::<T>(),
                content_type: shown.to_owned(),
                source: None,
            };
            return Err(Error::invalid("the content type is not Protocol Buffers")
                .with_context("content_type", shown)
                .with_source(cause));
        }
        T::decode(payload)
            .map(Self)
            .map_err(|error| Undecodable::error::<T>(shown, error))
    }
}

pub(crate) fn encode(message: &impl ProstMessage) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// The names that it goes by.
fn is_protobuf(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or(content_type);
    let subtype = essence.trim().split_once('/').map_or("", |(_, it)| it);
    let suffix = subtype.rsplit_once('+').map_or(subtype, |(_, last)| last);
    ["x-protobuf", "protobuf", "vnd.google.protobuf"]
        .iter()
        .any(|known| suffix.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use trunkline_core::ErrorKind;

    use super::*;

    #[test]
    fn the_content_type_may_be_written_in_several_ways_but_no_other() {
        let bytes = encode(&7_u64);
        for kind in [
            None,
            Some("application/x-protobuf"),
            Some("application/protobuf; proto=shop.Order"),
            Some("Application/Vnd.Google.Protobuf"),
            Some("application/shop+protobuf"),
        ] {
            assert_eq!(Protobuf::<u64>::decode(kind, &bytes).unwrap().0, 7);
        }
        for (kind, bytes) in [
            (Some("application/json"), &bytes[..]),
            (Some("application/x-protobuf"), &[0xff]),
        ] {
            let error = Protobuf::<u64>::decode(kind, bytes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.find::<Undecodable>().is_some());
        }
    }
}
