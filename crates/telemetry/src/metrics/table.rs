//! Every metric there is, with its labels and help.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry, Unit};
use trunkline_core::names::metric as name;

use super::component::ComponentHealth;
use super::family::Family;
use super::histogram::{Bounds, Histogram};
use super::instrument::{self, Detailed, Latency, RealGauge, Seconds};
use crate::MetricsConfig;

/// Upper bounds of sizes: powers of four from 64 bytes to 16 MiB.
const SIZES: [u64; 10] = [
    64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
];

#[derive(Debug)]
pub(super) struct Table {
    pub(super) http_client: Family<4, Histogram>,
    pub(super) http_client_active: Family<1, Gauge>,
    pub(super) http_attempts: Family<3, Histogram>,
    pub(super) http_server: Family<4, Histogram>,
    pub(super) http_server_active: Gauge,
    pub(super) retries: Family<2, Counter>,
    pub(super) hedges: Family<2, Counter>,
    pub(super) hedges_won: Family<2, Counter>,
    pub(super) version_fallbacks: Family<2, Counter>,
    pub(super) budget_exhausted: Family<1, Counter>,
    pub(super) circuit_transitions: Family<3, Counter>,
    pub(super) circuit_state: Family<2, Gauge>,
    pub(super) rejections: Family<2, Counter>,
    pub(super) concurrency_limit: Family<2, Gauge>,
    pub(super) chaos_faults: Family<2, Counter>,
    pub(super) call_errors: Family<3, Counter>,
    pub(super) cache_requests: Family<2, Counter>,
    pub(super) cache_evictions: Counter,
    pub(super) cache_bytes: Gauge,
    pub(super) published: Family<3, Counter>,
    pub(super) publish_duration: Family<2, Histogram>,
    pub(super) consumed: Family<4, Counter>,
    pub(super) process_duration: Family<3, Histogram>,
    pub(super) message_size: Family<3, Histogram>,
    pub(super) dead_letters: Family<4, Counter>,
    pub(super) redeliveries: Family<3, Counter>,
    pub(super) duplicates: Family<3, Counter>,
    pub(super) unroutable: Family<2, Counter>,
    pub(super) in_flight: Family<3, Gauge>,
    pub(super) lag: Family<3, Gauge>,
    pub(super) attached: Family<3, Gauge>,
    pub(super) resolve: Family<2, Histogram>,
    pub(super) instances: Family<2, Gauge>,
    pub(super) discovery_changes: Family<1, Counter>,
    pub(super) discovery_stale: Family<1, RealGauge>,
    pub(super) registrations: Family<1, Counter>,
    pub(super) appended: Family<1, Counter>,
    pub(super) relayed: Family<1, Counter>,
    pub(super) relay_lag: Family<1, Gauge>,
    pub(super) relay_age: Family<1, RealGauge>,
    pub(super) health: ComponentHealth,
    detailed: Arc<AtomicBool>,
}

struct Registrar<'a> {
    registry: &'a mut Registry,
    most: usize,
    latency: Arc<Bounds>,
    detailed: &'a Arc<AtomicBool>,
}

impl Registrar<'_> {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.registry.register(name, help, metric.clone());
        metric
    }

    fn counter<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Family<N, Counter> {
        let family = Family::new(labels, self.most, None, Counter::default);
        self.add(name, help, family)
    }

    fn gauge<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Family<N, Gauge> {
        let family = Family::new(labels, self.most, None, Gauge::default);
        self.add(name, help, family)
    }

    fn seconds_gauge<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Family<N, RealGauge> {
        let family = Family::new(labels, self.most, None, RealGauge::default);
        let unit = Unit::Seconds;
        self.registry
            .register_with_unit(name, help, unit, family.clone());
        family
    }

    fn latency<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        shown: Option<Arc<AtomicBool>>,
    ) -> Family<N, Histogram> {
        let bounds = Arc::clone(&self.latency);
        let make = move || Histogram::new(Arc::clone(&bounds));
        let family = Family::new(labels, self.most, shown, make);
        let unit = Unit::Seconds;
        self.registry
            .register_with_unit(name, help, unit, family.clone());
        family
    }

    fn sizes<const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
    ) -> Family<N, Histogram> {
        let bounds = Bounds::bytes(&SIZES);
        let make = move || Histogram::new(Arc::clone(&bounds));
        let family = Family::new(labels, self.most, Some(Arc::clone(self.detailed)), make);
        let unit = Unit::Bytes;
        self.registry
            .register_with_unit(name, help, unit, family.clone());
        family
    }
}

impl Table {
    pub(super) fn register(
        registry: &mut Registry,
        config: &MetricsConfig,
        detailed: &Arc<AtomicBool>,
    ) -> Self {
        let mut r = Registrar {
            registry,
            most: usize::try_from(config.max_label_sets).unwrap_or(usize::MAX),
            latency: Bounds::seconds(&config.latency_buckets),
            detailed,
        };
        let shown = || Some(Arc::clone(detailed));
        // One line a metric, so that the whole vocabulary is read at a glance.
        #[rustfmt::skip]
        let table = Self {
            http_client: r.latency(name::HTTP_CLIENT_DURATION, "Calls to other services, until answered or given up", ["service", "endpoint", "http_response_status_code", "error_type"], None),
            http_client_active: r.gauge(name::HTTP_CLIENT_ACTIVE, "Calls under way", ["service"]),
            http_attempts: r.latency(name::HTTP_CLIENT_ATTEMPT_DURATION, "Single attempts of calls, by instance; detailed", ["service", "instance", "outcome"], shown()),
            http_server: r.latency(name::HTTP_SERVER_DURATION, "Requests served", ["http_request_method", "http_route", "http_response_status_code", "error_type"], None),
            http_server_active: r.add(name::HTTP_SERVER_ACTIVE, "Requests being served", Gauge::default()),
            retries: r.counter(name::RETRIES, "Attempts after the first", ["service", "endpoint"]),
            hedges: r.counter(name::HEDGES, "Second requests beside a first whose answer is late", ["service", "endpoint"]),
            hedges_won: r.counter(name::HEDGES_WON, "Second requests whose answer was taken", ["service", "endpoint"]),
            version_fallbacks: r.counter(name::VERSION_FALLBACKS, "Calls passed on to another version of the service", ["service", "endpoint"]),
            budget_exhausted: r.counter(name::RETRY_BUDGET_EXHAUSTED, "Retries and hedges that the budget refused", ["service"]),
            circuit_transitions: r.counter(name::CIRCUIT_TRANSITIONS, "Changes of a circuit", ["service", "endpoint", "state"]),
            circuit_state: r.gauge(name::CIRCUIT_STATE, "State of a circuit: 0 closed, 1 half-open, 2 open", ["service", "endpoint"]),
            rejections: r.counter(name::REJECTIONS, "Calls refused before they were sent", ["service", "reason"]),
            concurrency_limit: r.gauge(name::CONCURRENCY_LIMIT, "Calls that may run at once, as found out", ["service", "endpoint"]),
            chaos_faults: r.counter(name::CHAOS_FAULTS, "Calls with which something was made to go wrong", ["service", "fault"]),
            call_errors: r.counter(name::SERVICE_CALL_ERRORS, "Failed calls", ["service", "operation", "error_type"]),
            cache_requests: r.counter(name::CACHE_REQUESTS, "Calls that met the cache", ["service", "outcome"]),
            cache_evictions: r.add(name::CACHE_EVICTIONS, "Answers that made room for others", Counter::default()),
            cache_bytes: r.add(name::CACHE_BYTES, "Bytes of answers that are kept", Gauge::default()),
            published: r.counter(name::MESSAGES_PUBLISHED, "Messages published", ["broker", "destination", "outcome"]),
            publish_duration: r.latency(name::PUBLISH_DURATION, "Publishing, until confirmed", ["broker", "destination"], None),
            consumed: r.counter(name::MESSAGES_CONSUMED, "Messages given to handlers", ["broker", "destination", "group", "outcome"]),
            process_duration: r.latency(name::PROCESS_DURATION, "One message in its handler", ["broker", "destination", "group"], None),
            message_size: r.sizes(name::MESSAGE_SIZE, "Payloads of messages; detailed", ["broker", "destination", "direction"]),
            dead_letters: r.counter(name::DEAD_LETTERS, "Messages put into dead letters", ["broker", "destination", "group", "reason"]),
            redeliveries: r.counter(name::REDELIVERIES, "Attempts at a message after the first", ["broker", "destination", "group"]),
            duplicates: r.counter(name::DUPLICATES, "Deliveries recognised as seen before", ["broker", "destination", "group"]),
            unroutable: r.counter(name::UNROUTABLE, "Publishes that reached no subscriber", ["broker", "destination"]),
            in_flight: r.gauge(name::IN_FLIGHT, "Messages in handlers", ["broker", "destination", "group"]),
            lag: r.gauge(name::LAG, "Messages that wait for a group and nobody has in hand; absent while the broker cannot say", ["broker", "destination", "group"]),
            attached: r.gauge(name::SUBSCRIPTION_ATTACHED, "1 while a subscription is attached to the broker", ["broker", "destination", "group"]),
            resolve: r.latency(name::RESOLVE_DURATION, "From a name to instances", ["service", "outcome"], None),
            instances: r.gauge(name::INSTANCES, "Instances known", ["service", "status"]),
            discovery_changes: r.counter(name::DISCOVERY_CHANGES, "Changes of the instances of a service", ["service"]),
            discovery_stale: r.seconds_gauge(name::DISCOVERY_STALE, "Age of the last answer of the registry while it is away, else 0", ["service"]),
            registrations: r.counter(name::REGISTRATIONS, "Announcements of own instances: new, lost, and again after that", ["outcome"]),
            appended: r.counter(name::EVENTS_APPENDED, "Events appended", ["store"]),
            relayed: r.counter(name::EVENTS_RELAYED, "Events published by a relay", ["relay"]),
            relay_lag: r.gauge(name::RELAY_LAG, "Events appended and not yet published", ["relay"]),
            relay_age: r.seconds_gauge(name::RELAY_AGE, "Age of the oldest event appended and not yet published, else 0", ["relay"]),
            health: r.add(name::COMPONENT_HEALTH, "1 healthy, 0.5 degraded, 0 unhealthy", ComponentHealth::default()),
            detailed: Arc::clone(detailed),
        };
        table
    }

    pub(super) fn detailed(&self, histogram: Histogram) -> Detailed {
        Detailed(Some((Arc::clone(&self.detailed), histogram)))
    }
}

/// Turns "there may be a table" into an instrument that does nothing without one.
pub(super) fn counter(
    table: Option<&Table>,
    find: impl FnOnce(&Table) -> Counter,
) -> instrument::Counter {
    instrument::Counter(table.map(find))
}

pub(super) fn gauge(
    table: Option<&Table>,
    find: impl FnOnce(&Table) -> Gauge,
) -> instrument::Gauge {
    instrument::Gauge(table.map(find))
}

pub(super) fn seconds(table: Option<&Table>, find: impl FnOnce(&Table) -> RealGauge) -> Seconds {
    Seconds(table.map(find))
}

pub(super) fn latency(table: Option<&Table>, find: impl FnOnce(&Table) -> Histogram) -> Latency {
    Latency(table.map(find))
}

pub(super) fn detailed(table: Option<&Table>, find: impl FnOnce(&Table) -> Histogram) -> Detailed {
    let found = table.map(|table| table.detailed(find(table)));
    found.unwrap_or_default()
}
