use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

#[service_interface("user-service")]
pub trait Users<T> {
    #[get("/users/{id}")]
    async fn get_user<I: Into<u64>>(&self, id: I) -> Result<User, ServiceError>;
}

fn main() {}
