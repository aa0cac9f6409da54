//! The layers of every policy, weakest first, as the policy engine merges them.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value as Json;
use trunkline_discovery::{EndpointConfig, ServiceConfig, ServiceName};
use trunkline_messaging::{TopicName, TopicPattern, TopicPolicy};
use trunkline_resilience::{Layer, PolicyConfig, PolicyLayers};

use super::model::CommunicationConfig;
use super::tree::join;

impl CommunicationConfig {
    /// The layers of calls to a service, and to one of its endpoints (`GET /users/{id}`, or a path such as
    /// `GET /users/1`): `policies.default`, the named policy, the service, the endpoint. A service that is not
    /// configured has only the first.
    #[must_use]
    pub fn policy_layers(&self, service: &str, endpoint: Option<&str>) -> PolicyLayers<'_> {
        self.policy_layers_of(service, endpoint.as_slice())
    }

    /// The same for an endpoint that goes by several names: the first one that is configured applies.
    pub(crate) fn policy_layers_of(&self, service: &str, endpoint: &[&str]) -> PolicyLayers<'_> {
        let name = ServiceName::new(service).ok();
        let settings = name
            .as_ref()
            .and_then(|name| self.services.get(name).map(|found| (name, found)));
        let stack = Stack::new(self);
        match settings {
            None => stack.default_only(),
            Some((name, settings)) => {
                let path = join("services", name.as_str());
                stack.service(&[(path, settings)], endpoint)
            }
        }
    }

    /// The layers of calls that the gateway makes to a service: those of [`CommunicationConfig::policy_layers`], then
    /// what `gateway.services` says.
    #[cfg(feature = "gateway")]
    #[must_use]
    pub fn gateway_policy_layers(&self, service: &str, endpoint: Option<&str>) -> PolicyLayers<'_> {
        let endpoint = endpoint.as_slice();
        let Ok(name) = ServiceName::new(service) else {
            return Stack::new(self).default_only();
        };
        let mut places = Vec::new();
        if let Some(settings) = self.services.get(&name) {
            places.push((join("services", name.as_str()), settings));
        }
        let gateway = self.gateway.as_ref();
        if let Some(settings) = gateway.and_then(|gateway| gateway.services.get(&name)) {
            places.push((join("gateway.services", name.as_str()), settings));
        }
        Stack::new(self).service(&places, endpoint)
    }

    /// The layers of calls of a configured client, and to one of the endpoints of the service that it leads to:
    /// `policies.default`, the named policy, the service, the client, the endpoint. The client's named policy stands in
    /// place of the service's.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn client_policy_layers(&self, client: &str, endpoint: Option<&str>) -> PolicyLayers<'_> {
        self.client_policy_layers_of(client, endpoint.as_slice())
    }

    /// The same for an endpoint that goes by several names.
    #[cfg(feature = "http")]
    pub(crate) fn client_policy_layers_of(
        &self,
        client: &str,
        endpoint: &[&str],
    ) -> PolicyLayers<'_> {
        let stack = Stack::new(self);
        let Some(settings) = self.http_clients.get(client) else {
            return stack.default_only();
        };
        let service = self.client_service(client);
        let service = service.and_then(|name| self.services.get_key_value(&name));
        let places: Vec<_> = service
            .map(|(name, service)| (join("services", name.as_str()), service))
            .into_iter()
            .collect();
        let own = Own {
            path: join("http_clients", client),
            named: settings.policy.as_deref(),
            policy: settings.policy_config(),
        };
        stack.layers(&places, Some(own), endpoint)
    }

    /// The layers of publishing to a topic: `policies.default`, the named policy, the broker, the topic's patterns from
    /// the widest to the most specific.
    #[must_use]
    pub fn publish_policy_layers(&self, broker: &str, topic: &TopicName) -> PolicyLayers<'_> {
        let patterns = self.topic_policies(topic);
        let named = patterns
            .iter()
            .rev()
            .find_map(|(_, policy)| policy.publish.policy.as_deref());
        let stack = Stack::new(self);
        let mut layers = stack.broker(stack.named(named), broker);
        for (pattern, policy) in patterns {
            let path = format!("{}.publish", join("topics", pattern.as_str()));
            let layer = Layer::Endpoint(path.clone());
            layers = stack.push(layers, layer, policy.publish.policy_config(), path);
        }
        layers
    }

    /// The layers of handling a topic's messages, as [`CommunicationConfig::publish_policy_layers`].
    #[must_use]
    pub fn consume_policy_layers(&self, broker: &str, topic: &TopicName) -> PolicyLayers<'_> {
        let patterns = self.topic_policies(topic);
        let named = patterns
            .iter()
            .rev()
            .find_map(|(_, policy)| policy.consume.policy.as_deref());
        let stack = Stack::new(self);
        let mut layers = stack.broker(stack.named(named), broker);
        for (pattern, policy) in patterns {
            let path = format!("{}.consume", join("topics", pattern.as_str()));
            let layer = Layer::Endpoint(path.clone());
            layers = stack.push(layers, layer, policy.consume.policy_config(), path);
        }
        layers
    }

    /// The settings of every pattern that a topic falls under, from the widest to the most specific one.
    #[must_use]
    pub fn topic_policies(&self, topic: &TopicName) -> Vec<(&TopicPattern, &TopicPolicy)> {
        let mut found: Vec<_> = self
            .topics
            .iter()
            .filter(|(pattern, _)| pattern.matches(topic))
            .collect();
        found.sort_by_key(|(pattern, _)| specificity(pattern));
        found
    }
}

/// How narrow a pattern is: one topic alone, then by words that must be equal, then by how much the wildcards take.
fn specificity(pattern: &TopicPattern) -> (bool, usize, bool) {
    let segments = || pattern.as_str().split('.');
    let words = segments()
        .filter(|segment| !matches!(*segment, "*" | "#"))
        .count();
    (
        pattern.is_exact(),
        words,
        !segments().any(|segment| segment == "#"),
    )
}

/// The entry that an endpoint falls under: the same key, or the template with the most fixed segments.
pub(crate) fn find_endpoint<'c>(
    endpoints: &'c IndexMap<String, EndpointConfig>,
    asked: &str,
) -> Option<(&'c str, &'c EndpointConfig)> {
    let asked = asked.trim();
    let asked = asked.split_once('?').map_or(asked, |(path, _)| path);
    if let Some((key, found)) = endpoints.get_key_value(asked) {
        return Some((key, found));
    }
    let (method, path) = asked.split_once(' ')?;
    endpoints
        .iter()
        .filter_map(|(key, found)| {
            let (known, template) = key.split_once(' ')?;
            let fixed =
                matches_template(template, path).filter(|_| known.eq_ignore_ascii_case(method))?;
            Some((fixed, key, found))
        })
        .max_by_key(|(fixed, ..)| *fixed)
        .map(|(_, key, found)| (key.as_str(), found))
}

/// How many segments of a template (`GET /users/{id}`) are fixed, if what is asked for (`GET /users/1`, or a template)
/// falls under it.
#[cfg(feature = "http")]
pub(crate) fn fixed_segments(template: &str, asked: &str) -> Option<usize> {
    let asked = asked.trim();
    let asked = asked.split_once('?').map_or(asked, |(path, _)| path);
    let (method, path) = asked.split_once(' ')?;
    let (known, template) = template.split_once(' ')?;
    matches_template(template, path).filter(|_| known.eq_ignore_ascii_case(method))
}

/// How many segments are fixed and equal, if the path falls under the template.
fn matches_template(template: &str, path: &str) -> Option<usize> {
    let mut fixed = 0;
    let (mut expected, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return Some(fixed),
            (Some(wanted), Some(segment)) if wanted.starts_with('{') && !segment.is_empty() => {}
            (Some(wanted), Some(segment)) if wanted == segment => fixed += 1,
            _ => return None,
        }
    }
}

/// What a client says beside the service that it leads to.
struct Own<'c> {
    path: String,
    named: Option<&'c str>,
    policy: PolicyConfig,
}

/// Puts layers together whose origins are known.
struct Stack<'c> {
    config: &'c CommunicationConfig,
    now: Arc<Json>,
}

impl<'c> Stack<'c> {
    fn new(config: &'c CommunicationConfig) -> Self {
        let now = serde_json::to_value(config).unwrap_or(Json::Null);
        Self {
            config,
            now: Arc::new(now),
        }
    }

    fn push(
        &self,
        layers: PolicyLayers<'c>,
        layer: Layer,
        policy: PolicyConfig,
        path: String,
    ) -> PolicyLayers<'c> {
        let config = self.config;
        let now = Arc::clone(&self.now);
        layers.push(layer, policy, move |field| {
            let path = format!("{path}.{field}");
            let value = super::check::at(&now, &path)?;
            Some(config.place_now(&path, value).to_string())
        })
    }

    fn default_only(&self) -> PolicyLayers<'c> {
        let layers = PolicyLayers::new();
        match self.config.policies.get("default") {
            Some(policy) => {
                let path = "policies.default".to_owned();
                self.push(layers, Layer::Default(path.clone()), policy.clone(), path)
            }
            None => layers,
        }
    }

    fn named(&self, name: Option<&str>) -> PolicyLayers<'c> {
        let layers = self.default_only();
        match name.and_then(|name| Some((name, self.config.policies.get(name)?))) {
            Some((name, policy)) => {
                let path = join("policies", name);
                self.push(layers, Layer::Named(path.clone()), policy.clone(), path)
            }
            None => layers,
        }
    }

    /// The service, in each place that speaks of it, and the endpoint.
    fn service(&self, places: &[(String, &ServiceConfig)], endpoint: &[&str]) -> PolicyLayers<'c> {
        self.layers(places, None, endpoint)
    }

    fn layers(
        &self,
        places: &[(String, &ServiceConfig)],
        own: Option<Own<'_>>,
        endpoint: &[&str],
    ) -> PolicyLayers<'c> {
        let endpoints: Vec<_> = places
            .iter()
            .filter_map(|(path, service)| {
                let mut names = endpoint.iter();
                let (key, found) =
                    names.find_map(|name| find_endpoint(&service.endpoints, name))?;
                Some((join(&format!("{path}.endpoints"), key), found))
            })
            .collect();
        let by_endpoint = endpoints
            .iter()
            .rev()
            .find_map(|(_, found)| found.policy.as_deref());
        let by_service = places
            .iter()
            .rev()
            .find_map(|(_, service)| service.policy.as_deref());
        let by_client = own.as_ref().and_then(|own| own.named);
        let mut layers = self.named(by_endpoint.or(by_client).or(by_service));
        for (path, service) in places {
            layers = self.push(
                layers,
                Layer::Service(path.clone()),
                service.policy_config(),
                path.clone(),
            );
        }
        if let Some(own) = own {
            let layer = Layer::Service(own.path.clone());
            layers = self.push(layers, layer, own.policy, own.path);
        }
        for (path, found) in endpoints {
            layers = self.push(
                layers,
                Layer::Endpoint(path.clone()),
                found.policy_config(),
                path,
            );
        }
        layers
    }

    fn broker(&self, layers: PolicyLayers<'c>, name: &str) -> PolicyLayers<'c> {
        let brokers = self.config.message_brokers.as_ref();
        let Some(broker) = brokers.and_then(|brokers| brokers.get(name)) else {
            return layers;
        };
        let mut policy = PolicyConfig::default();
        policy.retry = broker.retry.clone();
        let path = join("message_brokers", name);
        self.push(layers, Layer::Service(path.clone()), policy, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_path_falls_under_the_most_fixed_template() {
        let endpoints: IndexMap<String, EndpointConfig> = [
            "GET /users/{id}",
            "GET /users/me",
            "POST /users",
            "GET /{a}/{b}",
        ]
        .into_iter()
        .map(|key| (key.to_owned(), EndpointConfig::default()))
        .collect();
        let found = |asked| find_endpoint(&endpoints, asked).map(|(key, _)| key);
        assert_eq!(found("GET /users/1"), Some("GET /users/{id}"));
        assert_eq!(found("GET /users/1?full=true"), Some("GET /users/{id}"));
        assert_eq!(found("GET /users/{user_id}"), Some("GET /users/{id}"));
        assert_eq!(found("GET /users/me"), Some("GET /users/me"));
        assert_eq!(found("GET /orders/7"), Some("GET /{a}/{b}"));
        assert_eq!(found("post /users"), Some("POST /users"));
        assert_eq!(found("DELETE /users/1"), None);
        assert_eq!(found("GET /users/"), None);
        assert_eq!(found("GET /users/1/orders"), None);
    }

    #[test]
    fn the_more_specific_pattern_is_the_stronger() {
        let mut config = CommunicationConfig::default();
        for pattern in ["order.created", "#", "order.*", "order.#", "*.created"] {
            config
                .topics
                .insert(TopicPattern::new(pattern).unwrap(), TopicPolicy::default());
        }
        let topic = TopicName::new("order.created").unwrap();
        let found: Vec<&str> = config
            .topic_policies(&topic)
            .iter()
            .map(|(pattern, _)| pattern.as_str())
            .collect();
        assert_eq!(
            found,
            ["#", "order.#", "order.*", "*.created", "order.created"]
        );
    }
}
