use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

pub struct Plain;

#[service_interface("user-service", "/api/v1")]
pub trait Users {
    #[post("/users")]
    async fn create(&self, #[body] plain: Plain) -> Result<User, ServiceError>;
}

fn main() {}
