use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

#[service_interface("user-service", "/api/v1")]
pub trait Users {
    #[get("/a/{id}")]
    #[health_check(interval = "30s")]
    async fn in_the_path(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/b")]
    #[health_check]
    async fn in_the_query(&self, name: &str, limit: Option<u32>) -> Result<User, ServiceError>;

    #[get("/c")]
    #[health_check]
    async fn in_a_header(&self, #[header("X-Tenant")] tenant: &str) -> Result<User, ServiceError>;

    #[get("/d")]
    #[health_check]
    async fn in_fields(&self, #[query(flatten)] user: &User) -> Result<User, ServiceError>;

    #[delete("/e")]
    #[health_check]
    async fn not_a_get(&self) -> Result<(), ServiceError>;

    #[get("/f")]
    #[health_check(intervall = "30s")]
    async fn misspelt(&self) -> Result<User, ServiceError>;

    #[get("/g")]
    #[health_check(failure_threshold = 0)]
    async fn at_once(&self) -> Result<User, ServiceError>;

    #[get("/h")]
    #[health_check(timeout = "soon")]
    async fn some_time(&self) -> Result<User, ServiceError>;
}

fn main() {}
