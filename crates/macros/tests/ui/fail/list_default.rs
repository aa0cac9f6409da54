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
    async fn list(&self, #[query(default = vec![1])] ids: Vec<u64>) -> Result<Vec<User>, ServiceError>;

    #[get("/people")]
    async fn people(&self, #[query(defualt = 1)] limit: u64) -> Result<Vec<User>, ServiceError>;
}

fn main() {}
