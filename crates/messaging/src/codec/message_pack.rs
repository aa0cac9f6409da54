//! MessagePack: JSON's values in fewer bytes.

use std::io::Cursor;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_core::{Error, Result};

use super::{Codec, Undecodable};

/// Deepest nesting that is read.
const DEEPEST: usize = 128;

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
        let mut reader = rmp_serde::Deserializer::new(Cursor::new(payload));
        // As deep as JSON may be: what arrives must not overflow the stack.
        reader.set_max_depth(DEEPEST);
        let value = T::deserialize(&mut reader)
            .map_err(|error| Undecodable::error::<T>(self.content_type(), error))?;
        let rest = payload.len() as u64 - reader.position();
        if rest > 0 {
            let what = format!("{rest} bytes follow the value");
            return Err(Undecodable::error::<T>(self.content_type(), what));
        }
        Ok(value)
    }
}
