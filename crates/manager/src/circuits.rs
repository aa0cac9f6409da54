//! Circuits as health and `/circuits` show them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use trunkline_core::health::ComponentHealth;
use trunkline_core::{Health, Timestamp, task};
use trunkline_discovery::Onlooker;
use trunkline_resilience::breaker::{Control, State};
use trunkline_resilience::{CircuitChange, CircuitStatus, Observer, PolicyRegistry, Target};

use crate::CommunicationManager;
use crate::policies::Policies;

/// A circuit, as `GET /circuits` answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CircuitInfo {
    /// The service called; for a broker the name of its component, such as `message_broker_default`.
    pub service: String,
    /// One endpoint of it, for a broker a topic, or all of them together; behind the version where several versions are
    /// called: `v2 GET /users/{id}`.
    pub endpoint: Option<String>,
    /// One instance of it, or all of them together.
    pub instance: Option<String>,
    /// Whose calls it lets through: this process's `own`, or those that its gateway passes on, `forwarded`.
    pub calls: &'static str,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Who decides about it: `automatic`, or an operator: `forced_open`, `forced_closed`, `disabled`.
    pub control: Control,
    /// Failures in a row or in the window.
    pub failure_count: u32,
    /// When a call failed last.
    pub last_failure_time: Option<Timestamp>,
    /// Milliseconds until an open circuit lets a probe through.
    pub retry_after_ms: Option<u64>,
}

impl CommunicationManager {
    /// Every circuit of this process, as `GET /circuits` answers it.
    #[must_use]
    pub fn circuits(&self) -> Vec<CircuitInfo> {
        list(&self.registries())
    }

    /// Every circuit of this process, by service and endpoint. A broker counts as a service, under the name of its
    /// component (`message_broker_default`), and its topics as endpoints.
    #[must_use]
    pub fn circuit_states(&self) -> Vec<CircuitStatus> {
        let states = states(&self.registries()).into_iter();
        states.map(|(_, status)| status).collect()
    }

    /// What keeps the circuits of this process, and whose calls those let through.
    pub(crate) fn registries(&self) -> Vec<(Calls, PolicyRegistry)> {
        let clients = &self.0.http;
        let registry =
            |policies: &Policies| (clients.calls_of(policies), policies.registry().clone());
        self.policies().iter().map(registry).collect()
    }
}

fn states(registries: &[(Calls, PolicyRegistry)]) -> Vec<(Calls, CircuitStatus)> {
    let of = |(calls, registry): &(Calls, PolicyRegistry)| {
        let (calls, states) = (*calls, registry.circuit_states());
        states.into_iter().map(move |status| (calls, status))
    };
    let mut all: Vec<_> = registries.iter().flat_map(of).collect();
    all.sort_by(|one, other| (&one.1.target, one.0).cmp(&(&other.1.target, other.0)));
    all
}

/// Every circuit of a process.
pub(crate) fn list(registries: &[(Calls, PolicyRegistry)]) -> Vec<CircuitInfo> {
    let info = |(calls, status): (Calls, CircuitStatus)| {
        let (target, circuit) = (status.target, status.circuit);
        let wait = u64::try_from(circuit.retry_after.as_millis()).unwrap_or(u64::MAX);
        CircuitInfo {
            service: target.service.to_string(),
            endpoint: (target.endpoint.is_some() || target.version.is_some())
                .then(|| target.endpoint_label().into_owned()),
            instance: target.instance.map(|instance| instance.to_string()),
            calls: calls.as_str(),
            state: circuit.state.as_str(),
            control: circuit.control,
            failure_count: circuit.failure_count,
            last_failure_time: circuit.last_failure_time,
            retry_after_ms: (circuit.state == State::Open).then_some(wait),
        }
    };
    states(registries).into_iter().map(info).collect()
}

/// Shows each client in the health document: degraded while one of its circuits is not closed, or discovery knows no
/// instance that it could ask.
#[derive(Debug)]
pub(crate) struct CircuitHealth {
    health: Health,
    targets: Mutex<HashMap<Arc<str>, Watched>>,
}

/// A target and all who call it.
#[derive(Debug, Default)]
struct Watched {
    /// The clients by name.
    clients: BTreeMap<String, ComponentHealth>,
    /// Discovery knows of no instance in rotation.
    absent: bool,
    /// Circuits that are not closed, with the number of the change that made them so.
    troubled: BTreeMap<(Target, Calls), State>,
    /// The last change heard of each circuit: two may arrive in the other order.
    heard: HashMap<(Target, Calls), u32>,
}

/// Of more circuits the last change is not kept, where it closed that of an instance.
const MOST_HEARD: usize = 4096;

/// Whose calls a circuit lets through: the same target has one for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Calls {
    /// This process's own.
    Own,
    /// Those that its gateway passes on.
    Forwarded,
}

impl Calls {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Forwarded => "forwarded",
        }
    }
}

/// Hears of the circuits of what the gateway passes on.
#[derive(Debug)]
struct OfForwarded(Arc<CircuitHealth>);

impl Observer for OfForwarded {
    fn circuit_changed(&self, change: &CircuitChange) {
        self.0.changed(Calls::Forwarded, change);
    }
}

impl CircuitHealth {
    pub(crate) fn new(health: Health) -> Arc<Self> {
        Arc::new(Self {
            health,
            targets: Mutex::default(),
        })
    }

    /// Who is to be told of the circuits of these calls.
    pub(crate) fn observer(self: &Arc<Self>, calls: Calls) -> Arc<dyn Observer> {
        let shown = Arc::clone(self);
        match calls {
            Calls::Own => shown,
            Calls::Forwarded => Arc::new(OfForwarded(shown)),
        }
    }

    /// Adds a client of a target to the document, and says whether it is the first of it. It never makes the whole unhealthy:
    /// the service works, in part. `circuits` are asked for those of the target that changed before it was shown, such as
    /// one that is forced open.
    pub(crate) fn show(
        &self,
        name: &str,
        target: &str,
        metadata: &[(&str, String)],
        (circuits, calls): (&PolicyRegistry, Calls),
    ) -> bool {
        let component =
            self.health
                .register(&format!("http_client_{name}"), name, "http_client", false);
        for (key, value) in metadata {
            component.set_metadata(key, value.clone());
        }
        let mut targets = self.targets();
        let watched = targets.entry(target.into()).or_default();
        watched.tell(&component);
        watched.clients.insert(name.to_owned(), component);
        let is_first = watched.clients.len() == 1;
        drop(targets);
        // From now on changes are heard. What is heard meanwhile is later than what is seen here.
        let seen = circuits.circuit_states();
        self.saw(target, calls, seen);
        is_first
    }

    fn saw(&self, target: &str, calls: Calls, circuits: Vec<CircuitStatus>) {
        let mut targets = self.targets();
        let Some(watched) = targets.get_mut(target) else {
            return;
        };
        let own = circuits
            .into_iter()
            .filter(|seen| *seen.target.service == *target && seen.circuit.state != State::Closed);
        for CircuitStatus {
            target, circuit, ..
        } in own
        {
            let key = (target, calls);
            if !watched.heard.contains_key(&key) {
                watched.troubled.insert(key, circuit.state);
            }
        }
        watched.tell_all();
    }

    /// Follows the instances of a service that is called under the name of a target. Calls that find no instance fail at
    /// once and open no circuit: only here it shows. Ends with discovery; that it looks is no reason to watch a service which
    /// nobody calls.
    pub(crate) fn follow(self: &Arc<Self>, target: &str, mut instances: Onlooker) {
        let (shown, target) = (Arc::clone(self), Arc::<str>::from(target));
        let following = task::spawn("client-instances", async move {
            while let Some(set) = instances.next().await {
                // What vanished may be asked for a while: the registry says that there is none all the same.
                let any = set.instances().any(|it| it.is_usable());
                shown.absent(&target, !any);
            }
        });
        drop(following);
    }

    fn absent(&self, target: &str, absent: bool) {
        if let Some(watched) = self.targets().get_mut(target) {
            watched.absent = absent;
            watched.tell_all();
        }
    }

    fn targets(&self) -> MutexGuard<'_, HashMap<Arc<str>, Watched>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn tell_all(&self) {
        for component in self.clients.values() {
            self.tell(component);
        }
    }

    /// Tells a client of the target how its circuits are.
    fn tell(&self, component: &ComponentHealth) {
        match self.troubled.first_key_value() {
            None if self.absent => component.mark_degraded("there is no instance"),
            None => component.mark_healthy(),
            Some(((target, _), state)) => {
                component.mark_degraded(&format!("circuit of {target} is {}", state.as_str()));
            }
        }
    }
}

impl Observer for CircuitHealth {
    fn circuit_changed(&self, change: &CircuitChange) {
        self.changed(Calls::Own, change);
    }
}

impl CircuitHealth {
    fn changed(&self, calls: Calls, change: &CircuitChange) {
        let mut targets = self.targets();
        let Some(watched) = targets.get_mut(&change.target.service) else {
            return;
        };
        let key = (change.target.clone(), calls);
        let heard = watched.heard.entry(key.clone()).or_default();
        if *heard > change.sequence {
            return;
        }
        *heard = change.sequence;
        if watched.heard.len() > MOST_HEARD {
            // Of instances there is no end.
            let Watched {
                heard, troubled, ..
            } = &mut *watched;
            heard.retain(|key, _| key.0.instance.is_none() || troubled.contains_key(key));
            heard.insert(key.clone(), change.sequence);
        }
        if change.to == State::Closed {
            watched.troubled.remove(&key);
        } else {
            watched.troubled.insert(key, change.to);
        }
        watched.tell_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use trunkline_core::{Error, Status};
    use trunkline_resilience::{Call, EffectivePolicy};

    #[tokio::test(start_paused = true)]
    async fn an_open_circuit_degrades_its_client_until_it_closes() {
        let health = Health::default();
        let observer = CircuitHealth::new(health.clone());
        let shown = Arc::clone(&observer);
        let policies = PolicyRegistry::builder().observer(observer).build();
        for name in ["payment-service", "payment_service"] {
            shown.show(name, "payment-service", &[], (&policies, Calls::Own));
        }
        let target = Target::service("payment-service").with_endpoint("POST /charges");
        let policy = policies.policy(&target, |_| Arc::new(EffectivePolicy::default()));
        let attempt = |outcome: fn() -> Result<(), Error>| {
            let policy = Arc::clone(&policy);
            async move {
                let call = Call::default().with_max_attempts(1);
                drop(policy.run(call, |_| async move { outcome() }).await);
            }
        };
        for _ in 0..5 {
            attempt(|| Err(Error::unavailable("refused"))).await;
        }
        // So is one that comes later.
        shown.show("late", "payment-service", &[], (&policies, Calls::Own));
        for name in ["payment-service", "payment_service", "late"] {
            let status = health.component_status(&format!("http_client_{name}"));
            let status = status.unwrap();
            assert_eq!(status.status, Status::Degraded, "{name}");
            assert_eq!(
                status.last_error.unwrap(),
                "circuit of payment-service POST /charges is open"
            );
        }
        assert_eq!(policies.circuit_states()[0].circuit.state, State::Open);
        tokio::time::advance(Duration::from_secs(61)).await;
        attempt(|| Ok(())).await;
        attempt(|| Ok(())).await;
        for name in ["payment-service", "payment_service", "late"] {
            let status = health.component_status(&format!("http_client_{name}"));
            let status = status.unwrap();
            assert_eq!((status.status, status.last_error), (Status::Healthy, None));
        }
    }

    /// The policy is made with the client, before it is shown.
    #[test]
    fn a_circuit_that_was_open_before_its_client_was_shown_degrades_it() {
        let health = Health::default();
        let shown = CircuitHealth::new(health.clone());
        let policies = PolicyRegistry::builder()
            .observer(Arc::clone(&shown) as Arc<dyn Observer>)
            .build();
        let forced = |control| {
            let mut policy = EffectivePolicy::default();
            policy.circuit_breaker.as_mut().unwrap().control = control;
            Arc::new(policy)
        };
        for service in ["payment-service", "other-service"] {
            let target = Target::service(service);
            let _made = policies.policy(&target, |_| forced(Control::ForcedOpen));
        }
        shown.show("default", "payment-service", &[], (&policies, Calls::Own));
        let status = health.component_status("http_client_default").unwrap();
        assert_eq!(status.status, Status::Degraded);
        let said = status.last_error.unwrap();
        assert_eq!(said, "circuit of payment-service is open");
        policies.reload(|_| forced(Control::Automatic));
        let status = health.component_status("http_client_default").unwrap();
        assert_eq!(status.status, Status::Healthy);
    }
}
