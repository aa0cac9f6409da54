//! Secrets come from files and the environment, and are never shown.

use trunkline_core::Secret;
use trunkline_manager::CommunicationManager;

use super::{Files, assert_line};

const SECRET: &str = "hunter2";

#[test]
fn a_password_is_read_from_a_file() {
    let files = Files::new(&[
        (
            "communication.yaml",
            "message_broker: {type: rabbitmq, host: h, password_file: run/secrets/rabbit}\n",
        ),
        ("run/secrets/rabbit", "hunter2\n"),
    ]);
    let config = files.load(&[]).unwrap();
    let connection = &config.message_brokers.as_ref().unwrap()["default"].connection;
    assert_eq!(connection.password, Some(Secret::from(SECRET)));
    let config = Files::new(&[("s", "hunter2\r\n")])
        .load(&[
            ("MESSAGE_BROKER_PASSWORD_FILE", "s"),
            ("MESSAGE_BROKER_TYPE", "rabbitmq"),
        ])
        .unwrap();
    let connection = &config.message_brokers.as_ref().unwrap()["default"].connection;
    assert_eq!(connection.password, Some(Secret::from(SECRET)));
}

#[test]
fn a_missing_secret_and_two_of_them_are_errors() {
    let missing = Files::new(&[(
        "communication.yaml",
        "message_broker: {type: memory, password_file: nowhere}\n",
    )]);
    assert_line(
        &missing.check(&[]),
        &["message_broker.password_file: there is no file `nowhere`"],
    );
    let both = Files::new(&[
        (
            "communication.yaml",
            "message_broker: {type: rabbitmq, password: hunter2, password_file: s}\n",
        ),
        ("s", "x"),
    ]);
    let lines = both.load(&[]).unwrap_err();
    let same = "says the same as `message_broker.password`";
    assert!(lines.iter().any(|line| line.contains(same)), "{lines:?}");
}

#[test]
fn a_secret_is_nowhere_to_be_seen() {
    let text = "\
message_brokers:
  a: {connection_url: \"amqp://user:hunter2@host:5672/\", options: {sasl_password: hunter2, url: \"redis://u:hunter2@h/0\"}}
  b: {type: kafka, password: hunter2, options: {api_key: hunter2, nested: {token: [hunter2, hunter2]}}}
service_discovery: {type: zookeeper, host: h, options: {token: hunter2, url: \"http://u:hunter2@h\"}}
event_store: {type: postgres, connection_url: \"postgres://u:hunter2@h/db?token=hunter2\"}
services:
  a: {policy: nowhere}
";
    let files = Files::new(&[("communication.yaml", text)]);
    let lines = files.load(&[]).unwrap_err();
    assert!(!lines.join("\n").contains(SECRET), "{lines:#?}");
    let good = text.replace("policy: nowhere", "host: x");
    files.write("communication.yaml", &good);
    let config = files.load(&[]).unwrap();
    let brokers = config.message_brokers.as_ref().unwrap();
    assert_eq!(brokers["a"].connection.password, Some(Secret::from(SECRET)));
    assert_eq!(brokers["b"].options["api_key"], SECRET);
    let shown = [
        format!("{config:?}"),
        format!("{config:#?}"),
        format!("{:?}", CommunicationManager::builder(config.clone())),
        format!("{:?}", config.service_discovery),
        format!("{:?}", config.event_store),
        format!("{:?}", files.loader(&[("PASSWORD", SECRET)])),
        config.redacted().to_string(),
        format!("{:?}", config.settings()),
        config.warnings().to_string(),
        config.explain("a", None).unwrap().to_string(),
    ];
    for text in shown {
        assert!(!text.contains(SECRET), "{text}");
    }
    assert_eq!(
        config.redacted()["message_brokers"]["a"]["connection"]["password"],
        "********"
    );
    assert_eq!(
        config.redacted()["message_brokers"]["a"]["options"]["url"],
        "redis://***@h/0"
    );
}

#[test]
fn errors_about_secrets_do_not_repeat_them() {
    let texts = [
        "message_broker: {connection_url: \"amqp://u:hunter2@h:x\"}\n",
        "message_broker: {connection_url: \"u:hunter2@h\"}\n",
        "message_broker: {password: [hunter2]}\n",
        "message_broker: {password: {a: hunter2}}\n",
        "services: {a: {url: \"http://u:hunter2@h\"}}\n",
        "services: {a: {url: \"http://u:hun/hunter2@h:x\"}}\n",
        "logging: {level: \"amqp://u:hunter2@h\"}\n",
        "communication: hunter2\n",
    ];
    for text in texts {
        let files = Files::new(&[("communication.yaml", text)]);
        let lines = files.load(&[]).unwrap_err();
        assert!(
            !lines.is_empty() && !lines.join("\n").contains(SECRET),
            "{lines:#?}"
        );
    }
    let lines = Files::new(&[])
        .load(&[("HTTP_CLIENT_TIMEOUT", "http://u:hunter2@h")])
        .err();
    assert!(!format!("{lines:?}").contains(SECRET));
}
