//! One running copy of a service.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trunkline_core::{Error, Id, Result};

/// Longest name of a service; DNS labels allow 63, a prefix must still fit.
const LONGEST: usize = 128;

/// Limits of what an instance tells about itself, in bytes and pairs.
const LONGEST_ID: usize = 256;
const LONGEST_HOST: usize = 253;
const LONGEST_WORD: usize = 128;
const LONGEST_PATH: usize = 1024;
const MOST_PAIRS: usize = 64;
const MOST_METADATA: usize = 16 * 1024;

/// The name of a service: lower-case letters, digits, `-` and dots. Upper case and `_` are understood and written as
/// lower case and `-`, so that `User_Service` and `user-service` are one service.
///
/// ```
/// use trunkline_discovery::ServiceName;
///
/// assert_eq!(ServiceName::new("User_Service")?, ServiceName::new("user-service")?);
/// # Ok::<(), trunkline_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// `Invalid` when it is empty, too long or has other characters.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let written = name.as_ref().to_ascii_lowercase().replace('_', "-");
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let sound = (1..=LONGEST).contains(&written.len()) && written.chars().all(allowed);
        if !sound {
            let shown: String = name.as_ref().chars().take(64).collect();
            return Err(Error::invalid(format!(
                "`{shown}` is no service name: use 1 to {LONGEST} letters, digits, `-`, `_` and dots"
            )));
        }
        Ok(Self(written.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(text)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new(text)
    }
}

impl From<ServiceName> for String {
    fn from(name: ServiceName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// What is known of an instance.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum InstanceStatus {
    /// It takes requests.
    #[default]
    Up,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// It failed its checks.
    Down,
}

impl InstanceStatus {
    /// The status as one lower-case word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for InstanceStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One running copy of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[non_exhaustive]
pub struct ServiceInstance {
    /// Unique among all instances.
    pub id: String,
    /// The service.
    #[schemars(with = "String")]
    pub name: ServiceName,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// `http` or `https`.
    pub protocol: String,
    /// Free text.
    pub version: String,
    /// Free pairs: region, team, environment …
    pub metadata: BTreeMap<String, String>,
    /// Where it runs.
    pub zone: Option<String>,
    /// Share of the traffic beside its siblings; 0 takes none.
    pub weight: u32,
    /// What is known of it.
    pub status: InstanceStatus,
    /// Where it answers health checks. Empty when nowhere: callers do not check it.
    pub health_check_path: String,
}

impl ServiceInstance {
    /// An instance with a new id, `http`, version `1.0.0`, weight 1 and `/health`.
    #[must_use]
    pub fn new(name: ServiceName, host: impl Into<String>, port: u16) -> Self {
        Self {
            id: format!("{name}-{}", Id::new()),
            name,
            host: host.into(),
            port,
            protocol: "http".to_owned(),
            version: "1.0.0".to_owned(),
            metadata: BTreeMap::new(),
            zone: None,
            weight: 1,
            status: InstanceStatus::Up,
            health_check_path: "/health".to_owned(),
        }
    }

    /// Checks that it can be announced: an id, a host and a protocol that are there and not too long, a port other than
    /// 0, a path that begins with `/` or is empty, and not too much metadata. Registries refuse what does not pass.
    ///
    /// # Errors
    /// `Invalid`, saying which part is wrong and what would be right.
    pub fn validate(&self) -> Result<()> {
        let texts = [
            ("id", &self.id, 1..=LONGEST_ID),
            ("host", &self.host, 1..=LONGEST_HOST),
            ("protocol", &self.protocol, 1..=LONGEST_WORD),
            ("version", &self.version, 0..=LONGEST_WORD),
        ];
        for (what, text, length) in texts {
            if !length.contains(&text.len()) || text.chars().any(char::is_control) {
                let (least, most) = (length.start(), length.end());
                return Err(self.invalid(format!(
                    "the {what} must have {least} to {most} bytes and no control characters"
                )));
            }
        }
        if self
            .host
            .chars()
            .any(|c| c.is_whitespace() || "/[]@?#".contains(c))
        {
            return Err(self.invalid("the host must be a name or an address alone"));
        }
        // An address by IPv6, if anything; a zone may follow it.
        let address = self.host.split('%').next().unwrap_or_default();
        if address.contains(':') && address.parse::<Ipv6Addr>().is_err() {
            return Err(self.invalid("the host must be a name or an address alone"));
        }
        if self.port == 0 {
            return Err(self.invalid("the port must be 1 to 65535"));
        }
        let path = &self.health_check_path;
        if !(path.is_empty() || path.starts_with('/')) || path.len() > LONGEST_PATH {
            return Err(self.invalid(format!(
                "the health check path must be empty, or begin with / and have at most {LONGEST_PATH} bytes"
            )));
        }
        let pairs = self.metadata.iter();
        let size: usize = pairs.map(|(key, value)| key.len() + value.len()).sum();
        if self.metadata.len() > MOST_PAIRS || size > MOST_METADATA {
            return Err(self.invalid(format!(
                "metadata may have at most {MOST_PAIRS} pairs and {MOST_METADATA} bytes"
            )));
        }
        if self
            .zone
            .as_ref()
            .is_some_and(|zone| zone.len() > LONGEST_WORD)
        {
            return Err(self.invalid(format!("the zone may have at most {LONGEST_WORD} bytes")));
        }
        Ok(())
    }

    fn invalid(&self, what: impl fmt::Display) -> Error {
        Error::invalid(format!(
            "instance of {} cannot be announced: {what}",
            self.name
        ))
    }

    /// Replaces the id. Announcing the same id again replaces the older announcement.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// Sets the protocol: `http` or `https`.
    #[must_use]
    pub fn with_protocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocol = protocol.into();
        self
    }

    /// Sets the version, free text.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Adds a pair: region, team, environment …
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Says where it runs.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets its share of the traffic beside its siblings.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Sets what is known of it.
    #[must_use]
    pub fn with_status(mut self, status: InstanceStatus) -> Self {
        self.status = status;
        self
    }

    /// Sets where it answers health checks; an empty path says that it does not.
    #[must_use]
    pub fn with_health_check_path(mut self, path: impl Into<String>) -> Self {
        self.health_check_path = path.into();
        self
    }

    /// `host:port`, with brackets around an IPv6 address: the *instance* of policies and metrics.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether it takes requests, by its own word: it is up and has a weight.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.status == InstanceStatus::Up && self.weight > 0
    }

    /// Its place in the order of failing over, from the metadata `priority`: instances with a higher number are asked when
    /// there is none left with a lower one. 0 where it says none, or what is no number.
    #[must_use]
    pub fn priority(&self) -> u32 {
        let said = self.metadata.get("priority");
        said.and_then(|priority| priority.parse().ok())
            .unwrap_or_default()
    }

    /// Whether callers may ask it how it is.
    pub(crate) fn is_checked(&self) -> bool {
        !self.health_check_path.is_empty()
    }

    /// The base URL, such as `http://10.0.0.7:8000`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("{}://{}", self.protocol, self.authority())
    }
}
