//! Another configuration while it runs: what can change does so at once, and the rest is named.

use std::sync::Arc;
use std::time::Duration;

use trunkline_core::names::target;
use trunkline_core::{Error, Result};

use crate::{CommunicationConfig, CommunicationManager, ConfigBuilder, ConfigLoader, ConfigWatch};

/// What a new configuration changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppliedConfig {
    /// The paths whose values differ from the configuration before.
    pub changed: Vec<String>,
    /// Of all that differs from the configuration at the start, what does not take effect before a restart.
    pub needs_restart: Vec<String>,
}

impl CommunicationManager {
    /// Takes over a configuration while running, the whole or, where it cannot be used, nothing of it.
    ///
    /// At once: the numbers of policies wherever they are written, log levels, `debug_mode`, `detailed_metrics` and
    /// `drain_timeout`. Circuits, budgets and bulkheads keep their state, and calls that run end under the values they
    /// began with. HTTP clients that were not asked for yet are made by the new configuration; subscriptions have the
    /// numbers of the time when they began. Everything else is named in [`AppliedConfig::needs_restart`].
    ///
    /// ```
    /// # use trunkline_manager::{CommunicationConfig, CommunicationManager};
    /// # use trunkline_resilience::PolicyConfig;
    /// # fn main() -> trunkline_core::Result<()> {
    /// # let directory = std::env::temp_dir();
    /// let config = CommunicationConfig::builder().embedded_path(directory).build()?;
    /// let manager = CommunicationManager::new(config);
    /// let mut patient = PolicyConfig::default();
    /// patient.retry.max_attempts = Some(5);
    /// let config = manager.config().as_ref().clone().into_builder();
    /// let applied = manager.apply(config.policy("default", patient).build()?)?;
    /// assert_eq!(applied.changed, ["policies.default"]);
    /// assert!(applied.needs_restart.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `Config` with every problem ([`Diagnostics`](crate::Diagnostics)); the old configuration stays.
    pub fn apply(&self, config: CommunicationConfig) -> Result<AppliedConfig> {
        let found = config.check();
        if found.has_errors() {
            return Err(found.into_error());
        }
        // One after the other: the last one called is the last one in force.
        let _one = self.0.lock_applying();
        let before = self.0.current.load_full();
        let applied = AppliedConfig {
            changed: config.changes_from(&before),
            needs_restart: restarts(config.changes_from(&self.0.config)),
        };
        if applied.changed.is_empty() {
            return Ok(applied);
        }
        let now = Arc::new(config);
        self.0.current.store(Arc::clone(&now));
        for policies in self.policies() {
            policies.reload();
        }
        self.switch(&now, &before);
        tracing::info!(target: target::MANAGER, changed = ?applied.changed, "another configuration applies");
        if !applied.needs_restart.is_empty() {
            tracing::warn!(
                target: target::MANAGER, paths = ?applied.needs_restart,
                "some changes of the configuration take effect with the next start"
            );
        }
        Ok(applied)
    }

    /// Follows the files of a configuration and applies it whenever it changes, until the manager is shut down. What
    /// cannot be used is refused with a warning, and the old configuration stays.
    ///
    /// The loader should be the one that the configuration came from. What the code set on top of it is not in the
    /// files: [`watch_with`](Self::watch_with) sets it again.
    ///
    /// # Errors
    /// `Config` when what is in the files now cannot be used; `Cancelled` after a shutdown.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is followed before it returns.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub async fn watch(&self, loader: ConfigLoader, interval: Duration) -> Result<ConfigWatch> {
        self.watch_with(loader, interval, |loaded| loaded).await
    }

    /// Like [`watch`](Self::watch), with what the code sets on every configuration that is loaded.
    ///
    /// # Errors
    /// As [`watch`](Self::watch), also when what the code sets cannot be used.
    ///
    /// # Cancel safety
    /// As [`watch`](Self::watch).
    ///
    /// # Panics
    /// As [`watch`](Self::watch).
    pub async fn watch_with(
        &self,
        loader: ConfigLoader,
        interval: Duration,
        set: impl Fn(ConfigBuilder) -> ConfigBuilder + Send + Sync + 'static,
    ) -> Result<ConfigWatch> {
        if self.is_shutdown() {
            return Err(Error::cancelled("the manager was shut down"));
        }
        let tasks = &self.0.tasks;
        let watch = ConfigWatch::start(loader, interval, tasks).await?;
        let take_over = move |manager: &Self, loaded: &CommunicationConfig| {
            let config = set(loaded.clone().into_builder()).build()?;
            manager.apply(config)
        };
        let mut states = watch.subscribe();
        let first = Arc::clone(&states.borrow_and_update().config);
        take_over(self, &first)?;
        // A manager that nobody holds any more ends although its files are followed.
        let (manager, stop) = (Arc::downgrade(&self.0), tasks.token());
        tasks.spawn("configuration", async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = states.changed() => if changed.is_err() { return },
                }
                let state = states.borrow_and_update().clone();
                let Some(manager) = manager.upgrade().map(Self) else {
                    return;
                };
                // One that was refused has been told, and is the one before.
                if state.rejected.is_some() {
                    continue;
                }
                if let Err(error) = take_over(&manager, &state.config) {
                    tracing::warn!(
                        target: target::MANAGER, error = %error.report(),
                        "the changed configuration cannot be used; the old one stays"
                    );
                }
            }
        });
        Ok(watch)
    }

    /// Switches what is not asked for at every use. Only what differs: what an operator switched by hand stays.
    fn switch(&self, now: &CommunicationConfig, before: &CommunicationConfig) {
        let (logs, new, old) = (&self.0.logs, &now.logging, &before.logging);
        if new.level != old.level {
            logs.set_level(new.level);
        }
        for name in old.targets.keys().chain(new.targets.keys()) {
            if new.targets.get(name) != old.targets.get(name) {
                logs.set_target_level(name, new.targets.get(name).copied());
            }
        }
        if new.enable_security_logging != old.enable_security_logging {
            logs.set_security(new.enable_security_logging);
        }
        if now.debug_mode != before.debug_mode {
            logs.set_debug(now.debug_mode);
        }
        if now.detailed_metrics != before.detailed_metrics {
            self.0.metrics.set_detailed(now.detailed_metrics);
        }
    }
}

/// What of the changed paths is read at the start only.
fn restarts(mut changed: Vec<String>) -> Vec<String> {
    changed.retain(|path| !is_live(&segments(path)));
    changed
}

fn is_live(path: &[&str]) -> bool {
    match path {
        ["debug_mode" | "detailed_metrics" | "drain_timeout"]
        | [
            "logging",
            "level" | "targets" | "enable_security_logging",
            ..,
        ]
        | ["policies", ..] => true,
        ["services" | "http_clients", _, rest @ ..] | ["gateway", "services", _, rest @ ..] => {
            match rest {
                // A template that is new would have to be known to clients that are there.
                ["endpoints", _, rest @ ..] => is_policy(rest),
                _ => is_policy(rest),
            }
        }
        ["topics", _, "publish", rest @ ..] => is_policy(rest),
        _ => false,
    }
}

fn is_policy(path: &[&str]) -> bool {
    match path {
        [field, ..] => matches!(
            *field,
            "policy"
                | "timeout"
                | "request_timeout"
                | "retry"
                | "circuit_breaker"
                | "bulkhead"
                | "rate_limit"
                | "concurrency"
                | "chaos"
                | "hedge"
                | "versions"
                | "fallback"
        ),
        [] => false,
    }
}

/// The keys of a path; those that are not plain words stand in quotes.
fn segments(path: &str) -> Vec<&str> {
    let mut keys = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        let (key, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        keys.push(key);
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_at_every_call_is_live_and_what_something_was_made_of_is_not() {
        for path in [
            "debug_mode",
            "logging.targets.\"trunkline::call\"",
            "policies.default.retry",
            "services.users.circuit_breaker.failure_threshold",
            "services.users.endpoints.\"GET /users/{id}.json\".retry.max_attempts",
            "http_clients.default.timeout.total",
            "http_clients.default.timeout.pool",
            "services.users.endpoints.\"GET /users/{id}\".timeout.connection",
            "gateway.services.users.bulkhead.max_concurrent",
            "topics.\"order.*\".publish.retry",
            "services.users.chaos.enabled",
            "policies.default.rate_limit.limit",
            "http_clients.default.concurrency.max",
        ] {
            assert!(is_live(&segments(path)), "{path}");
        }
        for path in [
            "prefix",
            "logging.format",
            "message_brokers.default.retry.max_attempts",
            "services.users",
            "services.users.host",
            "services.users.endpoints.\"GET /new\"",
            "http_clients.default.max_connections",
            "topics.\"order.*\"",
            "topics.\"order.*\".consume.retry.max_attempts",
            "topics.\"order.*\".publish.mandatory",
            "health.interval",
        ] {
            assert!(!is_live(&segments(path)), "{path}");
        }
    }
}
