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
    /// The channels that are topics.
    topics: BTreeMap<String, TopicPattern>,
    /// What the payloads of topics keep.
    promised: Vec<(TopicPattern, Value)>,
}

/// What a service says that it publishes.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    source: Source,
    title: String,
    schema: Value,
}

impl Sent {
    pub(crate) fn new<T: JsonSchema>(to: Destination) -> Self {
        let source = match to {
            Destination::Topic(name) => Source::Topics(name.into()),
            Destination::Queue(name) => Source::Queue(name),
        };
        let (title, schema) = schema_of::<T>();
        Self {
            source,
            title,
            schema,
        }
    }
}

impl AsyncApi {
    /// A document that says nothing yet but the name of the service and its version.
    #[must_use]
    pub fn new(title: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            version: version.into(),
            content_type: "application/json",
            servers: BTreeMap::new(),
            channels: BTreeMap::new(),
            operations: BTreeMap::new(),
            messages: BTreeMap::new(),
            topics: BTreeMap::new(),
            promised: Vec::new(),
        }
    }

    pub(crate) fn of(messaging: &Messaging, version: &str) -> Self {
        let around = messaging.publisher().around();
        let mut document = Self::new(around.sender(), version);
        document.content_type = crate::codec::Codec::content_type(&around.codec);
        document.with_messaging(messaging)
    }

    /// Adds the handlers that were begun on a broker, and what is [said to be published](Messaging::publishes) there.
    #[must_use]
    pub fn with_messaging(mut self, messaging: &Messaging) -> Self {
        for handler in messaging.router().handlers() {
            self.hears(handler.source(), handler.name(), handler.group());
        }
        for sent in messaging.published() {
            self.says(sent);
        }
        self
    }

    /// Says that the payloads of the topics under a pattern keep a JSON Schema. A channel whose payload has a type keeps to
    /// that.
    #[must_use]
    pub fn with_topic(mut self, pattern: &TopicPattern, schema: Option<Value>) -> Self {
        self.channel(&Source::Topics(pattern.clone()));
        if let Some(mut schema) = schema {
            if let Some(schema) = schema.as_object_mut() {
                // References are within this document now.
                schema.remove("$id");
            }
            self.promised.push((pattern.clone(), schema));
        }
        self
    }

    /// Says something about a server that was named by [`with_server`](Self::with_server).
    #[must_use]
    pub fn describe_server(mut self, name: &str, text: impl Into<String>) -> Self {
        if let Some(server) = self.servers.get_mut(&identifier(name)) {
            server["description"] = text.into().into();
        }
        self
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
        self.says(Sent::new::<T>(to.destination()?));
        Ok(self)
    }

    /// Says of which type the messages are that handlers of a source get.
    ///
    /// # Errors
    /// `Invalid` when its name is wrong.
    pub fn payload<T: JsonSchema>(mut self, source: impl Listen) -> Result<Self> {
        let channel = self.channel(&source.source()?);
        let (title, schema) = schema_of::<T>();
        self.describe(&channel, title, schema);
        Ok(self)
    }

    /// The document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut messages = self.messages.clone();
        for (channel, topics) in &self.topics {
            if let Some(message) = messages.get_mut(channel)
                && message.get("payload").is_none()
                && let Some(schema) = self.promised_of(topics)
            {
                message["payload"] = payload(channel, schema);
            }
        }
        let mut document = json!({
            "asyncapi": "3.0.0",
            "info": { "title": self.title, "version": self.version },
            "defaultContentType": self.content_type,
            "channels": self.channels,
            "operations": self.operations,
            "components": { "messages": messages },
        });
        if !self.servers.is_empty() {
            document["servers"] = json!(self.servers);
        }
        document
    }

    /// What payloads of a channel keep: of one topic everything that it falls under, of several what all of them fall under.
    fn promised_of(&self, topics: &TopicPattern) -> Option<Value> {
        let topic = topics.as_topic();
        let fits = |pattern: &TopicPattern| match &topic {
            Some(topic) => pattern.matches(topic),
            None => pattern == topics || pattern.as_str() == "#",
        };
        let promised = self.promised.iter().filter(|(pattern, _)| fits(pattern));
        let mut schemas: Vec<Value> = promised.map(|(_, schema)| schema.clone()).collect();
        match schemas.len() {
            0 => None,
            1 => schemas.pop(),
            _ => {
                // The draft of the first one is said of all together.
                let mut draft = None;
                for (index, schema) in schemas.iter_mut().enumerate() {
                    rebase(schema, &format!("#/allOf/{index}"));
                    let own = schema.as_object_mut().and_then(|own| own.remove("$schema"));
                    draft = draft.or(own);
                }
                let mut all = json!({ "allOf": schemas });
                if let Some(draft) = draft {
                    all["$schema"] = draft;
                }
                Some(all)
            }
        }
    }

    fn says(&mut self, sent: Sent) {
        let channel = self.channel(&sent.source);
        self.describe(&channel, sent.title, sent.schema);
        let operation = json!({ "action": "send", "channel": reference("channels", &channel) });
        self.operations.insert(format!("send.{channel}"), operation);
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
        if let Source::Topics(pattern) = source {
            self.topics.insert(name.clone(), pattern.clone());
        }
        self.channels.entry(name.clone()).or_insert(channel);
        self.messages
            .entry(name.clone())
            .or_insert_with(|| json!({ "name": name, "headers": headers() }));
        name
    }

    fn describe(&mut self, channel: &str, title: String, schema: Value) {
        if let Some(message) = self.messages.get_mut(channel) {
            message["title"] = title.into();
            message["contentType"] = self.content_type.into();
            message["payload"] = payload(channel, schema);
        }
    }
}

/// A type's name and schema.
fn schema_of<T: JsonSchema>() -> (String, Value) {
    let generator = SchemaSettings::draft07().into_generator();
    let schema = generator.into_root_schema_for::<T>().to_value();
    (T::schema_name().into_owned(), schema)
}

/// The payload of a channel's message.
fn payload(channel: &str, mut schema: Value) -> Value {
    let draft = schema.get("$schema").and_then(Value::as_str);
    // A schema that names none is of the newest draft.
    let version = match draft {
        Some(draft) if draft.contains("draft-04") => "draft-04",
        Some(draft) if draft.contains("draft-06") => "draft-06",
        Some(draft) if draft.contains("draft-07") => "draft-07",
        Some(draft) if draft.contains("2019-09") => "draft-2019-09",
        _ => "draft-2020-12",
    };
    let place = format!("#/components/messages/{channel}/payload/schema");
    rebase(&mut schema, &place);
    json!({
        "schemaFormat": format!("application/schema+json;version={version}"),
        "schema": schema,
    })
}

/// Makes references within a schema lead to where it stands in a document.
fn rebase(schema: &mut Value, place: &str) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                match (key.as_str(), &mut *value) {
                    ("$ref", Value::String(to)) if to == "#" || to.starts_with("#/") => {
                        *to = format!("{place}{}", to.trim_start_matches('#'));
                    }
                    // Values, not schemas.
                    ("const" | "enum" | "default" | "examples", _) => {}
                    // Schemas by names, of which one may be a word of schemas.
                    (
                        "properties" | "patternProperties" | "definitions" | "$defs"
                        | "dependentSchemas",
                        Value::Object(named),
                    ) => named.values_mut().for_each(|schema| rebase(schema, place)),
                    (_, value) => rebase(value, place),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rebase(value, place)),
        _ => {}
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
