//! Attributes of policies: the author's defaults, below everything that configuration says.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use trunkline::discovery::{Instances, ServiceConfig, ServiceInstance, ServiceName};
use trunkline::http::{EndpointConfig, EnhancedHttpClient, ServiceError, ServiceSdk};
use trunkline::resilience::{EffectivePolicy, RateLimited, Target};
use trunkline::server::Json;
use trunkline::{CommunicationConfig, CommunicationManager, service_interface};

use super::client::User;
use super::server::Server;

fn offline(cause: ServiceError) -> Result<User, ServiceError> {
    match cause.status_code() {
        Some(status) if status.is_server_error() => Ok(User {
            id: 0,
            name: "offline".to_owned(),
        }),
        _ => Err(cause),
    }
}

#[service_interface("user-service", "/api/v1")]
trait Users {
    #[get("/users/{user_id}")]
    #[timeout(total = "5s", request = "2s")]
    #[retry(max_attempts = 2, delay = 0, backoff = 1.5, jitter = false, on_status = [500], budget(percent = 50))]
    #[circuit_breaker(
        failure_threshold = 4,
        recovery_timeout = "30s",
        window(type = "count", size = 10)
    )]
    #[bulkhead(max_concurrent = 3, max_queue = 0)]
    async fn get_user(&self, user_id: u64) -> Result<User, ServiceError>;

    #[post("/users")]
    #[retry(max_attempts = 3, delay = "1ms")]
    async fn create(&self, #[body] user: &User) -> Result<User, ServiceError>;

    #[post("/orders")]
    #[idempotent]
    #[retry(max_attempts = 3, delay = "1ms")]
    async fn order(&self, #[body] user: &User) -> Result<User, ServiceError>;

    #[get("/known")]
    #[fallback(value = {"id": 1, "name": "known"})]
    #[retry(enabled = false)]
    async fn known(&self) -> Result<User, ServiceError>;

    #[get("/offline/{id}")]
    #[fallback(with = offline)]
    #[retry(enabled = false)]
    async fn offline(&self, id: u64) -> Result<User, ServiceError>;
}

#[service_interface("user-service", "/api/v1")]
trait Reordered {
    #[bulkhead(max_concurrent = 3, max_queue = 0)]
    #[circuit_breaker(
        window(size = 10, type = "count"),
        recovery_timeout = "30s",
        failure_threshold = 4
    )]
    #[retry(budget(percent = 50), on_status = [500], jitter = false, backoff = 1.5, delay = 0, max_attempts = 2)]
    #[timeout(request = "2s", total = "5s")]
    #[get("/users/{user_id}")]
    async fn get_user(&self, user_id: u64) -> Result<User, ServiceError>;
}

fn settings(client: &EnhancedHttpClient, endpoint: &str) -> EffectivePolicy {
    let target = Target::service(client.service_name()).with_endpoint(endpoint);
    let none = |_: &Target| panic!("no policy of {endpoint}");
    let policy = client.policies().policy(&target, none);
    EffectivePolicy::clone(&policy.settings())
}

fn ada() -> User {
    User {
        id: 7,
        name: "Ada".to_owned(),
    }
}

#[tokio::test]
async fn every_attribute_becomes_a_value() {
    let server = Server::start(|_, _| Json(ada())).await;
    let client = server.client();
    UsersClient::new(client.clone()).get_user(7).await.unwrap();
    let policy = settings(&client, "GET /api/v1/users/{user_id}");
    assert_eq!(policy.timeout.total, Duration::from_secs(5));
    assert_eq!(policy.timeout.attempt, Duration::from_secs(2));
    assert_eq!(policy.retry.max_attempts, 2);
    assert_eq!(policy.retry.delay, Duration::ZERO);
    assert_eq!(*policy.retry.on_status, [500]);
    assert_eq!(policy.retry.budget.unwrap().percent, 50.0);
    let breaker = policy.circuit_breaker.unwrap();
    assert_eq!((breaker.failure_threshold, breaker.window.size), (4, 10));
    assert_eq!(policy.bulkhead.unwrap().max_concurrent, 3);
}

#[tokio::test]
async fn the_order_of_attributes_means_nothing() {
    let server = Server::start(|_, _| Json(ada())).await;
    let (one, other) = (server.client(), server.client());
    UsersClient::new(one.clone()).get_user(7).await.unwrap();
    ReorderedClient::new(other.clone())
        .get_user(7)
        .await
        .unwrap();
    let endpoint = "GET /api/v1/users/{user_id}";
    assert_eq!(settings(&one, endpoint), settings(&other, endpoint));
}

#[tokio::test]
async fn configuration_wins_over_attributes_field_by_field() {
    let server = Server::start(|_, _| Json(ada())).await;
    // By the name without the base path, and with another name for the parameter.
    for name in ["GET /users/{id}", "GET /api/v1/users/{id}"] {
        let mut endpoint = EndpointConfig::default();
        endpoint.retry.max_attempts = Some(9);
        let client = EnhancedHttpClient::builder()
            .base_url(&server.url)
            .endpoint(name, endpoint);
        let client = client.build().unwrap();
        UsersClient::new(client.clone()).get_user(7).await.unwrap();
        let own = match name.contains("api") {
            // An endpoint that stands for the same requests is the same endpoint.
            true => name,
            false => "GET /api/v1/users/{user_id}",
        };
        let policy = settings(&client, own);
        assert_eq!(policy.retry.max_attempts, 9, "{name}");
        assert_eq!(policy.timeout.total, Duration::from_secs(5), "{name}");
    }
}

/// An SDK that stands alone reads what authors wrote as a manager's does.
#[tokio::test]
async fn an_sdk_without_a_manager_reads_attributes_and_its_endpoints() {
    for (configured, seen) in [(None, 2), (Some(4), 4)] {
        let server = Server::start(|_, _| StatusCode::INTERNAL_SERVER_ERROR).await;
        let port = server.url.rsplit_once(':').unwrap().1;
        let mut service = ServiceConfig::at("127.0.0.1", port.parse().unwrap());
        if let Some(attempts) = configured {
            let mut endpoint = EndpointConfig::default();
            endpoint.retry.max_attempts = Some(attempts);
            service
                .endpoints
                .insert("GET /users/{id}".to_owned(), endpoint);
        }
        let sdk = ServiceSdk::builder().service("user-service", service);
        let users: UsersClient = sdk.build().unwrap().typed_client();
        let error = users.get_user(7).await.unwrap_err();
        assert_eq!(error.status_code(), Some(StatusCode::INTERNAL_SERVER_ERROR));
        assert_eq!(
            server.lines(),
            vec!["GET /api/v1/users/7"; seen],
            "{configured:?}"
        );
        // A fallback is an attribute, too.
        assert_eq!(users.known().await.unwrap().name, "known");
    }
}

#[tokio::test]
async fn x33_a_post_is_repeated_only_with_its_key() {
    let server = Server::start(|_, before| match before {
        0 | 1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => Json(ada()).into_response(),
    })
    .await;
    let users = UsersClient::new(server.client());
    let error = users.create(&ada()).await.unwrap_err();
    assert_eq!(error.status_code(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(server.lines(), ["POST /api/v1/users"]);
    assert_eq!(users.order(&ada()).await.unwrap(), ada());
    let seen = server.seen();
    let keys: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("idempotency-key"))
        .collect();
    assert!(
        keys[0].is_none() && keys[1].is_some() && keys[1] == keys[2],
        "{keys:?}"
    );
    users.order(&ada()).await.unwrap();
    let another = server.last();
    assert_ne!(
        another.header("idempotency-key"),
        seen[1].header("idempotency-key")
    );
    users.order(&ada()).idempotency_key("mine").await.unwrap();
    assert_eq!(server.last().header("idempotency-key"), Some("mine"));
}

#[tokio::test]
async fn fallbacks_answer_and_are_told_the_cause() {
    let server = Server::start(|seen, _| match seen.uri.ends_with("/404") {
        true => StatusCode::NOT_FOUND,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    })
    .await;
    let users = UsersClient::new(server.client());
    assert_eq!(users.known().await.unwrap().name, "known");
    assert_eq!(users.offline(1).await.unwrap().name, "offline");
    let error = users.offline(404).await.unwrap_err();
    assert_eq!(error.status_code(), Some(StatusCode::NOT_FOUND));
}

#[service_interface("user-service", "/api/v1")]
trait Versioned {
    #[get("/users/{user_id}")]
    #[version("v2", "v1", on_status = [404])]
    #[retry(enabled = false)]
    async fn get_user(&self, user_id: u64) -> Result<User, ServiceError>;

    #[get("/people")]
    #[version(order = ["2", "1"], by = "header", name = "Accept", value = "application/vnd.users.{version}+json")]
    #[retry(enabled = false)]
    async fn people(&self) -> Result<User, ServiceError>;
}

#[tokio::test]
async fn the_next_version_answers_where_the_preferred_one_fails() {
    let server = Server::start(|seen, _| {
        let accepted = seen.header("accept").unwrap_or_default();
        match seen.uri.contains("/v2/") || accepted.contains("users.2") {
            true => StatusCode::NOT_FOUND.into_response(),
            false => Json(ada()).into_response(),
        }
    })
    .await;
    let users = VersionedClient::new(server.client());
    assert_eq!(users.get_user(7).await.unwrap(), ada());
    assert_eq!(
        server.lines(),
        ["GET /api/v2/users/7", "GET /api/v1/users/7"]
    );
    // A status that the attribute does not name is the answer.
    let error = users.people().await.unwrap_err();
    assert_eq!(error.status_code(), Some(StatusCode::NOT_FOUND));
    assert_eq!(
        server.last().header("accept"),
        Some("application/vnd.users.2+json")
    );
    assert_eq!(users.people().version("1").await.unwrap(), ada());
    let error = users.get_user(7).version("v2").await.unwrap_err();
    assert_eq!(error.status_code(), Some(StatusCode::NOT_FOUND));
    assert_eq!(server.seen().len(), 5);
}

#[service_interface("user-service", "/api/v1")]
trait Limited {
    #[get("/users/{user_id}")]
    #[rate_limit(limit = 2, per = "1h", max_wait = 0)]
    #[retry(enabled = false)]
    async fn get_user(&self, user_id: u64) -> Result<User, ServiceError>;

    #[get("/people/{user_id}")]
    async fn person(&self, user_id: u64) -> Result<User, ServiceError>;

    #[get("/late/{user_id}")]
    #[hedge(delay = "20ms")]
    #[retry(enabled = false)]
    #[timeout("60s")]
    async fn hedged(&self, user_id: u64) -> Result<User, ServiceError>;
}

#[tokio::test]
async fn a_rate_limit_counts_the_calls_of_its_method() {
    let server = Server::start(|_, _| Json(ada())).await;
    let users = LimitedClient::new(server.client());
    for id in [1, 2] {
        assert_eq!(users.get_user(id).await.unwrap(), ada());
    }
    let error = trunkline::Error::from(users.get_user(3).await.unwrap_err());
    assert!(error.find::<RateLimited>().is_some(), "{error}");
    assert_eq!(users.person(3).await.unwrap(), ada());
    assert_eq!(
        server.lines(),
        [
            "GET /api/v1/users/1",
            "GET /api/v1/users/2",
            "GET /api/v1/people/3"
        ]
    );
}

#[tokio::test]
async fn a_hedge_overtakes_an_instance_that_is_silent() {
    let good = Server::start(|_, _| Json(ada())).await;
    // Connections are made, and nobody answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [
        good.url.rsplit(':').next().unwrap().parse().unwrap(),
        silent.local_addr().unwrap().port(),
    ];
    let name = ServiceName::new("user-service").unwrap();
    let both = ports.map(|port| ServiceInstance::new(name.clone(), "127.0.0.1", port));
    let client = EnhancedHttpClient::builder().instances(Instances::fixed(name, both.into()));
    let users = LimitedClient::new(client.build().unwrap());
    // One of the first two calls begins at the one that was never asked.
    for id in 0..4 {
        assert_eq!(users.hedged(id).await.unwrap(), ada());
    }
    silent.set_nonblocking(true).unwrap();
    assert!(silent.accept().is_ok(), "it was asked");
}

fn user_key(user_id: &u64, name: Option<&str>) -> String {
    format!("user-{user_id}-{}", name.unwrap_or("anybody"))
}

#[service_interface("user-service", "/api/v1")]
trait Kept {
    #[get("/users/{user_id}")]
    #[cached(ttl = "1h", key = user_key)]
    async fn get_user(
        &self,
        user_id: u64,
        name: Option<&str>,
        #[header("X-Tenant")] tenant: &str,
    ) -> Result<User, ServiceError>;
}

#[tokio::test]
async fn a_function_makes_the_key_of_the_arguments() {
    let server = Server::start(|_, _| Json(ada())).await;
    let users = KeptClient::new(server.client());
    for (id, name, asked) in [
        (1, None, 1),
        (1, Some("anybody"), 1),
        (1, Some("Ada"), 2),
        (2, None, 3),
        (1, Some("Ada"), 3),
    ] {
        assert_eq!(users.get_user(id, name, "one").await.unwrap(), ada());
        assert_eq!(server.seen().len(), asked, "{id} {name:?}");
    }
    assert_eq!(users.clear_cache("user-1-Ada").await.unwrap(), 1);
    users.get_user(1, Some("Ada"), "one").await.unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn options_of_a_call_win_over_all() {
    let server = Server::start(|_, _| StatusCode::INTERNAL_SERVER_ERROR).await;
    let users = UsersClient::new(server.client());
    users.get_user(1).await.unwrap_err();
    assert_eq!(server.seen().len(), 2);
    users.get_user(1).no_retry().await.unwrap_err();
    assert_eq!(server.seen().len(), 3);
    let once = trunkline::http::CallOptions::default().without_retry();
    users.with_options(once).get_user(1).await.unwrap_err();
    assert_eq!(server.seen().len(), 4);
    let states = users.circuit_states();
    assert_eq!(states.len(), 1, "{states:?}");
    assert_eq!(
        states[0].target.endpoint.as_deref(),
        Some("GET /api/v1/users/{user_id}")
    );
}

/// Settings that need nothing outside of the process.
pub(crate) fn config(text: &str) -> CommunicationConfig {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("communication.yaml");
    let nothing_else =
        "message_brokers: {}\nservice_discovery: { type: static }\nevent_store: { type: memory }\n";
    std::fs::write(&file, format!("{nothing_else}{text}")).unwrap();
    CommunicationConfig::from_file(&file).unwrap()
}

pub(crate) async fn manager(text: &str) -> CommunicationManager {
    let manager = CommunicationManager::new(config(text));
    manager.initialize().await.unwrap();
    manager
}

#[tokio::test]
async fn a_manager_hands_the_client_out_and_explains_its_policy() {
    let server = Server::start(|_, _| Json(ada())).await;
    let port = server.url.rsplit(':').next().unwrap();
    let manager = manager(&format!(
        "policies: {{ default: {{ timeout: 9s }} }}\n\
         services:\n  user-service:\n    host: 127.0.0.1\n    port: {port}\n    \
         endpoints: {{ \"GET /users/{{id}}\": {{ circuit_breaker: {{ failure_threshold: 8 }} }} }}\n"
    ))
    .await;
    let users: UsersClient = manager.client();
    assert_eq!(users.get_user(7).await.unwrap(), ada());
    let explained = manager
        .explain_policy("user-service", Some("GET /api/v1/users/1"))
        .unwrap();
    let of = |path: &str| {
        let setting = explained
            .settings
            .iter()
            .find(|setting| setting.path == path)
            .unwrap();
        (
            setting.value.clone(),
            setting.layer.clone(),
            setting.origin.clone(),
        )
    };
    let (value, layer, origin) = of("retry.max_attempts");
    assert_eq!((value.as_str(), layer.as_str()), ("2", "Users::get_user"));
    assert!(origin.contains("policy.rs:"), "{origin}");
    assert_eq!(of("timeout.total").0, "9s");
    assert_eq!(of("timeout.total").1, "policies.default");
    assert_eq!(of("circuit_breaker.failure_threshold").0, "8");
    let policy = settings(users.http_client().unwrap(), "GET /api/v1/users/{user_id}");
    assert_eq!(policy, explained.policy);
    manager.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_client_that_cannot_be_made_says_so_when_it_is_called() {
    let manager = manager("").await;
    manager.shutdown().await.unwrap();
    let users: UsersClient = manager.client();
    let error = users.get_user(1).await.unwrap_err();
    assert!(error.to_string().contains("shut down"), "{error}");
}
