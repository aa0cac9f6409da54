//! Payloads that only their receivers can read.

use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, Result};

use super::{EncryptionAlgorithm, EncryptionConfig, Scope, Untrusted, covered};
use crate::message::Message;
use crate::topic::Destination;

const DOMAIN: &str = "trunkline-encryption-2";
/// What is done later than encryption and so is not covered by it.
const LATER: [&str; 1] = [header::CLAIM];

/// The keys, ready to use.
pub(crate) struct Encryption {
    current: Option<String>,
    keys: HashMap<String, (EncryptionAlgorithm, LessSafeKey)>,
    scope: Scope,
    required: bool,
    random: SystemRandom,
}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption")
            .field("current", &self.current)
            .field("keys", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

impl Encryption {
    pub(crate) fn new(config: &EncryptionConfig) -> Result<Self> {
        config.check()?;
        let mut keys = HashMap::new();
        for (id, key) in &config.keys {
            let algorithm = match key.algorithm {
                EncryptionAlgorithm::Aes256Gcm => &AES_256_GCM,
                EncryptionAlgorithm::ChaCha20Poly1305 => &CHACHA20_POLY1305,
            };
            let unbound = UnboundKey::new(algorithm, &key.bytes()?)
                .map_err(|_| Error::config(format!("the key `{id}` cannot be used")))?;
            keys.insert(id.clone(), (key.algorithm, LessSafeKey::new(unbound)));
        }
        Ok(Self {
            current: config.current.clone(),
            keys,
            scope: Scope::new(&config.topics)?,
            required: config.required,
            random: SystemRandom::new(),
        })
    }

    /// Whether messages to a destination are encrypted.
    pub(crate) fn applies(&self, destination: &Destination) -> bool {
        self.current.is_some() && self.scope.has(Some(destination))
    }

    /// Whether messages from a destination must be encrypted.
    pub(crate) fn demands(&self, destination: Option<&Destination>) -> bool {
        self.required && self.scope.has(destination)
    }

    pub(crate) fn seal(&self, message: &mut Message, to: &Destination) -> Result<()> {
        let key = self
            .current
            .as_ref()
            .and_then(|id| Some((id, self.keys.get(id)?)));
        let Some((id, (algorithm, key))) = key else {
            return Err(Error::config("there is no current key to encrypt with"));
        };
        let names = covered::names(message);
        let said = format!("{};{id};{names}", algorithm.as_str());
        let mut nonce = [0; NONCE_LEN];
        let failed = |_| Error::internal("the message could not be encrypted");
        self.random.fill(&mut nonce).map_err(failed)?;
        let aad = Aad::from(covered::bytes(DOMAIN, &said, message, &names, to));
        let tag = key.algorithm().tag_len();
        let mut sealed = Vec::with_capacity(NONCE_LEN + message.payload.len() + tag);
        sealed.extend_from_slice(&message.payload);
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(failed)?;
        sealed.splice(..0, nonce);
        message.payload = sealed.into();
        message.headers.insert(header::ENCRYPTION, said);
        Ok(())
    }

    pub(crate) fn open(&self, message: &mut Message, from: &Destination) -> Result<()> {
        let malformed = || Untrusted::Malformed {
            header: header::ENCRYPTION,
        };
        let said = message
            .headers
            .get(header::ENCRYPTION)
            .ok_or_else(malformed)?;
        let said = said.to_owned();
        let mut parts = said.splitn(3, ';');
        let (Some(algorithm), Some(id), Some(names)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed().into());
        };
        let Some((known, key)) = self.keys.get(id) else {
            return Err(unknown(id).into());
        };
        let tampered = || Untrusted::Tampered { key: id.to_owned() };
        if algorithm != known.as_str() {
            return Err(tampered().into());
        }
        covered::check(message, names, &LATER)?;
        let aad = Aad::from(covered::bytes(DOMAIN, &said, message, names, from));
        let (nonce, sealed) = message
            .payload
            .split_at_checked(NONCE_LEN)
            .ok_or_else(tampered)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| tampered())?;
        let mut opened = sealed.to_vec();
        let length = key
            .open_in_place(nonce, aad, &mut opened)
            .map_err(|_| tampered())?
            .len();
        opened.truncate(length);
        message.payload = Bytes::from(opened);
        message.headers.remove(header::ENCRYPTION);
        Ok(())
    }
}

pub(crate) fn unknown(id: &str) -> Untrusted {
    Untrusted::UnknownKey {
        what: "encryption",
        key: id.to_owned(),
    }
}
