//! Encrypted connections, and login by certificate.

use std::fs;
use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use trunkline_core::{Connection, ErrorKind};
use trunkline_messaging::{MessageBroker as _, MessageBrokerConfig};
use trunkline_rabbitmq::{RabbitMqBroker, RabbitMqConfig};
use trunkline_testing::servers::{self, RABBITMQ, ServerError, Site, System, rabbitmq};

use crate::fixture::{disconnect, name, publish, within};

/// RabbitMQ with a second listener, for TLS, and login by certificate.
static ENCRYPTED: System = System {
    ports: 4,
    prepare,
    ..RABBITMQ_AS_IT_IS
};

const RABBITMQ_AS_IT_IS: System = System {
    name: RABBITMQ.name,
    program: RABBITMQ.program,
    ports: RABBITMQ.ports,
    ready_within: RABBITMQ.ready_within,
    stop_within: RABBITMQ.stop_within,
    prepare: RABBITMQ.prepare,
    command: RABBITMQ.command,
    probe: RABBITMQ.probe,
    url: RABBITMQ.url,
};

fn prepare(site: &Site) -> Result<(), ServerError> {
    let at = |name: &str| site.directory().join(name);
    let (port, ca, own, key) = (
        site.ports()[3],
        at("ca.pem"),
        at("server.pem"),
        at("server.key"),
    );
    write_certificates(&at(""));
    let settings = format!(
        "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
         ssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false\n\
         ssl_cert_login_from = common_name\nauth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n",
        ca.display(),
        own.display(),
        key.display()
    );
    rabbitmq::configure(site, &settings, &["rabbitmq_auth_mechanism_ssl"])
}

/// A root, a certificate of the server, and one of the user `guest`.
fn write_certificates(directory: &std::path::Path) {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name
        .push(DnType::CommonName, "test root");
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().unwrap()).unwrap();
    fs::write(directory.join("ca.pem"), root.pem()).unwrap();
    for (file, common_name, usage) in [
        ("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", "guest", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let mut own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        own.distinguished_name.push(DnType::CommonName, common_name);
        own.extended_key_usages.push(usage);
        let key = KeyPair::generate().unwrap();
        let own = own.signed_by(&key, &root).unwrap();
        fs::write(directory.join(format!("{file}.pem")), own.pem()).unwrap();
        fs::write(directory.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

async fn outcome(config: RabbitMqConfig) -> Result<(), trunkline_core::Error> {
    let broker = RabbitMqBroker::new(config).unwrap();
    let connected = within("an attempt", broker.connect()).await;
    if connected.is_ok() {
        publish(&broker, &name("orders"), "one").await;
    }
    disconnect(&broker).await;
    connected
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_and_certificates_log_in() {
    let Some(server) = servers::own(&ENCRYPTED) else {
        return;
    };
    let at = |name: &str| -> PathBuf { server.directory().join(name) };
    let port = server.site().ports()[3];
    let url = format!("amqps://guest:guest@localhost:{port}/?system_roots=false");
    let with = |more: &[(&str, PathBuf)]| {
        let mut neutral = MessageBrokerConfig::from_url(&url).unwrap();
        for (option, path) in more {
            neutral = neutral.with_option(*option, path.display().to_string());
        }
        neutral
    };
    let trusted = with(&[("ca_file", at("ca.pem"))]);
    outcome(RabbitMqConfig::from_neutral(&trusted).unwrap())
        .await
        .unwrap();

    let wrong = trusted.clone().with_connection(
        Connection::default()
            .with_host("localhost")
            .with_port(port)
            .with_ssl(true)
            .with_credentials("guest", "wrong"),
    );
    let error = outcome(RabbitMqConfig::from_neutral(&wrong).unwrap())
        .await
        .unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unauthenticated,
        "{}",
        error.report()
    );

    let named = trusted
        .clone()
        .with_option("server_name", "elsewhere.example.com");
    let error = outcome(RabbitMqConfig::from_neutral(&named).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());

    let own = [
        ("ca_file", at("ca.pem")),
        ("client_certificate", at("client.pem")),
        ("client_key", at("client.key")),
    ];
    let external = with(&own).with_option("auth_mechanism", "external");
    let mut external = RabbitMqConfig::from_neutral(&external).unwrap();
    external.connection.username = None;
    external.connection.password = None;
    outcome(external).await.unwrap();
}
