//! OpenAPI 3.1 documents of interfaces.

use std::fmt;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::operation::Interface;

/// A document that is being written, method by method.
pub struct Document {
    interface: &'static Interface,
    description: &'static str,
    generator: SchemaGenerator,
    paths: Map<String, Value>,
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("interface", &self.interface.name)
            .finish_non_exhaustive()
    }
}

/// One method of the document.
#[derive(Debug)]
pub struct Entry<'d> {
    generator: &'d mut SchemaGenerator,
    entry: &'d mut Map<String, Value>,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug)]
pub enum In {
    /// In the path.
    Path,
    /// In the query.
    Query,
    /// In a header.
    Header,
}

impl Document {
    /// An empty document.
    #[must_use]
    pub fn new(interface: &'static Interface, description: &'static str) -> Self {
        // 3.1 speaks the draft of JSON Schema that schemars writes by itself.
        let settings = SchemaSettings::draft2020_12()
            .with(|settings| settings.definitions_path = "/components/schemas".into());
        let settings = settings.with(|settings| settings.meta_schema = None);
        Self {
            interface,
            description,
            generator: settings.into_generator(),
            paths: Map::new(),
        }
    }

    /// Adds a method. `path` has its parameters as OpenAPI writes them.
    ///
    /// # Panics
    /// Never: what it expects to find it has put there itself.
    pub fn operation(&mut self, method: &str, path: &str, id: &str, about: &str) -> Entry<'_> {
        let item = self.paths.entry(path).or_insert_with(|| json!({}));
        let mut entry = Map::new();
        entry.insert("operationId".to_owned(), id.into());
        entry.insert("tags".to_owned(), json!([self.interface.name]));
        let about = about.trim();
        if !about.is_empty() {
            let (summary, more) = about.split_once("\n\n").unwrap_or((about, ""));
            entry.insert("summary".to_owned(), summary.replace('\n', " ").into());
            if !more.trim().is_empty() {
                entry.insert("description".to_owned(), more.trim().into());
            }
        }
        entry.insert("responses".to_owned(), json!({}));
        let method = method.to_ascii_lowercase();
        if let Some(item) = item.as_object_mut() {
            item.insert(method.clone(), Value::Object(entry));
        }
        let entry = item.get_mut(&method).and_then(Value::as_object_mut);
        Entry {
            generator: &mut self.generator,
            #[expect(clippy::expect_used, reason = "put there two lines above")]
            entry: entry.expect("the method was added"),
        }
    }

    /// The document: an object as OpenAPI 3.1 describes it. Title and version are the service's name and `1.0.0`:
    /// replace what your service says of itself.
    #[must_use]
    pub fn finish(mut self) -> Value {
        let schemas = self.generator.take_definitions(true);
        let mut document = json!({
            "openapi": "3.1.0",
            "info": { "title": self.interface.service, "version": "1.0.0" },
            "paths": self.paths,
        });
        if !self.description.trim().is_empty() {
            document["info"]["description"] = self.description.trim().into();
        }
        if !schemas.is_empty() {
            document["components"] = json!({ "schemas": schemas });
        }
        document
    }
}

impl Entry<'_> {
    /// Adds a parameter. A default makes it optional.
    pub fn parameter<T: JsonSchema>(
        &mut self,
        place: In,
        name: &str,
        required: bool,
        default: Option<Value>,
    ) {
        let mut schema = self.schema::<T>();
        let required = required && default.is_none();
        if let (Some(default), Some(schema)) = (default, schema.as_object_mut()) {
            schema.insert("default".to_owned(), default);
        }
        let place = match place {
            In::Path => "path",
            In::Query => "query",
            In::Header => "header",
        };
        self.list("parameters").push(json!({
            "name": name, "in": place, "required": required, "schema": schema,
        }));
    }

    /// Adds each field of a value as a parameter of the query.
    pub fn fields<T: JsonSchema>(&mut self) {
        let schema = self.generator.root_schema_for::<T>().to_value();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let needed = required.iter().any(|known| known == name);
            let parameter =
                json!({"name": name, "in": "query", "required": needed, "schema": field});
            self.list("parameters").push(parameter);
        }
    }

    /// Says that each call has an idempotency key.
    pub fn keyed(&mut self) {
        self.list("parameters").push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false, "schema": { "type": "string" },
            "description": "Requests with the same key are done once.",
        }));
    }

    /// Adds the body of the request.
    pub fn body<T: JsonSchema>(&mut self, kind: &str) {
        let schema = self.schema::<T>();
        let content = json!({ kind: { "schema": schema } });
        self.set(
            "requestBody",
            json!({ "required": true, "content": content }),
        );
    }

    /// Adds a body that is a stream.
    pub fn streamed_body(&mut self) {
        let content = json!({ "application/octet-stream": {} });
        self.set(
            "requestBody",
            json!({ "required": true, "content": content }),
        );
    }

    /// Adds a body that is a form with files: its parts by name, and whether each is a file. Where the interface names
    /// none, each may be a text or a file.
    pub fn multipart_body(&mut self, parts: &[(&str, bool)]) {
        const BINARY: &str = "application/octet-stream";
        // Bytes as they are have no type in JSON Schema: that they are bytes is told by the kind of their content.
        let file = json!({ "contentMediaType": BINARY });
        let text = json!({ "type": "string" });
        let mut form = json!({ "type": "object" });
        let (mut properties, mut encoding) = (Map::new(), Map::new());
        for (name, is_file) in parts {
            let (schema, kind) = match is_file {
                true => (&file, BINARY),
                false => (&text, "text/plain"),
            };
            properties.insert((*name).to_owned(), schema.clone());
            encoding.insert((*name).to_owned(), json!({ "contentType": kind }));
        }
        match parts {
            [] => form["additionalProperties"] = json!({ "anyOf": [text, file] }),
            _ => form["properties"] = properties.into(),
        }
        let mut described = json!({ "schema": form });
        if !encoding.is_empty() {
            described["encoding"] = encoding.into();
        }
        let content = json!({ "multipart/form-data": described });
        self.set(
            "requestBody",
            json!({ "required": true, "content": content }),
        );
    }

    /// Adds the answer that holds a value; `optional` where there may be none.
    pub fn answer<T: JsonSchema>(&mut self, optional: bool) {
        let schema = self.schema::<T>();
        let content = json!({ "application/json": { "schema": schema } });
        self.response(
            "200",
            json!({ "description": "What was asked for.", "content": content }),
        );
        if optional {
            self.response("404", json!({ "description": "There is no such thing." }));
        }
    }

    /// Adds an answer without a body.
    pub fn nothing(&mut self) {
        self.response("204", json!({ "description": "Done." }));
    }

    /// Adds an answer that is a stream, or that nothing is known of.
    pub fn stream(&mut self) {
        let content = json!({ "application/octet-stream": {} });
        self.response(
            "200",
            json!({ "description": "A stream.", "content": content }),
        );
    }

    /// Adds what errors hold.
    pub fn error<B: JsonSchema>(&mut self) {
        let schema = self.schema::<B>();
        let content = json!({ "application/json": { "schema": schema } });
        self.response(
            "default",
            json!({ "description": "An error.", "content": content }),
        );
    }

    /// Says that errors are problem documents.
    pub fn problem(&mut self) {
        let schema = json!({
            "type": "object",
            "properties": {
                "type": { "type": "string", "format": "uri-reference" },
                "title": { "type": "string" },
                "status": { "type": "integer", "minimum": 100, "maximum": 599 },
                "detail": { "type": "string" },
                "instance": { "type": "string", "format": "uri-reference" },
            },
        });
        let content = json!({ "application/problem+json": { "schema": schema } });
        let text = "An error, as a problem document (RFC 9457).";
        self.response(
            "default",
            json!({ "description": text, "content": content }),
        );
    }

    fn schema<T: JsonSchema>(&mut self) -> Value {
        self.generator.subschema_for::<T>().to_value()
    }

    fn response(&mut self, status: &str, response: Value) {
        if let Some(responses) = self
            .entry
            .get_mut("responses")
            .and_then(Value::as_object_mut)
        {
            responses.insert(status.to_owned(), response);
        }
    }

    fn set(&mut self, name: &str, value: Value) {
        self.entry.insert(name.to_owned(), value);
    }

    fn list(&mut self, name: &str) -> &mut Vec<Value> {
        let list = self.entry.entry(name).or_insert_with(|| json!([]));
        if !list.is_array() {
            *list = json!([]);
        }
        #[expect(clippy::expect_used, reason = "made a list in the lines above")]
        list.as_array_mut().expect("it is a list")
    }
}
