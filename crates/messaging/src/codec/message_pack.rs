//! MessagePack: JSON's values in fewer bytes.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_core::{Error, Result};

use super::{Codec, Undecodable};

/// MessagePack, with the names of fields, so that readers in other languages and of other versions understand it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessagePack;

impl Codec for MessagePack {
    fn content_type(&self) -> &'static str {
        "application/msgpack"
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes> {
        let written = rmp_serde::to_vec_named(value);
        written.map(Bytes::from).map_err(|error| {
            Error::invalid("the value cannot be written as MessagePack").with_source(error)
        })
    }

    fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T> {
        rmp_serde::from_slice(payload)
            .map_err(|error| Undecodable::error::<T>(self.content_type(), error))
    }
}
