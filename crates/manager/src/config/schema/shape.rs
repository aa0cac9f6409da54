//! Reads JSON schema, as schemars writes it, into the few shapes that a configuration has.

use serde_json::{Map, Value};

use super::Schemas;

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shape<'s> {
    /// Keys that are known.
    Section(Section<'s>),
    /// Names that the user chooses.
    Map(MapShape<'s>),
    /// Anything.
    Free,
    /// Items of one schema.
    List(&'s Value),
    /// A single value.
    Scalar(Scalar<'s>),
}

/// Keys that are known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section<'s> {
    /// The name of the type.
    pub(crate) name: &'s str,
    pub(super) properties: &'s Map<String, Value>,
    pub(super) required: &'s [Value],
}

/// Names that the user chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapShape<'s> {
    pub(crate) item: &'s Value,
    /// What the names are: `services`, `topics`, `endpoints`.
    pub(crate) format: Option<&'s str>,
}

/// A single value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scalar<'s> {
    Duration,
    Size,
    Bool,
    Integer(Bounds),
    Number(Bounds),
    Text {
        format: Option<&'s str>,
        secret: bool,
        longest: Option<u64>,
        shortest: Option<u64>,
    },
    /// One of some words; the name of the type.
    Word(&'s str, &'s Value),
}

/// The least and the greatest value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bounds {
    pub(crate) least: Option<f64>,
    pub(crate) most: Option<f64>,
}

impl<'s> Section<'s> {
    pub(crate) fn property(&self, key: &str) -> Option<&'s Value> {
        self.properties.get(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &'s str> + use<'s> {
        self.properties.keys().map(String::as_str)
    }

    pub(crate) fn required(&self) -> impl Iterator<Item = &'s str> + use<'s> {
        self.required.iter().filter_map(Value::as_str)
    }
}

impl<'s> Scalar<'s> {
    /// The words that are allowed, where only some are.
    pub(crate) fn words(schema: &'s Value) -> Vec<&'s str> {
        let mut words = Vec::new();
        collect_words(schema, &mut words);
        words
    }
}

fn collect_words<'s>(schema: &'s Value, words: &mut Vec<&'s str>) {
    words.extend(schema.get("const").and_then(Value::as_str));
    let listed = schema.get("enum").and_then(Value::as_array);
    words.extend(listed.into_iter().flatten().filter_map(Value::as_str));
    let several = schema.get("oneOf").and_then(Value::as_array);
    for one in several.into_iter().flatten() {
        collect_words(one, words);
    }
}

pub(super) fn read<'s>(schemas: &'s Schemas, schema: &'s Value) -> Shape<'s> {
    let (schema, name) = follow(schemas, schema, "");
    if let Some(variants) = schema.get("anyOf").and_then(Value::as_array) {
        return read_variants(schemas, variants, name);
    }
    if schema.get("oneOf").is_some()
        || schema.get("enum").is_some()
        || schema.get("const").is_some()
    {
        return Shape::Scalar(Scalar::Word(name, schema));
    }
    match (format(schema), kind(schema)) {
        (Some("duration"), _) => Shape::Scalar(Scalar::Duration),
        (Some("byte-size"), _) => Shape::Scalar(Scalar::Size),
        (_, Some("object")) => read_object(schema, name),
        (_, Some("array")) => schema.get("items").map_or(Shape::Free, Shape::List),
        (_, Some("boolean")) => Shape::Scalar(Scalar::Bool),
        (_, Some("integer")) => Shape::Scalar(Scalar::Integer(bounds(schema))),
        (_, Some("number")) => Shape::Scalar(Scalar::Number(bounds(schema))),
        (format, Some("string")) => Shape::Scalar(Scalar::Text {
            format,
            secret: schema.get("writeOnly").and_then(Value::as_bool) == Some(true),
            longest: schema.get("maxLength").and_then(Value::as_u64),
            shortest: schema.get("minLength").and_then(Value::as_u64),
        }),
        _ => Shape::Free,
    }
}

/// Follows references; the last one names the type.
fn follow<'s>(schemas: &'s Schemas, schema: &'s Value, name: &'s str) -> (&'s Value, &'s str) {
    let reference = schema.get("$ref").and_then(Value::as_str);
    let target = reference.and_then(|reference| {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        schemas.definition(reference).map(|target| (target, name))
    });
    match target {
        Some((target, name)) => follow(schemas, target, name),
        None => (schema, name),
    }
}

/// An optional value, or one that may be written short: the longest form counts, short forms are spelled out before.
fn read_variants<'s>(schemas: &'s Schemas, variants: &'s [Value], name: &'s str) -> Shape<'s> {
    let mut first = None;
    for variant in variants {
        if kind(variant) == Some("null") {
            continue;
        }
        let shape = read(schemas, variant);
        if let Shape::Section(section) = shape {
            let name = if section.name.is_empty() {
                name
            } else {
                section.name
            };
            return Shape::Section(Section { name, ..section });
        }
        first = first.or(Some(shape));
    }
    first.unwrap_or(Shape::Free)
}

fn read_object<'s>(schema: &'s Value, name: &'s str) -> Shape<'s> {
    let properties = schema.get("properties").and_then(Value::as_object);
    if let Some(properties) = properties {
        let required = schema.get("required").and_then(Value::as_array);
        return Shape::Section(Section {
            name,
            properties,
            required: required.map_or(&[], Vec::as_slice),
        });
    }
    match schema.get("additionalProperties") {
        Some(item) if item.is_object() => Shape::Map(MapShape {
            item,
            format: format(schema),
        }),
        _ => Shape::Free,
    }
}

fn format(schema: &Value) -> Option<&str> {
    schema.get("format").and_then(Value::as_str)
}

/// The one type beside `null`; of several it is the first, which matters for no shape but those told by their format.
fn kind(schema: &Value) -> Option<&str> {
    match schema.get("type")? {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => kinds
            .iter()
            .filter_map(Value::as_str)
            .find(|kind| *kind != "null")
            .or(Some("null")),
        _ => None,
    }
}

fn bounds(schema: &Value) -> Bounds {
    let number = |key: &str| schema.get(key).and_then(Value::as_f64);
    let widest = match format(schema) {
        Some("uint8") => Some(f64::from(u8::MAX)),
        Some("uint16") => Some(f64::from(u16::MAX)),
        Some("uint32") => Some(f64::from(u32::MAX)),
        _ => None,
    };
    Bounds {
        least: number("minimum"),
        most: number("maximum").or(widest),
    }
}
