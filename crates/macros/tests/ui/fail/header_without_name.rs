use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

#[service_interface("user-service", "/api/v1")]
pub trait Users {
    #[get("/users")]
    async fn list(&self, #[header] tenant: &str) -> Result<Vec<User>, ServiceError>;

    #[get("/people")]
    async fn people(&self, #[header("Content-Length")] length: u64) -> Result<Vec<User>, ServiceError>;
}

fn main() {}
