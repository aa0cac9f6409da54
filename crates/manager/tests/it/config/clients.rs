//! Clients of the configuration: what cannot work is found by checking, not by the first call.

use trunkline_http::EnhancedHttpClient;
use trunkline_manager::CommunicationManager;

use super::{Files, assert_holds, assert_line, check_yaml, errors_in, yaml};

#[test]
fn cfg6_a_base_url_that_no_client_takes_is_refused() {
    for (url, what) in [
        ("api.example.com", "not an HTTP URL"),
        ("ftp://api.example.com", "not an HTTP URL"),
        ("http://", "not an HTTP URL"),
        ("unix://run/x.sock", "not an HTTP URL"),
        ("unix:run/x.sock", "not an HTTP URL"),
        ("unix:/run/x.sock:/api?x", "a query or a fragment"),
        ("http://user:hunter2@api.example.com", "holds credentials"),
        ("http://user@api.example.com", "holds credentials"),
        ("http://api.example.com/v1?key=1", "query"),
        ("http://api.example.com/v1#part", "fragment"),
    ] {
        let lines = check_yaml(&format!("http_clients:\n  a: {{base_url: \"{url}\"}}\n"));
        assert_line(
            &lines,
            &["communication.yaml:2: http_clients.a.base_url: ", what],
        );
        assert!(!lines[0].contains("hunter2"), "{lines:?}");
        let built = EnhancedHttpClient::builder().base_url(url).build();
        assert!(built.is_err(), "the client takes {url}");
    }
    for url in [
        "http://api.example.com:8080/v1/",
        "https://[::1]",
        "unix:///run/users.sock",
        "unix:/run/users.sock",
        "unix:/run/users.sock:/api/v1",
    ] {
        let lines = check_yaml(&format!("http_clients:\n  a: {{base_url: \"{url}\"}}\n"));
        assert!(lines.is_empty(), "{url}: {lines:?}");
        EnhancedHttpClient::builder().base_url(url).build().unwrap();
    }
}

#[test]
fn cfg6_headers_that_cannot_be_sent_are_refused_without_showing_values() {
    let text = "\
http_clients:
  a:
    base_url: http://a
    headers:
      \"x y\": \"1\"
      authorization: \"hunter2\\n\"
      x-good: \"ü\"
";
    let lines = check_yaml(text);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_holds(
        &lines[0],
        &["communication.yaml:5: ", "`x y` is not a header name"],
    );
    assert_holds(
        &lines[1],
        &[
            "communication.yaml:6: http_clients.a.headers.authorization: ",
            "cannot be sent",
        ],
    );
    assert!(!lines.join("\n").contains("hunter2"), "{lines:?}");
}

#[test]
fn cfg6_root_certificates_are_read_when_checking() {
    let nowhere = check_yaml("http_client: {base_url: https://a, ca_file: /nowhere/ca.pem}\n");
    assert_line(
        &nowhere,
        &["http_client.ca_file: ", "/nowhere/ca.pem", "cannot be read"],
    );
    let files = Files::new(&[("empty.pem", "")]);
    let path = files.path().join("empty.pem");
    let text = format!(
        "http_client: {{base_url: https://a, ca_file: {}}}\n",
        path.display()
    );
    assert_line(&check_yaml(&text), &["ca_file", "holds no certificate"]);
}

#[test]
fn what_connections_cannot_be_made_with_is_refused() {
    for (settings, key, why) in [
        (
            "client_certificate: /nowhere/own.pem",
            "client_certificate",
            "cannot be read",
        ),
        (
            "client_key: /nowhere/own.key",
            "client_key",
            "without client_certificate",
        ),
        ("system_roots: false", "system_roots", "no root certificate"),
        (
            "proxy: \"ftp://me:secret@proxy\"",
            "proxy",
            "write http://host:port",
        ),
        (
            "proxy: \"http://proxy:3128\", no_proxy: [\"a b\"]",
            "proxy",
            "`a b` is no host",
        ),
        ("redirects: {follow: always}", "redirects.follow", "never"),
        ("redirects: {limit: 0}", "redirects.limit", "1"),
        (
            "max_request_size: 0",
            "max_request_size",
            "no body would fit",
        ),
        (
            "compression: {accept: [gzip, lzma]}",
            "compression.accept[1]",
            "gzip",
        ),
    ] {
        let text = format!("http_client: {{base_url: https://a, {settings}}}\n");
        assert_line(
            &check_yaml(&text),
            &[&format!("communication.yaml:1: http_client.{key}: "), why],
        );
    }
    let fine = "http_client: {base_url: https://a, proxy: none, deny_private_addresses: true, http2_prior_knowledge: true}\n";
    assert_eq!(check_yaml(fine), Vec::<String>::new());
}

/// What a build without the feature cannot do is said, and no error: another build can.
#[test]
fn compression_is_checked() {
    let text =
        "http_client: {base_url: https://a, compression: {accept: [gzip, gzip], min_size: 2KiB}}\n";
    let lines = check_yaml(text);
    assert_holds(
        lines.last().unwrap(),
        &[
            "warning: ",
            "http_client.compression.accept: ",
            "`gzip` stands there twice",
        ],
    );
    let left_out = lines
        .iter()
        .any(|line| line.contains("feature `compression`"));
    assert_eq!(left_out, !cfg!(feature = "compression"), "{lines:?}");
}

#[test]
fn cfg6_a_client_leads_somewhere() {
    assert_line(
        &errors_in("http_clients: {a: {service: \"user service\"}}\n"),
        &["http_clients.a.service: `user service` is not a service name"],
    );
    assert_line(
        &errors_in("http_clients: {\"a b\": {timeout: 5}}\n"),
        &["http_clients.\"a b\": ", "neither `base_url` nor `service`"],
    );
    // An entry of a service's own name is meant for that service.
    let known = "services: {user-service: {host: x}}\nhttp_clients: {user-service: {timeout: 5}}\n";
    assert!(check_yaml(known).is_empty(), "{:?}", check_yaml(known));
    assert_line(
        &check_yaml("http_clients: {payments: {timeout: 5}}\n"),
        &[
            "warning: http_clients.payments: ",
            "calls the service `payments`",
        ],
    );
    // The connections of all services have the limits of the entry `default`, wherever it leads.
    let limits = "http_client: {max_connections: 50, keepalive_expiry: 5}\n";
    assert!(check_yaml(limits).is_empty(), "{:?}", check_yaml(limits));
    assert_line(
        &check_yaml("http_client: {timeout: 5}\n"),
        &[
            "warning: http_client: ",
            "nothing counts but its connection limits",
        ],
    );
}

#[tokio::test]
async fn an_entry_of_a_services_name_is_the_client_of_that_service() {
    let config = yaml("services: {users: {host: x}}\nhttp_clients: {users: {timeout: 5}}\n");
    let manager = CommunicationManager::new(config.unwrap());
    let client = manager.http_client("users").unwrap();
    assert_eq!(client.service_name(), "users");
    manager.shutdown().await.unwrap();
}

#[test]
fn a_client_of_a_service_has_the_services_policy_under_its_own() {
    let text = "\
policies:
  default: {timeout: {total: 1, read: 1, connection: 1, pool: 1}, retry: {max_attempts: 1}}
  named: {timeout: {read: 2, connection: 2, pool: 2}}
  other: {timeout: {read: 9}}
services:
  users:
    policy: named
    timeout: {connection: 3, pool: 3}
    endpoints: {\"GET /users/{id}\": {retry: {max_attempts: 7}}}
http_clients:
  a: {service: users, timeout: {pool: 4}}
  b: {service: users, policy: other}
  c: {base_url: http://x}
";
    let config = yaml(text).unwrap();
    let policy = |client: &str, endpoint: Option<&str>| {
        let policy = config
            .client_policy_layers(client, endpoint)
            .resolve()
            .unwrap()
            .policy;
        let parts = [
            policy.timeout.total,
            policy.timeout.read,
            policy.timeout.connection,
            policy.timeout.pool,
        ];
        (parts.map(|part| part.as_secs()), policy.retry.max_attempts)
    };
    assert_eq!(policy("a", None), ([1, 2, 3, 4], 1));
    assert_eq!(policy("a", Some("GET /users/1")), ([1, 2, 3, 4], 7));
    assert_eq!(policy("b", None), ([1, 9, 3, 3], 1));
    assert_eq!(policy("c", Some("GET /users/1")), ([1, 1, 1, 1], 1));
}

#[test]
fn credentials_in_a_base_url_set_in_code_are_hidden() {
    let mut config = yaml("http_client: {base_url: http://a}\n").unwrap();
    let client = config.http_clients.get_mut("default").unwrap();
    client.base_url = Some("http://user:hunter2@a/v1".to_owned());
    let shown = config.redacted();
    assert_eq!(
        shown["http_clients"]["default"]["base_url"],
        "http://***@a/v1"
    );
    let found = config.check();
    assert!(found.has_errors());
    assert!(!found.to_string().contains("hunter2"), "{found}");
}
