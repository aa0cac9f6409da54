//! The reader holds for any input: it never panics, layers obey their laws, `${…}` says what it stands for.

use proptest::prelude::*;
use serde_json::Value;
use trunkline_manager::{ConfigLoader, Environment};

use super::Files;

/// A directory for all cases of one test: making a new one takes longer than the case.
fn with_files<T>(work: impl FnOnce(&Files) -> T) -> T {
    thread_local! {
        static FILES: Files = Files::new(&[]);
    }
    FILES.with(work)
}

/// Pieces of which texts are made that come close to configurations.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("services".to_owned()),
        Just("message_broker".to_owned()),
        Just("communication".to_owned()),
        Just("timeout".to_owned()),
        Just("${A:b}".to_owned()),
        Just("${".to_owned()),
        Just("&a ".to_owned()),
        Just("*a".to_owned()),
        Just("<<".to_owned()),
        Just(": ".to_owned()),
        Just("\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("- ".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just("\"".to_owned()),
        Just(" = ".to_owned()),
        Just("|\n".to_owned()),
        Just("!!str ".to_owned()),
        Just("\\u".to_owned()),
        "[ -~]{0,4}",
        any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for name in ["communication.yaml", "communication.toml", "communication.json"] {
            with_files(|files| {
                std::fs::write(files.path().join(name), &bytes).unwrap();
                files.loader(&[]).with_file(name).only_file().check()
            });
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.concat();
        for name in ["communication.yaml", "communication.toml", "communication.json"] {
            with_files(|files| {
                files.write(name, &text);
                files.loader(&[("A", &text)]).with_file(name).only_file().check()
            });
        }
    }

    #[test]
    fn no_variables_make_the_reader_panic(
        names in prop::collection::vec("TRUNKLINE__[A-Z_]{0,30}|HTTP_CLIENT_TIMEOUT|RABBITMQ_URL|MESSAGE_BROKER_URL", 0..5),
        value in ".{0,40}",
    ) {
        let pairs = names.into_iter().map(|name| (name, value.clone()));
        let environment = Environment::from_pairs(pairs);
        let _checked = ConfigLoader::with_environment(environment).only_environment().check();
    }

    /// A JSON text is read as serde_json reads it, or refused as it refuses it.
    #[test]
    fn json_agrees_with_serde_json(pieces in prop::collection::vec(json_piece(), 0..12)) {
        let text = format!("{{\"message_brokers\": {{\"a\": {{\"type\": \"memory\", \"options\": {{\"x\": {}}}}}}}}}", pieces.concat());
        let loaded = with_files(|files| {
            files.write("x.json", &text);
            let (config, found) = files.loader(&[]).with_file("x.json").only_file().check();
            config.ok_or_else(|| files.lines(&found))
        });
        match serde_json::from_str::<Value>(&text) {
            Ok(value) => {
                let expected = &value["message_brokers"]["a"]["options"]["x"];
                match loaded {
                    Ok(config) => {
                        let read = &config.message_brokers.unwrap()["a"].options["x"];
                        prop_assert!(alike(read, expected), "{read} instead of {expected}");
                    }
                    // Keys written twice are refused here and not there, and nothing else.
                    Err(lines) => prop_assert!(lines[0].contains("written twice"), "{text}: {lines:?}"),
                }
            }
            Err(_) => prop_assert!(loaded.is_err(), "{text}"),
        }
    }

    #[test]
    fn layers_obey_their_laws(a in layer(), b in layer(), c in layer()) {
        let base_and = |base: &str, profile: &str| with_files(|files| {
            files.write("base/communication.yaml", base);
            files.write("base/config/development.yaml", profile);
            files.loader(&[]).with_file("base/communication.yaml").load().unwrap()
        });
        let alone = |text: &str| base_and(text, "");
        // A layer over itself, over nothing and under nothing is itself.
        prop_assert_eq!(base_and(&a.yaml(), &a.yaml()), alone(&a.yaml()));
        prop_assert_eq!(base_and("", &a.yaml()), alone(&a.yaml()));
        prop_assert_eq!(base_and(&a.yaml(), ""), alone(&a.yaml()));
        // Laying layers is associative, and the later one wins key by key.
        let ab = a.under(&b);
        let bc = b.under(&c);
        prop_assert_eq!(base_and(&ab.yaml(), &c.yaml()), base_and(&a.yaml(), &bc.yaml()));
        prop_assert_eq!(base_and(&a.yaml(), &b.yaml()), alone(&ab.yaml()));
    }

    #[test]
    fn expansion_says_what_it_stands_for(value in "[^\\x00-\\x1f\\x7f${}]{1,30}", default in "[^\\x00-\\x1f\\x7f$}{]{0,20}") {
        let version = |written: &str, variables: &[(&str, &str)]| with_files(|files| {
            let json = serde_json::json!({"service": {"version": written}});
            files.write("version.json", &json.to_string());
            files.loader(variables).with_file("version.json").only_file().load().unwrap().service.version
        });
        prop_assert_eq!(&version("${V}", &[("V", &value)]), &value);
        let with_default = format!("${{V:{default}}}");
        prop_assert_eq!(&version(&with_default, &[]), &default);
        prop_assert_eq!(&version(&with_default, &[("V", &value)]), &value);
        prop_assert_eq!(version("a${V}b$${V}", &[("V", &value)]), format!("a{value}b${{V}}"));
        // What holds no `${` is left alone.
        prop_assert_eq!(&version(&value, &[("V", "x")]), &value);
    }
}

/// Equal but for the last digits of long numbers, which serde_json rounds in a hurry.
fn alike(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| alike(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let alike = |key, value| other.get(key).is_some_and(|other| alike(value, other));
            one.len() == other.len() && one.iter().all(|(key, value)| alike(key, value))
        }
        (Value::Number(one), Value::Number(other)) if one != other => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            (one - other).abs() <= one.abs() * 1e-14
        }
        _ => one == other,
    }
}

fn json_piece() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(",".to_owned()),
        Just(" ".to_owned()),
        Just("\"k\":".to_owned()),
        Just("\"k\\n\\u00e9\\ud83d\\ude00\"".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just("-0".to_owned()),
        Just("18446744073709551616".to_owned()),
        Just("1.5e3".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        (-1000i64..1000).prop_map(|number| number.to_string()),
        "\"[a-z]{0,3}\"",
    ]
}

/// Some settings, each set or not.
#[derive(Clone, Debug, Default)]
struct Layer {
    name: Option<String>,
    port: Option<u16>,
    attempts: Option<u32>,
    debug: Option<bool>,
}

impl Layer {
    fn under(&self, over: &Self) -> Self {
        Self {
            name: over.name.clone().or_else(|| self.name.clone()),
            port: over.port.or(self.port),
            attempts: over.attempts.or(self.attempts),
            debug: over.debug.or(self.debug),
        }
    }

    fn yaml(&self) -> String {
        let mut text = String::new();
        if let Some(name) = &self.name {
            text += &format!("service: {{name: \"{name}\"}}\n");
        }
        text += "services:\n  a:\n    host: x\n";
        if let Some(port) = self.port {
            text += &format!("    port: {port}\n");
        }
        if let Some(attempts) = self.attempts {
            text += &format!("    retry_attempts: {attempts}\n");
        }
        if let Some(debug) = self.debug {
            text += &format!("debug_mode: {debug}\n");
        }
        text
    }
}

fn layer() -> impl Strategy<Value = Layer> {
    let name = prop::option::of("[a-z]{1,6}");
    let port = prop::option::of(1u16..);
    let attempts = prop::option::of(1u32..=100);
    let debug = prop::option::of(any::<bool>());
    (name, port, attempts, debug).prop_map(|(name, port, attempts, debug)| Layer {
        name,
        port,
        attempts,
        debug,
    })
}
