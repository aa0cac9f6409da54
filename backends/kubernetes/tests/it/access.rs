//! Who may ask, and how that is known.

use std::fs;

use serde_json::json;
use trunkline_core::ErrorKind;
use trunkline_discovery::{Registry, Resolver, ServiceDiscoveryConfig};
use trunkline_kubernetes::{KubernetesConfig, KubernetesRegistry};
use trunkline_testing::servers::kubernetes::{ADMIN, READER};

use crate::world::{Cluster, config, shared, unique, until};

#[tokio::test]
async fn who_may_not_is_told_so_and_who_is_let_may() {
    let Some(url) = shared().await else { return };
    let cluster = Cluster::of(&url);
    let namespace = unique("reading");
    cluster.namespace(namespace.as_str()).await;
    let as_token = |token: &str| {
        let mut settings = config(&url.replace(ADMIN, token));
        settings.namespaces = vec![namespace.to_string()];
        KubernetesRegistry::new(&settings).unwrap()
    };
    let unknown = as_token("nobody")
        .resolve(&unique("users"))
        .await
        .unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Unauthenticated);
    let reader = as_token(READER);
    let denied = reader.resolve(&unique("users")).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    assert!(denied.message().contains("endpointslices"), "{denied}");
    assert_eq!(
        reader.health_check().await.unwrap_err().kind(),
        ErrorKind::Denied
    );

    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    let api = "rbac.authorization.k8s.io";
    let rules = json!([{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"]}]);
    let role = json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": {"name": "read"}, "rules": rules});
    cluster.apply(&format!("{rbac}/roles/read"), &role).await;
    let binding = json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": {"name": "read"},
        "roleRef": {"apiGroup": api, "kind": "Role", "name": "read"},
        "subjects": [{"apiGroup": api, "kind": "User", "name": "reader"}],
    });
    cluster
        .apply(&format!("{rbac}/rolebindings/read"), &binding)
        .await;
    until("the reader may", async || {
        reader.health_check().await.is_ok()
    })
    .await;
    let mut watch = reader.watch(&unique("users")).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
}

#[tokio::test]
async fn the_token_of_an_account_is_read_again_when_it_is_refused() {
    let Some(url) = shared().await else { return };
    let cluster = Cluster::of(&url);
    let account =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app"}});
    cluster
        .apply("/api/v1/namespaces/default/serviceaccounts/app", &account)
        .await;
    let bound = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "app"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "app", "namespace": "default"}],
    });
    cluster
        .apply(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/app",
            &bound,
        )
        .await;
    let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}});
    let path = "/api/v1/namespaces/default/serviceaccounts/app/token";
    let token = cluster.ask("POST", path, "application/json", &asked).await;
    let token = token["status"]["token"].as_str().unwrap();

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    fs::write(&file, "expired").unwrap();
    let mut settings = config(&url);
    settings.token = None;
    settings.token_file = Some(file.clone());
    let registry = KubernetesRegistry::new(&settings).unwrap();
    let refused = registry.health_check().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    fs::write(&file, token).unwrap();
    // `view` may read slices once the server has put its roles together; that is somebody else's work.
    until("the account is known", async || {
        let answer = registry.health_check().await;
        answer.err().is_none_or(|error| {
            error.kind() == ErrorKind::Denied
                && error.message().contains("serviceaccount:default:app")
        })
    })
    .await;
}

#[tokio::test]
async fn a_kubeconfig_and_an_account_directory_say_where_to_go() {
    let Some(url) = shared().await else { return };
    let neutral = ServiceDiscoveryConfig::from_url(&url).unwrap();
    let ca = neutral.options["ca_file"].as_str().unwrap().to_owned();
    let (host, port) = (
        neutral.connection.host.unwrap(),
        neutral.connection.port.unwrap(),
    );
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config");
    let text = format!(
        "current-context: test\nclusters:\n- name: c\n  cluster:\n    server: https://{host}:{port}\n    certificate-authority: {ca}\n\
         users:\n- name: u\n  user:\n    token: {ADMIN}\ncontexts:\n- name: test\n  context: {{cluster: c, user: u, namespace: kube-system}}\n"
    );
    fs::write(&file, text).unwrap();
    let registry = KubernetesRegistry::new(&KubernetesConfig::kubeconfig(&file)).unwrap();
    registry.health_check().await.unwrap();
    assert!(
        format!("{registry:?}").contains("kube-system"),
        "{registry:?}"
    );
    // The directory of an account names the server that only pods can reach: what it lacks is told.
    let empty = format!("kubernetes://?account={}", directory.path().display());
    let neutral = ServiceDiscoveryConfig::from_url(&empty).unwrap();
    let outside = KubernetesRegistry::new(&KubernetesConfig::from_neutral(&neutral).unwrap());
    let error = outside.unwrap_err();
    assert!(error.message().contains("outside a cluster"), "{error}");
}
