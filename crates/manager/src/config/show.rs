//! The whole configuration as it applies, value by value, without secrets.

use serde_json::Value as Json;

use super::check::scalar::mask_credentials;
use super::explain::Setting;
use super::model::CommunicationConfig;
use super::tree::join;

/// What stands in place of a secret.
const HIDDEN: &str = "********";

/// Parts of names whose values are not shown where the schema does not know them.
const SECRET_NAMES: [&str; 8] = [
    "password",
    "passwd",
    "secret",
    "token",
    "credential",
    "api_key",
    "apikey",
    "private_key",
];

impl CommunicationConfig {
    /// The configuration as JSON, without secrets: passwords, credentials in URLs, options and headers with telling
    /// names.
    #[must_use]
    pub fn redacted(&self) -> Json {
        let mut value = serde_json::to_value(self).unwrap_or(Json::Null);
        redact(&mut value, false);
        value
    }

    /// Every value and where it came from, without secrets.
    #[must_use]
    pub fn settings(&self) -> Vec<Setting> {
        let whole = serde_json::to_value(self).unwrap_or(Json::Null);
        let mut settings = Vec::new();
        self.collect(&whole, &self.redacted(), "", &mut settings);
        settings
    }

    fn collect(&self, value: &Json, shown: &Json, path: &str, settings: &mut Vec<Setting>) {
        match (value, shown) {
            (Json::Object(values), Json::Object(shown)) if !values.is_empty() => {
                for (key, value) in values {
                    let shown = shown.get(key).unwrap_or(&Json::Null);
                    self.collect(value, shown, &join(path, key), settings);
                }
            }
            // A section in which nothing is set says nothing, unless its emptiness was written.
            (Json::Object(_), _) if self.place(path).is_none() => {}
            _ => settings.push(Setting {
                path: path.to_owned(),
                value: match shown {
                    Json::String(text) => text.clone(),
                    other => other.to_string(),
                },
                origin: self.origin(path, value),
                layer: String::new(),
            }),
        }
    }

    /// Where a value came from, in words.
    fn origin(&self, path: &str, value: &Json) -> String {
        if self.place(path).is_some() {
            return self.place_now(path, value).to_string();
        }
        let default = serde_json::to_value(Self::default()).unwrap_or(Json::Null);
        let loaded = super::check::at(self.provenance.loaded(), path) == Some(value);
        let is_default = loaded || super::check::at(&default, path) == Some(value);
        if is_default { "default" } else { "code" }.to_owned()
    }
}

fn redact(value: &mut Json, hidden: bool) {
    match value {
        Json::Null | Json::Bool(_) => {}
        Json::Number(_) if hidden => *value = Json::from(HIDDEN),
        Json::Number(_) => {}
        Json::String(text) if hidden => HIDDEN.clone_into(text),
        Json::String(text) => *text = mask_credentials(text),
        Json::Array(items) => {
            for item in items {
                redact(item, hidden);
            }
        }
        Json::Object(object) => {
            for (key, value) in object {
                redact(value, hidden || is_secret_name(key));
            }
        }
    }
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    name == "authorization"
        || name == "cookie"
        || SECRET_NAMES.iter().any(|part| name.contains(part))
}
