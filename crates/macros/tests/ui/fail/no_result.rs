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
    async fn get_user(&self, id: u64) -> User;

    #[delete("/users/{id}")]
    async fn delete_user(&self, id: u64);

    #[get("/people/{id}")]
    async fn get_person(&self, id: u64) -> trunkline::Result<User>;
}

fn main() {}
