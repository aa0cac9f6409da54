use serde::{Deserialize, Serialize};
use trunkline::http::{Body, Multipart, ServiceError};
use trunkline::service_interface;

#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    pub name: String,
}

#[service_interface("user-service", "/api/v1")]
pub trait Users {
    #[post("/a")]
    async fn stream(&self, #[body] content: Body) -> Result<User, ServiceError>;

    #[post("/b")]
    async fn multipart(&self, #[body] form: Multipart) -> Result<User, ServiceError>;

    #[post("/c")]
    async fn value(&self, #[body(multipart)] user: User) -> Result<User, ServiceError>;

    #[post("/d")]
    async fn two(&self, #[body(form, msgpack)] user: User) -> Result<User, ServiceError>;

    #[post("/e")]
    async fn parts(&self, #[body(form, file = "picture")] user: User) -> Result<User, ServiceError>;

    #[post("/f")]
    async fn twice(
        &self,
        #[body(multipart, text = "title", file = "title")] form: Multipart,
    ) -> Result<User, ServiceError>;
}

fn main() {}
