//! What a message carries in place of its payload.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, Result};

use super::{ClaimCheck, ClaimError, ObjectKey, ObjectStore};
use crate::message::Message;

/// The version of what is written.
const VERSION: &str = "1";

#[derive(Serialize, Deserialize)]
struct Reference {
    key: String,
    /// Bytes of the object.
    size: u64,
    /// Its checksum, in hexadecimal digits.
    sha256: String,
}

/// Whether the payload of a message is elsewhere.
pub(crate) fn is_claim(message: &Message) -> bool {
    message.headers.contains(header::CLAIM)
}

/// Puts the payload into the store if it is large enough for that.
pub(crate) async fn store(check: &ClaimCheck, message: &mut Message) -> Result<bool> {
    let size = message.payload.len() as u64;
    if size <= check.above.bytes() {
        return Ok(false);
    }
    if size > check.largest.bytes() {
        return Err(Error::invalid(format!(
            "the payload has {size} bytes, more than the {} that the object store takes",
            check.largest
        )));
    }
    let key = ObjectKey::unique();
    let reference = Reference {
        key: key.as_str().to_owned(),
        size,
        sha256: checksum(&message.payload),
    };
    check.store.put(&key, message.payload.clone()).await?;
    let written = serde_json::to_vec(&reference)
        .map_err(|error| Error::internal("a claim cannot be written").with_source(error))?;
    message.payload = written.into();
    message.headers.insert(header::CLAIM, VERSION);
    Ok(true)
}

/// Gets the payload of a message that carries a claim.
pub(crate) async fn redeem(check: Option<&ClaimCheck>, message: &mut Message) -> Result<()> {
    let check = check.ok_or(ClaimError::NoStore)?;
    let is_known = message.headers.get(header::CLAIM) == Some(VERSION);
    let reference: Option<Reference> = serde_json::from_slice(&message.payload).ok();
    let Some(reference) = reference.filter(|_| is_known) else {
        return Err(ClaimError::Malformed.into());
    };
    let key = ObjectKey::parse(&reference.key).map_err(|_| ClaimError::Malformed)?;
    let named = || key.as_str().to_owned();
    if reference.size > check.largest.bytes() {
        return Err(ClaimError::TooLarge {
            key: named(),
            size: reference.size,
            largest: check.largest,
        }
        .into());
    }
    let object = check.store.get(&key, reference.size).await;
    let object = match object {
        // It is larger than the message says.
        Err(error) if error.kind() == trunkline_core::ErrorKind::Invalid => {
            return Err(ClaimError::Changed { key: named() }.into());
        }
        other => other?,
    };
    let Some(object) = object else {
        return Err(ClaimError::Missing { key: named() }.into());
    };
    if object.len() as u64 != reference.size || checksum(&object) != reference.sha256 {
        return Err(ClaimError::Changed { key: named() }.into());
    }
    message.payload = object;
    message.headers.remove(header::CLAIM);
    Ok(())
}

fn checksum(object: &Bytes) -> String {
    let digest = Sha256::digest(object);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
