use serde::{Deserialize, Serialize};
use trunkline::http::ServiceError;
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

#[service_interface("user-service", "/api/v1")]
pub trait Users {
    #[get("/a/{user_id}")]
    #[cached(ttl = "5m", key = "user:{id}")]
    async fn a(&self, user_id: u64) -> Result<User, ServiceError>;

    #[get("/b")]
    #[cached(ttl = "5m", vary_on = ["limits", "header:accept-language"])]
    async fn b(&self, limit: u32) -> Result<User, ServiceError>;

    #[get("/c")]
    #[cached(key = "user:{id")]
    async fn c(&self, id: u64) -> Result<User, ServiceError>;

    #[post("/d")]
    #[cached(ttl = "5m")]
    async fn d(&self) -> Result<User, ServiceError>;

    #[get("/e")]
    #[cached(tll = "5m")]
    async fn e(&self) -> Result<User, ServiceError>;
}

fn main() {}
