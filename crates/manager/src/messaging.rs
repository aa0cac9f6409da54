//! Messaging as the configuration says: prefix, policies by topic, metrics, health, context.

use std::sync::Arc;

use trunkline_core::Result;
use trunkline_messaging::{
    ConsumeSettings, Destination, HandlerError, Messaging, PublishSettings, Source, TopicName,
    TopicPolicies,
};
use trunkline_resilience::Target;
use trunkline_resilience::config::CircuitBreakerConfig;

use crate::CommunicationManager;
use crate::assemble::broker_key;
use crate::named::DEFAULT;
use crate::policies::{CurrentConfig, Origin, Policies, settled};

impl CommunicationManager {
    /// Publishing and handling on the default broker.
    ///
    /// # Errors
    /// As [`message_broker`](Self::message_broker).
    pub fn messaging(&self) -> Result<Messaging> {
        self.messaging_on(DEFAULT)
    }

    /// Publishing and handling on a broker.
    ///
    /// # Errors
    /// As [`message_broker`](Self::message_broker).
    pub fn messaging_on(&self, broker: &str) -> Result<Messaging> {
        self.0
            .parts
            .brokers
            .get(broker)
            .map(|entry| entry.messaging.clone())
    }

    /// Publishes a value as JSON to a topic of a broker and waits for the confirm.
    ///
    /// # Errors
    /// Those of [`message_broker`](Self::message_broker) and of publishing.
    ///
    /// # Cancel safety
    /// When dropped, the message may or may not have been published.
    pub async fn publish_message(
        &self,
        broker: &str,
        topic: &str,
        message: &(impl serde::Serialize + Sync + ?Sized),
    ) -> Result<()> {
        self.messaging_on(broker)?
            .publish(topic, message)
            .await
            .map(drop)
    }

    /// Hands every message of a topic, or of the topics under a pattern, to a function, as JSON. Messages that it fails
    /// on are tried again, then become dead letters. The group is the name of this service.
    ///
    /// # Errors
    /// Those of [`message_broker`](Self::message_broker) and of subscribing.
    ///
    /// # Cancel safety
    /// When dropped, the subscription may or may not have been made; it ends with the manager.
    pub async fn subscribe_to_topic<F, Fut>(
        &self,
        broker: &str,
        topic: &str,
        handler: F,
    ) -> Result<()>
    where
        F: Fn(serde_json::Value) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = std::result::Result<(), HandlerError>> + Send + 'static,
    {
        self.messaging_on(broker)?
            .subscribe(topic)
            .handle(handler)
            .await
            .map(drop)
    }
}

/// The policies of the configuration for the topics of one broker.
pub(crate) struct Configured {
    pub(crate) broker: Arc<str>,
    pub(crate) config: CurrentConfig,
    pub(crate) policies: Policies,
}

impl TopicPolicies for Configured {
    fn publish(&self, destination: &Destination) -> PublishSettings {
        let topic = destination.name();
        // Not the plain name, which a service may have as well.
        let target = Target::service(broker_key(&self.broker)).with_endpoint(topic.as_str());
        let origin = Origin::Publish(Arc::clone(&self.broker), topic.clone());
        let policies = self.policies.registry();
        let policy = policies.policy(&target, |target| self.policies.settings(target, &origin));
        let config = self.config.load();
        let mandatory = config.topic_policies(topic).into_iter().rev();
        let mandatory = mandatory
            .map(|(_, policy)| policy.publish.mandatory)
            .find_map(|set| set);
        PublishSettings::new(policy).with_mandatory(mandatory.unwrap_or(false))
    }

    fn consume(&self, source: &Source) -> ConsumeSettings {
        let config = self.config.load();
        let brokers = config.message_brokers.as_ref();
        let broker = brokers.and_then(|all| all.get(&*self.broker));
        // A pattern has the settings of the topic of its plain segments; those of single topics under it differ only
        // where somebody subscribes to them by name.
        let name = match source {
            Source::Queue(name) => Some(name.clone()),
            Source::Topics(pattern) => pattern.as_topic().or_else(|| plain(pattern.as_str())),
        };
        let (mut settings, breaker) = match &name {
            Some(name) => {
                let policy = settled(&config.consume_policy_layers(&self.broker, name));
                let settings = ConsumeSettings::from_policy(&policy);
                (settings, policy.circuit_breaker)
            }
            None => (ConsumeSettings::default(), None),
        };
        if let Some(broker) = broker {
            settings.prefetch = broker.prefetch_count;
            settings.dead_letters = broker.dead_letter_queue;
        }
        let patterns = name
            .as_ref()
            .map(|name| config.topic_policies(name))
            .unwrap_or_default();
        for (_, policy) in patterns {
            settings.prefetch = policy.consume.prefetch_count.unwrap_or(settings.prefetch);
            settings.max_crashes = policy.consume.max_crashes.unwrap_or(settings.max_crashes);
            settings.dead_letters = policy
                .consume
                .dead_letter_queue
                .unwrap_or(settings.dead_letters);
            // A breaker holds back every message of the topic, so the one for calls does not do: it must be asked for.
            if policy.consume.circuit_breaker != CircuitBreakerConfig::default() {
                settings.circuit_breaker = breaker;
            }
        }
        settings
    }
}

/// The segments of a pattern before its first wildcard.
fn plain(pattern: &str) -> Option<TopicName> {
    let segments: Vec<&str> = pattern
        .split('.')
        .take_while(|segment| !matches!(*segment, "*" | "#"))
        .collect();
    TopicName::new(segments.join(".")).ok()
}

#[cfg(test)]
mod tests {
    use arc_swap::ArcSwap;
    use trunkline_messaging::{TopicPattern, TopicPolicy};
    use trunkline_resilience::PolicyRegistry;

    use super::*;
    use crate::CommunicationConfig;

    #[test]
    fn handlers_have_a_breaker_only_where_their_topic_asks_for_one() {
        let mut config = CommunicationConfig::default();
        let mut asked = TopicPolicy::default();
        asked.consume.circuit_breaker.failure_threshold = Some(7);
        let pattern: TopicPattern = "order.*".parse().expect("a pattern");
        config.topics.insert(pattern, asked);
        let config = Arc::new(ArcSwap::from_pointee(config));
        let configured = Configured {
            broker: DEFAULT.into(),
            policies: Policies::new(Arc::clone(&config), PolicyRegistry::default()),
            config,
        };
        let threshold = |topic: &str| {
            let pattern: TopicPattern = topic.parse().expect("a pattern");
            let settings = configured.consume(&Source::Topics(pattern));
            settings
                .circuit_breaker
                .map(|breaker| breaker.failure_threshold)
        };
        assert_eq!(threshold("order.created"), Some(7));
        assert_eq!(threshold("user.created"), None);
    }
}
