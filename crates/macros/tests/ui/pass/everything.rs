//! What an interface may say.
#![deny(warnings, missing_docs, unreachable_pub)]
#![allow(dead_code, reason = "compiled only")]

fn key(id: &u64, names: &[&str], other: Option<&[u64]>) -> String {
    format!("{id} {names:?} {other:?}")
}

mod users {
    use serde::{Deserialize, Serialize};
    use trunkline::http::{Body, Multipart, Response, ServiceError};
    use trunkline::service_interface;

    #[derive(Debug, Clone, Serialize, Deserialize)]
    pub(crate) struct User {
        name: String,
    }

    /// Users.
    #[service_interface("user-service", "/api/v1")]
    pub(crate) trait Users: Send {
        /// One user.
        #[get("/users/{user_id}")]
        #[retry(max_attempts = 2, delay = 0.5, on_status = [429, 503], budget(percent = 10), strategy = "linear", on_error = ["timeout"])]
        #[rate_limit(limit = 10, per = "1s")]
        #[hedge(percentile = 95, max_hedges = 2)]
        #[circuit_breaker(
            failure_threshold = 3,
            recovery_timeout = "30s",
            window(type = "time"),
            slow_call(duration = "1s")
        )]
        #[bulkhead(max_concurrent = 10)]
        #[timeout(total = "5s", first_byte = "2s")]
        #[fallback(enabled = true, cache = true, service = "user-archive", value = {"name": "nobody"}, reserve = "100ms")]
        async fn get_user(&self, user_id: u64) -> Result<User, ServiceError>;

        #[get("/users")]
        #[cached(ttl = "5m", key = "users:{names}", vary_on = ["limit", "header:accept-language"], tags = ["users"], mode = "shared", stale_if_error = "1h")]
        #[version("v2", "v1", by = "header", name = "API-Version", on_status = [404], on_error = ["internal"])]
        async fn list(
            &self,
            #[query(default = 20)] limit: Option<u32>,
            names: &[&str],
            #[header("X-Tenant", default = "none")] tenant: Option<&str>,
        ) -> Result<Option<Vec<User>>, ServiceError>;

        #[get("/search")]
        #[timeout("5s")]
        #[health_check(interval = 30.0, timeout = "5s", failure_threshold = 3)]
        async fn search(
            &self,
            name: Option<&str>,
            #[query(default = 20)] limit: Option<u32>,
            #[query(default = "all".to_owned())] scope: Option<String>,
            names: Vec<String>,
            others: Option<&[u64]>,
            #[header("X-Tenant", default = "none")] tenant: Option<&str>,
        ) -> Result<Vec<User>, ServiceError>;

        #[get("/kept/{id}")]
        #[cached(ttl = "5m", key = super::key)]
        async fn kept(
            &self,
            id: u64,
            names: Vec<&str>,
            other: Option<&[u64]>,
        ) -> Result<User, ServiceError>;

        #[get("/ready")]
        #[health_check]
        async fn ready(&self) -> Result<(), ServiceError>;

        #[post("/users", service = "writer-service")]
        #[idempotent]
        async fn create(&self, #[body] user: &User) -> Result<User, ServiceError<String>>;

        #[put("/files/{path...}")]
        async fn upload(
            &self,
            path: &str,
            #[body(stream)] content: Body,
        ) -> Result<(), ServiceError>;

        #[post("/pictures")]
        async fn pictures(&self, #[body(multipart)] form: Multipart) -> Result<(), ServiceError>;

        #[patch("/users/{user-id}")]
        async fn rename(
            &self,
            #[path("user-id")] id: u64,
            #[body(form)] user: User,
        ) -> Result<Response, ServiceError>;

        #[delete("/users/{type}")]
        async fn remove(&self, r#type: u64) -> Result<Body, ServiceError>;
    }
}

fn main() {
    let _: fn(trunkline::http::EnhancedHttpClient) -> users::UsersClient = users::UsersClient::new;
}
