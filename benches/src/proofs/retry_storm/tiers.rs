//! Three tiers of services, each instance with a policy of its own for what it calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use trunkline_core::{BoxFuture, Context, Error, ErrorKind, Retry, task};
use trunkline_resilience::{
    Call, CircuitOpen, EffectivePolicy, Layer, Policy, PolicyConfig, PolicyLayers, RetriedBelow,
    RetryAfter,
};

use super::database::Database;

pub(super) const TIERS: usize = 3;

/// Instances of each tier.
const INSTANCES: usize = 4;

/// How the services of all tiers call each other.
pub(super) struct Habits {
    /// The policy of each tier, the outermost first.
    policies: [EffectivePolicy; TIERS],
    /// Whether the deadline is passed on and who gave up is no longer worked for.
    cancels: bool,
    /// Whether an answer says that it was retried already.
    tells: bool,
}

impl Habits {
    /// Trunkline's, with a configuration of the policies.
    pub(super) fn careful(config: serde_json::Value) -> Result<Self> {
        let policy = policy(config)?;
        Ok(Self {
            policies: [policy.clone(), policy.clone(), policy],
            cancels: true,
            tells: true,
        })
    }

    /// Those of many: three attempts at every tier within limits that fit into each other, and nothing else.
    pub(super) fn naive() -> Result<Self> {
        let tier = |limit: &str| {
            policy(serde_json::json!({
                "timeout": { "total": "60s" },
                "request_timeout": limit,
                "retry": {
                    "strategy": "fixed", "delay": "100ms", "jitter": false, "max_attempts": 3,
                    "budget": { "enabled": false }
                },
                "circuit_breaker": { "enabled": false },
            }))
        };
        Ok(Self {
            policies: [tier("6s")?, tier("2s")?, tier("500ms")?],
            cancels: false,
            tells: false,
        })
    }

    /// The same where no tier knows what another has done.
    pub(super) fn alone(mut self) -> Self {
        self.tells = false;
        self
    }
}

fn policy(config: serde_json::Value) -> Result<EffectivePolicy> {
    let config: PolicyConfig = serde_json::from_value(config)?;
    let layers = PolicyLayers::new().push(
        Layer::Default("policies.default".to_owned()),
        config,
        |_| None,
    );
    Ok(layers.resolve()?.policy)
}

/// All services.
pub(super) struct Tiers {
    instances: [Vec<Policy>; TIERS],
    cancels: bool,
    tells: bool,
    database: Database,
    /// Attempts that each tier has made.
    pub(super) attempts: [AtomicU64; TIERS],
    /// Attempts at the database, by second.
    pub(super) arrivals: Vec<AtomicU64>,
    began: Instant,
}

impl Tiers {
    pub(super) fn new(habits: Habits, database: Database, seconds: u64) -> Arc<Self> {
        const NAMES: [&str; TIERS] = ["orders", "stock", "database"];
        let mut tier = 0;
        let instances = habits.policies.map(|policy| {
            let name = NAMES[tier];
            tier += 1;
            (0..INSTANCES)
                .map(|_| Policy::new(name, policy.clone()))
                .collect()
        });
        Arc::new(Self {
            instances,
            cancels: habits.cancels,
            tells: habits.tells,
            database,
            attempts: Default::default(),
            arrivals: (0..seconds).map(|_| AtomicU64::new(0)).collect(),
            began: Instant::now(),
        })
    }

    /// A request to some instance of a tier, as its caller sees it. Where nothing is cancelled it goes on by itself when
    /// the caller is dropped.
    pub(super) fn request(
        self: &Arc<Self>,
        tier: usize,
        context: Context,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let serve = Arc::clone(self).serve(tier, context);
        let tells = self.tells;
        if self.cancels {
            return Box::pin(
                async move { serve.await.map_err(|error| over_the_wire(&error, tells)) },
            );
        }
        let work = task::spawn("handler", serve);
        Box::pin(async move {
            match work.await {
                Ok(result) => result.map_err(|error| over_the_wire(&error, tells)),
                Err(_) => Err(Error::cancelled("a handler has stopped")),
            }
        })
    }

    /// What an instance of a tier does with a request: it calls the next tier through its policy.
    async fn serve(self: Arc<Self>, tier: usize, context: Context) -> Result<(), Error> {
        let instance = fastrand::usize(..INSTANCES);
        let call = Call::new(&context).repeatable(true);
        let operation = |attempt: trunkline_resilience::Attempt| {
            self.attempts[tier].fetch_add(1, Ordering::Relaxed);
            let next = if self.cancels {
                context.clone().with_deadline(attempt.deadline)
            } else {
                context.clone()
            };
            let all = Arc::clone(&self);
            async move {
                if tier + 1 < TIERS {
                    return all.request(tier + 1, next).await;
                }
                let second = usize::try_from(all.began.elapsed().as_secs()).unwrap_or(usize::MAX);
                if let Some(count) = all.arrivals.get(second) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                all.database.ask().await
            }
        };
        self.instances[tier][instance].run(call, operation).await
    }
}

/// What the caller of a service gets to see of its error: the status, the pause that it asks for, and whether it was
/// retried; as the server layer writes them and the client reads them.
fn over_the_wire(error: &Error, tells: bool) -> Error {
    let kind = match error.kind() {
        ErrorKind::Timeout => ErrorKind::Timeout,
        _ => ErrorKind::Unavailable,
    };
    let seen =
        Error::new(kind, "the service answered with an error").with_retry(Retry::IfIdempotent);
    let pause = error.find::<RetryAfter>().map(|asked| asked.0);
    let pause = pause.or_else(|| error.find::<CircuitOpen>().map(|open| open.retry_after));
    if tells && RetriedBelow::is_in(error) {
        return seen.with_source(RetriedBelow);
    }
    match pause {
        Some(pause) => seen.with_source(RetryAfter(pause.max(Duration::from_secs(1)))),
        None => seen,
    }
}
