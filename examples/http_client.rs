//! The HTTP client: typed calls, errors that say what happened, a retry that does no harm, circuits by endpoint; and the
//! service SDK: calls by name, middleware, batches, versions, error handlers.
//!
//! `cargo run -p trunkline-examples --example http_client`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use trunkline::ErrorKind;
use trunkline::http::{
    EndpointConfig, EnhancedHttpClient, Job, Next, ServiceConfig, ServiceError, ServiceRequest,
    ServiceSdk,
};
use trunkline::resilience::CircuitStatus;
use trunkline::resilience::breaker::State;
use trunkline::resilience::config::VersionsConfig;
use trunkline::server::{Json, Path, ProblemResponse};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    id: u64,
    name: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let service = trunkline_examples::serve(router()).await?;
    let users = EnhancedHttpClient::builder()
        .base_url(service.url())
        .timeout(Duration::from_secs(5))
        .header("accept-language", "es")
        .build()?;

    // Sends, turns 400 and above into an error, reads JSON.
    let ada: User = users.get("/users/1").fetch().await?;
    ensure!(ada.name == "Ada", "{ada:?}");

    // What went wrong, as a type; the problem document of the other side comes along.
    match users.get("/users/9").fetch::<User>().await {
        Err(ServiceError::Status(refused)) => {
            ensure!(refused.status == StatusCode::NOT_FOUND);
            println!("{refused}");
        }
        other => bail!("a user that does not exist: {other:?}"),
    }

    // The first answer is 503. A POST is repeated only because its key makes that harmless.
    let placed = users
        .post("/orders")
        .json(&ada)
        .idempotency_key("order-1")
        .await?;
    ensure!(placed.status() == StatusCode::CREATED, "{placed:?}");

    // The deadline holds for everything: attempts, pauses between them, and the body. The other side knows it too, and
    // gives up as well: whichever is first, it is a timeout.
    let slow = users.get("/slow").timeout(Duration::from_millis(100));
    let late = slow.fetch::<User>().await.map_err(trunkline::Error::from);
    let late = late.err().context("the deadline was not kept")?;
    ensure!(late.kind() == ErrorKind::Timeout, "{late:?}");
    println!("{late}");

    circuits(service.url()).await?;
    sdk(service.address().port()).await?;
    service.stop().await
}

/// What fails is left alone for a while, endpoint by endpoint.
async fn circuits(url: String) -> anyhow::Result<()> {
    let users = EnhancedHttpClient::builder()
        .base_url(url)
        .service("user-service")
        .circuit_breaker_enabled(true)
        .retry_enabled(false)
        .endpoint("GET /broken", EndpointConfig::default())
        .endpoint("GET /users/{id}", EndpointConfig::default())
        .build()?;
    for _ in 0..5 {
        ensure!(users.get("/broken").await?.status() == StatusCode::INTERNAL_SERVER_ERROR);
    }
    match users.get("/broken").await {
        Err(ServiceError::CircuitOpen(open)) => println!("{open}"),
        other => bail!("five failures in a row open a circuit: {other:?}"),
    }
    ensure!(users.get("/users/1").await?.status() == StatusCode::OK);
    let open = |state: &&CircuitStatus| state.circuit.state == State::Open;
    let states = users.circuit_states();
    let open: Vec<String> = states
        .iter()
        .filter(open)
        .map(|s| s.target.to_string())
        .collect();
    ensure!(open == ["user-service GET /broken"], "{open:?}");
    Ok(())
}

/// All services in one place, by their names.
async fn sdk(port: u16) -> anyhow::Result<()> {
    let alarms = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&alarms);
    let at = || ServiceConfig::at("127.0.0.1", port);
    let sdk = ServiceSdk::builder()
        .service("user-service", at())
        // Version 2 is on its way.
        .service(
            "report-service",
            at().with_versions(VersionsConfig::new(["v2", "v1"])),
        )
        .build()?
        .middleware(async |mut request: ServiceRequest, next: Next| {
            request.bearer("token")?;
            next.run(request).await
        })
        .on_error(async move |error, context| {
            println!("{} {}: {error}", context.service_name, context.path);
            heard.fetch_add(1, Ordering::Relaxed);
        });

    let token: String = sdk.get_from_service("user-service", "/token").await?;
    ensure!(
        token == "Bearer token",
        "the middleware has set it: {token}"
    );

    // A result that never is an `Err`.
    let result = sdk.call_service("user-service", "/users/9").await;
    ensure!(!result.success && result.status_code == Some(StatusCode::NOT_FOUND));
    ensure!(alarms.load(Ordering::Relaxed) == 1);

    // Many at once: one that fails does not touch the others.
    let results = sdk
        .batch_call([
            (
                "ada",
                Job::new(sdk.get_from_service::<User>("user-service", "/users/1")),
            ),
            (
                "nobody",
                Job::new(sdk.call_service("user-service", "/users/9")),
            ),
        ])
        .deadline(Duration::from_secs(5))
        .await;
    for (name, result) in results.iter() {
        println!("{name}: {:?}", result.data);
    }
    let ada = results.get("ada").and_then(|result| result.data.as_ref());
    ensure!(ada.is_some_and(|ada| ada["name"] == "Ada"));
    ensure!(results.get("nobody").is_some_and(|result| !result.success));

    let report = sdk.client("report-service")?.get("/report").await?;
    ensure!(report.service_version() == Some("v1"), "v2 answers 501");
    println!("version {:?} answered", report.service_version());
    Ok(())
}

fn router() -> Router {
    Router::new()
        .route("/users/{id}", get(user))
        .route("/orders", post(order))
        .route("/slow", get(std::future::pending::<()>))
        .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
        .route("/token", get(token))
        .route("/v1/report", get(async || "all is well"))
        .route("/v2/report", get(async || StatusCode::NOT_IMPLEMENTED))
}

/// What the request was sent with.
async fn token(headers: HeaderMap) -> Json<String> {
    let token = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    Json(token.unwrap_or_default().to_owned())
}

async fn user(Path(id): Path<u64>) -> Result<Json<User>, ProblemResponse> {
    match id {
        1 => Ok(Json(User {
            id,
            name: "Ada".into(),
        })),
        _ => Err(ProblemResponse::not_found(format!("there is no user {id}"))),
    }
}

/// Not ready the first time.
async fn order() -> StatusCode {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    match ASKED.fetch_add(1, Ordering::Relaxed) {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::CREATED,
    }
}
