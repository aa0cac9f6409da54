//! Arguments of handlers, taken from a message.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use trunkline_core::{Context, Metadata, Result};

use super::incoming::Incoming;
#[cfg(feature = "protobuf")]
use crate::codec::Protobuf;
use crate::codec::{AnyCodec, Codec};
use crate::message::Message;
use crate::topic::Destination;
use crate::typed::Accepts;

/// An argument of a handler. The payload is one; so are [`Context`], [`Headers`], [`Attempt`], [`MessageKey`],
/// [`Message`], [`Arc<Message>`](Message), [`Destination`] and [`Incoming`]; and so is any type of yours with
/// `impl<P> Extract<P, ViaPart> for Mine`.
///
/// `P` is what the source knows of its payload; `Via` keeps payloads and other parts apart.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no argument of a handler of this source",
    note = "a handler takes its payload (a type with `serde::Deserialize`), `Context`, `Headers`, `Message`, `Attempt` and other parts, in any order",
    note = "the payload of a typed topic is exactly the type that the topic was declared with"
)]
pub trait Extract<P, Via>: Sized {
    /// Takes the argument.
    ///
    /// # Errors
    /// The message becomes a dead letter at once.
    fn extract(incoming: &Incoming) -> Result<Self>;
}

/// Marks arguments that are the payload.
#[derive(Debug)]
pub struct ViaPayload(());

/// Marks arguments that are other parts of a message.
#[derive(Debug)]
pub struct ViaPart(());

/// Marks arguments that are the payload, in Protocol Buffers.
#[cfg(feature = "protobuf")]
#[derive(Debug)]
pub struct ViaProtobuf(());

#[cfg(feature = "protobuf")]
impl<P, T> Extract<P, ViaProtobuf> for Protobuf<T>
where
    P: Accepts<Self>,
    T: prost::Message + Default,
{
    fn extract(incoming: &Incoming) -> Result<Self> {
        let message = incoming.message();
        Self::decode(message.content_type.as_deref(), &message.payload)
    }
}

impl<P, T> Extract<P, ViaPayload> for T
where
    P: Accepts<T>,
    T: DeserializeOwned,
{
    fn extract(incoming: &Incoming) -> Result<Self> {
        let message = incoming.message();
        AnyCodec::of(message.content_type.as_deref())?.decode(&message.payload)
    }
}

/// The headers of a message, as an argument of a handler.
pub type Headers = Metadata;

/// Which attempt it is, 1 the first time, as an argument of a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attempt(pub u32);

/// The key of a message, if it has one that is text, as an argument of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageKey(pub Option<String>);

macro_rules! parts {
    ($($part:ty => |$incoming:ident| $take:expr;)*) => {$(
        impl<P> Extract<P, ViaPart> for $part {
            fn extract($incoming: &Incoming) -> Result<Self> {
                Ok($take)
            }
        }
    )*};
}

parts! {
    Context => |incoming| incoming.context().clone();
    Headers => |incoming| incoming.headers().clone();
    Attempt => |incoming| Attempt(incoming.attempt());
    MessageKey => |incoming| MessageKey(incoming.message().key_text().map(str::to_owned));
    Message => |incoming| incoming.message().clone();
    Arc<Message> => |incoming| incoming.shared_message();
    Destination => |incoming| incoming.destination().clone();
    Incoming => |incoming| incoming.clone();
}
