//! Two datacentres, joined as those of an operator are.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use trunkline_consul::{ConsulConfig, ConsulRegistry};
use trunkline_core::ErrorKind;
use trunkline_discovery::{
    InstanceWatch, Registry, Resolver, ServiceDiscoveryConfig, ServiceInstance,
};
use trunkline_testing::servers::consul::get;
use trunkline_testing::servers::{self, CONSUL, Launch, Server};

use crate::world::{SOON, name, until, with};

const LONG: Duration = Duration::from_secs(600);

async fn launched(datacenter: &str, wan: u16, join: u16, more: &[&str]) -> Option<Server> {
    let mut arguments: Vec<String> = more.iter().map(|&more| more.to_owned()).collect();
    arguments.extend([
        format!("-datacenter={datacenter}"),
        format!("-serf-wan-port={wan}"),
        format!("-retry-join-wan=127.0.0.1:{join}"),
        "-retry-interval-wan=1s".to_owned(),
    ]);
    let launched = tokio::task::spawn_blocking(move || {
        servers::own_launched(Launch::new(&CONSUL).arguments(arguments))
    });
    launched.await.unwrap()
}

/// Ports that nobody listens on.
fn ports() -> [u16; 2] {
    let taken = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    taken.map(|listener| listener.local_addr().unwrap().port())
}

/// Two datacentres that know each other; the second one has more arguments.
async fn two(of_west: &[&str]) -> Option<(Server, Server)> {
    let [one, two] = ports();
    let (east, west) = tokio::join!(
        launched("east", one, two, &[]),
        launched("west", two, one, of_west)
    );
    let (east, west) = (east?, west?);
    let knows = |address: SocketAddr, path: &str| get(address, path).is_ok();
    let (at, back) = (east.address(), west.address());
    until("they know each other", async || {
        knows(at, "/v1/catalog/services?dc=west") && knows(back, "/v1/catalog/services?dc=east")
    })
    .await;
    Some((east, west))
}

fn registry(server: &Server, options: &str) -> ConsulRegistry {
    let url = format!("{}?wait=5s&request_timeout=5s{options}", server.url());
    let neutral = ServiceDiscoveryConfig::from_url(&url).unwrap();
    ConsulRegistry::new(&ConsulConfig::from_neutral(&neutral).unwrap()).unwrap()
}

fn instance(port: u16) -> ServiceInstance {
    ServiceInstance::new(name("users"), "127.0.0.1", port).with_id(format!("users-{port}"))
}

/// Reads on until a watch tells these ports, and says in which datacentres they are.
async fn told(watch: &mut InstanceWatch, wanted: &[u16]) -> BTreeSet<Option<String>> {
    let look = async {
        loop {
            let Ok(list) = watch.next().await.unwrap() else {
                continue;
            };
            let ports: Vec<u16> = list.instances.iter().map(|it| it.port).collect();
            if ports == wanted {
                let instances = list.instances.into_iter();
                return instances
                    .map(|mut it| it.metadata.remove("consul.datacenter"))
                    .collect();
            }
        }
    };
    let found = tokio::time::timeout(SOON, look).await;
    found.unwrap_or_else(|_| panic!("{wanted:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_another_datacentre_are_taken_while_the_own_has_none() {
    let Some((east, west)) = two(&[]).await else {
        return;
    };
    let own = registry(&east, "&failover=west");
    let there = registry(&west, "");
    let alone = registry(&east, "");
    let elsewhere = BTreeSet::from([Some("west".to_owned())]);
    let here = BTreeSet::from([None]);

    let first = there.register(instance(1), LONG).await.unwrap();
    assert!(
        alone
            .resolve(&name("users"))
            .await
            .unwrap()
            .instances
            .is_empty()
    );
    let list = own.resolve(&name("users")).await.unwrap();
    assert_eq!(list.instances.len(), 1);
    assert_eq!(list.instances[0].zone.as_deref(), Some("west"));
    // One that cannot be asked is passed by where another has somebody.
    let more = registry(&east, "&failover=nowhere,west");
    assert_eq!(more.resolve(&name("users")).await.unwrap(), list);
    assert!(own.services().await.unwrap().contains(&name("users")));
    assert!(!alone.services().await.unwrap().contains(&name("users")));
    let mut watch = own.watch(&name("users")).await.unwrap();
    assert_eq!(told(&mut watch, &[1]).await, elsewhere);
    // What changes there is seen.
    there.register(instance(2), LONG).await.unwrap();
    assert_eq!(told(&mut watch, &[1, 2]).await, elsewhere);
    there.deregister(&first).await.unwrap();
    assert_eq!(told(&mut watch, &[2]).await, elsewhere);
    // The own one has somebody, and then nobody who is up.
    let lease = own.register(instance(3), LONG).await.unwrap();
    assert_eq!(told(&mut watch, &[3]).await, here);
    let down = instance(3).with_status(trunkline_discovery::InstanceStatus::Down);
    own.renew(&lease, &down).await.unwrap();
    assert_eq!(told(&mut watch, &[2]).await, elsewhere);
    own.renew(&lease, &instance(3)).await.unwrap();
    assert_eq!(told(&mut watch, &[3]).await, here);
    own.deregister(&lease).await.unwrap();
    assert_eq!(told(&mut watch, &[2]).await, elsewhere);

    // Who cannot be asked has not lost its instances.
    let west = with(west, |west| west.kill().unwrap()).await;
    let told = async {
        loop {
            match watch.next().await.unwrap() {
                Ok(list) => assert_eq!(list.instances.len(), 1),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(SOON, told).await.unwrap();
    assert!(error.message().contains("cannot be asked"), "{error}");
    own.resolve(&name("users")).await.unwrap_err();
    drop((east, west));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_datacentre_judges_the_token_itself_and_a_refusal_is_no_empty_service() {
    let acl = "-hcl=acl { enabled = true default_policy = \"allow\" tokens { master = \"of-the-west\" } }";
    let Some((east, west)) = two(&[acl]).await else {
        return;
    };
    let there = registry(&west, "&token=of-the-west");
    there.register(instance(1), LONG).await.unwrap();
    let allowed = registry(&east, "&failover=west&token=of-the-west");
    let list = allowed.resolve(&name("users")).await.unwrap();
    assert_eq!(list.instances.len(), 1);

    // The own datacentre takes any token here, so it is the other one that refuses.
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "11111111-2222-3333-4444-555555555555").unwrap();
    let refused = registry(
        &east,
        &format!("&failover=west&token_file={}", file.display()),
    );
    let error = refused.resolve(&name("users")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    let report = error.report().to_string();
    assert!(report.contains("datacentre west"), "{report}");
    assert!(!report.contains("1111"), "{report}");
    // Nobody needs the other one while the own has somebody.
    let lease = refused.register(instance(2), LONG).await.unwrap();
    let list = refused.resolve(&name("users")).await.unwrap();
    assert_eq!(list.instances[0].port, 2);
    refused.deregister(&lease).await.unwrap();
    // A watch tells the refusal, and goes on by itself once the file has a token that is taken.
    let mut watch = refused.watch(&name("users")).await.unwrap();
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
    std::fs::write(&file, "of-the-west").unwrap();
    let elsewhere = BTreeSet::from([Some("west".to_owned())]);
    assert_eq!(told(&mut watch, &[1]).await, elsewhere);
    drop((east, west));
}
