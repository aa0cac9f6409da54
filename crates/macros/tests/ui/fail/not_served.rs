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
    #[health_check(interval = "30s")]
    async fn get_user(&self, id: u64) -> Result<User, ServiceError>;
}

fn main() {}
