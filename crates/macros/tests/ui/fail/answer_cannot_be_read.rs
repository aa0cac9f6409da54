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
    #[get("/plain")]
    async fn plain(&self) -> Result<Plain, ServiceError>;
}

fn main() {}
