//! Reads files and the environment into trees.

pub(crate) mod env;
mod json;
mod toml;
mod yaml;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::diagnostics::Diagnostic;
use super::place::Place;
use super::tree::{DEEPEST, Node, Value, file_name};

/// Largest file that is read.
const LARGEST: u64 = 1024 * 1024;

/// What a parser makes of a file, or why it cannot.
pub(crate) type Parsed = Result<Node, Vec<Diagnostic>>;

/// The formats that are read, by the ending of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Yaml,
    Toml,
    Json,
}

impl Format {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "yaml" | "yml" => Some(Self::Yaml),
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Reads a file into a tree. `Ok(None)` when there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Node>, Vec<Diagnostic>> {
    let name = file_name(path);
    let place = Place::file(&name, 0, 0);
    let refuse = |message: String| vec![Diagnostic::error(&place, message)];
    let Some(format) = Format::of(path) else {
        return Err(vec![
            Diagnostic::error(&place, "the file has no known ending")
                .allow(".yaml, .yml, .toml, .json"),
        ]);
    };
    match read_text(path) {
        Ok(Some(text)) => parse(&text, format, &name).map(Some),
        Ok(None) => Ok(None),
        Err(message) => Err(refuse(message)),
    }
}

/// Reads a small text file. `Ok(None)` when there is no such file.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    // Opening a pipe would wait for somebody to write into it.
    if !metadata.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    // It may have grown since, so that what is read is bounded, too.
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err("is larger than 1 MiB".to_owned());
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let text = text
        .strip_prefix('\u{feff}')
        .map_or(text.clone(), str::to_owned);
    Ok(Some(text))
}

/// Reads a text into a tree, in which every place knows its key.
pub(crate) fn parse(text: &str, format: Format, name: &Arc<str>) -> Parsed {
    let mut tree = match format {
        Format::Yaml => yaml::parse(text, name),
        Format::Toml => toml::parse(text, name),
        Format::Json => json::parse(text, name),
    }?;
    if tree.value == Value::Null {
        tree = Node::table(tree.place);
    }
    if tree.as_table().is_none() {
        let found = tree.what();
        return Err(vec![
            Diagnostic::error(&tree.place, format!("the file holds {found}"))
                .allow("sections with keys"),
        ]);
    }
    tree.set_keys("");
    Ok(tree)
}

fn too_deep(place: &Place) -> Diagnostic {
    Diagnostic::error(place, format!("nested deeper than {DEEPEST} levels"))
}

/// The diagnostic of a key written twice.
fn twice(place: &Place, key: &str, first: &Place) -> Diagnostic {
    Diagnostic::error(place, format!("`{key}` is written twice; first at {first}"))
        .allow("each key once")
}
