//! Keys and what they are used for, as configuration says it.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline_core::{Error, Result, Secret};

use crate::topic::TopicPattern;

/// Bytes of keys of both encryptions, and of those of Ed25519.
pub(super) const KEY: usize = 32;

/// Encryption of payloads. Needs the feature `protection`.
///
/// ```
/// use trunkline_messaging::protection::{EncryptionConfig, EncryptionKey};
///
/// let key = EncryptionKey::new("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
/// let encryption = EncryptionConfig::default().with_key("2026-11", key).with_current("2026-11");
/// assert!(encryption.problems().is_empty());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EncryptionConfig {
    /// The id of the key that new messages are encrypted with. Default: none, messages are opened only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Every key that opens messages, by its id: letters, digits, `.`, `_`, `-`.
    pub keys: BTreeMap<String, EncryptionKey>,
    /// Patterns of topics and queues whose messages are encrypted. Default: all.
    pub topics: Vec<String>,
    /// Whether what arrives from there must be encrypted. Default true.
    pub required: bool,
}

/// A key of encryption.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EncryptionKey {
    /// What it is used with. Default `aes-256-gcm`.
    pub algorithm: EncryptionAlgorithm,
    /// 32 random bytes in Base64, most often from a file: `${file:/run/secrets/messages}`.
    pub key: Secret,
}

/// How payloads are encrypted. Both take a random nonce for each message: change a key before it has encrypted four thousand
/// million messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EncryptionAlgorithm {
    /// AES-256 in Galois/Counter mode: the faster one on processors that have AES.
    #[default]
    #[serde(rename = "aes-256-gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305: the faster one on others.
    #[serde(rename = "chacha20-poly1305")]
    ChaCha20Poly1305,
}

impl EncryptionAlgorithm {
    /// As configuration and headers write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// Signatures. Needs the feature `protection`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct SigningConfig {
    /// The id of the key that new messages are signed with. Default: none, messages are verified only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Every key that verifies messages, by its id: letters, digits, `.`, `_`, `-`.
    pub keys: BTreeMap<String, SigningKey>,
    /// Patterns of topics and queues whose messages are signed. Default: all.
    pub topics: Vec<String>,
    /// Whether what arrives from there must be signed. Default true.
    pub required: bool,
}

/// A key of signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct SigningKey {
    /// What it is used with. Default `ed25519`.
    pub algorithm: SignatureAlgorithm,
    /// The secret in Base64, most often from a file. Of `hmac-sha256` at least 32 random bytes, the same at both ends; of
    /// `ed25519` the seed of 32 bytes or the key as PEM (PKCS#8), which only the sender has. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// The public key of `ed25519`, which is enough to verify: 32 bytes in Base64, or PEM. Default: that of `key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

/// How messages are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureAlgorithm {
    /// Ed25519: who verifies cannot sign.
    #[default]
    Ed25519,
    /// HMAC with SHA-256: whoever verifies can sign.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

impl SignatureAlgorithm {
    /// As configuration and headers write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::HmacSha256 => "hmac-sha256",
        }
    }
}

macro_rules! sections {
    ($($config:ty, $key:ty);* $(;)?) => {$(
        impl Default for $config {
            fn default() -> Self {
                Self {
                    current: None,
                    keys: BTreeMap::new(),
                    topics: Vec::new(),
                    required: true,
                }
            }
        }

        impl $config {
            /// Adds a key.
            #[must_use]
            pub fn with_key(mut self, id: impl Into<String>, key: $key) -> Self {
                self.keys.insert(id.into(), key);
                self
            }

            /// Chooses the key of new messages.
            #[must_use]
            pub fn with_current(mut self, id: impl Into<String>) -> Self {
                self.current = Some(id.into());
                self
            }

            /// Means the topics and queues under these patterns alone.
            #[must_use]
            pub fn with_topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
                self.topics = topics.into_iter().map(Into::into).collect();
                self
            }

            /// Says whether what arrives must be so.
            #[must_use]
            pub fn with_required(mut self, required: bool) -> Self {
                self.required = required;
                self
            }

            /// Everything that is wrong, with the key of the configuration that it is about.
            #[must_use]
            pub fn problems(&self) -> Vec<(String, String)> {
                let mut problems = common(self.current.as_deref(), self.keys.keys(), &self.topics);
                for (id, key) in &self.keys {
                    let wrong = key.problems().into_iter();
                    problems.extend(wrong.map(|(name, what)| (format!("keys.{id}.{name}"), what)));
                }
                let current = self.current.as_ref().and_then(|id| self.keys.get(id));
                if current.is_some_and(|key| !key.is_whole()) {
                    let what = "the current key needs its secret part `key`".to_owned();
                    problems.push(("current".to_owned(), what));
                }
                problems
            }

            #[cfg(feature = "protection")]
            pub(super) fn check(&self) -> Result<()> {
                match self.problems().into_iter().next() {
                    Some((key, what)) => Err(Error::config(format!("{key}: {what}"))),
                    None => Ok(()),
                }
            }
        }
    )*};
}

sections! {
    EncryptionConfig, EncryptionKey;
    SigningConfig, SigningKey;
}

fn common<'a>(
    current: Option<&str>,
    ids: impl Iterator<Item = &'a String> + Clone,
    topics: &[String],
) -> Vec<(String, String)> {
    let mut problems = Vec::new();
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    for id in ids.clone() {
        if id.is_empty() || id.len() > 64 || !id.bytes().all(is_part) {
            let what = "an id is of at most 64 letters, digits, `.`, `_`, `-`".to_owned();
            problems.push((format!("keys.{id}"), what));
        }
    }
    if let Some(current) = current
        && !ids.clone().any(|id| id == current)
    {
        let ids: Vec<&str> = ids.map(String::as_str).collect();
        let there = match ids.is_empty() {
            true => "there are none".to_owned(),
            false => format!("there are {}", ids.join(", ")),
        };
        let what = format!("`{current}` is not among `keys`; {there}");
        problems.push(("current".to_owned(), what));
    }
    for (at, topic) in topics.iter().enumerate() {
        if let Err(error) = TopicPattern::new(topic) {
            problems.push((format!("topics.{at}"), error.message().to_owned()));
        }
    }
    problems
}

impl EncryptionKey {
    /// A key of AES-256-GCM, in Base64.
    #[must_use]
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            algorithm: EncryptionAlgorithm::default(),
            key: Secret::new(key.into()),
        }
    }

    /// Chooses what it is used with.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: EncryptionAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let wrong = self.bytes().err();
        wrong
            .map(|error| ("key", error.message().to_owned()))
            .into_iter()
            .collect()
    }

    fn is_whole(&self) -> bool {
        true
    }

    pub(super) fn bytes(&self) -> Result<Vec<u8>> {
        let bytes = decoded(self.key.expose())?;
        match bytes.len() {
            KEY => Ok(bytes),
            other => Err(Error::config(format!(
                "a key is {KEY} bytes in Base64, this is {other}"
            ))),
        }
    }
}

impl SigningKey {
    /// The secret of a key.
    #[must_use]
    pub fn new(algorithm: SignatureAlgorithm, key: impl Into<String>) -> Self {
        Self {
            algorithm,
            key: Some(Secret::new(key.into())),
            public_key: None,
        }
    }

    /// The public half of a key of Ed25519.
    #[must_use]
    pub fn public(key: impl Into<String>) -> Self {
        Self {
            public_key: Some(key.into()),
            ..Self::default()
        }
    }

    fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut wrong = |name, error: Option<Error>| {
            problems.extend(error.map(|error| (name, error.message().to_owned())));
        };
        match self.algorithm {
            SignatureAlgorithm::HmacSha256 => {
                let missing = || Error::config("it is missing");
                let secret = self.secret().unwrap_or_else(|| Err(missing()));
                wrong(
                    "key",
                    match secret {
                        Ok(bytes) if bytes.len() >= KEY => None,
                        Ok(bytes) => Some(Error::config(format!(
                            "a key is at least {KEY} bytes in Base64, this is {}",
                            bytes.len()
                        ))),
                        Err(error) => Some(error),
                    },
                );
                if self.public_key.is_some() {
                    let what = "hmac-sha256 has no public key";
                    wrong("public_key", Some(Error::config(what)));
                }
            }
            SignatureAlgorithm::Ed25519 => {
                wrong("key", self.secret().and_then(Result::err));
                wrong("public_key", self.verifying().and_then(Result::err));
                if self.key.is_none() && self.public_key.is_none() {
                    wrong(
                        "key",
                        Some(Error::config("it is missing, and so is `public_key`")),
                    );
                }
            }
        }
        problems
    }

    fn is_whole(&self) -> bool {
        self.key.is_some()
    }

    /// The secret part: a seed, PKCS#8, or what HMAC takes.
    pub(super) fn secret(&self) -> Option<Result<Vec<u8>>> {
        self.key.as_ref().map(|key| decoded(key.expose()))
    }

    /// The public key of Ed25519.
    pub(super) fn verifying(&self) -> Option<Result<Vec<u8>>> {
        let key = self.public_key.as_deref()?;
        Some(decoded(key).and_then(|mut bytes| match bytes.len() {
            KEY => Ok(bytes),
            // As PEM has it: a prefix that says what it is, then the key.
            44 if bytes.starts_with(&SPKI) => Ok(bytes.split_off(SPKI.len())),
            other => Err(Error::config(format!(
                "a public key of Ed25519 is {KEY} bytes in Base64, or PEM; this is {other} bytes of something else"
            ))),
        }))
    }
}

/// What a public key of Ed25519 begins with in its general form.
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Reads Base64, or PEM around it. What is wrong is told without what it is.
fn decoded(text: &str) -> Result<Vec<u8>> {
    let lines = text.lines().map(str::trim);
    let body: String = lines.filter(|line| !line.starts_with("-----")).collect();
    STANDARD
        .decode(body)
        .map_err(|_| Error::config("it is not in Base64"))
}
