//! A JSON Schema as the configuration has it.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use trunkline_core::{Error, Result};

use super::{PayloadCheck, compile};

/// The largest file that is read.
const LARGEST: u64 = 8 * 1024 * 1024;

/// What stands where a schema is expected.
const RIGHT: &str = "the path of a file that has a JSON Schema in it, or the schema itself";

/// A JSON Schema, in a file or in the configuration itself. Needs the feature `json-schema`.
///
/// ```
/// use serde_json::json;
/// use trunkline_messaging::schema::SchemaConfig;
///
/// let there = SchemaConfig::Inline(serde_json::from_value(json!({ "type": "object", "required": ["id"] }))?);
/// let in_a_file: SchemaConfig = serde_json::from_value(json!("schemas/order.json"))?;
/// assert_eq!(in_a_file, SchemaConfig::File("schemas/order.json".into()));
/// # let _ = there;
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SchemaConfig {
    /// In a file, as JSON; the path is relative to the working directory.
    File(PathBuf),
    /// The schema itself.
    Inline(Map<String, Value>),
}

impl SchemaConfig {
    /// What is wrong with it, if anything is: reads the file, and says where in the schema.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let error = self.load().err()?;
        Some(error.report().to_string())
    }

    /// What may stand there, as messages say it.
    #[must_use]
    pub fn allowed() -> &'static str {
        RIGHT
    }

    /// The schema as a document.
    ///
    /// # Errors
    /// `Config` when the file is missing, cannot be read, or holds no JSON.
    pub fn document(&self) -> Result<Value> {
        match self {
            Self::Inline(schema) => Ok(Value::Object(schema.clone())),
            Self::File(path) => {
                let at = |what: String| Error::config(format!("`{}` {what}", path.display()));
                let text = read(path).map_err(at)?;
                serde_json::from_slice(&text).map_err(|error| at(format!("is no JSON: {error}")))
            }
        }
    }

    pub(crate) fn load(&self) -> Result<Arc<dyn PayloadCheck>> {
        if !super::AVAILABLE {
            return compile(&Value::Null);
        }
        let schema = compile(&self.document()?);
        match self {
            Self::Inline(_) => schema,
            Self::File(path) => schema.map_err(|error| {
                let what = error.report();
                Error::config(format!("`{}`: {what}", path.display()))
            }),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if path.is_relative() => {
            "does not exist; the path is relative to the working directory".to_owned()
        }
        std::io::ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be opened: {error}"),
    })?;
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("is larger than {LARGEST} bytes"));
    }
    Ok(bytes)
}

impl Serialize for SchemaConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(path) => path.serialize(serializer),
            Self::Inline(schema) => schema.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SchemaConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(path) if path.is_empty() => Err(de::Error::custom(format!(
                "the path is empty; right is {RIGHT}"
            ))),
            Value::String(path) => Ok(Self::File(path.into())),
            Value::Object(schema) => Ok(Self::Inline(schema)),
            other => Err(de::Error::custom(format!(
                "`{other}` is no schema; right is {RIGHT}"
            ))),
        }
    }
}

impl JsonSchema for SchemaConfig {
    fn schema_name() -> Cow<'static, str> {
        "SchemaConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The object first: who reads the configuration takes what is not single for anything.
        json_schema!({ "type": ["object", "string"] })
    }
}
