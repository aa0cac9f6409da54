//! Parameters behind the path.

use serde::Serialize;
use serde_json::Value;
use trunkline_core::{Error, Result};
use url::form_urlencoded::byte_serialize;

/// Adds one parameter.
pub(crate) fn append(path: &mut String, name: &str, value: &str) {
    path.push(if path.contains('?') { '&' } else { '?' });
    path.extend(byte_serialize(name.as_bytes()));
    path.push('=');
    path.extend(byte_serialize(value.as_bytes()));
}

/// Adds the fields of a value, or a list of pairs.
pub(crate) fn append_all<T: Serialize + ?Sized>(path: &mut String, params: &T) -> Result<()> {
    let value = serde_json::to_value(params)
        .map_err(|error| Error::invalid("the parameters cannot be written").with_source(error))?;
    let pairs: Vec<(String, Value)> = match value {
        Value::Null => return Ok(()),
        Value::Object(fields) => fields.into_iter().collect(),
        Value::Array(pairs) => pairs
            .into_iter()
            .map(serde_json::from_value)
            .collect::<Result<_, _>>()
            .map_err(|_| Error::invalid("parameters are a structure, a map or pairs"))?,
        _ => return Err(Error::invalid("parameters are a structure, a map or pairs")),
    };
    for (name, value) in pairs {
        append_value(path, &name, value)?;
    }
    Ok(())
}

fn append_value(path: &mut String, name: &str, value: Value) -> Result<()> {
    match value {
        Value::Null => {}
        Value::Bool(value) => append(path, name, if value { "true" } else { "false" }),
        Value::Number(value) => append(path, name, &value.to_string()),
        Value::String(value) => append(path, name, &value),
        Value::Array(values) => {
            for value in values {
                if value.is_array() {
                    return Err(nested(name));
                }
                append_value(path, name, value)?;
            }
        }
        Value::Object(_) => return Err(nested(name)),
    }
    Ok(())
}

fn nested(name: &str) -> Error {
    Error::invalid(format!(
        "parameter `{name}` is nested: a query holds plain values and lists"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn query(params: &Value) -> Result<String> {
        let mut path = "/users".to_owned();
        append_all(&mut path, params)?;
        Ok(path)
    }

    #[test]
    fn values_are_written_as_text() {
        let path = query(&json!({
            "active": true, "limit": 50, "name": "Ada & Co ü", "none": null, "tag": ["a", "b"]
        }));
        assert_eq!(
            path.unwrap(),
            "/users?active=true&limit=50&name=Ada+%26+Co+%C3%BC&tag=a&tag=b"
        );
        assert_eq!(
            query(&json!([["b", 1], ["a", false]])).unwrap(),
            "/users?b=1&a=false"
        );
        assert_eq!(query(&json!(null)).unwrap(), "/users");
    }

    #[test]
    fn what_a_query_cannot_hold_is_refused() {
        for params in [
            json!({ "a": { "b": 1 } }),
            json!({ "a": [[1]] }),
            json!(1),
            json!([1]),
        ] {
            assert!(query(&params).is_err(), "{params}");
        }
    }

    #[test]
    fn a_query_that_is_there_goes_on() {
        let mut path = "/users?limit=1".to_owned();
        append(&mut path, "active", "true");
        assert_eq!(path, "/users?limit=1&active=true");
    }
}
