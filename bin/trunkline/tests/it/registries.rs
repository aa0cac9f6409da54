//! `trunkline services` and `trunkline call --registry` with registries that are servers: real ones, by URL.

use rustix::process::Signal;
use serde_json::Value;
use trunkline_testing::servers::{self, System};

#[cfg(feature = "kubernetes")]
mod kubernetes;

use crate::place::{Outcome, Place, eventually};
use crate::upstream::Upstream;

/// The URL of a server that tests share; nothing where it is not installed.
async fn shared(system: &'static System) -> Option<String> {
    let url = tokio::task::spawn_blocking(move || servers::shared(system));
    url.await.unwrap()
}

/// A name that no other test has on the server.
fn unique(what: &str) -> String {
    format!("{what}-{}", trunkline::Id::new())
}

async fn listed(place: &Place, url: &str, name: &str) -> Vec<Value> {
    let args = ["services", "list", url, name, "--output", "json"];
    place.run(&args).await.done().json()
}

/// What is registered by one command is listed, watched and called by others, and goes with it.
async fn works_by_url(url: &str) {
    let place = Place::new();
    let (web, upstream) = (unique("web"), Upstream::talkative().await);
    let address = upstream.address().to_string();
    let watch = [
        "services", "watch", url, &web, "--output", "json", "--count", "3",
    ];
    let mut watch = place.start(&watch);
    assert_eq!(watch.json().await["instances"], Value::Array(Vec::new()));

    let register = [
        "services",
        "register",
        url,
        &web,
        &address,
        "--ttl",
        "10s",
        "--metadata",
        "team=core",
        "--version",
        "2.1.0",
    ];
    let mut registration = place.start(&register);
    let line = registration.line().await;
    assert!(
        line.starts_with(&format!("registered {web} at http://{address}")),
        "{line}"
    );
    let found = listed(&place, url, &web).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["metadata"]["team"], "core");
    assert_eq!(found[0]["version"], "2.1.0");
    assert_eq!(watch.json().await["instances"], Value::Array(found.clone()));
    let all: Vec<Value> = place
        .run(&["services", "list", url, "--output", "json"])
        .await
        .done()
        .json();
    assert!(all.contains(&found[0]), "{all:?}");

    let call = ["call", "--registry", url, &web, "GET", "/items?page=2"];
    let heard: Value = place.run(&call).await.done().json();
    assert_eq!(heard["path"], "/items?page=2");

    registration.stop(Signal::TERM).await.done();
    assert!(listed(&place, url, &web).await.is_empty());
    assert_eq!(watch.json().await["instances"], Value::Array(Vec::new()));
    watch.end().await.done();
}

/// The configuration, or the environment, says where the registry is, by the words of the first drafts.
async fn is_named_by_the_configuration(kind: &str, url: &str) {
    let place = Place::new();
    let (web, upstream) = (unique("web"), Upstream::talkative().await);
    let address = upstream.address().to_string();
    let mut registration = place.start(&["services", "register", url, &web, &address]);
    registration.line().await;
    let (host, port) = url
        .strip_prefix(&format!("{kind}://"))
        .and_then(|place| place.split_once(':'))
        .unwrap();
    let call = ["call", &web, "GET", "/items"];
    let mut command = place.command(&call);
    command
        .env("SERVICE_DISCOVERY_TYPE", kind)
        .env("SERVICE_DISCOVERY_HOST", host)
        .env("SERVICE_DISCOVERY_PORT", port);
    let heard: Value = Outcome::of(command).await.done().json();
    assert_eq!(heard["path"], "/items");
    let file = format!(
        "communication:\n  service_discovery:\n    type: {kind}\n    host: {host}\n    port: {port}\n"
    );
    place.file("communication.yaml", &file);
    let heard: Value = place.run(&call).await.done().json();
    assert_eq!(heard["path"], "/items");
    registration.stop(Signal::TERM).await.done();
}

/// What one process has registered, an operator may withdraw; it then comes back by itself.
async fn is_withdrawn_and_comes_back(url: &str) {
    let place = Place::new();
    let web = unique("web");
    let register = [
        "services",
        "register",
        url,
        &web,
        "127.0.0.1:9",
        "--ttl",
        "2s",
    ];
    let mut registration = place.start(&register);
    registration.line().await;
    let withdraw = ["services", "deregister", url, &web, "127.0.0.1:9"];
    place.run(&withdraw).await.done();
    registration.remark("registered again").await;
    eventually(async || (listed(&place, url, &web).await.len() == 1).then_some(())).await;
    registration.stop(Signal::TERM).await.done();
}

/// A server that is not there is an error that names it, soon.
async fn is_an_error_when_away(scheme: &str) {
    let place = Place::new();
    // Nobody listens on the port of a service that no system runs.
    let url = format!("{scheme}://127.0.0.1:9");
    let outcome = place.run(&["services", "list", &url]).await;
    assert_ne!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("127.0.0.1:9"), "{}", outcome.stderr);
}

mod consul {
    use trunkline_testing::servers::CONSUL;

    use super::*;

    #[tokio::test]
    async fn works_by_url() {
        let Some(url) = shared(&CONSUL).await else {
            return;
        };
        super::works_by_url(&url).await;
    }

    #[tokio::test]
    async fn is_named_by_the_configuration() {
        let Some(url) = shared(&CONSUL).await else {
            return;
        };
        super::is_named_by_the_configuration("consul", &url).await;
    }

    #[tokio::test]
    async fn is_withdrawn_and_comes_back() {
        let Some(url) = shared(&CONSUL).await else {
            return;
        };
        super::is_withdrawn_and_comes_back(&url).await;
    }

    #[tokio::test]
    async fn is_an_error_when_away() {
        super::is_an_error_when_away("consul").await;
    }

    #[tokio::test]
    async fn wrong_options_are_told_with_their_names() {
        let url = "consul://127.0.0.1:9?weit=5s";
        let place = Place::new();
        let outcome = place.run(&["services", "list", url]).await;
        outcome.refused(2, "service_discovery.options.weit");
    }
}

mod etcd {
    use trunkline_testing::servers::ETCD;

    use super::*;

    #[tokio::test]
    async fn works_by_url() {
        let Some(url) = shared(&ETCD).await else {
            return;
        };
        super::works_by_url(&url).await;
    }

    #[tokio::test]
    async fn is_named_by_the_configuration() {
        let Some(url) = shared(&ETCD).await else {
            return;
        };
        super::is_named_by_the_configuration("etcd", &url).await;
    }

    #[tokio::test]
    async fn is_withdrawn_and_comes_back() {
        let Some(url) = shared(&ETCD).await else {
            return;
        };
        super::is_withdrawn_and_comes_back(&url).await;
    }

    #[tokio::test]
    async fn is_an_error_when_away() {
        super::is_an_error_when_away("etcd").await;
    }

    #[tokio::test]
    async fn wrong_options_are_told_with_their_names() {
        let url = "etcd://127.0.0.1:9?weit=5s";
        let place = Place::new();
        let outcome = place.run(&["services", "list", url]).await;
        outcome.refused(2, "service_discovery.options.weit");
    }
}

mod several {
    use trunkline_testing::servers::{CONSUL, ETCD, Server};

    use super::*;

    async fn own(system: &'static System) -> Option<Server> {
        let server = tokio::task::spawn_blocking(move || servers::own(system));
        server.await.unwrap()
    }

    async fn with(mut server: Server, work: impl FnOnce(&mut Server) + Send + 'static) -> Server {
        let worked = tokio::task::spawn_blocking(move || {
            work(&mut server);
            server
        });
        worked.await.unwrap()
    }

    #[tokio::test]
    async fn works_by_url() {
        let (Some(consul), Some(etcd)) = (shared(&CONSUL).await, shared(&ETCD).await) else {
            return;
        };
        let url = format!("several://?registry={consul}&registry={etcd}");
        super::works_by_url(&url).await;
    }

    #[tokio::test]
    async fn one_dies_and_comes_back_and_nobody_is_missed() {
        let (Some(consul), Some(etcd)) = (own(&CONSUL).await, own(&ETCD).await) else {
            return;
        };
        let place = Place::new();
        let (one, two) = (consul.url(), etcd.url());
        let both = format!("several://?registry={one}&registry={two}");
        let register = [
            "services",
            "register",
            &both,
            "web",
            "127.0.0.1:9",
            "--ttl",
            "6s",
        ];
        let mut registration = place.start(&register);
        registration.line().await;
        let list = ["services", "list", &both, "web", "--output", "json"];
        let quiet = place.run(&list).await.done();
        assert!(!quiet.stderr.contains("differ"), "{}", quiet.stderr);

        let consul = with(consul, |consul| consul.kill().unwrap()).await;
        let heard = place.run(&list).await.done();
        assert_eq!(heard.json::<Vec<Value>>().len(), 1);
        assert!(
            heard.stderr.contains(&format!("{one}: finding: ")),
            "{}",
            heard.stderr
        );
        // Longer than the lease: the one that is left has been told of the renewals.
        let shown = tokio::time::Instant::now();
        eventually(async || {
            let found = listed(&place, &two, "web").await;
            assert_eq!(found.len(), 1, "it never goes");
            (shown.elapsed() > std::time::Duration::from_secs(9)).then_some(())
        })
        .await;

        let consul = with(consul, |consul| consul.restart().unwrap()).await;
        eventually(async || (listed(&place, &one, "web").await.len() == 1).then_some(())).await;
        // Registered in one alone: what they differ in is told.
        let alone = [
            "services",
            "register",
            &one,
            "web",
            "127.0.0.1:10",
            "--ttl",
            "60s",
        ];
        let mut other = place.start(&alone);
        other.line().await;
        let heard = place.run(&list).await.done();
        assert_eq!(heard.json::<Vec<Value>>().len(), 2);
        let differ = format!("{one} has 2 of 2, {two} has 1 of 2");
        assert!(heard.stderr.contains(&differ), "{}", heard.stderr);
        other.stop(Signal::TERM).await.done();
        registration.stop(Signal::TERM).await.done();
        assert!(listed(&place, &one, "web").await.is_empty());
        assert!(listed(&place, &two, "web").await.is_empty());
        drop((consul, etcd));
    }

    #[tokio::test]
    async fn it_is_named_by_the_configuration() {
        let (Some(consul), Some(etcd)) = (shared(&CONSUL).await, shared(&ETCD).await) else {
            return;
        };
        let place = Place::new();
        let (web, upstream) = (unique("web"), Upstream::talkative().await);
        let address = upstream.address().to_string();
        let mut registration = place.start(&["services", "register", &etcd, &web, &address]);
        registration.line().await;
        let file = format!(
            "communication:\n  service_discovery:\n    type: several\n    options:\n      registries: [\"{consul}\", \"{etcd}\"]\n      resolve: ordered\n"
        );
        place.file("communication.yaml", &file);
        let call = ["call", &web, "GET", "/items"];
        let heard: Value = place.run(&call).await.done().json();
        assert_eq!(heard["path"], "/items");
        registration.stop(Signal::TERM).await.done();
    }
}

#[cfg(feature = "dns")]
mod dns {
    use std::net::{Ipv4Addr, SocketAddr};

    use trunkline_testing::servers::KNOT;
    use trunkline_testing::servers::knot::{self, Change, Data, ZONE};

    use super::*;

    async fn update(server: SocketAddr, changes: Vec<Change>) {
        let updated = tokio::task::spawn_blocking(move || knot::update(server, &changes));
        updated.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_the_zone_says_is_listed_watched_and_called() {
        let Some(url) = shared(&KNOT).await else {
            return;
        };
        let server: SocketAddr = url.split('/').nth(2).unwrap().parse().unwrap();
        let url = format!("dns://{server}/{ZONE}?refresh_min=100ms");
        let place = Place::new();
        let (web, upstream) = (unique("web"), Upstream::talkative().await);
        let watch = [
            "services", "watch", &url, &web, "--output", "json", "--count", "2",
        ];
        let mut watch = place.start(&watch);
        assert_eq!(watch.json().await["instances"], Value::Array(Vec::new()));

        let host = format!("{web}-host.{ZONE}");
        let srv = Data::Srv(0, 3, upstream.address().port(), host.clone());
        let changes = vec![
            Change::Add(host, 1, Data::A(Ipv4Addr::LOCALHOST)),
            Change::Add(format!("_{web}._tcp.{ZONE}"), 1, srv),
        ];
        update(server, changes).await;
        let found = listed(&place, &url, &web).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["weight"], 3);
        assert_eq!(watch.json().await["instances"], Value::Array(found));
        watch.end().await.done();
        let call = ["call", "--registry", &url, &web, "GET", "/items?page=2"];
        let heard: Value = place.run(&call).await.done().json();
        assert_eq!(heard["path"], "/items?page=2");
        let all = format!("{url}&services={web},nobody");
        let all = place
            .run(&["services", "list", &all, "--output", "json"])
            .await;
        assert_eq!(all.done().json::<Vec<Value>>().len(), 1);
    }

    #[tokio::test]
    async fn what_dns_cannot_do_is_said() {
        let Some(url) = shared(&KNOT).await else {
            return;
        };
        let place = Place::new();
        let register = ["services", "register", &url, "web", "127.0.0.1:9"];
        let outcome = place.run(&register).await;
        assert_ne!(outcome.code, Some(0), "{outcome:?}");
        assert!(
            outcome.stderr.contains("DNS announces nothing"),
            "{}",
            outcome.stderr
        );
        let outcome = place.run(&["services", "list", &url]).await;
        assert!(
            outcome.stderr.contains("DNS cannot list services"),
            "{}",
            outcome.stderr
        );
        place
            .run(&["services", "list", "dns://127.0.0.1:9/"])
            .await
            .refused(2, "service_discovery.options.srv");
    }
}
