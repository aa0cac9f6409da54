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
    #[circuit_braker(failure_threshold = 3)]
    async fn get_user(&self, id: u64) -> Result<User, ServiceError>;

    #[fetch("/people/{id}")]
    async fn get_person(&self, #[querry] id: u64) -> Result<User, ServiceError>;
}

fn main() {}
