//! What other clients of Consul see of us, and we of them; tokens, encryption, consistency.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use trunkline_consul::{ActiveCheck, Consistency, ConsulConfig, ConsulRegistry};
use trunkline_core::ErrorKind;
use trunkline_discovery::{
    Discovery, InstanceStatus, Registry, Resolver, ServiceInstance, ServiceName,
};
use trunkline_testing::servers::consul::{call, get};
use trunkline_testing::servers::{self, CONSUL, Launch, Server};

use crate::world::{config, name, until};

const LONG: Duration = Duration::from_secs(600);

async fn shared() -> Option<SocketAddr> {
    let url = tokio::task::spawn_blocking(|| servers::shared(&CONSUL));
    let url = url.await.unwrap()?;
    Some(url.strip_prefix("consul://").unwrap().parse().unwrap())
}

async fn launched(arguments: Vec<String>) -> Option<Server> {
    let launched = tokio::task::spawn_blocking(move || {
        servers::own_launched(Launch::new(&CONSUL).arguments(arguments))
    });
    launched.await.unwrap()
}

fn unique(what: &str) -> ServiceName {
    name(&format!("{what}-{}", trunkline_core::Id::new()))
}

fn passing(address: SocketAddr, service: &ServiceName) -> Vec<Value> {
    let answer = get(address, &format!("/v1/health/service/{service}?passing")).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[tokio::test]
async fn other_clients_are_told_what_they_understand() {
    let Some(address) = shared().await else {
        return;
    };
    let mut settings = config(address);
    settings.tags = vec!["http".to_owned()];
    let registry = ConsulRegistry::new(&settings).unwrap();
    let users = unique("users");
    let instance = ServiceInstance::new(users.clone(), "10.0.0.7", 8001)
        .with_weight(7)
        .with_zone("b")
        .with_metadata("team", "core");
    let lease = registry.register(instance.clone(), LONG).await.unwrap();
    let seen = passing(address, &users);
    let service = &seen[0]["Service"];
    assert_eq!(
        (&service["Address"], &service["Port"]),
        (&json!("10.0.0.7"), &json!(8001))
    );
    assert_eq!(service["Tags"], json!(["http"]));
    assert_eq!(service["Weights"]["Passing"], 7);
    assert_eq!(
        (&service["Meta"]["team"], &service["Meta"]["zone"]),
        (&json!("core"), &json!("b"))
    );
    for status in [InstanceStatus::Draining, InstanceStatus::Down] {
        registry
            .renew(&lease, &instance.clone().with_status(status))
            .await
            .unwrap();
        assert!(
            passing(address, &users).is_empty(),
            "{status} takes no requests of others either"
        );
        assert_eq!(
            registry.resolve(&users).await.unwrap().instances[0].status,
            status
        );
    }
    registry.renew(&lease, &instance).await.unwrap();
    assert_eq!(passing(address, &users).len(), 1);
    registry.deregister(&lease).await.unwrap();
}

#[tokio::test]
async fn instances_of_others_are_found_with_what_their_checks_say() {
    let Some(address) = shared().await else {
        return;
    };
    let registry = ConsulRegistry::new(&config(address)).unwrap();
    let users = unique("users");
    let foreign = json!({
        "ID": format!("{users}-1"), "Name": users.as_str(), "Port": 8080, "Tags": ["version=3.1"],
        "Check": { "CheckID": format!("{users}-check"), "TTL": "600s", "Status": "passing" },
    });
    call(
        address,
        "PUT",
        "/v1/agent/service/register",
        &foreign.to_string(),
    )
    .unwrap();
    let found = async || {
        let list = registry.resolve(&users).await.unwrap();
        list.instances
            .first()
            .map(|it| (it.host.clone(), it.version.clone(), it.status))
    };
    let is = async |status: InstanceStatus| {
        let wanted = Some(("127.0.0.1".to_owned(), "3.1".to_owned(), status));
        until("as its checks say", async || found().await == wanted).await;
    };
    is(InstanceStatus::Up).await;
    assert!(registry.services().await.unwrap().contains(&users));
    call(
        address,
        "PUT",
        &format!("/v1/agent/check/fail/{users}-check"),
        "",
    )
    .unwrap();
    is(InstanceStatus::Down).await;
    call(
        address,
        "PUT",
        &format!("/v1/agent/check/pass/{users}-check"),
        "",
    )
    .unwrap();
    is(InstanceStatus::Up).await;
    let maintenance = |on: bool| format!("/v1/agent/service/maintenance/{users}-1?enable={on}");
    call(address, "PUT", &maintenance(true), "").unwrap();
    is(InstanceStatus::Draining).await;
    call(address, "PUT", &maintenance(false), "").unwrap();
    is(InstanceStatus::Up).await;
    call(
        address,
        "PUT",
        &format!("/v1/agent/service/deregister/{users}-1"),
        "",
    )
    .unwrap();
    until("gone", async || found().await.is_none()).await;
}

#[tokio::test]
async fn consul_looks_itself_where_it_is_asked_to() {
    let Some(address) = shared().await else {
        return;
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = taken.local_addr().unwrap().port();
    let mut settings = config(address);
    settings.check = Some(ActiveCheck::Tcp);
    settings.check_interval = Duration::from_millis(200);
    let registry = ConsulRegistry::new(&settings).unwrap();
    let users = unique("users");
    let instance = ServiceInstance::new(users.clone(), "127.0.0.1", there);
    registry.register(instance, LONG).await.unwrap();
    let status = async || registry.resolve(&users).await.unwrap().instances[0].status;
    until("well", async || status().await == InstanceStatus::Up).await;
    drop(taken);
    until("it is seen to fail", async || {
        status().await == InstanceStatus::Down
    })
    .await;
}

#[tokio::test]
async fn what_consul_found_stands_when_metadata_change() {
    let Some(address) = shared().await else {
        return;
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = taken.local_addr().unwrap().port();
    drop(taken);
    let mut settings = config(address);
    settings.check = Some(ActiveCheck::Tcp);
    // Longer than a change takes: it is not looked at again in between.
    settings.check_interval = Duration::from_secs(5);
    let registry = ConsulRegistry::new(&settings).unwrap();
    let users = unique("users");
    let mut instance = ServiceInstance::new(users.clone(), "127.0.0.1", there);
    let lease = registry.register(instance.clone(), LONG).await.unwrap();
    let seen = async || registry.resolve(&users).await.unwrap().instances.remove(0);
    until("it is seen to fail", async || {
        seen().await.status == InstanceStatus::Down
    })
    .await;
    for round in ["1", "2", "3"] {
        instance = instance.with_metadata("round", round);
        registry.renew(&lease, &instance).await.unwrap();
        let now = seen().await;
        assert_eq!(now.metadata["round"], round);
        assert_eq!(now.status, InstanceStatus::Down, "{round}");
    }
    registry.deregister(&lease).await.unwrap();
}

#[tokio::test]
async fn names_are_told_in_time_when_many_have_nobody_left() {
    const MANY: usize = 16;
    let Some(server) = launched(Vec::new()).await else {
        return;
    };
    let link = trunkline_testing::faults::Relay::to(server.address()).unwrap();
    let registry = ConsulRegistry::new(&config(server.address())).unwrap();
    let alive = unique("alive");
    // Consul is a service of its own.
    let left = [alive.clone(), name("consul")];
    let instance = ServiceInstance::new(alive.clone(), "10.0.0.7", 8001);
    registry.register(instance, LONG).await.unwrap();
    for n in 0..MANY {
        let instance = ServiceInstance::new(unique(&format!("dead{n}")), "10.0.0.7", 8001);
        let registered = registry.register(instance, Duration::from_secs(1));
        registered.await.unwrap();
    }
    until("their leases are over", async || {
        registry.services().await.unwrap() == left
    })
    .await;
    // Each answer takes its time, as over a wide network: one after the other they would take all that discovery has.
    link.delay(Duration::from_millis(250));
    let discovery = Discovery::builder()
        .resolver(ConsulRegistry::new(&config(link.address())).unwrap())
        .request_timeout(Duration::from_secs(5))
        .build();
    assert_eq!(discovery.services().await.unwrap(), left);
}

#[tokio::test]
async fn every_consistency_finds_the_same() {
    let Some(address) = shared().await else {
        return;
    };
    let users = unique("users");
    let instance = ServiceInstance::new(users.clone(), "10.0.0.7", 8001);
    let registry = ConsulRegistry::new(&config(address)).unwrap();
    registry.register(instance.clone(), LONG).await.unwrap();
    for consistency in [
        Consistency::Default,
        Consistency::Consistent,
        Consistency::Stale,
    ] {
        let mut settings = config(address);
        settings.consistency = consistency;
        let registry = ConsulRegistry::new(&settings).unwrap();
        assert_eq!(
            registry.resolve(&users).await.unwrap().instances,
            std::slice::from_ref(&instance),
            "{consistency:?}"
        );
    }
    let mut settings = config(address);
    settings.datacenter = Some("nowhere".to_owned());
    let error = ConsulRegistry::new(&settings)
        .unwrap()
        .resolve(&users)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
    assert!(error.message().contains("datacenter"), "{error}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_read_again() {
    let acl =
        "-hcl=acl { enabled = true default_policy = \"allow\" tokens { master = \"root-token\" } }";
    let Some(server) = launched(vec![acl.to_owned()]).await else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "11111111-2222-3333-4444-555555555555\n").unwrap();
    let mut settings = config(server.address());
    settings.token_file = Some(file.clone());
    let registry = ConsulRegistry::new(&settings).unwrap();
    let users = unique("users");
    let error = registry.resolve(&users).await.unwrap_err();
    assert_eq!(
        error.kind(),
        ErrorKind::Unauthenticated,
        "{}",
        error.report()
    );
    assert!(
        !error.report().to_string().contains("1111"),
        "{}",
        error.report()
    );
    std::fs::write(&file, "root-token").unwrap();
    let instance = ServiceInstance::new(users.clone(), "10.0.0.7", 8001);
    registry.register(instance, LONG).await.unwrap();
    assert_eq!(registry.resolve(&users).await.unwrap().instances.len(), 1);
    let fixed = ConsulRegistry::new(&config(server.address()).with_token("root-token")).unwrap();
    assert_eq!(fixed.resolve(&users).await.unwrap().instances.len(), 1);
}

/// The Consul that is to be had here is older than the header: what newer ones say is written down.
#[tokio::test]
async fn an_empty_answer_because_of_a_policy_is_no_empty_service() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = trunkline_core::task::spawn("answering", async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _: usize = stream.read(&mut request).await.unwrap();
            let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-consul-index: 7\r\n\
                x-consul-results-filtered-by-acls: true\r\nconnection: close\r\ncontent-length: 2\r\n\r\n[]";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let registry = ConsulRegistry::new(&config(address).with_token("weak")).unwrap();
    let error = registry.resolve(&unique("users")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", error.report());
    answering.abort();
}

#[tokio::test]
async fn an_agent_is_asked_over_tls_with_a_certificate_of_ones_own() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (ca, server, client) = certificates();
    let text = |pair: &(String, String)| format!("{}{}", pair.0, pair.1);
    std::fs::write(at("ca.pem"), ca).unwrap();
    std::fs::write(at("server.pem"), &server.0).unwrap();
    std::fs::write(at("server.key"), &server.1).unwrap();
    std::fs::write(at("client.pem"), text(&client)).unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let file = |key: &str, name: &str| format!("-hcl={key} = \"{}\"", at(name).display());
    let arguments = vec![
        format!("-https-port={port}"),
        file("ca_file", "ca.pem"),
        file("cert_file", "server.pem"),
        file("key_file", "server.key"),
        "-hcl=verify_incoming_https = true".to_owned(),
    ];
    let Some(_server) = launched(arguments).await else {
        return;
    };
    let mut settings = ConsulConfig::at("localhost", port);
    settings.tls = true;
    let users = unique("users");
    let refused = ConsulRegistry::new(&settings)
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
    let nobody = ConsulRegistry::new(&settings)
        .unwrap()
        .resolve(&users)
        .await;
    assert!(nobody.is_err(), "a certificate is asked for");
    settings.client_certificate = Some(at("client.pem"));
    let registry = ConsulRegistry::new(&settings).unwrap();
    let instance = ServiceInstance::new(users.clone(), "10.0.0.7", 8001);
    registry.register(instance, LONG).await.unwrap();
    assert_eq!(registry.resolve(&users).await.unwrap().instances.len(), 1);
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
    let leaf = |name: &str, usage: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        leaf.extended_key_usages = vec![usage];
        let certificate = leaf.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let server = leaf("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let client = leaf("client", ExtendedKeyUsagePurpose::ClientAuth);
    (ca, server, client)
}

#[tokio::test]
async fn a_service_that_is_new_does_not_wait_for_those_that_are_quiet() {
    let Some(address) = shared().await else {
        return;
    };
    let mut settings = config(address);
    settings.max_blocking_queries = 2;
    // Nothing changes: whoever waits for a place waits longer than discovery does.
    settings.wait = Duration::from_secs(300);
    let registry = ConsulRegistry::new(&settings).unwrap();
    let discovery = Discovery::builder()
        .resolver(registry)
        .request_timeout(Duration::from_secs(20))
        .build();
    for number in 0..8 {
        let service = unique(&format!("quiet{number}"));
        let found = discovery.discover_services(&service).await.unwrap();
        assert!(found.is_empty());
        assert!(discovery.instances(&service).snapshot().is_resolved());
    }
}

#[tokio::test]
async fn more_services_are_watched_than_there_may_be_queries() {
    let Some(address) = shared().await else {
        return;
    };
    let mut settings = config(address);
    settings.max_blocking_queries = 2;
    let registry = ConsulRegistry::new(&settings).unwrap();
    let names: Vec<ServiceName> = (0..8).map(|n| unique(&format!("s{n}"))).collect();
    let mut watches = Vec::new();
    for name in &names {
        let mut watch = registry.watch(name).await.unwrap();
        assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
        watches.push(trunkline_core::task::spawn("watch", async move {
            watch.next().await
        }));
    }
    for name in &names {
        let instance = ServiceInstance::new(name.clone(), "10.0.0.7", 8001);
        registry.register(instance, LONG).await.unwrap();
    }
    for watch in watches {
        let list = tokio::time::timeout(Duration::from_secs(60), watch).await;
        let list = list.expect("each has its turn").unwrap().unwrap().unwrap();
        assert_eq!(list.instances.len(), 1);
    }
}
