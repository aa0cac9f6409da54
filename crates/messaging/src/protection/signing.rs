//! Messages of which their receivers know who wrote them.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use trunkline_core::names::message_header as header;
use trunkline_core::{Error, Result};

use super::config::KEY;
use super::{Scope, SignatureAlgorithm, SigningConfig, SigningKey, Untrusted, covered};
use crate::message::Message;
use crate::topic::Destination;

const DOMAIN: &str = "trunkline-signature-2";

enum Key {
    Hmac(hmac::Key),
    Ed25519 {
        pair: Option<Box<Ed25519KeyPair>>,
        public: Vec<u8>,
    },
}

/// The keys, ready to use.
pub(crate) struct Signing {
    current: Option<String>,
    keys: HashMap<String, Key>,
    scope: Scope,
    required: bool,
}

impl fmt::Debug for Signing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signing")
            .field("current", &self.current)
            .field("keys", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

impl Signing {
    pub(crate) fn new(config: &SigningConfig) -> Result<Self> {
        config.check()?;
        let mut keys = HashMap::new();
        for (id, key) in &config.keys {
            let read = Key::read(key).map_err(|error| {
                Error::config(format!("keys.{id}: {}", error.message())).with_source(error)
            })?;
            keys.insert(id.clone(), read);
        }
        Ok(Self {
            current: config.current.clone(),
            keys,
            scope: Scope::new(&config.topics)?,
            required: config.required,
        })
    }

    /// Whether messages to a destination are signed.
    pub(crate) fn applies(&self, destination: &Destination) -> bool {
        self.current.is_some() && self.scope.has(Some(destination))
    }

    /// Whether there is a key to sign with; without one, answers to signed questions are not signed.
    pub(crate) fn can_sign(&self) -> bool {
        self.current.is_some()
    }

    /// Whether messages from a destination must be signed.
    pub(crate) fn demands(&self, destination: Option<&Destination>) -> bool {
        self.required && self.scope.has(destination)
    }

    pub(crate) fn sign(&self, message: &mut Message, to: &Destination) -> Result<()> {
        let key = self
            .current
            .as_ref()
            .and_then(|id| Some((id, self.keys.get(id)?)));
        let Some((id, key)) = key else {
            return Err(Error::config("there is no current key to sign with"));
        };
        // What encryption says of itself is part of what is signed.
        let names = signed_names(message);
        let said = format!("{};{id};{names}", key.algorithm().as_str());
        let signature = key.sign(&signed(&said, message, &names, to))?;
        let said = format!("{said};{}", STANDARD.encode(signature));
        message.headers.insert(header::SIGNATURE, said);
        Ok(())
    }

    pub(crate) fn verify(&self, message: &mut Message, from: &Destination) -> Result<()> {
        let malformed = || Untrusted::Malformed {
            header: header::SIGNATURE,
        };
        let whole = message
            .headers
            .get(header::SIGNATURE)
            .ok_or_else(malformed)?;
        let (said, signature) = whole.rsplit_once(';').ok_or_else(malformed)?;
        let signature = STANDARD.decode(signature).map_err(|_| malformed())?;
        let mut parts = said.splitn(3, ';');
        let (Some(algorithm), Some(id), Some(names)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed().into());
        };
        let Some(key) = self.keys.get(id) else {
            return Err(Untrusted::UnknownKey {
                what: "signing",
                key: id.to_owned(),
            }
            .into());
        };
        let tampered = || Untrusted::Tampered { key: id.to_owned() };
        // The key says what it is used with, never the message.
        if algorithm != key.algorithm().as_str() {
            return Err(tampered().into());
        }
        covered::check(message, names, &[])?;
        if message.headers.contains(header::ENCRYPTION)
            && !names.split(',').any(|name| name == header::ENCRYPTION)
        {
            return Err(Untrusted::Uncovered {
                header: header::ENCRYPTION.to_owned(),
            }
            .into());
        }
        if !key.verifies(&signed(said, message, names, from), &signature) {
            return Err(tampered().into());
        }
        message.headers.remove(header::SIGNATURE);
        Ok(())
    }
}

fn signed_names(message: &Message) -> String {
    let mut names = covered::names(message);
    if message.headers.contains(header::ENCRYPTION) {
        names.push(',');
        names.push_str(header::ENCRYPTION);
    }
    names
}

fn signed(said: &str, message: &Message, names: &str, to: &Destination) -> Vec<u8> {
    let mut bytes = covered::bytes(DOMAIN, said, message, names, to);
    bytes.extend_from_slice(&message.payload);
    bytes
}

impl Key {
    fn read(key: &SigningKey) -> Result<Self> {
        let secret = key.secret().transpose()?;
        if key.algorithm == SignatureAlgorithm::HmacSha256 {
            let secret = secret.ok_or_else(|| Error::config("`key` is missing"))?;
            return Ok(Self::Hmac(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
        }
        let public = key.verifying().transpose()?;
        let pair = match secret {
            Some(seed) if seed.len() == KEY => Some(Ed25519KeyPair::from_seed_unchecked(&seed)),
            Some(pkcs8) => Some(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8)),
            None => None,
        };
        let unusable =
            |_| Error::config("`key` is neither a seed of 32 bytes nor a key of Ed25519 in PKCS#8");
        let pair = pair.transpose().map_err(unusable)?;
        let own = pair
            .as_ref()
            .map(|pair| pair.public_key().as_ref().to_vec());
        let public = match (own, public) {
            (Some(own), Some(public)) if own != public => {
                return Err(Error::config("`public_key` is not that of `key`"));
            }
            (Some(public), _) | (None, Some(public)) => public,
            (None, None) => return Err(Error::config("`key` and `public_key` are missing")),
        };
        let pair = pair.map(Box::new);
        Ok(Self::Ed25519 { pair, public })
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self {
            Self::Hmac(_) => SignatureAlgorithm::HmacSha256,
            Self::Ed25519 { .. } => SignatureAlgorithm::Ed25519,
        }
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Hmac(key) => Ok(hmac::sign(key, bytes).as_ref().to_vec()),
            Self::Ed25519 {
                pair: Some(pair), ..
            } => Ok(pair.sign(bytes).as_ref().to_vec()),
            Self::Ed25519 { pair: None, .. } => Err(Error::config(
                "the current key has no secret part to sign with",
            )),
        }
    }

    fn verifies(&self, bytes: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(key) => hmac::verify(key, bytes, signature).is_ok(),
            Self::Ed25519 { public, .. } => UnparsedPublicKey::new(&ED25519, public)
                .verify(bytes, signature)
                .is_ok(),
        }
    }
}
