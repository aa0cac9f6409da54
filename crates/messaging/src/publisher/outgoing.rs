//! One message with options.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use trunkline_core::names::message_header as header;
use trunkline_core::{Context, MetadataValue, Result};

use super::Publisher;
use crate::cloudevents::{self, CloudEventsMode};
use crate::codec::{AnyCodec, Codec};
#[cfg(feature = "protobuf")]
use crate::codec::{Protobuf, encode_protobuf};
use crate::message::{Message, Publish, Receipt};
use crate::protection::Demands;
use crate::topic::Destination;

/// A message that is being put together; see [`Publisher::to`].
#[must_use = "nothing is published before `send`"]
pub struct Outgoing<'a, T: ?Sized> {
    publisher: &'a Publisher,
    destination: Result<Destination>,
    message: Message,
    codec: AnyCodec,
    context: Option<Context>,
    delay: Option<Duration>,
    expires_in: Option<Duration>,
    mandatory: bool,
    mode: Option<CloudEventsMode>,
    demands: Demands,
    attributes: Result<Vec<(String, String)>>,
    payload: PhantomData<fn(&T)>,
}

impl<T: ?Sized> fmt::Debug for Outgoing<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("destination", &self.destination)
            .field("id", &self.message.id)
            .finish_non_exhaustive()
    }
}

impl<'a, T: ?Sized> Outgoing<'a, T> {
    pub(super) fn new(publisher: &'a Publisher, destination: Result<Destination>) -> Self {
        Self {
            publisher,
            destination,
            message: Message::new(Bytes::new()),
            codec: publisher.around().codec,
            context: None,
            delay: None,
            expires_in: None,
            mandatory: false,
            mode: None,
            demands: Demands::default(),
            attributes: Ok(Vec::new()),
            payload: PhantomData,
        }
    }

    /// Sets the id: the same fact published again carries the same id, so that consumers recognise it.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.message.id = id.into();
        self
    }

    /// Sets the key that keeps order.
    pub fn key(mut self, key: impl Into<Bytes>) -> Self {
        self.message.key = Some(key.into());
        self
    }

    /// Sets a header.
    pub fn header(mut self, name: &str, value: impl Into<MetadataValue>) -> Self {
        self.message.headers.insert(name, value);
        self
    }

    /// Sets an attribute of CloudEvents, such as `subject`, `type`, or one of your own. Default: the type is the topic, the
    /// source this service. A wrong name fails when it is sent.
    pub fn attribute(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes = self.attributes.and_then(|mut attributes| {
            attributes.push((cloudevents::header_of(name)?, value.into()));
            Ok(attributes)
        });
        self
    }

    /// Chooses how it is written as an event. Default: the publisher's.
    pub fn cloudevents(mut self, mode: CloudEventsMode) -> Self {
        self.mode = Some(mode);
        self
    }

    /// Encrypts and signs it even where its destination does not ask for that.
    pub(crate) fn protected(mut self, demands: Demands) -> Self {
        self.demands = demands;
        self
    }

    /// Chooses the format of the payload. Default: the publisher's.
    pub fn codec(mut self, codec: AnyCodec) -> Self {
        self.codec = codec;
        self
    }

    /// Says of which version the payload is, for handlers that know several ([`Upgrades`](crate::Upgrades)).
    pub fn schema_version(self, version: u32) -> Self {
        self.header(header::SCHEMA_VERSION, version.to_string())
    }

    /// Carries this context instead of the running one.
    pub fn context(mut self, context: Context) -> Self {
        self.context = Some(context);
        self
    }

    /// Delivers it no earlier than this from now. Needs the capability `delayed_publish`.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Does not deliver it later than this from now. Needs the capability `expiry`.
    pub fn expires_in(mut self, span: Duration) -> Self {
        self.expires_in = Some(span);
        self
    }

    /// Makes it an error that nobody listens. Needs the capability `mandatory`.
    pub fn mandatory(mut self) -> Self {
        self.mandatory = true;
        self
    }

    /// Publishes a value and waits for the confirm.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// As [`Publisher::publish`].
    pub fn send(self, value: &T) -> impl Future<Output = Result<Receipt>> + Send + use<'a, T>
    where
        T: Serialize,
    {
        let codec = self.codec;
        let written = codec
            .encode(value)
            .map(|payload| (payload, Some(codec.content_type().to_owned())));
        self.send_written(written)
    }

    /// Publishes a payload that is written already.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// As [`Publisher::publish`].
    pub fn send_bytes(
        self,
        payload: Bytes,
        content_type: Option<&str>,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<'a, T> {
        let written = (payload, content_type.map(str::to_owned));
        self.send_written(Ok(written))
    }

    fn send_written(
        self,
        written: Result<(Bytes, Option<String>)>,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<'a, T> {
        let Self {
            publisher,
            destination,
            mut message,
            context,
            delay,
            expires_in,
            mandatory,
            mode,
            attributes,
            demands,
            ..
        } = self;
        async move {
            // Read when it is polled: the future may have been made outside of the scope that it runs in.
            let context = context
                .unwrap_or_else(|| publisher.around().propagation.current_or_new())
                .child();
            (message.payload, message.content_type) = written?;
            for (name, value) in attributes? {
                message.headers.insert(name, value);
            }
            let mut publish = Publish::new(destination?, message);
            publish.delay = delay;
            publish.expires_in = expires_in;
            publish.mandatory |= mandatory;
            let publish = publisher.packed(publish, &context, mode, demands).await?;
            publisher.carry(publish, context).await
        }
    }
}

#[cfg(feature = "protobuf")]
impl<'a, T: prost::Message> Outgoing<'a, Protobuf<T>> {
    /// Publishes a value in Protocol Buffers and waits for the confirm.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    ///
    /// # Cancel safety
    /// As [`Publisher::publish`].
    pub fn send_protobuf(
        self,
        value: &T,
    ) -> impl Future<Output = Result<Receipt>> + Send + use<'a, T> {
        let content_type = Protobuf::<T>::CONTENT_TYPE;
        self.send_bytes(encode_protobuf(value), Some(content_type))
    }
}
