//! A policy in which every value is settled, and where each came from.

mod disturbed;
mod handle;
mod hedged;
mod layers;
mod limits;
mod run;

use crate::breaker::BreakerSettings;
use crate::bulkhead::BulkheadSettings;
use crate::cache::CacheSettings;
use crate::chaos::ChaosSettings;
use crate::concurrency::ConcurrencySettings;
use crate::fallback::FallbackSettings;
use crate::health::EndpointCheckSettings;
use crate::hedge::HedgeSettings;
use crate::ratelimit::RateLimitSettings;
use crate::retry::RetrySettings;
use crate::timeout::TimeoutSettings;
use crate::versions::VersionSettings;

pub(crate) use handle::Engine;
pub use handle::{Current, Policy};
pub(crate) use hedged::Hedging;
pub use layers::{Explained, Explanation, Layer, PolicyLayers};
pub use run::PolicyError;

/// Whose calls share one state: set on a service, a limit counts all its endpoints together; set on an endpoint, that
/// endpoint alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All endpoints of a service.
    #[default]
    Service,
    /// One endpoint.
    Endpoint,
}

impl Scope {
    fn narrower(self, other: Self) -> Self {
        match (self, other) {
            (Self::Service, Self::Service) => Self::Service,
            _ => Self::Endpoint,
        }
    }
}

/// A policy in which every value is settled. Made by [`PolicyLayers::resolve`]; `default()` is what applies where
/// nothing is configured.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EffectivePolicy {
    /// Limits of the whole call and of its parts.
    pub timeout: TimeoutSettings,
    /// When and how often a failed attempt is repeated.
    pub retry: RetrySettings,
    /// When calls are refused because the other side keeps failing; `None` where it is switched off.
    pub circuit_breaker: Option<BreakerSettings>,
    /// How many calls may run at once; `None` where nothing limits them.
    pub bulkhead: Option<BulkheadSettings>,
    /// How many calls may begin in a span of time; `None` where nothing limits them.
    pub rate_limit: Option<RateLimitSettings>,
    /// How many calls may run at once as far as the other side can take them; `None` where that is not found out.
    pub concurrency: Option<ConcurrencySettings>,
    /// What goes wrong on purpose; `None` where nothing does.
    pub chaos: Option<ChaosSettings>,
    /// When a call is asked a second time beside the first; `None` where it never is.
    pub hedge: Option<HedgeSettings>,
    /// Which versions of the service are asked; `None` where requests name none.
    pub versions: Option<VersionSettings>,
    /// Which answers are kept, and for how long; `None` where none are.
    pub cache: Option<CacheSettings>,
    /// What answers when the call has failed for good; `None` where nothing does.
    pub fallback: Option<FallbackSettings>,
    /// How the endpoint is checked; `None` where it is not.
    pub health_check: Option<EndpointCheckSettings>,
}

impl Default for EffectivePolicy {
    fn default() -> Self {
        Self {
            timeout: TimeoutSettings::default(),
            retry: RetrySettings::default(),
            circuit_breaker: Some(BreakerSettings::default()),
            bulkhead: None,
            rate_limit: None,
            concurrency: None,
            chaos: None,
            hedge: None,
            versions: None,
            cache: Some(CacheSettings::default()),
            fallback: None,
            health_check: None,
        }
    }
}
