//! Settings of service discovery: where services are found, how they are checked and chosen.

mod options;
mod service;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use trunkline_core::{Connection, ConnectionUrl, Error, Result};

pub use options::OptionReader;
pub use service::{EndpointConfig, Protocol, ServiceConfig};

/// Where services are found, how they are checked and chosen.
#[derive(Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServiceDiscoveryConfig {
    /// Whether services are looked up at all. Default true.
    pub enabled: bool,
    /// The registry: `embedded` (shared by the processes of this machine), `static` (only `services` of the
    /// configuration), `consul`, `etcd`, `kubernetes`, `dns`, or `several` of them at once. Default `embedded`.
    #[serde(rename = "type")]
    #[schemars(extend("format" = "registry-kind"))]
    pub kind: String,
    /// Where the registry is and how to log in. In files the parts may stand beside `type`, or a `connection_url`.
    pub connection: Connection,
    /// Whether the service is unhealthy without the registry; else it is degraded. Default true.
    pub required: bool,
    /// How long a registration outlives a process that no longer renews it. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub lease_ttl: Duration,
    /// What is remembered of the answers.
    pub cache: DiscoveryCacheConfig,
    /// Active checks of the instances of services that are called.
    pub health_check: HealthCheckConfig,
    /// How an instance is chosen.
    pub load_balancer: LoadBalancerConfig,
    /// What only this registry knows, as its guide describes it. Default: none.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub options: serde_json::Map<String, serde_json::Value>,
}

impl Default for ServiceDiscoveryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            kind: "embedded".to_owned(),
            connection: Connection::default(),
            required: true,
            lease_ttl: Duration::from_secs(10),
            cache: DiscoveryCacheConfig::default(),
            health_check: HealthCheckConfig::default(),
            load_balancer: LoadBalancerConfig::default(),
            options: serde_json::Map::new(),
        }
    }
}

/// Shows the names of the options, not their values, which may be secret.
impl fmt::Debug for ServiceDiscoveryConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceDiscoveryConfig")
            .field("enabled", &self.enabled)
            .field("type", &self.kind)
            .field("connection", &self.connection)
            .field("required", &self.required)
            .field("lease_ttl", &self.lease_ttl)
            .field("cache", &self.cache)
            .field("health_check", &self.health_check)
            .field("load_balancer", &self.load_balancer)
            .field("options", &self.options.keys())
            .finish()
    }
}

impl ServiceDiscoveryConfig {
    /// Discovery by one kind of registry, with its defaults.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            ..Self::default()
        }
    }

    /// Discovery by the registry in a directory of this machine.
    #[must_use]
    pub fn embedded(directory: impl Into<String>) -> Self {
        let mut config = Self::new("embedded");
        config.connection = Connection::default().with_path(directory);
        config
    }

    /// Discovery by the `services` of the configuration alone.
    #[must_use]
    pub fn static_only() -> Self {
        Self::new("static")
    }

    /// Discovery by the URL of a registry: the scheme names the kind. An option that is there several times is a list.
    ///
    /// # Errors
    /// `Config` when the text is not a URL; the error does not repeat it.
    pub fn from_url(url: &str) -> Result<Self> {
        let parsed: ConnectionUrl = url
            .parse()
            .map_err(|error| Error::config(format!("{error}")))?;
        let mut config = Self::new(parsed.scheme);
        config.connection = parsed.connection;
        for (name, value) in parsed.options {
            match config.options.get_mut(&name) {
                None => drop(config.options.insert(name, value.into())),
                Some(serde_json::Value::Array(values)) => values.push(value.into()),
                Some(first) => *first = vec![first.take(), value.into()].into(),
            }
        }
        Ok(config)
    }

    /// The registry's URL without credentials, as health and logs show it.
    #[must_use]
    pub fn display_url(&self) -> String {
        self.connection.display_url(&self.kind)
    }

    /// Sets where the registry is and how to log in.
    #[must_use]
    pub fn with_connection(mut self, connection: Connection) -> Self {
        self.connection = connection;
        self
    }

    /// Says whether the service is unhealthy without the registry.
    #[must_use]
    pub fn with_required(mut self, required: bool) -> Self {
        self.required = required;
        self
    }

    /// Sets how long a registration outlives a process that no longer renews it.
    #[must_use]
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.lease_ttl = ttl;
        self
    }

    /// Sets the active checks of instances.
    #[must_use]
    pub fn with_health_check(mut self, check: HealthCheckConfig) -> Self {
        self.health_check = check;
        self
    }

    /// Sets how an instance is chosen.
    #[must_use]
    pub fn with_strategy(mut self, strategy: BalanceStrategy) -> Self {
        self.load_balancer.strategy = strategy;
        self
    }
}

/// What is remembered of a registry's answers. They are kept current by watching; the last known good ones are used,
/// marked stale, while the registry is away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct DiscoveryCacheConfig {
    /// Services watched at once; the one unused for longest makes room. Default 1024.
    #[schemars(range(min = 1))]
    pub capacity: u32,
    /// A service that nobody asked for in this time is no longer watched. Default `10m`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub idle_expiry: Duration,
    /// The whole list is fetched again this often, should a change have been missed. Default `1m`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub resync_interval: Duration,
    /// When the registry suddenly lists no instance that takes requests, or lists fewer after it was away, those that are
    /// missing are asked for so long, where there is no other to ask, and given up at once if they cannot be connected to.
    /// `0s` believes the registry at once. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub keep_vanished: Duration,
    /// A file in which what is known is kept, for this process alone: what is used after a start, marked stale, for services
    /// that the registry does not answer about. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_file: Option<PathBuf>,
    /// What is older in that file is not used: the addresses may belong to others by now. Default `1d`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub snapshot_max_age: Duration,
}

impl Default for DiscoveryCacheConfig {
    fn default() -> Self {
        Self {
            capacity: 1024,
            idle_expiry: Duration::from_secs(600),
            resync_interval: Duration::from_secs(60),
            keep_vanished: Duration::from_secs(30),
            snapshot_file: None,
            snapshot_max_age: Duration::from_secs(24 * 3600),
        }
    }
}

/// Active checks of the instances of services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HealthCheckConfig {
    /// Whether instances that name a health path are checked from here. Default true.
    pub enabled: bool,
    /// How they are asked: for their health path (`http`), whether they can be connected to (`tcp`), or by the health
    /// protocol of gRPC (`grpc`). Default `http`.
    #[serde(rename = "type")]
    pub kind: CheckKind,
    /// By `grpc`, the service within the server that is asked about, such as `shop.Orders`. Default: none, the whole server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_service: Option<String>,
    /// Time between two checks of one instance. Default `30s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub interval: Duration,
    /// Time between the checks that confirm a first failed one, or a first good one, until the thresholds are reached: an
    /// instance that is down need not wait for whole intervals. Never more than `interval`. Default `1s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub confirm_interval: Duration,
    /// How far a check may stray from these times, either way and at random, in percent, so that many callers do not ask at the same
    /// moment. Default 10.
    #[schemars(range(max = 100))]
    pub jitter_percent: u8,
    /// Time for one check. Default `5s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub timeout: Duration,
    /// Failed checks in a row after which an instance gets no more requests. One is enough where the instance answers that it
    /// is not well, refuses to be connected to, or has failed a call just before. Default 3.
    #[schemars(range(min = 1))]
    pub failure_threshold: u32,
    /// Good checks in a row after which it gets requests again. Default 1.
    #[schemars(range(min = 1))]
    pub success_threshold: u32,
    /// Most checks of one service that are under way at a time. Of few instances there are fewer: as many as it takes to keep
    /// the interval though none of them answers. Default 1024.
    #[schemars(range(min = 1))]
    pub max_concurrent: u32,
}

impl Default for HealthCheckConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            kind: CheckKind::default(),
            grpc_service: None,
            interval: Duration::from_secs(30),
            confirm_interval: Duration::from_secs(1),
            jitter_percent: 10,
            timeout: Duration::from_secs(5),
            failure_threshold: 3,
            success_threshold: 1,
            max_concurrent: 1024,
        }
    }
}

impl HealthCheckConfig {
    /// Checks of this kind, otherwise by default.
    #[must_use]
    pub fn new(kind: CheckKind) -> Self {
        Self {
            kind,
            ..Self::default()
        }
    }

    /// Sets the service within a gRPC server that is asked about.
    #[must_use]
    pub fn with_grpc_service(mut self, service: impl Into<String>) -> Self {
        self.grpc_service = Some(service.into());
        self
    }

    /// Sets how far a check may stray from the interval, in percent; more than 100 is 100.
    #[must_use]
    pub fn with_jitter_percent(mut self, percent: u8) -> Self {
        self.jitter_percent = percent;
        self
    }

    /// Sets the time between two checks of one instance.
    #[must_use]
    pub fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets the time between the checks that confirm a first failed or good one. The time between two checks is the most.
    #[must_use]
    pub fn with_confirm_interval(mut self, interval: Duration) -> Self {
        self.confirm_interval = interval;
        self
    }

    /// Sets the time for one check.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets after how many failed checks an instance gets no more requests.
    #[must_use]
    pub fn with_failure_threshold(mut self, failures: u32) -> Self {
        self.failure_threshold = failures;
        self
    }

    /// Sets how many checks of one service may be under way at a time.
    #[must_use]
    pub fn with_max_concurrent(mut self, checks: u32) -> Self {
        self.max_concurrent = checks;
        self
    }

    /// Sets after how many good checks it gets requests again.
    #[must_use]
    pub fn with_success_threshold(mut self, successes: u32) -> Self {
        self.success_threshold = successes;
        self
    }
}

/// How an instance is asked whether it is well.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CheckKind {
    /// It answers its health path with a status from 200 to 399.
    #[default]
    Http,
    /// It can be connected to.
    Tcp,
    /// `grpc.health.v1.Health/Check` answers `SERVING`.
    Grpc,
}

/// How an instance is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LoadBalancerConfig {
    /// The rule. Default `power_of_two_choices`.
    pub strategy: BalanceStrategy,
    /// How long an instance that comes when others are there gets its share bit by bit, for caches that have to fill. Default
    /// `0s`: it gets it at once.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub slow_start: Duration,
    /// Of very many instances this caller asks so many, chosen by chance and kept as long as they are there; the others when
    /// all of those were tried. 0 asks all. Default 0.
    pub subset: u32,
    /// How many percent of an even share the instances of the caller's own zone take before what is more goes to other zones,
    /// callers taken to be spread evenly over the zones. 0 keeps all calls in the zone while it has one instance. Default 120.
    #[schemars(range(max = 10000))]
    pub zone_overload_percent: u32,
    /// By `consistent_hash`, an instance with so many percent of the requests that it would have if all were spread evenly
    /// gets no more of them; another one does, the same for each key. 0 means without bound, 1 to 99 nothing: nobody could
    /// have less than an even share. Default 150.
    #[schemars(range(max = 10000))]
    pub bound_percent: u32,
    /// Header of a request whose value is its key, for `sticky` and `consistent_hash`, where the call names none. Default:
    /// none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "header-name"))]
    pub key_header: Option<String>,
    /// Cookie of a request whose value is its key, where there is neither a key of the call nor `key_header`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_cookie: Option<String>,
    /// By `sticky`, how the keys are remembered.
    pub sticky: StickyConfig,
    /// When an instance that fails requests is left out for a while.
    pub ejection: EjectionConfig,
}

impl Default for LoadBalancerConfig {
    fn default() -> Self {
        Self {
            strategy: BalanceStrategy::default(),
            slow_start: Duration::ZERO,
            subset: 0,
            zone_overload_percent: 120,
            bound_percent: 150,
            key_header: None,
            key_cookie: None,
            sticky: StickyConfig::default(),
            ejection: EjectionConfig::default(),
        }
    }
}

impl LoadBalancerConfig {
    /// Balancing by a rule, with the default ejection.
    #[must_use]
    pub fn new(strategy: BalanceStrategy) -> Self {
        Self {
            strategy,
            ..Self::default()
        }
    }

    /// Sets how long newcomers get their share bit by bit.
    #[must_use]
    pub fn with_slow_start(mut self, window: Duration) -> Self {
        self.slow_start = window;
        self
    }

    /// Sets how much more than an even share the instances of the own zone take.
    #[must_use]
    pub fn with_zone_overload_percent(mut self, percent: u32) -> Self {
        self.zone_overload_percent = percent;
        self
    }

    /// Sets how many of very many instances are asked.
    #[must_use]
    pub fn with_subset(mut self, size: u32) -> Self {
        self.subset = size;
        self
    }

    /// Sets how keys are remembered by [`BalanceStrategy::Sticky`].
    #[must_use]
    pub fn with_sticky(mut self, sticky: StickyConfig) -> Self {
        self.sticky = sticky;
        self
    }

    /// Sets when an instance that fails requests is left out for a while.
    #[must_use]
    pub fn with_ejection(mut self, ejection: EjectionConfig) -> Self {
        self.ejection = ejection;
        self
    }
}

/// How keys are remembered by `sticky`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct StickyConfig {
    /// Whether a key goes back to its instance when that gets requests again; else it stays where it went meanwhile.
    /// Default false: what a session left there is old by then.
    pub fail_back: bool,
    /// Keys remembered for one service, 8 bytes each, rounded up to a power of two. A key that others pushed out goes where
    /// `consistent_hash` leads it. Default 16384.
    #[schemars(range(min = 4, max = 16_777_216))]
    pub keys: u32,
}

impl Default for StickyConfig {
    fn default() -> Self {
        Self {
            fail_back: false,
            keys: 16_384,
        }
    }
}

impl StickyConfig {
    /// Sets whether a key goes back to its instance when that gets requests again.
    #[must_use]
    pub fn with_fail_back(mut self, fail_back: bool) -> Self {
        self.fail_back = fail_back;
        self
    }
}

/// When an instance that fails requests is left out for a while. The last one in rotation always stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct EjectionConfig {
    /// Whether instances are left out at all. Default true.
    pub enabled: bool,
    /// Failed requests in a row after which an instance is left out; one that cannot be connected to is left out at
    /// once. 0 means that only those are. Default 5.
    pub consecutive_failures: u32,
    /// How long, times how often in a row. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub base_time: Duration,
    /// The longest time. Default `5m`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub max_time: Duration,
    /// Most instances that may be out at a time for failing, in percent of those that take requests, computed as it would be
    /// with one more. Of those that cannot be connected to as many are out as there are. The last one in rotation stays
    /// whatever this says. Default 50.
    #[schemars(range(max = 100))]
    pub max_percent: u8,
    /// With fewer instances that nothing speaks against than this, in percent of those that take requests, all get
    /// requests: they may work, and the few left could not bear everything. 0 means only when there is none. Default 10.
    #[schemars(range(max = 100))]
    pub panic_percent: u8,
    /// How often instances are compared with each other by `success_rate` and `latency`. Default `10s`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub interval: Duration,
    /// Leaves an instance out whose requests fail more often than those of the others.
    pub success_rate: SuccessRateConfig,
    /// Leaves an instance out that answers more slowly than the others. Off unless `factor` is given.
    pub latency: LatencyOutlierConfig,
}

/// Leaves an instance out whose requests fail more often than those of the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct SuccessRateConfig {
    /// Whether they are compared. Default true.
    pub enabled: bool,
    /// An instance goes when its share of successes is so many percent points below that of all the others together.
    /// Default 30.
    #[schemars(range(min = 1, max = 100))]
    pub below_others: u8,
    /// With fewer requests than this in an interval an instance is not judged. Default 20.
    #[schemars(range(min = 1))]
    pub minimum_requests: u32,
}

impl Default for SuccessRateConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            below_others: 30,
            minimum_requests: 20,
        }
    }
}

/// Leaves an instance out that answers more slowly than the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct LatencyOutlierConfig {
    /// An instance goes when its mean latency is so many times that of all the others together. 0, the default, means
    /// never: balancing by load gives a slow instance fewer requests anyway.
    #[schemars(range(max = 1000))]
    pub factor: u32,
    /// What takes less than this is not slow, whatever the others take. Default `100ms`.
    #[serde(with = "trunkline_core::duration")]
    #[schemars(with = "trunkline_core::duration::Text")]
    pub at_least: Duration,
    /// With fewer answers than this in an interval an instance is not judged. Default 20.
    #[schemars(range(min = 1))]
    pub minimum_requests: u32,
}

impl Default for LatencyOutlierConfig {
    fn default() -> Self {
        Self {
            factor: 0,
            at_least: Duration::from_millis(100),
            minimum_requests: 20,
        }
    }
}

impl Default for EjectionConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 5,
            base_time: Duration::from_secs(10),
            max_time: Duration::from_secs(300),
            max_percent: 50,
            panic_percent: 10,
            interval: Duration::from_secs(10),
            success_rate: SuccessRateConfig::default(),
            latency: LatencyOutlierConfig::default(),
        }
    }
}

impl EjectionConfig {
    /// Leaves no instance out.
    #[must_use]
    pub fn disabled() -> Self {
        Self {
            enabled: false,
            ..Self::default()
        }
    }

    /// Sets after how many failed requests in a row an instance is left out.
    #[must_use]
    pub fn with_consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive_failures = failures;
        self
    }

    /// Sets how long, times how often in a row.
    #[must_use]
    pub fn with_base_time(mut self, base_time: Duration) -> Self {
        self.base_time = base_time;
        self
    }

    /// Sets the most instances that may be out at a time, in percent.
    #[must_use]
    pub fn with_max_percent(mut self, percent: u8) -> Self {
        self.max_percent = percent;
        self
    }
}

/// A rule by which an instance is chosen.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BalanceStrategy {
    /// One after the other, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// The one with the fewest requests under way, by weight; among more than 32 the best of four drawn by chance.
    LeastRequests,
    /// Of two drawn by chance, by weight, the less loaded one; load is recent latency times requests under way.
    #[default]
    #[serde(alias = "p2c")]
    PowerOfTwoChoices,
    /// Requests with the same key to the same instance, as long as it is there and not overloaded (`bound_percent`); nearly
    /// every key keeps its instance when others come or go. Requests without a key by `power_of_two_choices`.
    ConsistentHash,
    /// Requests with the same key stay at the same instance for as long as it gets requests, whoever else comes, and at
    /// another one when it does not. Requests without a key by `power_of_two_choices`.
    Sticky,
}

impl BalanceStrategy {
    /// The rule as configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastRequests => "least_requests",
            Self::PowerOfTwoChoices => "power_of_two_choices",
            Self::ConsistentHash => "consistent_hash",
            Self::Sticky => "sticky",
        }
    }
}
