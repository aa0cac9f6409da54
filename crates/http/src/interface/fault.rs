//! Reads values, and says of one that does not fit where it does not.

use serde::de::DeserializeOwned;
use trunkline_core::{Error, Origin};

use crate::error::Mismatch;

/// Reads a value from JSON. The path is looked for only once it is known to be wrong: keeping it costs.
pub(crate) fn decode_json<T: DeserializeOwned>(service: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let path = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(error) => error.path().to_string(),
            // Something follows the value.
            Ok(_) => String::new(),
        };
        let text = error.to_string();
        mismatch(service, &path, &text)
    })
}

/// Reads a value from MessagePack.
pub(crate) fn decode_msgpack<T: DeserializeOwned>(service: &str, bytes: &[u8]) -> Result<T, Error> {
    rmp_serde::from_slice(bytes).map_err(|error| {
        let mut reader = rmp_serde::Deserializer::from_read_ref(bytes);
        let path = match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(error) => error.path().to_string(),
            Ok(_) => String::new(),
        };
        mismatch(service, &path, &error.to_string())
    })
}

fn mismatch(service: &str, path: &str, text: &str) -> Error {
    // The position says nothing to who sees the value, not the bytes; where it cannot be read at all, it does.
    let what = text.split(" at line ").next().unwrap_or(text);
    let path = field(path, what);
    let what = if path == "." { text } else { what };
    let found = Mismatch::new([(path, what.to_owned())]);
    Error::invalid(format!("the answer of {service} cannot be read: {found}"))
        .with_origin(Origin::Remote)
        .with_component(service.to_owned())
        .with_source(found)
}

/// The place that is wrong. Of a field that is missing or unknown serde's message has the name, and the path leads to
/// the object around it only.
fn field(path: &str, what: &str) -> String {
    let around = if path == "." || path == "?" { "" } else { path };
    let named = ["missing field `", "unknown field `", "duplicate field `"]
        .into_iter()
        .find_map(|start| what.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    match named {
        Some(name) if around == name || around.ends_with(&format!(".{name}")) => around.to_owned(),
        Some(name) if around.is_empty() => name.to_owned(),
        Some(name) => format!("{around}.{name}"),
        None if around.is_empty() => ".".to_owned(),
        None => around.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    struct Order {
        #[allow(dead_code, reason = "only read")]
        items: Vec<Item>,
    }

    #[derive(Debug, serde::Deserialize, serde::Serialize)]
    struct Item {
        #[allow(dead_code, reason = "only read")]
        quantity: u32,
    }

    #[test]
    fn the_place_is_named() {
        for (body, path) in [
            (
                r#"{"items":[{"quantity":1},{"quantity":"two"}]}"#,
                "items[1].quantity",
            ),
            (r#"{"items":[{}]}"#, "items[0].quantity"),
            ("{}", "items"),
            ("7", "."),
            (r#"{"items":[]} x"#, "."),
            ("{", "."),
            ("", "."),
        ] {
            let error = decode_json::<Order>("orders", body.as_bytes()).unwrap_err();
            let found = error.find::<Mismatch>().unwrap();
            assert_eq!(found.fields[0].path, path, "{body}: {error}");
        }
        let packed = rmp_serde::to_vec_named(&serde_json::json!({"items": [{"quantity": "x"}]}));
        let error = decode_msgpack::<Order>("orders", &packed.unwrap()).unwrap_err();
        assert_eq!(
            error.find::<Mismatch>().unwrap().fields[0].path,
            "items[0].quantity"
        );
    }
}
