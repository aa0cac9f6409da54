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
    #[retry(max_attempts = 2)]
    #[retry(delay = "1s")]
    async fn get_user(&self, id: u64) -> Result<User, ServiceError>;

    #[get("/people/{id}")]
    #[retry(max_attempts = 2, max_attempts = 3)]
    async fn get_person(&self, id: u64) -> Result<User, ServiceError>;
}

fn main() {}
