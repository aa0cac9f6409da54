//! Checks of single endpoints, beside the health path of the instances.

use std::collections::BTreeMap;
use std::sync::Arc;

use trunkline_core::task::Scope;
use trunkline_core::{Error, Result};

use super::health::CheckResult;
use super::probe::{AnyProbe, Probe};
use super::run::{Asked, Checking, Results};
use super::{InUse, Running};
use crate::config::HealthCheckConfig;
use crate::instances::Instances;

/// Checks of endpoints that one service can have; each is one bit of what is known of an instance.
const MOST: usize = 63;

/// The check of one endpoint at every instance of a service. It begins with
/// [`Instances::check_endpoint`](crate::Instances::check_endpoint).
///
/// ```
/// use std::time::Duration;
/// use trunkline_core::Result;
/// use trunkline_discovery::{EndpointCheck, HealthCheckConfig, Probe, ServiceInstance};
///
/// struct Search;
///
/// impl Probe for Search {
///     async fn probe(&self, _instance: &ServiceInstance) -> Result<()> {
///         Ok(())
///     }
/// }
///
/// let every = HealthCheckConfig::default().with_interval(Duration::from_secs(10));
/// let check = EndpointCheck::new("GET /search", Search, every);
/// assert_eq!(check.name(), "GET /search");
/// ```
#[derive(Clone, Debug)]
pub struct EndpointCheck {
    name: Arc<str>,
    pub(super) probe: AnyProbe,
    pub(super) config: HealthCheckConfig,
}

impl EndpointCheck {
    /// A check by this name, under which its results are found. The probe asks the endpoint.
    pub fn new(name: impl Into<Arc<str>>, probe: impl Probe, config: HealthCheckConfig) -> Self {
        Self {
            name: name.into(),
            probe: probe.erase(),
            config,
        }
    }

    /// The name of the endpoint.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The checks of one service that run.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// That of the health path.
    pub(crate) own: Option<Running>,
    /// Where one stands does not change: its word counts at that bit.
    endpoints: Vec<(EndpointCheck, Running)>,
}

/// What the checks of a service have said.
pub(crate) struct Said {
    pub(super) own: Results,
    endpoints: Vec<(Arc<str>, Results)>,
}

impl Checks {
    /// The bit of the health path.
    pub(crate) const OWN: u8 = 0;

    /// Takes a check in, in place of one of the same name. Says whether it is another one than runs already.
    pub(crate) fn begin(&mut self, check: &EndpointCheck, running: Running) -> Result<bool> {
        let known = self.endpoints.iter_mut();
        let mut known = known.filter(|(known, _)| known.name == check.name);
        if let Some((before, its)) = known.next() {
            if before.config == check.config {
                return Ok(false);
            }
            its.stop.cancel();
            (*before, *its) = (check.clone(), running);
            return Ok(true);
        }
        if self.endpoints.len() >= MOST {
            return Err(Error::exhausted(format!(
                "endpoint {} cannot be checked: {MOST} of the service are already",
                check.name
            )));
        }
        self.endpoints.push((check.clone(), running));
        Ok(true)
    }

    pub(crate) fn endpoint_checks(&self) -> Vec<EndpointCheck> {
        let checks = self.endpoints.iter();
        checks.map(|(check, _)| check.clone()).collect()
    }

    /// The bit of the check with these results, if it runs.
    pub(crate) fn slot_of(&self, by: &Results) -> Option<u8> {
        if self.own.as_ref().is_some_and(|own| own.results.is(by)) {
            return Some(Self::OWN);
        }
        let mut endpoints = self.endpoints.iter();
        let at = endpoints.position(|(_, running)| running.results.is(by))?;
        u8::try_from(at + 1).ok()
    }

    pub(crate) fn results(&self) -> Said {
        let own = self.own.as_ref().map(|own| own.results.clone());
        let endpoints = self.endpoints.iter();
        Said {
            own: own.unwrap_or_default(),
            endpoints: endpoints
                .map(|(check, running)| (Arc::clone(&check.name), running.results.clone()))
                .collect(),
        }
    }
}

impl Said {
    pub(super) fn of_endpoints(&self, id: &str) -> BTreeMap<String, CheckResult> {
        let endpoints = self.endpoints.iter();
        let said = endpoints
            .filter_map(|(name, results)| Some((name.as_ref().to_owned(), results.get(id)?)));
        said.collect()
    }
}

/// Begins to check an endpoint, unless the same check runs.
pub(crate) fn begin_endpoint(instances: &Instances, check: &EndpointCheck) -> Result<()> {
    if !check.config.enabled {
        return Ok(());
    }
    let pool = instances.pool();
    let scope = pool.scope().cloned();
    // Instances that are known need no watch, and would never be given up if their checks held them.
    let keep = scope.as_ref().map(|_| InUse::of(instances.clone()));
    let scope = scope.unwrap_or_else(Scope::new);
    let (stop, results) = (scope.token().child_token(), Results::default());
    let running = Running {
        stop: stop.clone(),
        results: results.clone(),
    };
    if !pool.begin_endpoint_check(check, running)? {
        return Ok(());
    }
    let (probe, config) = (check.probe.clone(), check.config.clone());
    let checking = Checking::new(pool, probe, config, results, Asked::Everyone);
    scope.spawn("discovery-endpoint-check", async move {
        let _keep = keep;
        tokio::select! {
            () = stop.cancelled() => {}
            () = checking.run() => {}
        }
    });
    Ok(())
}
