//! What a service says and hears, as documents of AsyncAPI.

use trunkline_core::Result;
use trunkline_messaging::schema::SchemaConfig;
use trunkline_messaging::{AsyncApi, MessageBrokerConfig};

use crate::{CommunicationConfig, CommunicationManager};

impl CommunicationConfig {
    /// What the configuration knows of the service's messages, as a document of AsyncAPI 3.0: brokers, topics and their
    /// schemas. Who publishes and who handles them is known to the [running service](CommunicationManager::asyncapi) alone.
    ///
    /// # Errors
    /// `Config` when the file of a schema is missing or holds no JSON.
    pub fn asyncapi(&self) -> Result<AsyncApi> {
        let title = self.service.name.as_deref().unwrap_or("trunkline");
        let mut document = AsyncApi::new(title, &self.service.version);
        for (name, broker) in self.message_brokers.iter().flatten() {
            for (index, host) in hosts(broker).into_iter().enumerate() {
                let name = match index {
                    0 => name.clone(),
                    more => format!("{name}.{}", more + 1),
                };
                document = document.with_server(&name, host, protocol(broker));
                if let Some(prefix) = self.prefix_on(broker) {
                    let text =
                        format!("every topic, queue and group has the prefix `{prefix}` there");
                    document = document.describe_server(&name, text);
                }
            }
        }
        for (pattern, policy) in &self.topics {
            let schema = policy.schema.as_ref().map(SchemaConfig::document);
            document = document.with_topic(pattern, schema.transpose()?);
        }
        Ok(document)
    }
}

impl CommunicationManager {
    /// What this service says and hears, as a document of AsyncAPI 3.0: what its
    /// [configuration](CommunicationConfig::asyncapi) knows, every handler that was begun, and what is
    /// [said to be published](trunkline_messaging::Messaging::publishes), on all brokers.
    ///
    /// # Errors
    /// As [`CommunicationConfig::asyncapi`].
    pub fn asyncapi(&self) -> Result<AsyncApi> {
        Ok(self.with_handlers(self.0.config.asyncapi()?))
    }

    /// Adds what is known while the service runs.
    pub(crate) fn with_handlers(&self, mut document: AsyncApi) -> AsyncApi {
        let brokers = &self.0.parts.brokers;
        for name in brokers.names() {
            // One that could not be made has no handlers; health tells of it.
            if let Ok(broker) = brokers.get(name) {
                document = document.with_messaging(&broker.messaging);
            }
        }
        document
    }
}

/// Where a broker is; nowhere, if it is in this process or on this disk.
fn hosts(broker: &MessageBrokerConfig) -> Vec<String> {
    if matches!(broker.kind.as_str(), "embedded" | "memory") {
        return Vec::new();
    }
    let hosts = broker.connection.host.as_deref().unwrap_or("localhost");
    let with_port = |host: &str| match broker.connection.port {
        Some(port) if !host.contains(':') || host.ends_with(']') => format!("{host}:{port}"),
        _ => host.to_owned(),
    };
    hosts.split(',').map(str::trim).map(with_port).collect()
}

/// The name of the protocol, as AsyncAPI has it.
fn protocol(broker: &MessageBrokerConfig) -> &str {
    match (broker.kind.as_str(), broker.connection.ssl_enabled) {
        ("rabbitmq", true) => "amqps",
        ("rabbitmq", false) => "amqp",
        ("kafka", true) => "kafka-secure",
        ("redis", true) => "rediss",
        (other, _) => other,
    }
}
