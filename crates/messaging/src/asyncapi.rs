//! What a service says and hears, as an AsyncAPI 3.0 document.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use trunkline_core::Result;

use crate::messaging::Messaging;
use crate::topic::{Destination, Source, TopicPattern};
use crate::typed::{Listen, To};

/// A description of a service's messages: every handler that was begun, and what it says that it publishes.
///
/// ```
/// use trunkline_messaging::memory::MemoryBroker;
/// use trunkline_messaging::{MessageBroker, Messaging, Topic};
///
/// #[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
/// struct UserCreated { id: u64 }
/// const USER_CREATED: Topic<UserCreated> = Topic::new("user.created");
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let broker = MemoryBroker::default().erase();
/// broker.connect().await?;
/// let messaging = Messaging::builder(broker).service("users").build();
/// messaging.subscribe("order.*").handle(|_: serde_json::Value| async {}).await?;
/// let document = messaging.asyncapi("1.4.0").sends(USER_CREATED)?.to_json();
/// assert_eq!(document["asyncapi"], "3.0.0");
/// assert_eq!(document["channels"]["user.created"]["address"], "user.created");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct AsyncApi {
    title: String,
    version: String,
    content_type: &'static str,
    servers: BTreeMap<String, Value>,
    channels: BTreeMap<String, Value>,
    operations: BTreeMap<String, Value>,
    messages: BTreeMap<String, Value>,
}

impl AsyncApi {
    pub(crate) fn of(messaging: &Messaging, version: &str) -> Self {
        let around = messaging.publisher().around();
        let mut document = Self {
            title: around.sender().to_owned(),
            version: version.to_owned(),
            content_type: crate::codec::Codec::content_type(&around.codec),
            servers: BTreeMap::new(),
            channels: BTreeMap::new(),
            operations: BTreeMap::new(),
            messages: BTreeMap::new(),
        };
        for handler in messaging.router().handlers() {
            document.hears(handler.source(), handler.name(), handler.group());
        }
        document
    }

    /// Says where the broker is: its name here, host and protocol, such as `amqp`, `kafka`, `nats`, `redis`.
    #[must_use]
    pub fn with_server(
        mut self,
        name: impl Into<String>,
        host: impl Into<String>,
        protocol: impl Into<String>,
    ) -> Self {
        let (host, protocol) = (host.into(), protocol.into());
        let server = json!({ "host": host, "protocol": protocol });
        self.servers.insert(identifier(&name.into()), server);
        self
    }

    /// Says that messages of a type are published to a topic or queue.
    ///
    /// # Errors
    /// `Invalid` when its name is wrong.
    pub fn sends<T: JsonSchema, D: To<T>>(mut self, to: D) -> Result<Self> {
        let destination = to.destination()?;
        let source = match destination {
            Destination::Topic(name) => Source::Topics(name.into()),
            Destination::Queue(name) => Source::Queue(name),
        };
        let channel = self.channel(&source);
        self.describe::<T>(&channel);
        let operation = json!({ "action": "send", "channel": reference("channels", &channel) });
        let name = format!("send.{channel}");
        self.operations.insert(name, operation);
        Ok(self)
    }

    /// Says of which type the messages are that handlers of a source get.
    ///
    /// # Errors
    /// `Invalid` when its name is wrong.
    pub fn payload<T: JsonSchema>(mut self, source: impl Listen) -> Result<Self> {
        let channel = self.channel(&source.source()?);
        self.describe::<T>(&channel);
        Ok(self)
    }

    /// The document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut document = json!({
            "asyncapi": "3.0.0",
            "info": { "title": self.title, "version": self.version },
            "defaultContentType": self.content_type,
            "channels": self.channels,
            "operations": self.operations,
            "components": { "messages": self.messages },
        });
        if !self.servers.is_empty() {
            document["servers"] = json!(self.servers);
        }
        document
    }

    fn hears(&mut self, source: &Source, handler: &str, group: Option<&str>) {
        let channel = self.channel(source);
        let mut operation = json!({
            "action": "receive",
            "channel": reference("channels", &channel),
            "summary": format!("handled by {handler}"),
        });
        let mut name = format!("receive.{channel}");
        if let Some(group) = group {
            operation["x-group"] = group.into();
            name = format!("{name}.{}", identifier(group));
        }
        // Several may listen without a group.
        let mut unique = name.clone();
        let mut count = 1;
        while self.operations.contains_key(&unique) {
            count += 1;
            unique = format!("{name}.{count}");
        }
        self.operations.insert(unique, operation);
    }

    /// The channel of a source, made when it is named first.
    fn channel(&mut self, source: &Source) -> String {
        let (kind, address, parameters) = match source {
            Source::Queue(name) => ("queue", name.as_str().to_owned(), Map::new()),
            Source::Topics(pattern) => {
                let (address, parameters) = address(pattern);
                ("topic", address, parameters)
            }
        };
        let prefix = if kind == "queue" { "queue." } else { "" };
        let name = format!("{prefix}{}", identifier(&address));
        let mut channel = json!({
            "address": address,
            "messages": { "message": reference("components/messages", &name) },
            "x-kind": kind,
        });
        if !parameters.is_empty() {
            channel["parameters"] = parameters.into();
        }
        self.channels.entry(name.clone()).or_insert(channel);
        self.messages
            .entry(name.clone())
            .or_insert_with(|| json!({ "name": name, "headers": headers() }));
        name
    }

    fn describe<T: JsonSchema>(&mut self, channel: &str) {
        let settings = SchemaSettings::draft07();
        let schema = settings.into_generator().into_root_schema_for::<T>();
        if let Some(message) = self.messages.get_mut(channel) {
            message["title"] = T::schema_name().into_owned().into();
            message["contentType"] = self.content_type.into();
            message["payload"] = json!({
                "schemaFormat": "application/schema+json;version=draft-07",
                "schema": schema,
            });
        }
    }
}

/// The address of a pattern: wildcards are parameters.
fn address(pattern: &TopicPattern) -> (String, Map<String, Value>) {
    let mut parameters = Map::new();
    let segments = pattern.as_str().split('.').map(|segment| {
        let (name, what) = match segment {
            "*" => ("word", "one word"),
            "#" => ("rest", "any number of words"),
            plain => return plain.to_owned(),
        };
        let name = match parameters.len() {
            0 => name.to_owned(),
            more => format!("{name}{}", more + 1),
        };
        parameters.insert(name.clone(), json!({ "description": what }));
        format!("{{{name}}}")
    });
    let address = segments.collect::<Vec<_>>().join(".");
    (address, parameters)
}

/// The headers that every message carries: the attributes of its event.
fn headers() -> Value {
    let text = || json!({ "type": "string" });
    json!({
        "type": "object",
        "properties": {
            "ce-specversion": { "type": "string", "const": "1.0" },
            "ce-id": text(),
            "ce-source": text(),
            "ce-type": text(),
            "ce-time": { "type": "string", "format": "date-time" },
        },
    })
}

fn reference(section: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{section}/{name}") })
}

/// A name that stands in references as it is.
fn identifier(text: &str) -> String {
    let kept = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let kept = text
        .chars()
        .filter(|c| !matches!(c, '{' | '}'))
        .map(|c| match kept(c) {
            true => c,
            false => '_',
        });
    kept.collect()
}
