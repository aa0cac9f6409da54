//! Who may come in, and by which way.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use trunkline_core::ErrorKind;
use trunkline_messaging::{MessageBroker, MessageBrokerConfig, Subscribe};
use trunkline_testing::servers::{self, NATS_SERVER, ServerError, Site, System, nats};

use crate::place::{Place, attached, close, detached, eventually, insist, to_topic, topic};

/// A server that wants a token, over an encrypted connection, from clients with a certificate.
static GUARDED: System = System {
    name: "nats",
    program: &NATS_SERVER,
    ports: 2,
    ready_within: Duration::from_secs(30),
    stop_within: Duration::from_secs(15),
    prepare: guard,
    command,
    probe,
    url,
};

fn guard(site: &Site) -> Result<(), ServerError> {
    let authority = {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let at = |name: &str| site.directory().join(name);
    fs::write(at("ca.pem"), authority.pem()).unwrap();
    for name in ["server", "client"] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &authority).unwrap();
        fs::write(at(&format!("{name}.pem")), leaf.pem()).unwrap();
        fs::write(at(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
    let (client, monitor) = (site.ports()[0], site.ports()[1]);
    let configuration = format!(
        "listen: \"127.0.0.1:{client}\"\nhttp: \"127.0.0.1:{monitor}\"\njetstream {{ store_dir: {:?} }}\n\
         authorization {{ token: \"open sesame\" }}\n\
         tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\n",
        site.data().join("jetstream"),
        at("server.pem"),
        at("server.key"),
        at("ca.pem"),
    );
    fs::write(at("nats.conf"), configuration).unwrap();
    Ok(())
}

fn command(site: &Site, command: &mut Command) {
    command.arg("-c").arg(site.directory().join("nats.conf"));
}

fn probe(site: &Site) -> Result<(), String> {
    let said = nats::monitor(site, "/healthz").map_err(|error| error.to_string())?;
    if said.contains("\"ok\"") {
        Ok(())
    } else {
        Err(said)
    }
}

fn url(site: &Site) -> String {
    format!("tls://localhost:{}", site.port())
}

fn with_files(url: &str, directory: &Path, files: &[(&str, &str)]) -> MessageBrokerConfig {
    let mut config = MessageBrokerConfig::from_url(url)
        .unwrap()
        .with_option("token", "open sesame");
    for (option, file) in files {
        config = config.with_option(*option, directory.join(file).display().to_string());
    }
    config
}

const ALL: [(&str, &str); 3] = [
    ("ca_file", "ca.pem"),
    ("cert_file", "client.pem"),
    ("key_file", "client.key"),
];

#[tokio::test]
async fn a_token_and_a_certificate_open_an_encrypted_connection() {
    let Some(mut server) = servers::own(&GUARDED) else {
        return;
    };
    let (url, directory) = (server.url(), server.directory().to_owned());
    let broker = trunkline_nats::open(&with_files(&url, &directory, &ALL)).unwrap();
    broker.connect().await.unwrap();
    let mut subscription = broker
        .subscribe(Subscribe::topics(topic("a.b")))
        .await
        .unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic("a.b", "one")).await;
    let delivery = subscription.next().await.unwrap();
    delivery.ack().await.unwrap();
    // Everything is presented again to a server that comes back.
    server.kill().unwrap();
    detached(&subscription).await;
    server.restart().unwrap();
    attached(&subscription).await;
    insist(&broker, to_topic("a.b", "two")).await;
    close(&broker).await;
}

#[tokio::test]
async fn who_shows_no_certificate_or_trusts_no_authority_gets_no_connection() {
    let Some(server) = servers::own(&GUARDED) else {
        return;
    };
    let (url, directory) = (server.url(), server.directory().to_owned());
    for files in [&ALL[..1], &ALL[1..]] {
        let broker = trunkline_nats::open(&with_files(&url, &directory, files)).unwrap();
        let error = broker.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        close(&broker).await;
    }
    let mut wrong = with_files(&url, &directory, &ALL);
    wrong = wrong.with_option("token", "wrong");
    let broker = trunkline_nats::open(&wrong).unwrap();
    let error = broker.connect().await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unauthenticated,
        "{}",
        error.report()
    );
    close(&broker).await;
    let missing = with_files(&url, &directory, &[("ca_file", "no-such.pem")]);
    let broker = trunkline_nats::open(&missing).unwrap();
    let error = broker.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{}", error.report());
    assert!(
        error.report().to_string().contains("no-such.pem"),
        "{}",
        error.report()
    );
    close(&broker).await;
}

#[tokio::test]
async fn a_wrong_password_is_said_and_an_nkey_opens() {
    let Some(place) = Place::new() else {
        return;
    };
    let address = place.server.address();
    for url in [
        format!("nats://app:wrong@{address}"),
        format!("nats://{address}"),
    ] {
        let config = MessageBrokerConfig::from_url(&url).unwrap();
        let broker = trunkline_nats::open(&config).unwrap();
        let error = broker.connect().await.unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::Unauthenticated,
            "{}",
            error.report()
        );
        assert!(
            !error.report().to_string().contains("wrong"),
            "{}",
            error.report()
        );
        // A subscription says why it is not attached.
        let subscription = broker
            .subscribe(Subscribe::topics(topic("a.b")))
            .await
            .unwrap();
        eventually("the reason", async || {
            let state = subscription.state().borrow().clone();
            format!("{state:?}").contains("authorization").then_some(())
        })
        .await;
        close(&broker).await;
    }
    let config = MessageBrokerConfig::from_url(&format!("nats://{address}"))
        .unwrap()
        .with_option("nkey_seed", nats::NKEY_SEED);
    let broker = trunkline_nats::open(&config).unwrap();
    broker.connect().await.unwrap();
    insist(&broker, to_topic("a.b", "one")).await;
    close(&broker).await;
}
