//! JSON Schemas of topics.

use super::{Files, assert_line};

const SCHEMA: &str = r#"{"type": "object", "required": ["id"]}"#;

fn configured(schema: &str, files: &[(&str, &str)]) -> Vec<String> {
    let files = Files::new(files);
    let directory = files.path().to_str().unwrap();
    let schema = schema.replace("DIR", directory);
    files.write(
        "communication.yaml",
        &format!("topics:\n  order.*:\n    schema: {schema}\n"),
    );
    files.check(&[])
}

#[cfg(not(feature = "json-schema"))]
#[test]
fn a_build_without_schemas_says_which_feature_it_lacks() {
    let lines = configured("DIR/order.json", &[("order.json", SCHEMA)]);
    assert_line(
        &lines,
        &[
            "communication.yaml:3: topics.\"order.*\".schema: ",
            "feature `json-schema`",
            "allowed: nothing, in this build",
        ],
    );
    assert!(!lines[0].contains("warning"));
}

#[cfg(feature = "json-schema")]
mod with_schemas {
    use trunkline_core::ErrorKind;
    use trunkline_manager::{CommunicationConfig, CommunicationManager};
    use trunkline_messaging::MessageBrokerConfig;

    use super::*;

    #[test]
    fn what_is_no_schema_is_told_with_its_place() {
        assert!(configured("DIR/order.json", &[("order.json", SCHEMA)]).is_empty());
        let inline =
            "{type: object, required: [id], properties: {id: {type: integer, minimum: 1}}}";
        let lines = configured(inline, &[]);
        assert!(lines.is_empty(), "{lines:?}");
        let place = "communication.yaml:3: topics.\"order.*\".schema: ";
        let right =
            "allowed: the path of a file that has a JSON Schema in it, or the schema itself";
        for (schema, files, says) in [
            ("DIR/order.json", &[][..], "order.json` does not exist"),
            ("DIR/a.json", &[("a.json", "{")], "a.json` is no JSON"),
            (
                "DIR/a.json",
                &[("a.json", r#"{"type": "objekt"}"#)],
                "at /type: \"objekt\"",
            ),
            ("{type: objekt}", &[], "at /type: \"objekt\""),
        ] {
            let lines = configured(schema, files);
            assert_line(&lines, &[place, says, right]);
        }
        let lines = configured("7", &[]);
        assert_line(&lines, &[place, "`7` is no schema", "the path of a file"]);
    }

    #[tokio::test]
    async fn a_configured_schema_holds_what_is_published_back() {
        let files = Files::new(&[("order.json", SCHEMA)]);
        let path = files.path().join("order.json");
        let text = format!(
            "message_broker: {{type: memory}}\ntopics:\n  order.*:\n    schema: {}\n",
            path.display()
        );
        files.write("communication.yaml", &text);
        let config = files.load(&[]).unwrap();
        let manager = CommunicationManager::new(config);
        let wrong = serde_json::json!({ "number": 7 });
        let messaging = manager.messaging().unwrap();
        let refused = messaging.publish("order.paid", &wrong).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
        // One that goes away between the check and the start is no reason to go without.
        let mut config = CommunicationConfig::builder()
            .message_broker("default", MessageBrokerConfig::memory())
            .build()
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut policy = trunkline_messaging::TopicPolicy::default();
        policy.schema = Some(serde_json::from_value(path.to_str().unwrap().into()).unwrap());
        config.topics.insert("order.*".parse().unwrap(), policy);
        let manager = CommunicationManager::new(config);
        let missing = manager.messaging().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Config);
        assert!(
            missing.report().to_string().contains("order.json"),
            "{missing}"
        );
    }
}
