use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

#[service_interface("user-service", "/api/v1")]
pub trait Users {
    #[get("/a")]
    #[version("v2", "v/1")]
    async fn a(&self) -> Result<User, ServiceError>;

    #[get("/b")]
    #[version("v2", "v2")]
    async fn b(&self) -> Result<User, ServiceError>;

    #[get("/c")]
    #[version("v2", by = "cookie")]
    async fn c(&self) -> Result<User, ServiceError>;

    #[get("/d")]
    #[version("v2", by = "header", value = "users")]
    async fn d(&self) -> Result<User, ServiceError>;

    #[get("/e")]
    #[version("v2", order = ["v1"])]
    async fn e(&self) -> Result<User, ServiceError>;
}

fn main() {}
