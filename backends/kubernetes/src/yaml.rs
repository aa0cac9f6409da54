//! YAML as JSON: what kubeconfig files need of it.

use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde_json::{Map, Value};

/// How deep values may stand in each other.
const DEEPEST: usize = 64;

/// Reads one document. Plain `true`, `false` and nothing keep their meaning, all other scalars are texts.
pub(crate) fn read(text: &str) -> Result<Value, String> {
    let mut parser = Parser::new_from_str(text);
    loop {
        match next(&mut parser)? {
            Event::StreamStart | Event::DocumentStart(_) => {}
            Event::StreamEnd => return Ok(Value::Null),
            first => return value(&mut parser, first, 0),
        }
    }
}

fn next<'a>(parser: &mut Parser<'a, StrInput<'a>>) -> Result<Event<'a>, String> {
    match parser.next() {
        Some(Ok((event, _))) => Ok(event),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it ends too early".to_owned()),
    }
}

fn value<'a>(
    parser: &mut Parser<'a, StrInput<'a>>,
    first: Event<'a>,
    depth: usize,
) -> Result<Value, String> {
    if depth > DEEPEST {
        return Err("values stand too deep in each other".to_owned());
    }
    match first {
        Event::Scalar(text, style, ..) => Ok(match (style, text.as_ref()) {
            (ScalarStyle::Plain, "true") => Value::Bool(true),
            (ScalarStyle::Plain, "false") => Value::Bool(false),
            (ScalarStyle::Plain, "" | "~" | "null") => Value::Null,
            (_, text) => Value::String(text.to_owned()),
        }),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match next(parser)? {
                    Event::SequenceEnd => return Ok(Value::Array(items)),
                    item => items.push(value(parser, item, depth + 1)?),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut object = Map::new();
            loop {
                let key = match next(parser)? {
                    Event::MappingEnd => return Ok(Value::Object(object)),
                    Event::Scalar(text, ..) => text.into_owned(),
                    _ => return Err("a key is no text".to_owned()),
                };
                let first = next(parser)?;
                object.insert(key, value(parser, first, depth + 1)?);
            }
        }
        Event::Alias(_) => Err("aliases are not understood here".to_owned()),
        _ => Err("it is not understood".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_lists_and_texts_are_read() {
        let text = "a:\n- b: 'true'\n  c: true\n- {d: [1, x]}\ne:\nf: \"\"\n";
        let wanted =
            json!({"a": [{"b": "true", "c": true}, {"d": ["1", "x"]}], "e": null, "f": ""});
        assert_eq!(read(text).unwrap(), wanted);
        assert_eq!(
            read("{\"a\": {\"b\": false}}").unwrap(),
            json!({"a": {"b": false}})
        );
        assert_eq!(read("").unwrap(), Value::Null);
        for odd in ["a: [1", "a: &x 1\nb: *x", &"[".repeat(1000)] {
            assert!(read(odd).is_err());
        }
    }
}
