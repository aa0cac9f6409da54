use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

#[service_interface("user-service", "/api/v1")]
pub trait Users {
    #[get("users/{id}")]
    async fn relative(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/users/u-{id}")]
    async fn half(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/users/{id}/{id}")]
    async fn twice(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/users?limit={limit}")]
    async fn query(&self, limit: u64) -> Result<User, ServiceError>;

    #[get("/files/{path...}/raw")]
    async fn rest(&self, path: &str) -> Result<User, ServiceError>;
}

fn main() {}
