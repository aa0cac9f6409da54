//! One trait, both sides: a service implements it and serves the router, a caller uses the generated client, a test uses
//! the mock, and whoever calls from another language reads the OpenAPI document.
//!
//! `cargo run -p trunkline-examples --example typed_interface`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::ensure;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trunkline::http::{EnhancedHttpClient, ServiceError};
use trunkline::{Error, service_interface};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct User {
    id: u64,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct CreateUser {
    name: String,
}

/// The users of a shop.
#[service_interface("user-service", "/api/v1", server, mock, openapi)]
trait Users {
    /// One user; nobody is no error.
    #[get("/users/{user_id}")]
    #[timeout("2s")]
    #[circuit_breaker(failure_threshold = 3, recovery_timeout = "30s")]
    async fn find_user(&self, user_id: u64) -> Result<Option<User>, ServiceError>;

    /// All whose name begins so.
    #[get("/users")]
    async fn list_users(
        &self,
        prefix: Option<&str>,
        #[query(default = 20)] limit: Option<u32>,
    ) -> Result<Vec<User>, ServiceError>;

    /// A new user.
    #[post("/users")]
    #[idempotent]
    #[retry(max_attempts = 2, delay = "100ms")]
    async fn create_user(&self, #[body] user: &CreateUser) -> Result<User, ServiceError>;
}

/// The service.
#[derive(Default)]
struct Store(Mutex<BTreeMap<u64, User>>);

impl Store {
    fn users(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, User>> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Users for Store {
    async fn find_user(&self, user_id: u64) -> Result<Option<User>, ServiceError> {
        Ok(self.users().get(&user_id).cloned())
    }

    async fn list_users(
        &self,
        prefix: Option<&str>,
        limit: Option<u32>,
    ) -> Result<Vec<User>, ServiceError> {
        let (prefix, limit) = (prefix.unwrap_or_default(), limit.unwrap_or(20) as usize);
        let users = self.users();
        let fitting = users.values().filter(|user| user.name.starts_with(prefix));
        Ok(fitting.take(limit).cloned().collect())
    }

    async fn create_user(&self, user: &CreateUser) -> Result<User, ServiceError> {
        let mut users = self.users();
        if users.values().any(|known| known.name == user.name) {
            return Err(Error::conflict(format!("there is a {} already", user.name)).into());
        }
        let id = users.len() as u64 + 1;
        let user = User {
            id,
            name: user.name.clone(),
        };
        users.insert(id, user.clone());
        Ok(user)
    }
}

/// What a caller does with it; any implementation will do.
async fn greeting(users: &impl Users, id: u64) -> Result<String, ServiceError> {
    let user = users.find_user(id).await?;
    Ok(user.map_or_else(
        || "Hello, whoever you are".to_owned(),
        |user| format!("Hello, {}", user.name),
    ))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let service = trunkline_examples::serve(UsersServer::router(Store::default())).await?;

    // In a service: `let users: UsersClient = manager.client();`
    let users = UsersClient::new(EnhancedHttpClient::new(service.url())?);
    for name in ["Ada", "Grace"] {
        let created = users
            .create_user(&CreateUser {
                name: name.to_owned(),
            })
            .await?;
        println!("created {} as {}", created.name, created.id);
    }
    let fitting = users.list_users(Some("A"), None).await?;
    ensure!(
        fitting
            == [User {
                id: 1,
                name: "Ada".to_owned()
            }]
    );
    println!("users with A: {}", fitting.len());

    let hurried = users
        .find_user(2)
        .timeout(Duration::from_secs(1))
        .no_retry();
    ensure!(hurried.await?.is_some_and(|user| user.name == "Grace"));
    ensure!(users.find_user(99).await?.is_none());

    let twice = users
        .create_user(&CreateUser {
            name: "Ada".to_owned(),
        })
        .await;
    let Err(refused) = twice else {
        anyhow::bail!("two users of one name")
    };
    ensure!(refused.status_code().is_some_and(|status| status == 409));
    println!("refused: {refused}");

    ensure!(greeting(&users, 1).await? == "Hello, Ada");
    let mock = UsersMock::new();
    mock.expect_find_user().with(7).once().returns(None);
    ensure!(greeting(&mock, 7).await? == "Hello, whoever you are");
    mock.verify();

    let document = UsersOpenApi::document();
    let mut paths: Vec<&String> = document["paths"]
        .as_object()
        .into_iter()
        .flat_map(|paths| paths.keys())
        .collect();
    paths.sort();
    println!("OpenAPI {} describes {paths:?}", document["openapi"]);
    ensure!(paths == ["/api/v1/users", "/api/v1/users/{user_id}"]);
    println!("ok");
    Ok(())
}
