//! Who may: users and passwords, and encryption.

use std::process::Command;
use std::time::Duration;

use trunkline_core::ErrorKind;
use trunkline_discovery::{Registry, Resolver, ServiceInstance};
use trunkline_etcd::{EtcdConfig, EtcdRegistry};
use trunkline_testing::servers::etcd::call;
use trunkline_testing::servers::{self, ETCD, ServerError, Site, System};

use crate::world::{config, name, own_server};

const LONG: Duration = Duration::from_secs(600);

#[tokio::test(flavor = "multi_thread")]
async fn who_is_no_user_is_refused_and_a_token_that_ends_is_renewed() {
    let Some(server) = own_server().await else {
        return;
    };
    let tell = |path: &str, message: &str| call(server.address(), "POST", path, message).unwrap();
    tell(
        "/v3/auth/user/add",
        r#"{"name":"root","password":"secret"}"#,
    );
    tell("/v3/auth/role/add", r#"{"name":"root"}"#);
    tell("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#);
    tell("/v3/auth/enable", "{}");
    let users = name("users");
    let instance = ServiceInstance::new(users.clone(), "10.0.0.7", 8001);
    let nobody = EtcdRegistry::new(&config(server.address())).unwrap();
    let error = nobody.resolve(&users).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unauthenticated,
        "{}",
        error.report()
    );
    let settings = config(server.address()).with_credentials("root", "wrong");
    let error = EtcdRegistry::new(&settings)
        .unwrap()
        .resolve(&users)
        .await
        .unwrap_err();
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

    let settings = config(server.address()).with_credentials("root", "secret");
    let registry = EtcdRegistry::new(&settings).unwrap();
    let lease = registry.register(instance.clone(), LONG).await.unwrap();
    let mut watch = registry.watch(&users).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().instances.len(), 1);
    // Tokens live in the memory of a member: a restart ends them all.
    let server = tokio::task::spawn_blocking(move || {
        let mut server = server;
        server.kill().unwrap();
        server.restart().unwrap();
        server
    });
    let _server = server.await.unwrap();
    registry.renew(&lease, &instance).await.unwrap();
    assert_eq!(
        registry.resolve(&users).await.unwrap().instances,
        [instance]
    );
}

/// A member that serves clients over TLS as well, on its third port.
static ENCRYPTED: System = System {
    ports: 3,
    prepare,
    command,
    ..ETCD
};

fn prepare(site: &Site) -> Result<(), ServerError> {
    let (ca, server, client) = certificates();
    for (file, text) in [
        ("ca.pem", ca),
        ("server.pem", server.0),
        ("server.key", server.1),
        ("client.pem", format!("{}{}", client.0, client.1)),
    ] {
        std::fs::write(site.directory().join(file), text).unwrap();
    }
    (ETCD.prepare)(site)
}

fn command(site: &Site, command: &mut Command) {
    (ETCD.command)(site, command);
    let (plain, encrypted) = (site.ports()[0], site.ports()[2]);
    let urls = format!("http://127.0.0.1:{plain},https://127.0.0.1:{encrypted}");
    command.args(["--listen-client-urls", &urls]);
    for (flag, file) in [
        ("--cert-file", "server.pem"),
        ("--key-file", "server.key"),
        ("--trusted-ca-file", "ca.pem"),
    ] {
        command.arg(flag).arg(site.directory().join(file));
    }
    command.arg("--client-cert-auth");
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_asked_over_tls_with_a_certificate_of_ones_own() {
    let server = tokio::task::spawn_blocking(|| servers::own(&ENCRYPTED));
    let Some(server) = server.await.unwrap() else {
        return;
    };
    let at = |name: &str| server.directory().join(name);
    let mut settings = EtcdConfig::at([format!("localhost:{}", server.site().ports()[2])]);
    settings.tls = true;
    let users = name("users");
    let refused = EtcdRegistry::new(&settings)
        .unwrap()
        .resolve(&users)
        .await
        .unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::Unavailable,
        "{}",
        refused.report()
    );
    settings.ca_file = Some(at("ca.pem"));
    let nobody = EtcdRegistry::new(&settings).unwrap().resolve(&users).await;
    assert!(nobody.is_err(), "a certificate is asked for");
    settings.client_certificate = Some(at("client.pem"));
    let registry = EtcdRegistry::new(&settings).unwrap();
    let mut watch = registry.watch(&users).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
    let instance = ServiceInstance::new(users.clone(), "10.0.0.7", 8001);
    registry.register(instance.clone(), LONG).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().instances, [instance]);
}

/// A root, and a server's and a client's certificate and key, all PEM.
fn certificates() -> (String, (String, String), (String, String)) {
    use rcgen::{
        BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };
    let key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = root.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(root, key);
    let leaf = |name: &str, usages: Vec<ExtendedKeyUsagePurpose>| {
        let key = KeyPair::generate().unwrap();
        let mut leaf =
            CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        leaf.extended_key_usages = usages;
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    // Etcd's gateway is a client of its own member, with the member's certificate.
    let usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let server = leaf("localhost", usages);
    let client = leaf("client", vec![ExtendedKeyUsagePurpose::ClientAuth]);
    (ca, server, client)
}
