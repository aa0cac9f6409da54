//! Logging in.

use std::collections::BTreeSet;

use trunkline_core::ErrorKind;
use trunkline_kafka::{KafkaBroker, KafkaConfig};
use trunkline_messaging::{MessageBroker, Subscribe};
use trunkline_testing::servers::kafka::{self, USER};

use crate::place::{Place, attached, close, insist, take_all, to_topic, topic};

/// Settings for the listener that asks for a login.
fn login(place: &Place, password: &str, mechanism: &str) -> KafkaConfig {
    let mut config = place.config();
    config.connection = config
        .connection
        .with_port(kafka::login_port(place.server.site()))
        .with_credentials(USER.0, password);
    config.sasl_mechanism = Some(mechanism.to_owned());
    config
}

async fn works(config: KafkaConfig, name: &str) {
    let broker = KafkaBroker::new(config).unwrap();
    broker.connect().await.unwrap();
    let wanted = Subscribe::topics(topic(name)).with_group("mail");
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic(name, "one")).await;
    take_all(&mut subscription, &BTreeSet::from(["one".to_owned()])).await;
    close(&broker).await;
}

async fn refused(config: KafkaConfig) {
    let broker = KafkaBroker::new(config).unwrap();
    let error = broker.connect().await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unauthenticated,
        "{}",
        error.report()
    );
    let shown = format!("{} {broker:?}", error.report());
    assert!(!shown.contains("not-the-password"), "{shown}");
    // The driver reports a refusal once and keeps silent about its repetitions; who asks later is told all the same.
    for _ in 0..3 {
        let again = broker.health_check().await.unwrap_err();
        assert_eq!(
            again.kind(),
            ErrorKind::Unauthenticated,
            "{}",
            again.report()
        );
    }
    close(&broker).await;
}

#[tokio::test]
async fn a_user_logs_in_by_password() {
    let Some(place) = Place::new() else {
        return;
    };
    works(login(&place, USER.1, "PLAIN"), "plain").await;
    refused(login(&place, "not-the-password", "PLAIN")).await;
}

#[cfg(feature = "ssl")]
#[tokio::test]
async fn a_user_logs_in_by_hashed_password() {
    let Some(place) = Place::new() else {
        return;
    };
    works(login(&place, USER.1, "SCRAM-SHA-256"), "scram").await;
    refused(login(&place, "not-the-password", "SCRAM-SHA-256")).await;
}

#[cfg(not(feature = "ssl"))]
#[test]
fn what_this_build_cannot_do_is_refused() {
    let mut config = KafkaConfig::new("localhost");
    config.connection = config.connection.with_ssl(true).with_credentials("u", "p");
    config.sasl_mechanism = Some("SCRAM-SHA-256".to_owned());
    let error = KafkaBroker::new(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    for key in ["ssl_enabled", "sasl_mechanism"] {
        assert!(error.message().contains(key), "{error}");
    }
}
