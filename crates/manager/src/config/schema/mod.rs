//! What a configuration may look like, as the JSON schema of [`CommunicationConfig`] says it.

mod editor;
mod shape;

use std::sync::OnceLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

pub use editor::schema;
pub(crate) use shape::{Bounds, MapShape, Scalar, Section, Shape};

use super::model::CommunicationConfig;

/// The name of the outermost section.
pub(crate) const ROOT: &str = "CommunicationConfig";

/// The schema, with its parts by name.
#[derive(Debug)]
pub(crate) struct Schemas {
    root: Value,
}

impl Schemas {
    /// The schema of this build.
    pub(crate) fn of_build() -> &'static Self {
        static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
        SCHEMAS.get_or_init(|| {
            let generator = SchemaSettings::draft2020_12().into_generator();
            let root = generator.into_root_schema_for::<CommunicationConfig>();
            Self {
                root: root.to_value(),
            }
        })
    }

    /// The outermost section.
    pub(crate) fn root(&self) -> Section<'_> {
        match self.shape(&self.root) {
            Shape::Section(section) => Section {
                name: ROOT,
                ..section
            },
            _ => unreachable!("the configuration is a struct"),
        }
    }

    pub(crate) fn root_value(&self) -> &Value {
        &self.root
    }

    /// What a value under this schema looks like.
    pub(crate) fn shape<'s>(&'s self, schema: &'s Value) -> Shape<'s> {
        shape::read(self, schema)
    }

    fn definition(&self, reference: &str) -> Option<&Value> {
        let name = reference.strip_prefix("#/$defs/")?;
        self.root.get("$defs")?.get(name)
    }

    /// The shape under a path of keys below a section, if there is one.
    pub(crate) fn below<'s>(&'s self, section: Section<'s>, path: &[&str]) -> Option<Shape<'s>> {
        let mut shape = Shape::Section(section);
        for key in path {
            shape = match shape {
                Shape::Section(section) => self.shape(section.property(key)?),
                Shape::Map(map) => self.shape(map.item),
                Shape::Free | Shape::List(_) | Shape::Scalar(_) => return None,
            };
        }
        Some(shape)
    }
}
