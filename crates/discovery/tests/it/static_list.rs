//! Lists from the configuration stand for as long as the process.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use trunkline_core::ErrorKind;
use trunkline_discovery::{
    Discovery, Lease, Registry, Resolver, ServiceConfig, ServiceInstance, ServiceName, StaticList,
};

const TTL: Duration = Duration::from_secs(10);

fn name(service: &str) -> ServiceName {
    ServiceName::new(service).unwrap()
}

/// Two services with a host, and one that only has a policy.
fn list() -> StaticList {
    StaticList::from_config([
        ("payments", ServiceConfig::at("payments.test", 8080)),
        ("Stock_Service", ServiceConfig::at("stock.test", 80)),
        ("users", ServiceConfig::default()),
    ])
    .unwrap()
}

async fn authorities(list: &StaticList, service: &str) -> Vec<String> {
    let found = list.resolve(&name(service)).await.unwrap();
    found
        .instances
        .iter()
        .map(ServiceInstance::authority)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_list_is_what_the_configuration_names() {
    let list = list();
    assert_eq!(authorities(&list, "payments").await, ["payments.test:8080"]);
    assert_eq!(authorities(&list, "stock-service").await, ["stock.test:80"]);
    assert!(authorities(&list, "users").await.is_empty());
    let services = [name("payments"), name("stock-service")];
    assert_eq!(list.services().await.unwrap(), services);
    assert_eq!(
        (Registry::kind(&list), Resolver::kind(&list)),
        ("static", "static")
    );
}

#[tokio::test(start_paused = true)]
async fn a_watch_gives_the_list_and_time_does_not_change_it() {
    let list = list();
    let mut watch = list.watch(&name("payments")).await.unwrap();
    let first = watch.next().await.unwrap().unwrap();
    assert_eq!(first, list.resolve(&name("payments")).await.unwrap());
    assert_eq!(first.instances.len(), 1);
    let year = Duration::from_secs(365 * 24 * 3600);
    assert!(
        timeout(year, watch.next()).await.is_err(),
        "there is nothing to tell"
    );
    assert_eq!(list.resolve(&name("payments")).await.unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn what_registers_is_seen_by_this_process_and_goes_with_its_lease() {
    let (list, elsewhere) = (list(), list());
    let second = ServiceInstance::new(name("payments"), "10.0.0.1", 80);
    list.register(second, TTL).await.unwrap();
    assert_eq!(authorities(&list, "payments").await.len(), 2);
    assert_eq!(authorities(&elsewhere, "payments").await.len(), 1);
    sleep(TTL).await;
    assert_eq!(authorities(&list, "payments").await, ["payments.test:8080"]);
}

#[tokio::test(start_paused = true)]
async fn what_the_configuration_names_is_neither_replaced_nor_withdrawn() {
    let list = list();
    let named = list
        .resolve(&name("payments"))
        .await
        .unwrap()
        .instances
        .remove(0);
    let error = list.register(named.clone(), TTL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    let any = Lease::new(&named.id, "", TTL);
    list.deregister(&any).await.unwrap();
    sleep(TTL * 2).await;
    assert_eq!(authorities(&list, "payments").await, ["payments.test:8080"]);
}

#[tokio::test(start_paused = true)]
async fn discovery_finds_what_the_list_names() {
    let discovery = Discovery::builder().resolver(list()).build();
    let found = discovery.service_instance(&name("payments")).await.unwrap();
    assert_eq!(found.authority(), "payments.test:8080");
    let none = discovery.discover_services(&name("users")).await.unwrap();
    assert!(none.is_empty());
}
