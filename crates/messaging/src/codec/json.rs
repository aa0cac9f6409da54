//! JSON.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_core::{Error, Result};

use super::{Codec, Undecodable};

/// JSON, the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl Codec for Json {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Bytes> {
        let written = serde_json::to_vec(value);
        written.map(Bytes::from).map_err(|error| {
            Error::invalid("the value cannot be written as JSON").with_source(error)
        })
    }

    fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T> {
        serde_json::from_slice(payload)
            .map_err(|error| Undecodable::error::<T>(self.content_type(), error))
    }
}
