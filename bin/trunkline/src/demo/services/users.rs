//! The users service: knows who may order.
//!
//! The smallest service there is: a router, and a manager that serves it. Registration in discovery, health, metrics,
//! correlation ids, deadlines and a clean stop come with `serve`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use trunkline::server::{Json, Path, ProblemResponse};
use trunkline::{CommunicationManager, Result};

/// Somebody who may order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct User {
    /// 1, 2, 3 …
    pub(crate) id: u64,
    /// Full name.
    pub(crate) name: String,
    /// Where notifications go.
    pub(crate) email: String,
}

/// Serves until the process is asked to stop.
pub(crate) async fn run(manager: CommunicationManager) -> Result<()> {
    let directory: Arc<[User]> = [
        "Ada Lovelace",
        "Grace Hopper",
        "Barbara Liskov",
        "Frances Allen",
    ]
    .iter()
    .zip(1..)
    .map(|(name, id)| User {
        id,
        name: (*name).to_owned(),
        email: email(name),
    })
    .collect();
    let router = Router::new()
        .route("/api/v1/users", get(list))
        .route("/api/v1/users/{id}", get(read))
        .with_state(directory);
    manager.serve(router).await
}

async fn list(State(directory): State<Arc<[User]>>) -> Json<Vec<User>> {
    Json(directory.to_vec())
}

async fn read(
    State(directory): State<Arc<[User]>>,
    Path(id): Path<u64>,
) -> Result<Json<User>, ProblemResponse> {
    let user = directory.iter().find(|user| user.id == id);
    user.cloned()
        .map(Json)
        .ok_or_else(|| ProblemResponse::not_found(format!("there is no user {id}")))
}

fn email(name: &str) -> String {
    format!("{}@example.com", name.to_lowercase().replace(' ', "."))
}
