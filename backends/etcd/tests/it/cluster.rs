//! Several members that lose each other.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use trunkline_core::ErrorKind;
use trunkline_discovery::{Registry, Resolver, ServiceInstance};
use trunkline_etcd::{EtcdConfig, EtcdRegistry};
use trunkline_testing::faults::Relay;
use trunkline_testing::servers::etcd::call;
use trunkline_testing::servers::{self, ETCD, Launch, Server, ServerError, Site, System};

use crate::world::{SOON, config, name, own_server};

/// Members join without waiting for the others to know each other for long.
const AT_ONCE: &str = "--strict-reconfig-check=false";

thread_local! {
    /// The member by which the next one joins; it is started on the thread that says so.
    static JOINED: Cell<Option<SocketAddr>> = const { Cell::new(None) };
}

/// A member of the cluster of another one.
static MEMBER: System = System {
    name: "etcd",
    program: ETCD.program,
    ports: 2,
    ready_within: Duration::from_secs(60),
    stop_within: Duration::from_secs(20),
    prepare: join,
    command: member,
    probe: ETCD.probe,
    url: ETCD.url,
};

fn peer(site: &Site) -> String {
    format!("http://127.0.0.1:{}", site.ports()[1])
}

fn join(site: &Site) -> Result<(), ServerError> {
    let at = JOINED.get().unwrap();
    let asked = format!(r#"{{"peerURLs":["{}"]}}"#, peer(site));
    let added = call(at, "POST", "/v3/cluster/member/add", &asked).unwrap();
    let added: Value = serde_json::from_str(&added).unwrap();
    let members = added["members"].as_array().unwrap().iter();
    let members = members.map(|member| {
        let url = member["peerURLs"][0].as_str().unwrap();
        // Who has not begun yet has no name.
        let name = member["name"].as_str();
        format!(
            "{}={url}",
            name.map_or_else(|| own_name(site), str::to_owned)
        )
    });
    let members: Vec<String> = members.collect();
    fs::write(site.directory().join("members"), members.join(",")).unwrap();
    Ok(())
}

fn own_name(site: &Site) -> String {
    format!("member-{}", site.port())
}

fn member(site: &Site, command: &mut Command) {
    let members = fs::read_to_string(site.directory().join("members")).unwrap();
    let own = format!("http://{}", site.address());
    command
        .arg(format!("--name={}", own_name(site)))
        .arg(format!(
            "--data-dir={}",
            site.data().join("member").display()
        ))
        .arg(format!("--listen-client-urls={own}"))
        .arg(format!("--advertise-client-urls={own}"))
        .arg(format!("--listen-peer-urls={}", peer(site)))
        .arg(format!("--initial-advertise-peer-urls={}", peer(site)))
        .arg(format!("--initial-cluster={members}"))
        .args(["--initial-cluster-state=existing", AT_ONCE]);
}

/// A cluster of three.
async fn three() -> Option<Vec<Server>> {
    let first = tokio::task::spawn_blocking(|| {
        servers::own_launched(Launch::new(&ETCD).arguments([AT_ONCE]))
    });
    let mut members = vec![first.await.unwrap()?];
    let first = members[0].address();
    for _ in 0..2 {
        let started = tokio::task::spawn_blocking(move || {
            JOINED.set(Some(first));
            Server::start(&MEMBER).unwrap()
        });
        members.push(started.await.unwrap());
    }
    Some(members)
}

/// Settings by which silence alone tells nothing.
fn patient(endpoints: &[SocketAddr]) -> EtcdConfig {
    let mut settings = config(endpoints[0]);
    settings.endpoints = endpoints.iter().map(SocketAddr::to_string).collect();
    settings.wait = Duration::from_secs(3600);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_at_a_member_without_a_leader_ends() {
    let Some(mut members) = three().await else {
        return;
    };
    let registry = EtcdRegistry::new(&patient(&[members[0].address()])).unwrap();
    let mut watch = registry.watch(&name("users")).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
    let instance = ServiceInstance::new(name("users"), "127.0.0.1", 8001);
    registry
        .register(instance, Duration::from_secs(600))
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().instances.len(), 1);
    let members = tokio::task::spawn_blocking(move || {
        for member in members.iter_mut().skip(1) {
            member.kill().unwrap();
        }
        members
    });
    let mut members = members.await.unwrap();
    // Its own member runs on, and its connection stands.
    let told = tokio::time::timeout(SOON, watch.next()).await;
    told.expect("it is told").unwrap().unwrap_err();
    // And it goes on when the others are back.
    let members = tokio::task::spawn_blocking(move || {
        members[1].restart().unwrap();
        members
    });
    let members = members.await.unwrap();
    let again = async {
        loop {
            if let Ok(list) = watch.next().await.unwrap() {
                return list;
            }
        }
    };
    let again = tokio::time::timeout(SOON, again).await.unwrap();
    assert_eq!(again.instances.len(), 1);
    drop(members);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_leaves_a_member_that_fails_others() {
    let Some(server) = own_server().await else {
        return;
    };
    // The relays stand for two members of one cluster.
    let (one, two) = (
        Relay::to(server.address()).unwrap(),
        Relay::to(server.address()).unwrap(),
    );
    let registry = EtcdRegistry::new(&patient(&[one.address(), two.address()])).unwrap();
    let mut watch = registry.watch(&name("users")).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
    let instance = |port| ServiceInstance::new(name("users"), "127.0.0.1", port);
    registry
        .register(instance(1), Duration::from_secs(600))
        .await
        .unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().instances.len(), 1);
    // It says nothing any more, and its connections stand.
    one.stall(true);
    let registered = registry.register(instance(2), Duration::from_secs(600));
    registered.await.unwrap();
    let told = tokio::time::timeout(SOON, watch.next()).await;
    let list = told.expect("it is told").unwrap().unwrap();
    assert_eq!(list.instances.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_leave_connections_for_the_rest() {
    let Some(server) = own_server().await else {
        return;
    };
    let url = format!("{}?max_watches=2&request_timeout=2s", server.url());
    let neutral = trunkline_discovery::ServiceDiscoveryConfig::from_url(&url).unwrap();
    let registry = EtcdRegistry::new(&EtcdConfig::from_neutral(&neutral).unwrap()).unwrap();
    let mut watches = Vec::new();
    for service in ["a", "b"] {
        let mut watch = registry.watch(&name(service)).await.unwrap();
        watch.next().await.unwrap().unwrap();
        let instance = ServiceInstance::new(name(service), "127.0.0.1", 1);
        registry
            .register(instance, Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().instances.len(), 1);
        watches.push(watch);
    }
    // One more is told that it is not kept current, instead of saying nothing.
    let mut more = registry.watch(&name("c")).await.unwrap();
    more.next().await.unwrap().unwrap();
    let told = more.next().await.unwrap().unwrap_err();
    assert_eq!(told.kind(), ErrorKind::Rejected);
    assert!(told.message().contains("`max_watches`"), "{told}");
    // Everything else goes on.
    let instance = ServiceInstance::new(name("c"), "127.0.0.1", 1);
    let lease = registry.register(instance.clone(), Duration::from_secs(60));
    let lease = lease.await.unwrap();
    registry.renew(&lease, &instance).await.unwrap();
    registry.health_check().await.unwrap();
    assert_eq!(
        registry.resolve(&name("c")).await.unwrap().instances.len(),
        1
    );
    // What it missed comes nevertheless, and it takes the place of one that ends.
    watches.pop();
    let told = async {
        loop {
            match more.next().await.unwrap() {
                Ok(list) if list.instances.len() == 1 => return,
                Ok(_) | Err(_) => {}
            }
        }
    };
    tokio::time::timeout(SOON, told).await.expect("it is told");
    registry.deregister(&lease).await.unwrap();
    let told = tokio::time::timeout(SOON, more.next()).await.unwrap();
    assert!(told.unwrap().unwrap().instances.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_meanwhile_is_one_list() {
    const MANY: u16 = 300;
    let Some(server) = own_server().await else {
        return;
    };
    let registry = EtcdRegistry::new(&patient(&[server.address()])).unwrap();
    let mut watch = registry.watch(&name("users")).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
    let instance = |port| ServiceInstance::new(name("users"), "127.0.0.1", port);
    // The watch stands once it has told one.
    registry
        .register(instance(1), Duration::from_secs(600))
        .await
        .unwrap();
    watch.next().await.unwrap().unwrap();
    for port in 2..=MANY {
        registry
            .register(instance(port), Duration::from_secs(600))
            .await
            .unwrap();
    }
    let mut lists = 0;
    loop {
        let list = tokio::time::timeout(SOON, watch.next()).await.unwrap();
        lists += 1;
        if list.unwrap().unwrap().instances.len() == usize::from(MANY) {
            break;
        }
    }
    assert!(lists < 100, "{lists} lists for {MANY} changes");
}
