//! Which requests are let in while there are too many, as configuration says it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use http::{Extensions, HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use trunkline_core::duration;
use trunkline_resilience::concurrency::ConcurrencyLimiter;
use trunkline_resilience::config::RateLimitConfig;
use trunkline_resilience::ratelimit::{KeyedRateLimiter, RateLimitSettings};
use trunkline_resilience::timeout::TimeoutSettings;
use trunkline_resilience::{
    EffectivePolicy, InvalidPolicy, Observer, PolicyConfig, PolicyLayers, Problem, Target,
};
use trunkline_telemetry::Metrics;

use crate::ServerConfig;
use crate::layers::{LoadShedLayer, RateLimitLayer};

/// How many requests each client may send in a span of time. Requests never wait for their turn: what is too much gets 429
/// with `Retry-After`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ServerRateLimitConfig {
    /// Whether there is a limit. Default: yes once `limit` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Requests that a client may send within `per`. Default 100 where it is enabled without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub limit: Option<u32>,
    /// The span of time that `limit` is about. Default `1s`.
    #[serde(with = "duration::option", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<duration::Text>")]
    pub per: Option<Duration>,
    /// Requests that may come at once after a pause. Default: as many as `limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<u32>,
    /// Header that says who the client is, such as `X-Api-Key`. Only of use where something in front has checked it: else
    /// whoever asks is somebody else each time. Requests without it are counted by their address. Default: the address that
    /// the connection comes from, for IPv6 its network (/64).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Clients that are known at once; further ones are counted together. Default 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_clients: Option<u32>,
}

impl ServerRateLimitConfig {
    fn as_policy(&self) -> RateLimitConfig {
        let mut policy = RateLimitConfig::default();
        policy.enabled = self.enabled;
        policy.limit = self.limit;
        policy.per = self.per;
        policy.burst = self.burst;
        policy
    }
}

/// Longer names are nobody's: what is counted is bounded in size, too.
const LONGEST_KEY: usize = 256;

impl ServerConfig {
    /// What `concurrency` and `rate_limit` say that cannot be used, all of it at once, with the path seen from the section.
    /// Empty when both can be used.
    #[must_use]
    pub fn limit_problems(&self) -> Vec<Problem> {
        let mut found = self.limits().problems();
        if let Some(header) = &self.rate_limit.header
            && HeaderName::try_from(header).is_err()
        {
            found.push(Problem {
                path: "rate_limit.header",
                value: header.clone(),
                allowed: "the name of a header, such as X-Api-Key",
            });
        }
        found
    }

    fn limits(&self) -> PolicyConfig {
        let mut policy = PolicyConfig::default();
        policy.concurrency = self.concurrency.clone();
        policy.rate_limit = self.rate_limit.as_policy();
        policy
    }

    fn settled_limits(&self) -> Result<EffectivePolicy, InvalidPolicy> {
        let problems = self.limit_problems();
        if !problems.is_empty() {
            return Err(InvalidPolicy { problems });
        }
        let name = trunkline_resilience::Layer::Service("server".to_owned());
        let layers = PolicyLayers::new().push(name, self.limits(), |_| None);
        Ok(layers.resolve()?.policy)
    }
}

/// The layers that configuration asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Admission {
    pub(crate) rate_limit: Option<RateLimitLayer>,
    pub(crate) shed: Option<LoadShedLayer>,
}

impl Admission {
    pub(crate) fn new(
        service: &str,
        config: &ServerConfig,
        metrics: &Metrics,
    ) -> Result<Self, InvalidPolicy> {
        let settled = config.settled_limits()?;
        let limits = &config.rate_limit;
        let rate_limit = settled
            .rate_limit
            .map(|settings| by_client(limits, settings));
        let shed = settled.concurrency.map(|settings| {
            let shown = Arc::new(Shown(metrics.clone()));
            let limiter = ConcurrencyLimiter::observed(service, settings, shown);
            // A time that is shorter for everybody is no less fair to anybody.
            let fair = TimeoutSettings::default().fair;
            let fair = fair.min(config.request_timeout / 2);
            LoadShedLayer::new(Arc::new(limiter)).with_fair(fair)
        });
        Ok(Self { rate_limit, shed })
    }
}

fn by_client(config: &ServerRateLimitConfig, settings: RateLimitSettings) -> RateLimitLayer {
    let most = config.max_clients.unwrap_or(10_000);
    let counts = KeyedRateLimiter::new(usize::try_from(most).unwrap_or(usize::MAX));
    let header = config.header.as_ref();
    let header = header.and_then(|name| HeaderName::try_from(name).ok());
    RateLimitLayer::new(Arc::new(counts), settings, move |headers, extensions| {
        let named = header.as_ref().and_then(|name| name_of(name, headers));
        Some(named.unwrap_or_else(|| address_of(extensions)))
    })
}

fn name_of(name: &HeaderName, headers: &HeaderMap) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (!value.is_empty() && value.len() <= LONGEST_KEY).then(|| format!("name {value}"))
}

/// Requests that come without an address, as in tests, are counted together.
fn address_of(extensions: &Extensions) -> String {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    match peer.map(|peer| peer.0.ip().to_canonical()) {
        None => "address unknown".to_owned(),
        Some(IpAddr::V4(address)) => format!("address {address}"),
        // Whoever has one address of a network has all of them.
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("network {a:x}:{b:x}:{c:x}:{d:x}")
        }
    }
}

/// Shows the limit of the service itself beside those of the services that it calls.
#[derive(Debug)]
struct Shown(Metrics);

impl Observer for Shown {
    fn concurrency_changed(&self, target: &Target, limit: u32) {
        let service = self.0.resilience(&target.service);
        service.concurrency_limit("*", limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_its_address_or_its_network() {
        let key = |text: &str| {
            let mut extensions = Extensions::new();
            let peer: SocketAddr = text.parse().unwrap();
            extensions.insert(ConnectInfo(peer));
            address_of(&extensions)
        };
        assert_eq!(key("192.0.2.7:1"), key("192.0.2.7:2"));
        assert_ne!(key("192.0.2.7:1"), key("192.0.2.8:1"));
        assert_eq!(key("[::ffff:192.0.2.7]:1"), key("192.0.2.7:1"));
        assert_eq!(key("[2001:db8:0:1::1]:1"), key("[2001:db8:0:1:ffff::2]:1"));
        assert_ne!(key("[2001:db8:0:1::1]:1"), key("[2001:db8:0:2::1]:1"));
    }

    #[test]
    fn all_that_cannot_be_used_is_told_at_once() {
        let mut config = ServerConfig::default();
        assert!(config.limit_problems().is_empty());
        config.rate_limit.limit = Some(0);
        config.rate_limit.per = Some(Duration::ZERO);
        config.rate_limit.header = Some("no header".to_owned());
        config.concurrency.min = Some(50);
        config.concurrency.max = Some(10);
        let found = config.limit_problems();
        let paths: Vec<&str> = found.iter().map(|problem| problem.path).collect();
        for expected in ["rate_limit.limit", "rate_limit.per", "rate_limit.header"] {
            assert!(paths.contains(&expected), "{paths:?}");
        }
        assert!(
            paths.iter().any(|path| path.starts_with("concurrency.")),
            "{paths:?}"
        );
        let error = Admission::new("orders", &config, &Metrics::default()).unwrap_err();
        assert_eq!(error.problems, found);
    }
}
