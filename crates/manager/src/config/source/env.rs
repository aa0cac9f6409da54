//! The environment: variables by the guides' names, and a path for everything else.

use std::collections::BTreeMap;
use std::fmt;

use super::yaml;
use crate::config::diagnostics::{Diagnostic, Diagnostics, closest};
use crate::config::place::Place;
use crate::config::schema::{Schemas, Shape};
use crate::config::tree::{Entry, Node, ScalarKind, Table, Value};

/// What `TRUNKLINE__HTTP_CLIENTS__DEFAULT__TIMEOUT` begins with.
const PATH_PREFIX: &str = "TRUNKLINE__";

/// The variable that names the base file.
pub(crate) const CONFIG_FILE: &str = "TRUNKLINE_CONFIG";

/// The variable that names the profile.
pub(crate) const PROFILE: &str = "ENVIRONMENT";

/// The URL of the RabbitMQ broker, whichever name that broker has.
const RABBITMQ_URL: &str = "RABBITMQ_URL";

/// Variables by the guides' names, and the setting each stands for.
const NAMED: [(&str, &str); 17] = [
    ("MESSAGE_BROKER_TYPE", "message_brokers.default.type"),
    (
        "MESSAGE_BROKER_URL",
        "message_brokers.default.connection_url",
    ),
    ("MESSAGE_BROKER_HOST", "message_brokers.default.host"),
    ("MESSAGE_BROKER_PORT", "message_brokers.default.port"),
    (
        "MESSAGE_BROKER_USERNAME",
        "message_brokers.default.username",
    ),
    (
        "MESSAGE_BROKER_PASSWORD",
        "message_brokers.default.password",
    ),
    (
        "MESSAGE_BROKER_PASSWORD_FILE",
        "message_brokers.default.password_file",
    ),
    ("HTTP_CLIENT_BASE_URL", "http_clients.default.base_url"),
    ("HTTP_CLIENT_TIMEOUT", "http_clients.default.timeout"),
    (
        "HTTP_CLIENT_MAX_RETRIES",
        "http_clients.default.max_retries",
    ),
    ("SERVICE_DISCOVERY_TYPE", "service_discovery.type"),
    ("SERVICE_DISCOVERY_HOST", "service_discovery.host"),
    ("SERVICE_DISCOVERY_PORT", "service_discovery.port"),
    ("LOG_LEVEL", "logging.level"),
    ("LOG_FORMAT", "logging.format"),
    ("CORRELATION_HEADER", "logging.correlation_header"),
    ("SERVICE_NAME", "service.name"),
];

/// The variables of a process, or those that a test gives. Values are not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process; those that are not Unicode are left out. The only place of the library that reads
    /// them.
    #[must_use]
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os();
        Self(
            pairs
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
        )
    }

    /// These variables and no others.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let pairs = pairs.into_iter();
        Self(
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The value of a variable that is set and not empty.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.trim().is_empty())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether a value is an address that Kubernetes puts into the environment for every service of the namespace:
/// `MESSAGE_BROKER_PORT=tcp://10.0.0.1:5672`.
pub(crate) fn is_service_link(name: &str, value: &str) -> bool {
    let scheme = value.split_once("://").map(|(scheme, _)| scheme);
    name.contains("_PORT") && matches!(scheme, Some("tcp" | "udp" | "sctp"))
}

/// The layer of the environment. `under` is what the lower layers say: it tells how a name is spelled there.
pub(crate) fn layer(environment: &Environment, under: &Node, problems: &mut Diagnostics) -> Node {
    let mut layer = Layer {
        tree: Table::default(),
        under,
        problems,
    };
    for (name, path) in NAMED {
        if let Some(value) = environment.filled(name) {
            let path: Vec<String> = path.split('.').map(str::to_owned).collect();
            layer.named(name, &path, value);
        }
    }
    if let Some(url) = environment.filled(RABBITMQ_URL) {
        layer.rabbitmq(url);
    }
    for (name, value) in &environment.0 {
        if let Some(path) = name.strip_prefix(PATH_PREFIX) {
            layer.path(name, path, value);
        } else if name.starts_with("TRUNKLINE_") {
            layer.misspelled(name);
        }
    }
    Node {
        value: Value::Table(layer.tree),
        place: Place::variable("…"),
    }
}

struct Layer<'a> {
    tree: Table,
    under: &'a Node,
    problems: &'a mut Diagnostics,
}

impl Layer<'_> {
    fn named(&mut self, name: &str, path: &[String], value: &str) {
        let place = placed(name, path);
        if is_service_link(name, value) {
            let message = "it is a service link of Kubernetes and is ignored";
            self.problems.push(Diagnostic::warning(&place, message));
            return;
        }
        self.put(path, value, &place);
    }

    /// The one broker that is RabbitMQ takes the URL; without any brokers it is the broker `default`.
    fn rabbitmq(&mut self, url: &str) {
        let brokers = self
            .under
            .as_table()
            .and_then(|table| table.get("message_brokers"));
        let brokers = brokers.and_then(Node::as_table);
        let is_rabbit = |node: &Node| {
            let kind = node.as_table().and_then(|table| table.get("type"));
            kind.and_then(Node::as_text)
                .is_some_and(|kind| kind.eq_ignore_ascii_case("rabbitmq"))
        };
        let own_kind = self.tree.get("message_brokers").and_then(Node::as_table);
        let own_kind = own_kind
            .and_then(|table| table.get("default"))
            .is_some_and(is_rabbit);
        let mut names: Vec<&str> = brokers
            .into_iter()
            .flat_map(|table| table.entries.iter())
            .filter(|(_, entry)| is_rabbit(&entry.node))
            .map(|(name, _)| name.as_str())
            .collect();
        let none_configured = brokers.is_none_or(|table| table.entries.is_empty());
        if names.is_empty() && (none_configured || own_kind) {
            names.push("default");
        }
        let place = Place::variable(RABBITMQ_URL);
        match names.as_slice() {
            [name] => {
                let path = ["message_brokers", name, "connection_url"].map(str::to_owned);
                self.put(&path, url, &placed(RABBITMQ_URL, &path));
            }
            [] => self.problems.push(Diagnostic::warning(
                &place,
                "no broker of type `rabbitmq` is configured; the variable is ignored",
            )),
            several => self.problems.push(
                Diagnostic::warning(
                    &place,
                    "several brokers are of type `rabbitmq`; the variable is ignored",
                )
                .allow(format!(
                    "{PATH_PREFIX}MESSAGE_BROKERS__<NAME>__CONNECTION_URL for one of {}",
                    several.join(", ")
                )),
            ),
        }
    }

    fn path(&mut self, name: &str, path: &str, value: &str) {
        let segments: Vec<&str> = path.split("__").collect();
        if segments.iter().any(|segment| segment.is_empty()) {
            let problem = Diagnostic::error(&Place::variable(name), "it does not name a setting");
            self.problems.push(problem.allow("TRUNKLINE__SECTION__KEY"));
            return;
        }
        // Set to nothing means not set, as it is for `${…}`.
        if value.trim().is_empty() {
            return;
        }
        let path = self.spell(&segments);
        self.put(&path, value, &placed(name, &path));
    }

    /// Spells the segments of a variable as the configuration does: keys in lower case, names as a lower layer has
    /// them.
    fn spell(&self, segments: &[&str]) -> Vec<String> {
        let schemas = Schemas::of_build();
        let mut shape = Some(Shape::Section(schemas.root()));
        let mut under = Some(self.under);
        let mut path: Vec<String> = Vec::new();
        for segment in segments {
            let lower = segment.to_ascii_lowercase();
            let singular = match (path.is_empty(), lower.as_str()) {
                (true, "message_broker") => Some("message_brokers"),
                (true, "http_client") => Some("http_clients"),
                _ => None,
            };
            if let Some(plural) = singular {
                path.extend([plural.to_owned(), "default".to_owned()]);
                under =
                    under.and_then(|node| node.as_table()?.get(plural)?.as_table()?.get("default"));
                shape = schemas.below(schemas.root(), &[plural, "default"]);
                continue;
            }
            let names = under.and_then(Node::as_table);
            let (key, next) = match shape {
                Some(Shape::Section(section)) => {
                    let next = section
                        .property(&lower)
                        .map(|property| schemas.shape(property));
                    (lower, next)
                }
                Some(Shape::Map(map)) => {
                    let known = names.and_then(|table| {
                        table
                            .entries
                            .keys()
                            .find(|name| folded(name) == folded(segment))
                    });
                    (
                        known.cloned().unwrap_or(lower),
                        Some(schemas.shape(map.item)),
                    )
                }
                _ => (lower, shape),
            };
            under = names.and_then(|table| table.get(&key));
            shape = next;
            path.push(key);
        }
        path
    }

    fn put(&mut self, path: &[String], value: &str, place: &Place) {
        let Some((key, sections)) = path.split_last() else {
            return;
        };
        let sections: Vec<&str> = sections.iter().map(String::as_str).collect();
        let node = self.value(path, value, place);
        self.open(place, path);
        let Some(table) = self.tree.table_at(&sections, place) else {
            let message = "another variable sets the whole section to a single value";
            self.problems.push(Diagnostic::error(place, message));
            return;
        };
        if let Some(first) = table.entries.get(key) {
            let message = format!("it says the same as {}", first.key);
            self.problems
                .push(Diagnostic::error(place, message).allow("one of the two"));
            return;
        }
        let key_place = place.clone();
        table.entries.insert(
            key.clone(),
            Entry {
                key: key_place,
                node,
            },
        );
    }

    /// Makes the sections above a setting, each knowing its own key.
    fn open(&mut self, place: &Place, path: &[String]) {
        let sections: Vec<&str> = path.iter().map(String::as_str).collect();
        for depth in 1..sections.len() {
            let (above, _) = sections.split_at(depth);
            let mut place = place.clone();
            place.set_key(&above.join("."));
            self.tree.table_at(above, &place);
        }
    }

    /// Lists and sections are written as JSON, lists of plain texts also with commas.
    fn value(&mut self, path: &[String], value: &str, place: &Place) -> Node {
        let schemas = Schemas::of_build();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let shape = schemas.below(schemas.root(), &path);
        let trimmed = value.trim();
        let structured = matches!(
            shape,
            Some(Shape::Section(_) | Shape::Map(_) | Shape::List(_) | Shape::Free)
        );
        if structured && trimmed.starts_with(['[', '{']) {
            match yaml::parse(trimmed, &"variable".into()) {
                Ok(mut node) => {
                    relocate(&mut node, place);
                    return node;
                }
                Err(_) => {
                    let problem = Diagnostic::error(place, "it is not JSON");
                    self.problems
                        .push(problem.allow("[\"a\", \"b\"] or {\"key\": \"value\"}"));
                }
            }
        }
        if matches!(shape, Some(Shape::List(_))) {
            let items = trimmed
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            let items = items.map(|item| Node::scalar(item, ScalarKind::Plain, place.clone()));
            return Node {
                value: Value::List(items.collect()),
                place: place.clone(),
            };
        }
        Node::scalar(value, ScalarKind::Plain, place.clone())
    }

    /// `TRUNKLINE_…` with one underscore, unless Kubernetes made it for a service named `trunkline`.
    fn misspelled(&mut self, name: &str) {
        let link = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
            .iter()
            .any(|part| name.contains(part));
        if name == CONFIG_FILE || link {
            return;
        }
        let place = Place::variable(name);
        let mut problem = Diagnostic::warning(&place, "no such variable is read");
        problem = match closest(name, [CONFIG_FILE]) {
            Some(meant) => problem.suggest(Some(meant)),
            None => problem.allow(format!("{CONFIG_FILE}, {PATH_PREFIX}SECTION__KEY")),
        };
        self.problems.push(problem);
    }
}

fn placed(name: &str, path: &[String]) -> Place {
    let mut place = Place::variable(name);
    place.set_key(&path.join("."));
    place
}

fn folded(name: &str) -> String {
    name.to_ascii_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

fn relocate(node: &mut Node, place: &Place) {
    node.place = place.clone();
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => {
            for item in items {
                relocate(item, place);
            }
        }
        Value::Table(table) => {
            for entry in table.entries.values_mut() {
                entry.key = place.clone();
                relocate(&mut entry.node, place);
            }
        }
    }
}
