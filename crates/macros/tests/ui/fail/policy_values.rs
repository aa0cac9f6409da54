use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

#[service_interface("user-service", "/api/v1")]
pub trait Users {
    #[get("/users/{id}")]
    #[retry(max_attempts = 0, delay = "soon", on_status = [99])]
    async fn a(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/b/{id}")]
    #[timeout("0s")]
    async fn b(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/c/{id}")]
    #[circuit_breaker(failure_treshold = 3)]
    async fn c(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/d/{id}")]
    #[retry(delay = -1)]
    async fn d(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/e/{id}")]
    #[circuit_breaker(window(type = "sliding"))]
    async fn e(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/f/{id}")]
    #[bulkhead]
    async fn f(&self, id: u64) -> Result<User, ServiceError>;
}

fn main() {}
