//! Which settings hold for which topic.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use trunkline_resilience::breaker::BreakerSettings;
use trunkline_resilience::retry::{RetrySettings, Schedule};
use trunkline_resilience::{EffectivePolicy, Policy};

use crate::topic::{Destination, Source};

/// How messages of one source are handled.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConsumeSettings {
    /// Attempts altogether, then the message becomes a dead letter. Default 3.
    pub max_attempts: u32,
    /// Deliveries beyond those, for consumers that ended without settling the message: they died, were stopped, or lost
    /// it. Their message was perhaps never handled, so that these are no failed attempts; a message that kills whoever handles
    /// it is given up all the same. Default 3.
    pub max_crashes: u32,
    /// Failed attempts that are repeated at once, before the waits of the schedule begin. Default 0.
    pub immediate_retries: u32,
    /// The waits between attempts. Default: 1 s, doubled up to 30 s, shortened at random by up to a half.
    pub schedule: Schedule,
    /// Limit of one attempt. Default 30 s.
    pub timeout: Duration,
    /// Messages handled at once, those of one key always one after the other. Default 10.
    pub concurrency: usize,
    /// Unsettled messages that this consumer may hold; at least as many as `concurrency`. Default 10.
    pub prefetch: u32,
    /// How long the broker waits for a sign of life before it gives a message to another consumer. While a handler
    /// runs, the lease is renewed. Default 30 s.
    pub lease: Duration,
    /// Whether messages that keep failing are kept as dead letters; else they are dropped, logged and counted. Default
    /// true.
    pub dead_letters: bool,
    /// How long an inbox remembers a handled message. Default 24 h.
    pub dedup_for: Duration,
    /// Whether the deadline that a message carries bounds its handler, and a message whose deadline has passed is
    /// dropped, logged and counted. Always so for requests. Default false: an event happened, whoever waits for it.
    pub honour_deadline: bool,
    /// Pauses while the handler keeps failing, so that an outage of what it needs does not turn every message into a
    /// dead letter. Default none.
    pub circuit_breaker: Option<BreakerSettings>,
}

impl Default for ConsumeSettings {
    fn default() -> Self {
        let retry = RetrySettings::default();
        Self {
            max_attempts: retry.attempts(),
            max_crashes: 3,
            immediate_retries: 0,
            schedule: retry.schedule(),
            timeout: Duration::from_secs(30),
            concurrency: 10,
            prefetch: 10,
            lease: Duration::from_secs(30),
            dead_letters: true,
            dedup_for: Duration::from_secs(24 * 3600),
            honour_deadline: false,
            circuit_breaker: None,
        }
    }
}

impl ConsumeSettings {
    /// What a policy says about attempts, waits, the limit of an attempt and how many run at once. The breaker is left
    /// out: it holds every message of the source back, so that it must be asked for.
    #[must_use]
    pub fn from_policy(policy: &EffectivePolicy) -> Self {
        let limit = policy
            .bulkhead
            .map(|bulkhead| bulkhead.max_concurrent as usize);
        let own = Self::default();
        Self {
            max_attempts: policy.retry.attempts(),
            schedule: policy.retry.schedule(),
            timeout: policy.timeout.attempt,
            concurrency: limit.map_or(own.concurrency, |limit| limit.max(1)),
            ..own
        }
    }

    /// The wait before an attempt.
    pub(crate) fn delay_before(&self, attempt: u32) -> Duration {
        let immediate = self.immediate_retries;
        if attempt <= immediate.saturating_add(1) {
            return Duration::ZERO;
        }
        self.schedule.before(attempt - immediate)
    }
}

/// How messages are published to one destination.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublishSettings {
    /// Carries the publish: retries under the same id, breaker, bulkhead, timeouts.
    pub policy: Arc<Policy>,
    /// Whether it is an error that nobody listens to a topic. Default false; for queues it always is.
    pub mandatory: bool,
}

impl PublishSettings {
    /// Settings with this policy.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> Self {
        Self {
            policy,
            mandatory: false,
        }
    }

    /// Says whether it is an error that nobody listens to a topic.
    #[must_use]
    pub fn with_mandatory(mut self, mandatory: bool) -> Self {
        self.mandatory = mandatory;
        self
    }
}

/// Finds the settings of topics and queues. Asked once for each and then remembered.
pub trait TopicPolicies: Send + Sync + 'static {
    /// How to publish to a destination.
    fn publish(&self, destination: &Destination) -> PublishSettings;

    /// How to handle the messages of a source.
    fn consume(&self, source: &Source) -> ConsumeSettings;
}

/// The same for every topic.
pub struct SamePolicies {
    publish: PublishSettings,
    consume: ConsumeSettings,
}

impl SamePolicies {
    /// These settings for every topic and queue.
    #[must_use]
    pub fn new(publish: PublishSettings, consume: ConsumeSettings) -> Self {
        Self { publish, consume }
    }
}

impl Default for SamePolicies {
    fn default() -> Self {
        let policy = Policy::new("messaging", EffectivePolicy::default());
        Self::new(
            PublishSettings::new(Arc::new(policy)),
            ConsumeSettings::default(),
        )
    }
}

impl fmt::Debug for SamePolicies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SamePolicies")
            .field("publish", &self.publish)
            .field("consume", &self.consume)
            .finish()
    }
}

impl TopicPolicies for SamePolicies {
    fn publish(&self, _: &Destination) -> PublishSettings {
        self.publish.clone()
    }

    fn consume(&self, _: &Source) -> ConsumeSettings {
        self.consume.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_begin_after_the_immediate_retries() {
        let mut settings = ConsumeSettings {
            immediate_retries: 2,
            ..ConsumeSettings::default()
        };
        settings.schedule.jitter = false;
        let waits: Vec<u64> = (1..=6)
            .map(|attempt| settings.delay_before(attempt).as_secs())
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4]);
    }
}
