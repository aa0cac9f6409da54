//! Who may ask, and how that is known.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use trunkline_core::{ErrorKind, Health, Status};
use trunkline_discovery::{Discovery, InstanceList, Registry, Resolver, ServiceDiscoveryConfig};
use trunkline_kubernetes::{KubernetesConfig, KubernetesRegistry};
use trunkline_testing::servers::kubernetes::{ADMIN, READER};

use crate::world::{Cluster, SOON, config, shared, unique, until};

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

    allow(&cluster, namespace.as_str(), "endpointslices").await;
    until("the reader may", async || {
        reader.health_check().await.is_ok()
    })
    .await;
    let mut watch = reader.watch(&unique("users")).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().instances.is_empty());
}

/// Lets the reader read something in a namespace.
async fn allow(cluster: &Cluster, namespace: &str, what: &str) {
    let rbac = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}");
    let api = "rbac.authorization.k8s.io";
    let rules = json!([{"apiGroups": ["discovery.k8s.io", ""], "resources": [what], "verbs": ["get", "list", "watch"]}]);
    let role = json!({"apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": {"name": what}, "rules": rules});
    cluster.apply(&format!("{rbac}/roles/{what}"), &role).await;
    let binding = json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": {"name": what},
        "roleRef": {"apiGroup": api, "kind": "Role", "name": what},
        "subjects": [{"apiGroup": api, "kind": "User", "name": "reader"}],
    });
    cluster
        .apply(&format!("{rbac}/rolebindings/{what}"), &binding)
        .await;
}

#[tokio::test]
async fn a_namespace_that_may_not_be_read_hides_no_other() {
    let Some(url) = shared().await else { return };
    let cluster = Cluster::of(&url);
    let users = unique("users");
    let (open, shut) = (unique("open"), unique("shut"));
    for (n, namespace) in [&open, &shut].into_iter().enumerate() {
        cluster.namespace(namespace.as_str()).await;
        let address = format!("10.6.0.{}", n + 1);
        let content = json!({"ports": [{"port": 80}], "endpoints": [{"addresses": [address]}]});
        let name = format!("{users}-x");
        cluster
            .slice(namespace.as_str(), users.as_str(), &name, &content)
            .await;
    }
    let mut settings = config(&url.replace(ADMIN, READER));
    settings.namespaces = vec![open.to_string(), shut.to_string()];
    // Nor do annotations that may not be read hide the instances.
    settings.annotations = true;
    let registry = KubernetesRegistry::new(&settings).unwrap();
    // None may be read: that is an error.
    let denied = registry.resolve(&users).await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    let denied = registry.services().await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);

    allow(&cluster, open.as_str(), "endpointslices").await;
    until("the reader may", async || {
        registry.health_check().await.is_ok()
    })
    .await;
    let hosts = |list: InstanceList| {
        let hosts = list.instances.into_iter().map(|it| it.host);
        hosts.collect::<Vec<_>>()
    };
    assert_eq!(hosts(registry.resolve(&users).await.unwrap()), ["10.6.0.1"]);
    assert!(registry.services().await.unwrap().contains(&users));
    let mut watch = registry.watch(&users).await.unwrap();
    assert_eq!(hosts(watch.next().await.unwrap().unwrap()), ["10.6.0.1"]);

    // Health names the one that is missing.
    let health = Health::default();
    let part = health.register("discovery", "discovery", "kubernetes", true);
    let discovery = Discovery::builder()
        .registry(registry.clone())
        .component(part.clone())
        .build();
    discovery.health_check().await.unwrap();
    let status = part.status().unwrap();
    assert_eq!(status.status, Status::Degraded);
    let told = format!("{status:?}");
    assert!(told.contains(shut.as_str()), "{told}");
    assert!(!told.contains(open.as_str()), "{told}");

    // What is allowed later is seen.
    allow(&cluster, shut.as_str(), "endpointslices").await;
    let both = tokio::time::timeout(SOON, watch.next()).await.unwrap();
    assert_eq!(hosts(both.unwrap().unwrap()), ["10.6.0.1", "10.6.0.2"]);
    discovery.health_check().await.unwrap();
    assert_eq!(part.status().unwrap().status, Status::Healthy);
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
    // The directory of an account, and what pods are told of the server.
    let account = tempfile::tempdir().unwrap();
    for (name, text) in [("namespace", "kube-system"), ("token", ADMIN)] {
        fs::write(account.path().join(name), text).unwrap();
    }
    fs::copy(&ca, account.path().join("ca.crt")).unwrap();
    let in_pod = format!("kubernetes://?account={}", account.path().display());
    let neutral = ServiceDiscoveryConfig::from_url(&in_pod).unwrap();
    let settings = KubernetesConfig::from_neutral(&neutral).unwrap();
    let settings = settings.with_service_variables(Some(&host), Some(&port.to_string()));
    let registry = KubernetesRegistry::new(&settings).unwrap();
    registry.health_check().await.unwrap();
    assert!(
        format!("{registry:?}").contains("kube-system"),
        "{registry:?}"
    );
    // A directory that lacks something is told.
    let empty = format!("kubernetes://?account={}", directory.path().display());
    let neutral = ServiceDiscoveryConfig::from_url(&empty).unwrap();
    let outside = KubernetesRegistry::new(&KubernetesConfig::from_neutral(&neutral).unwrap());
    let error = outside.unwrap_err();
    assert!(error.message().contains("outside a cluster"), "{error}");
}

/// A kubeconfig whose user is what a program says.
fn with_plugin(url: &str, directory: &Path, command: &str, arguments: &[&str]) -> PathBuf {
    let neutral = ServiceDiscoveryConfig::from_url(url).unwrap();
    let ca = neutral.options["ca_file"].as_str().unwrap();
    let (host, port) = (
        neutral.connection.host.unwrap(),
        neutral.connection.port.unwrap(),
    );
    let file = directory.join("config");
    let text = json!({
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{host}:{port}"), "certificate-authority": ca}}],
        "users": [{"name": "u", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": command,
            "args": arguments,
            "env": [{"name": "WHO", "value": "us"}],
            "provideClusterInfo": true,
            "installHint": "ask the admins",
        }}}],
    });
    fs::write(&file, text.to_string()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_says_by_which_token_to_ask_and_is_run_when_that_is_over() {
    let Some(url) = shared().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("runs");
    let answer = directory.path().join("answer");
    let script = format!(
        "echo \"$1 $2 $WHO $KUBERNETES_EXEC_INFO\" >> {}\ncat {}",
        runs.display(),
        answer.display()
    );
    let says = |token: &str, until: &str| {
        let said = json!({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": token, "expirationTimestamp": until}});
        fs::write(&answer, said.to_string()).unwrap();
    };
    let count = || fs::read_to_string(&runs).unwrap().lines().count();
    let arguments = ["-c", &script, "plugin", "one", "two"];
    let file = with_plugin(&url, directory.path(), "sh", &arguments);
    says(ADMIN, "2999-01-01T00:00:00Z");
    let registry = KubernetesRegistry::new(&KubernetesConfig::kubeconfig(&file)).unwrap();
    let asking = (0..8).map(|_| registry.health_check());
    for answer in futures_util::future::join_all(asking).await {
        answer.unwrap();
    }
    registry.health_check().await.unwrap();
    assert_eq!(count(), 1, "all of them are content with one run");
    let told = fs::read_to_string(&runs).unwrap();
    assert!(told.starts_with("one two us {"), "{told}");
    for part in ["ExecCredential", "https://", "certificate-authority-data"] {
        assert!(told.contains(part), "{told}");
    }

    // One that is over is asked for anew, each time.
    says(ADMIN, "2001-01-01T00:00:00Z");
    let registry = KubernetesRegistry::new(&KubernetesConfig::kubeconfig(&file)).unwrap();
    registry.health_check().await.unwrap();
    registry.health_check().await.unwrap();
    assert_eq!(count(), 3);

    // One that is refused is not believed for as long as it says.
    says("revoked", "2999-01-01T00:00:00Z");
    let registry = KubernetesRegistry::new(&KubernetesConfig::kubeconfig(&file)).unwrap();
    let refused = registry.health_check().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unauthenticated);
    says(ADMIN, "2999-01-01T00:00:00Z");
    until("the new token is used", async || {
        registry.health_check().await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_says_why_and_nothing_secret() {
    let Some(url) = shared().await else { return };
    let directory = tempfile::tempdir().unwrap();
    for (script, kind, words) in [
        (
            "echo no session >&2; exit 3",
            ErrorKind::Unavailable,
            "no session",
        ),
        (
            "echo '{\"token\": \"s3cret\"}'",
            ErrorKind::Unavailable,
            "no ExecCredential",
        ),
        (
            "echo '{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"status\": {\"clientCertificateData\": \"s3cret\"}}'",
            ErrorKind::Unavailable,
            "only tokens",
        ),
    ] {
        let file = with_plugin(&url, directory.path(), "sh", &["-c", script]);
        let registry = KubernetesRegistry::new(&KubernetesConfig::kubeconfig(&file)).unwrap();
        let error = registry.health_check().await.unwrap_err();
        let told = error.report().to_string();
        assert_eq!(error.kind(), kind, "{told}");
        assert!(told.contains(words) && !told.contains("s3cret"), "{told}");
    }
    let file = with_plugin(&url, directory.path(), "./absent", &[]);
    let registry = KubernetesRegistry::new(&KubernetesConfig::kubeconfig(&file)).unwrap();
    let error = registry.health_check().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.message().contains("ask the admins"), "{error}");
}
