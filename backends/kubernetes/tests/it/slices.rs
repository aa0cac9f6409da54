//! What slices and Services say.

use serde_json::json;
use trunkline_discovery::{InstanceStatus, InstanceWatch, Resolver, ServiceInstance};
use trunkline_kubernetes::KubernetesRegistry;

use crate::world::{Cluster, config, shared, unique};

async fn next(watch: &mut InstanceWatch) -> Vec<ServiceInstance> {
    let next = tokio::time::timeout(crate::world::SOON, watch.next());
    next.await.unwrap().unwrap().unwrap().instances
}

#[tokio::test]
async fn conditions_ports_zones_and_pods_are_seen_as_they_change() {
    let Some(url) = shared().await else { return };
    let cluster = Cluster::of(&url);
    let users = unique("users");
    let mut settings = config(&url);
    settings.port = Some("web".to_owned());
    let registry = KubernetesRegistry::new(&settings).unwrap();
    let mut watch = registry.watch(&users).await.unwrap();
    assert!(next(&mut watch).await.is_empty());
    let ports = json!([{"name": "metrics", "port": 9090}, {"name": "web", "port": 8443, "appProtocol": "https"}]);
    let slice = |conditions: serde_json::Value| {
        json!({"ports": ports, "endpoints": [{
            "addresses": ["10.2.0.1"], "conditions": conditions, "zone": "eu-1", "nodeName": "n1",
            "targetRef": {"kind": "Pod", "name": "users-0"},
        }]})
    };
    let name = format!("{users}-a");
    for (conditions, status) in [
        (
            json!({"ready": false, "serving": false}),
            InstanceStatus::Down,
        ),
        (json!({"ready": true, "serving": true}), InstanceStatus::Up),
        (
            json!({"ready": false, "serving": true, "terminating": true}),
            InstanceStatus::Draining,
        ),
    ] {
        cluster
            .slice("default", users.as_str(), &name, &slice(conditions))
            .await;
        let found = next(&mut watch).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].status, status);
        assert_eq!(found[0].base_url(), "https://10.2.0.1:8443");
        assert_eq!(found[0].zone.as_deref(), Some("eu-1"));
        assert_eq!(found[0].metadata["kubernetes.pod"], "users-0");
        assert_eq!(found, registry.resolve(&users).await.unwrap().instances);
    }
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{name}");
    cluster
        .ask("DELETE", &path, "application/json", &json!({}))
        .await;
    assert!(next(&mut watch).await.is_empty());
}

#[tokio::test]
async fn several_namespaces_are_one_list_or_named_by_the_service() {
    let Some(url) = shared().await else { return };
    let cluster = Cluster::of(&url);
    let users = unique("users");
    let (one, two) = (unique("one"), unique("two"));
    for (n, namespace) in [&one, &two].into_iter().enumerate() {
        cluster.namespace(namespace.as_str()).await;
        let address = format!("10.3.0.{}", n + 1);
        let content = json!({"ports": [{"port": 80}], "endpoints": [{"addresses": [address]}]});
        let name = format!("{users}-x");
        cluster
            .slice(namespace.as_str(), users.as_str(), &name, &content)
            .await;
    }
    let hosts = async |namespaces: &[&str], name: &str| {
        let mut settings = config(&url);
        settings.namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
        let registry = KubernetesRegistry::new(&settings).unwrap();
        let service = name.parse().unwrap();
        let mut watch = registry.watch(&service).await.unwrap();
        let watched = next(&mut watch).await;
        assert_eq!(watched, registry.resolve(&service).await.unwrap().instances);
        let mut hosts: Vec<String> = watched.into_iter().map(|it| it.host).collect();
        hosts.sort();
        (hosts, registry.services().await.unwrap().contains(&users))
    };
    let both = ["10.3.0.1".to_owned(), "10.3.0.2".to_owned()];
    let name = users.as_str();
    assert_eq!(
        hosts(&[one.as_str()], name).await,
        (both[..1].to_vec(), true)
    );
    assert_eq!(
        hosts(&[one.as_str(), two.as_str()], name).await,
        (both.to_vec(), true)
    );
    assert_eq!(hosts(&["*"], name).await, (both.to_vec(), true));
    assert_eq!(hosts(&["default"], name).await, (Vec::new(), false));
    let named = format!("{users}.{two}");
    assert_eq!(
        hosts(&["default"], &named).await,
        (both[1..].to_vec(), false)
    );
}

#[tokio::test]
async fn annotations_of_the_service_are_seen_as_they_change() {
    let Some(url) = shared().await else { return };
    let cluster = Cluster::of(&url);
    let users = unique("users");
    let content = json!({"ports": [{"port": 80}], "endpoints": [{"addresses": ["10.4.0.1"]}]});
    cluster
        .slice("default", users.as_str(), &format!("{users}-x"), &content)
        .await;
    let mut settings = config(&url);
    settings.annotations = true;
    let registry = KubernetesRegistry::new(&settings).unwrap();
    let mut watch = registry.watch(&users).await.unwrap();
    assert_eq!(next(&mut watch).await[0].version, "1.0.0");
    // Names of Services begin with a letter and are short.
    let path = format!("/api/v1/namespaces/default/services/{users}");
    for version in ["2", "3"] {
        let annotations = json!({"trunkline/version": version, "trunkline/metadata.team": "core"});
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": users.as_str(), "annotations": annotations},
            "spec": {"ports": [{"port": 80}]},
        });
        cluster.apply(&path, &service).await;
        let found = next(&mut watch).await;
        assert_eq!(
            (
                found[0].version.as_str(),
                found[0].metadata["team"].as_str()
            ),
            (version, "core")
        );
        assert_eq!(found, registry.resolve(&users).await.unwrap().instances);
    }
}

#[tokio::test]
async fn a_pod_of_two_families_is_one_instance() {
    let Some(url) = shared().await else { return };
    let cluster = Cluster::of(&url);
    let users = unique("users");
    let write = async |family: &str, addresses: &[&str]| {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|address| json!({"addresses": [address]}))
            .collect();
        let content =
            json!({"addressType": family, "ports": [{"port": 80}], "endpoints": endpoints});
        let name = format!("{users}-{}", family.to_lowercase());
        cluster
            .slice("default", users.as_str(), &name, &content)
            .await;
    };
    write("IPv4", &["10.5.0.1", "10.5.0.2"]).await;
    write("IPv6", &["fd00:5::1", "fd00:5::2"]).await;
    // A name is none of the addresses that pods have.
    write("FQDN", &["users.example.com"]).await;
    let hosts = |found: Vec<ServiceInstance>| {
        let mut hosts: Vec<String> = found.into_iter().map(|it| it.host).collect();
        hosts.sort();
        hosts
    };
    let asked = async |option: &str| {
        let registry = KubernetesRegistry::new(&config(&format!("{url}{option}"))).unwrap();
        hosts(registry.resolve(&users).await.unwrap().instances)
    };
    assert_eq!(asked("").await, ["10.5.0.1", "10.5.0.2"]);
    assert_eq!(asked("&ip=v4").await, ["10.5.0.1", "10.5.0.2"]);
    assert_eq!(asked("&ip=v6").await, ["fd00:5::1", "fd00:5::2"]);
    let registry = KubernetesRegistry::new(&config(&url)).unwrap();
    let mut watch = registry.watch(&users).await.unwrap();
    assert_eq!(hosts(next(&mut watch).await), ["10.5.0.1", "10.5.0.2"]);
    // More are ready by the other family.
    write("IPv6", &["fd00:5::1", "fd00:5::2", "fd00:5::3"]).await;
    let more = ["fd00:5::1", "fd00:5::2", "fd00:5::3"];
    assert_eq!(hosts(next(&mut watch).await), more);
    assert_eq!(asked("").await, more);
    // The first family catches up.
    write("IPv4", &["10.5.0.1", "10.5.0.2", "10.5.0.3"]).await;
    let back = ["10.5.0.1", "10.5.0.2", "10.5.0.3"];
    assert_eq!(hosts(next(&mut watch).await), back);
    // One that is empty is left at once.
    write("IPv4", &[]).await;
    assert_eq!(hosts(next(&mut watch).await), more);
}
