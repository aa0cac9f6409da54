//! Merges the layers of a policy field by field and remembers where every value came from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use trunkline_core::duration;

use super::{EffectivePolicy, Scope};
use crate::breaker::{BreakerSettings, Control, SlowCallSettings, WindowSettings};
use crate::bulkhead::BulkheadSettings;
use crate::cache::CacheSettings;
use crate::config::{
    ForcedState, InvalidPolicy, PolicyConfig, Problem, RetryableKind, Strategy, VersionFailure,
    VersionPlace,
};
use crate::declared::Declared;
use crate::fallback::FallbackSettings;
use crate::health::EndpointCheckSettings;
use crate::hedge::HedgeSettings;
use crate::retry::{BudgetSettings, RetrySettings};
use crate::timeout::TimeoutSettings;
use crate::versions::VersionSettings;

/// Which part of the configuration a layer is, weakest first. The text is how `policy explain` names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Layer {
    /// The values of this crate.
    BuiltIn,
    /// What the author of an interface wrote at a method.
    Attribute(String),
    /// `policies.default`.
    Default(String),
    /// Another of the `policies`, chosen by name.
    Named(String),
    /// A service, or a topic.
    Service(String),
    /// An endpoint of a service, or one direction of a topic.
    Endpoint(String),
    /// Options given with one call.
    Call(String),
}

impl Layer {
    fn rank(&self) -> u8 {
        match self {
            Self::BuiltIn => 0,
            Self::Attribute(_) => 1,
            Self::Default(_) => 2,
            Self::Named(_) => 3,
            Self::Service(_) => 4,
            Self::Endpoint(_) => 5,
            Self::Call(_) => 6,
        }
    }

    /// A limit set here counts the calls of one endpoint, not those of the whole service.
    fn scope(&self) -> Scope {
        match self {
            Self::Attribute(_) | Self::Endpoint(_) | Self::Call(_) => Scope::Endpoint,
            Self::BuiltIn | Self::Default(_) | Self::Named(_) | Self::Service(_) => Scope::Service,
        }
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::Attribute(name)
            | Self::Default(name)
            | Self::Named(name)
            | Self::Service(name)
            | Self::Endpoint(name)
            | Self::Call(name) => f.write_str(name),
        }
    }
}

/// Where one effective value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// Which value: `retry.max_attempts`.
    pub path: &'static str,
    /// The value as configuration would write it.
    pub value: String,
    /// The layer that set it.
    pub layer: Layer,
    /// The place in that layer, such as `communication.yaml:12`, where the layer knows it.
    pub origin: Option<String>,
}

/// A policy together with the origin of every value.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explained<T> {
    /// The policy.
    pub policy: T,
    /// One entry for each value, in the order of the configuration reference.
    pub explanations: Vec<Explanation>,
}

type Origins<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// Collects the layers of one policy, in any order, and merges them: the strongest layer that sets a field wins.
///
/// ```
/// use trunkline_resilience::{Layer, PolicyConfig, PolicyLayers};
///
/// let mut service = PolicyConfig::default();
/// service.retry.max_attempts = Some(2);
/// let explained = PolicyLayers::new()
///     .push(Layer::Service("services.users".into()), service, |path| {
///         Some(format!("communication.yaml, {path}"))
///     })
///     .resolve()?;
/// assert_eq!(explained.policy.retry.max_attempts, 2);
/// let attempts = explained.explanations.iter().find(|e| e.path == "retry.max_attempts").unwrap();
/// assert_eq!(attempts.origin.as_deref(), Some("communication.yaml, retry.max_attempts"));
/// # Ok::<(), trunkline_resilience::InvalidPolicy>(())
/// ```
#[derive(Default)]
pub struct PolicyLayers<'a> {
    layers: Vec<(Layer, PolicyConfig, Origins<'a>)>,
}

impl fmt::Debug for PolicyLayers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.layers.iter().map(|(layer, config, _)| (layer, config)))
            .finish()
    }
}

impl<'a> PolicyLayers<'a> {
    /// No layers: the built-in values alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a layer. `origins` says for the path of a field (`retry.max_attempts`) where it was written; it is asked
    /// only about fields that this layer decides. Of two layers of the same kind the later one is the stronger.
    #[must_use]
    pub fn push(
        mut self,
        layer: Layer,
        config: PolicyConfig,
        origins: impl Fn(&str) -> Option<String> + 'a,
    ) -> Self {
        let place = self
            .layers
            .partition_point(|(known, ..)| known.rank() <= layer.rank());
        self.layers
            .insert(place, (layer, config, Box::new(origins)));
        self
    }

    /// Adds what the author of an interface wrote at a method, if anything.
    #[must_use]
    pub fn push_declared(self, declared: Option<&Declared>) -> Self {
        match declared {
            None => self,
            Some(declared) => {
                let place = declared.place.to_string();
                let layer = Layer::Attribute(declared.method.to_string());
                self.push(layer, declared.policy.clone(), move |_| Some(place.clone()))
            }
        }
    }

    /// Merges the layers.
    ///
    /// # Errors
    /// [`InvalidPolicy`] with every value out of its range, in every layer.
    pub fn resolve(&self) -> Result<Explained<EffectivePolicy>, InvalidPolicy> {
        let problems: Vec<Problem> = self
            .layers
            .iter()
            .flat_map(|(_, config, _)| config.problems())
            .collect();
        if !problems.is_empty() {
            return Err(InvalidPolicy { problems });
        }
        let mut merge = Merge {
            layers: &self.layers,
            explanations: Vec::with_capacity(64),
        };
        let policy = EffectivePolicy {
            timeout: merge.timeout(),
            retry: merge.retry(),
            circuit_breaker: merge.circuit_breaker(),
            bulkhead: merge.bulkhead(),
            rate_limit: merge.rate_limit(),
            concurrency: merge.concurrency(),
            chaos: merge.chaos(),
            hedge: merge.hedge(),
            versions: merge.versions(),
            cache: merge.cache(),
            fallback: merge.fallback(),
            health_check: merge.health_check(),
        };
        Ok(Explained {
            policy,
            explanations: merge.explanations,
        })
    }
}

/// How a value is written in configuration.
pub(super) trait Shown {
    fn shown(&self) -> String;
}

impl Shown for Duration {
    fn shown(&self) -> String {
        duration::format(*self)
    }
}

macro_rules! shown_by_display {
    ($($kind:ty),*) => {$(
        impl Shown for $kind {
            fn shown(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

shown_by_display!(bool, u32, u64, f64, String, serde_json::Value);

impl Shown for crate::config::WindowKind {
    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Shown for ForcedState {
    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Shown for crate::config::CircuitPer {
    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Shown for Strategy {
    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Shown for Vec<RetryableKind> {
    fn shown(&self) -> String {
        let words = self.iter().map(|kind| kind.kind().as_str());
        format!("[{}]", words.collect::<Vec<_>>().join(", "))
    }
}

impl Shown for crate::config::CacheMode {
    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Shown for VersionPlace {
    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Shown for Vec<VersionFailure> {
    fn shown(&self) -> String {
        let words = self.iter().map(|kind| kind.kind().as_str());
        format!("[{}]", words.collect::<Vec<_>>().join(", "))
    }
}

impl Shown for Vec<u16> {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

impl Shown for crate::config::ConcurrencyAlgorithm {
    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Shown for crate::config::ChaosErrorKind {
    fn shown(&self) -> String {
        self.as_str().to_owned()
    }
}

impl Shown for Vec<u32> {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}

impl Shown for Vec<String> {
    fn shown(&self) -> String {
        format!("[{}]", self.join(", "))
    }
}

pub(super) struct Merge<'l, 'a> {
    layers: &'l [(Layer, PolicyConfig, Origins<'a>)],
    explanations: Vec<Explanation>,
}

impl Merge<'_, '_> {
    /// The value of the strongest layer that sets the field.
    pub(super) fn find<T>(&self, read: &impl Fn(&PolicyConfig) -> Option<T>) -> Option<(usize, T)> {
        self.layers
            .iter()
            .enumerate()
            .rev()
            .find_map(|(index, (_, config, _))| read(config).map(|value| (index, value)))
    }

    /// Whoever asked for a limit says whose calls it counts: the layer of the number, else that of the switch.
    pub(super) fn scope_of(
        &self,
        number: impl Fn(&PolicyConfig) -> Option<()>,
        switch: impl Fn(&PolicyConfig) -> Option<()>,
    ) -> Scope {
        let asked = self.find(&number).or_else(|| self.find(&switch));
        asked
            .and_then(|(index, ())| self.layers.get(index))
            .map_or(Scope::Service, |(layer, ..)| layer.scope())
    }

    fn note(&mut self, path: &'static str, value: String, index: Option<usize>) -> Scope {
        let (layer, origin) = match index.and_then(|index| self.layers.get(index)) {
            Some((layer, _, origins)) => (layer.clone(), origins(path)),
            None => (Layer::BuiltIn, None),
        };
        let scope = layer.scope();
        self.explanations.push(Explanation {
            path,
            value,
            layer,
            origin,
        });
        scope
    }

    /// A field that always has a value, and whose state it counts in.
    fn scoped<T: Shown>(
        &mut self,
        path: &'static str,
        built_in: T,
        read: impl Fn(&PolicyConfig) -> Option<T>,
    ) -> (T, Scope) {
        let (index, value) = match self.find(&read) {
            Some((index, value)) => (Some(index), value),
            None => (None, built_in),
        };
        let scope = self.note(path, value.shown(), index);
        (value, scope)
    }

    /// A field that always has a value.
    pub(super) fn value<T: Shown>(
        &mut self,
        path: &'static str,
        built_in: T,
        read: impl Fn(&PolicyConfig) -> Option<T>,
    ) -> T {
        self.scoped(path, built_in, read).0
    }

    /// A field that may stay without a value.
    pub(super) fn optional<T: Shown>(
        &mut self,
        path: &'static str,
        absent: &str,
        read: impl Fn(&PolicyConfig) -> Option<T>,
    ) -> Option<T> {
        let found = self.find(&read);
        let text = found
            .as_ref()
            .map_or_else(|| absent.to_owned(), |(_, value)| value.shown());
        self.note(path, text, found.as_ref().map(|(index, _)| *index));
        found.map(|(_, value)| value)
    }

    fn timeout(&mut self) -> TimeoutSettings {
        let built_in = TimeoutSettings::default();
        TimeoutSettings {
            connection: self.value("timeout.connection", built_in.connection, |c| {
                c.timeout.connection
            }),
            read: self.value("timeout.read", built_in.read, |c| c.timeout.read),
            first_byte: self.optional("timeout.first_byte", "none", |c| c.timeout.first_byte),
            total: self.value("timeout.total", built_in.total, |c| c.timeout.total),
            pool: self.value("timeout.pool", built_in.pool, |c| c.timeout.pool),
            floor: self.value("timeout.floor", built_in.floor, |c| c.timeout.floor),
            fair: self.value("timeout.fair", built_in.fair, |c| c.timeout.fair),
            attempt: self.value("request_timeout", built_in.attempt, |c| c.request_timeout),
        }
    }

    fn retry(&mut self) -> RetrySettings {
        let built_in = RetrySettings::default();
        RetrySettings {
            enabled: self.value("retry.enabled", built_in.enabled, |c| c.retry.enabled),
            max_attempts: self.value("retry.max_attempts", built_in.max_attempts, |c| {
                c.retry.max_attempts
            }),
            strategy: self.value("retry.strategy", built_in.strategy, |c| c.retry.strategy),
            delay: self.value("retry.delay", built_in.delay, |c| c.retry.delay),
            backoff: self.value("retry.backoff", built_in.backoff, |c| c.retry.backoff),
            max_delay: self.value("retry.max_delay", built_in.max_delay, |c| c.retry.max_delay),
            jitter: self.value("retry.jitter", built_in.jitter, |c| c.retry.jitter),
            max_elapsed: self.optional("retry.max_elapsed", "none", |c| c.retry.max_elapsed),
            budget: self.budget(),
            on_status: Arc::from(
                self.value("retry.on_status", built_in.on_status.to_vec(), |c| {
                    c.retry.on_status.clone()
                }),
            ),
            on_error: self
                .optional("retry.on_error", "every kind", |c| c.retry.on_error.clone())
                .map(|kinds| kinds.into_iter().map(RetryableKind::kind).collect()),
            methods: Arc::from(self.value("retry.methods", built_in.methods.to_vec(), |c| {
                c.retry.methods.as_deref().map(capitals)
            })),
        }
    }

    fn budget(&mut self) -> Option<BudgetSettings> {
        let built_in = BudgetSettings::default();
        let enabled = self.value("retry.budget.enabled", true, |c| c.retry.budget.enabled);
        let (percent, scope) = self.scoped("retry.budget.percent", built_in.percent, |c| {
            c.retry.budget.percent
        });
        let (min_per_second, floor_scope) = self.scoped(
            "retry.budget.min_per_second",
            built_in.min_per_second,
            |c| c.retry.budget.min_per_second,
        );
        enabled.then_some(BudgetSettings {
            percent,
            min_per_second,
            scope: scope.narrower(floor_scope),
        })
    }

    fn circuit_breaker(&mut self) -> Option<BreakerSettings> {
        let built_in = BreakerSettings::default();
        let enabled = self.value("circuit_breaker.enabled", true, |c| {
            c.circuit_breaker.enabled
        });
        let force = self.optional("circuit_breaker.force", "no", |c| c.circuit_breaker.force);
        let per = self.value("circuit_breaker.per", built_in.per, |c| {
            c.circuit_breaker.per
        });
        let failure_threshold = self.value(
            "circuit_breaker.failure_threshold",
            built_in.failure_threshold,
            |c| c.circuit_breaker.failure_threshold,
        );
        let success_threshold = self.value(
            "circuit_breaker.success_threshold",
            built_in.success_threshold,
            |c| c.circuit_breaker.success_threshold,
        );
        let recovery_timeout = self.value(
            "circuit_breaker.recovery_timeout",
            built_in.recovery_timeout,
            |c| c.circuit_breaker.recovery_timeout,
        );
        let half_open_max_calls = self.value(
            "circuit_breaker.half_open_max_calls",
            built_in.half_open_max_calls,
            |c| c.circuit_breaker.half_open_max_calls,
        );
        let probe_timeout = self.value("circuit_breaker.probe_timeout", recovery_timeout, |c| {
            c.circuit_breaker.probe_timeout
        });
        let settings = BreakerSettings {
            control: match force {
                None => Control::Automatic,
                Some(ForcedState::Open) => Control::ForcedOpen,
                Some(ForcedState::Closed) => Control::ForcedClosed,
                Some(ForcedState::Disabled) => Control::Disabled,
            },
            per,
            failure_threshold,
            success_threshold,
            recovery_timeout,
            half_open_max_calls,
            probe_timeout,
            window: self.window(built_in.window),
            slow_call: self.slow_call(),
        };
        enabled.then_some(settings)
    }

    fn window(&mut self, built_in: WindowSettings) -> WindowSettings {
        let kind = self.value("circuit_breaker.window.type", built_in.kind, |c| {
            c.circuit_breaker.window.kind
        });
        let size = self.value("circuit_breaker.window.size", built_in.size, |c| {
            c.circuit_breaker.window.size
        });
        let duration = self.value("circuit_breaker.window.duration", built_in.duration, |c| {
            c.circuit_breaker.window.duration
        });
        let minimum_calls = self.value(
            "circuit_breaker.window.minimum_calls",
            built_in.minimum_calls,
            |c| c.circuit_breaker.window.minimum_calls,
        );
        let failure_percent = self.value(
            "circuit_breaker.window.failure_percent",
            built_in.failure_percent,
            |c| c.circuit_breaker.window.failure_percent,
        );
        WindowSettings {
            kind,
            size,
            duration,
            minimum_calls,
            failure_percent,
        }
    }

    fn slow_call(&mut self) -> Option<SlowCallSettings> {
        let enabled = self.optional(
            "circuit_breaker.slow_call.enabled",
            "if duration is set",
            |c| c.circuit_breaker.slow_call.enabled,
        );
        let duration = self.optional("circuit_breaker.slow_call.duration", "none", |c| {
            c.circuit_breaker.slow_call.duration
        });
        let percent = self.value("circuit_breaker.slow_call.percent", 50.0, |c| {
            c.circuit_breaker.slow_call.percent
        });
        let duration = duration.filter(|_| enabled.unwrap_or(true))?;
        Some(SlowCallSettings { duration, percent })
    }

    fn bulkhead(&mut self) -> Option<BulkheadSettings> {
        let built_in = BulkheadSettings::default();
        let enabled = self.optional("bulkhead.enabled", "if max_concurrent is set", |c| {
            c.bulkhead.enabled
        });
        let scope = self.scope_of(
            |c| c.bulkhead.max_concurrent.map(drop),
            |c| c.bulkhead.enabled.map(drop),
        );
        let limited = self
            .find(&|c: &PolicyConfig| c.bulkhead.max_concurrent)
            .is_some();
        let max_concurrent = self.value("bulkhead.max_concurrent", built_in.max_concurrent, |c| {
            c.bulkhead.max_concurrent
        });
        let max_queue = self.value("bulkhead.max_queue", max_concurrent, |c| {
            c.bulkhead.max_queue
        });
        let max_wait = self.value("bulkhead.max_wait", built_in.max_wait, |c| {
            c.bulkhead.max_wait
        });
        enabled.unwrap_or(limited).then_some(BulkheadSettings {
            max_concurrent,
            max_queue,
            max_wait,
            scope,
        })
    }

    fn hedge(&mut self) -> Option<HedgeSettings> {
        let built_in = HedgeSettings::default();
        let enabled = self.optional("hedge.enabled", "if delay or percentile is set", |c| {
            c.hedge.enabled
        });
        let delay = self.optional("hedge.delay", "measured", |c| c.hedge.delay);
        let asked = delay.is_some() || self.find(&|c: &PolicyConfig| c.hedge.percentile).is_some();
        let percentile = self.value("hedge.percentile", built_in.percentile, |c| {
            c.hedge.percentile
        });
        let min_delay = self.value("hedge.min_delay", built_in.min_delay, |c| c.hedge.min_delay);
        let minimum_calls = self.value("hedge.minimum_calls", built_in.minimum_calls, |c| {
            c.hedge.minimum_calls
        });
        let max_hedges = self.value("hedge.max_hedges", built_in.max_hedges, |c| {
            c.hedge.max_hedges
        });
        let methods = self.value("hedge.methods", built_in.methods.to_vec(), |c| {
            c.hedge.methods.as_deref().map(capitals)
        });
        enabled.unwrap_or(asked).then(|| HedgeSettings {
            delay,
            percentile,
            min_delay,
            minimum_calls,
            max_hedges,
            methods: methods.into(),
        })
    }

    fn health_check(&mut self) -> Option<EndpointCheckSettings> {
        let built_in = EndpointCheckSettings::default();
        let enabled = self.value("health_check.enabled", false, |c| c.health_check.enabled);
        let interval = self.value("health_check.interval", built_in.interval, |c| {
            c.health_check.interval
        });
        let timeout = self.value("health_check.timeout", built_in.timeout, |c| {
            c.health_check.timeout
        });
        let failure_threshold = self.value(
            "health_check.failure_threshold",
            built_in.failure_threshold,
            |c| c.health_check.failure_threshold,
        );
        enabled.then_some(EndpointCheckSettings {
            interval,
            timeout,
            failure_threshold,
        })
    }

    fn versions(&mut self) -> Option<VersionSettings> {
        let enabled = self.optional("versions.enabled", "if order is set", |c| {
            c.versions.enabled
        });
        let order = self.optional("versions.order", "none", |c| c.versions.order.clone());
        let by = self.value("versions.by", VersionPlace::default(), |c| c.versions.by);
        let name = VersionSettings::name_in(by).to_owned();
        let name = self.value("versions.name", name, |c| c.versions.name.clone());
        let value = VersionSettings::VALUE.to_owned();
        let value = self.value("versions.value", value, |c| c.versions.value.clone());
        let built_in = VersionSettings::ON_ERROR.to_vec();
        let on_error = self.value("versions.on_error", built_in, |c| {
            c.versions.on_error.clone()
        });
        let on_status = self.value("versions.on_status", Vec::new(), |c| {
            c.versions.on_status.clone()
        });
        let order = order.filter(|order| !order.is_empty() && enabled.unwrap_or(true))?;
        Some(VersionSettings {
            order: order.into_iter().map(Arc::from).collect(),
            by,
            name: name.into(),
            value: value.into(),
            on_error: on_error.into_iter().map(VersionFailure::kind).collect(),
            on_status: on_status.into(),
        })
    }

    fn cache(&mut self) -> Option<CacheSettings> {
        let built_in = CacheSettings::default();
        let asked = self.find(&|c: &PolicyConfig| c.cache.enabled).is_some();
        let enabled = self.value("cache.enabled", true, |c| c.cache.enabled);
        let mode = self.value("cache.mode", built_in.mode, |c| c.cache.mode);
        let ttl = self.optional("cache.ttl", "as the answer says", |c| c.cache.ttl);
        let on_error = self.value("cache.cache_on_error", false, |c| c.cache.cache_on_error);
        let quick = CacheSettings::ERROR_TTL;
        let error_ttl = self.value(
            "cache.error_ttl",
            ttl.map_or(quick, |t| t.min(quick)),
            |c| c.cache.error_ttl,
        );
        let key = self.optional("cache.key", "method, path and query", |c| {
            c.cache.key.clone()
        });
        let vary_on = self.optional("cache.vary_on", "everything", |c| c.cache.vary_on.clone());
        let tags = self.value("cache.tags", Vec::new(), |c| c.cache.tags.clone());
        let public = self.value("cache.public", false, |c| c.cache.public);
        let store = self.value("cache.respect_no_store", true, |c| c.cache.respect_no_store);
        let absent = "as the answer says";
        let stale_while_revalidate = self.optional("cache.stale_while_revalidate", absent, |c| {
            c.cache.stale_while_revalidate
        });
        let stale_if_error =
            self.optional("cache.stale_if_error", absent, |c| c.cache.stale_if_error);
        enabled.then_some(CacheSettings {
            mode,
            ttl,
            error_ttl: (on_error && ttl.is_some()).then_some(error_ttl),
            key: key.map(Into::into),
            vary_on: vary_on.map(Into::into),
            tags: tags.into(),
            public,
            respect_no_store: store,
            stale_while_revalidate,
            stale_if_error,
            asked: asked || ttl.is_some(),
        })
    }

    fn fallback(&mut self) -> Option<FallbackSettings> {
        let enabled = self.optional(
            "fallback.enabled",
            "if cache, service or value is set",
            |c| c.fallback.enabled,
        );
        let cache = self.value("fallback.cache", false, |c| c.fallback.cache);
        let service = self.optional("fallback.service", "none", |c| c.fallback.service.clone());
        let forward_headers = self.value("fallback.forward_headers", false, |c| {
            c.fallback.forward_headers
        });
        let value = self.optional("fallback.value", "none", |c| c.fallback.value.clone());
        let reserve = self.value("fallback.reserve", FallbackSettings::RESERVE, |c| {
            c.fallback.reserve
        });
        let anything = cache || service.is_some() || value.is_some();
        (anything && enabled.unwrap_or(true)).then_some(FallbackSettings {
            cache,
            service,
            forward_headers,
            value,
            reserve,
        })
    }
}

fn capitals(methods: &[String]) -> Vec<String> {
    methods.iter().map(|m| m.to_ascii_uppercase()).collect()
}
