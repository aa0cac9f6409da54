//! What a policy comes to, value by value, and where each was written.

use std::fmt;

use serde::Serialize;
use trunkline_core::Result;
use trunkline_discovery::ServiceName;
use trunkline_resilience::{Declared, EffectivePolicy, Explanation};

use super::diagnostics::closest;
use super::layers::find_endpoint;
use super::model::CommunicationConfig;

impl CommunicationConfig {
    /// Says for calls to a service, or to one of its endpoints, every value of the policy and where it came from.
    ///
    /// ```
    /// use trunkline_manager::CommunicationConfig;
    ///
    /// let config = CommunicationConfig::builder().build()?;
    /// let explained = config.explain("user-service", Some("GET /users/1"))?;
    /// let attempts = explained.settings.iter().find(|s| s.path == "retry.max_attempts").unwrap();
    /// assert_eq!((attempts.value.as_str(), attempts.origin.as_str()), ("3", "default"));
    /// # Ok::<(), trunkline_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// `Invalid` when the name is no service name; `Config` when a policy set in code holds values out of range.
    pub fn explain(&self, service: &str, endpoint: Option<&str>) -> Result<PolicyExplanation> {
        self.explain_declared(service, endpoint, None)
    }

    /// The same with what the author of an interface wrote at the method that calls the endpoint.
    pub(crate) fn explain_declared(
        &self,
        service: &str,
        endpoint: Option<&str>,
        declared: Option<&Declared>,
    ) -> Result<PolicyExplanation> {
        let name = ServiceName::new(service)?;
        let second = declared.and_then(|declared| declared.also.as_deref());
        let names: Vec<&str> = endpoint.into_iter().chain(second).collect();
        let layers = self.policy_layers_of(service, &names);
        let explained = layers.push_declared(declared).resolve()?;
        let settings = self.services.get(&name);
        let matched = settings.and_then(|settings| {
            let mut names = names.iter();
            names.find_map(|name| find_endpoint(&settings.endpoints, name))
        });
        let note = match (settings, endpoint, matched) {
            (None, ..) if declared.is_some() => None,
            (None, ..) => Some(self.unknown_service(&name)),
            (Some(_), Some(endpoint), None) if declared.is_none() => Some(format!(
                "`{endpoint}` has no settings of its own; those of the service apply"
            )),
            _ => None,
        };
        Ok(PolicyExplanation {
            service: name.to_string(),
            endpoint: matched.map(|(key, _)| key.to_owned()),
            note,
            settings: explained
                .explanations
                .into_iter()
                .map(Setting::from)
                .collect(),
            policy: explained.policy,
        })
    }

    fn unknown_service(&self, name: &ServiceName) -> String {
        let known = self.services.keys().map(ServiceName::as_str);
        let hint = closest(name.as_str(), known).map(|meant| format!("; did you mean `{meant}`?"));
        format!(
            "the service `{name}` has no settings; the defaults apply{}",
            hint.unwrap_or_default()
        )
    }
}

/// A policy, value by value. `Display` prints a table; as JSON it is an object.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PolicyExplanation {
    /// The service.
    pub service: String,
    /// The configured endpoint that applies, if one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What should be known about the question, such as that the service is not configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Every value.
    pub settings: Vec<Setting>,
    /// The policy itself.
    #[serde(skip)]
    pub policy: EffectivePolicy,
}

/// One value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Setting {
    /// The path of the setting: `retry.max_attempts`.
    pub path: String,
    /// The value as configuration writes it; secrets are hidden.
    pub value: String,
    /// Where it was written: `communication.yaml:12`, `environment variable …`, `code`, `default`.
    pub origin: String,
    /// The layer that set it, such as `services.user-service`; empty where there are no layers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub layer: String,
}

impl From<Explanation> for Setting {
    fn from(explanation: Explanation) -> Self {
        let layer = explanation.layer.to_string();
        Self {
            path: explanation.path.to_owned(),
            value: explanation.value,
            origin: explanation.origin.unwrap_or_else(|| "default".to_owned()),
            layer,
        }
    }
}

impl fmt::Display for PolicyExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.service)?;
        if let Some(endpoint) = &self.endpoint {
            write!(f, " {endpoint}")?;
        }
        if let Some(note) = &self.note {
            write!(f, "\n({note})")?;
        }
        write_settings(f, &self.settings)
    }
}

/// One line each, in columns.
pub(super) fn write_settings(f: &mut fmt::Formatter<'_>, settings: &[Setting]) -> fmt::Result {
    let width = |read: fn(&Setting) -> &str| {
        settings
            .iter()
            .map(|setting| read(setting).chars().count())
            .max()
            .unwrap_or(0)
    };
    let (paths, values) = (
        width(|setting| &setting.path),
        width(|setting| &setting.value),
    );
    for setting in settings {
        let Setting {
            path,
            value,
            origin,
            layer,
        } = setting;
        write!(f, "\n{path:paths$}  {value:values$}  {origin}")?;
        if !layer.is_empty() && layer != "built-in" {
            write!(f, "  ({layer})")?;
        }
    }
    Ok(())
}
