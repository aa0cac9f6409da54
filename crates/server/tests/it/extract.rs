//! Refusals of extractors, as a client sees them.

use axum::Router;
use axum::body::Body;
use axum::routing::{get, post};
use http::Request;
use serde::{Deserialize, Serialize};
use trunkline_core::{Error, Problem};
use trunkline_server::layers::BodyLimitLayer;
use trunkline_server::{Json, Path, ProblemResponse, Query};

use crate::client::{ask, json, post as posting, problem};

#[derive(Debug, Deserialize, Serialize)]
struct Order {
    sku: String,
    quantity: u32,
}

#[derive(Debug, Deserialize)]
struct Paging {
    limit: u32,
}

fn router() -> Router {
    Router::new()
        .route(
            "/orders",
            post(async |Json(order): Json<Order>| Json(order)),
        )
        .route(
            "/orders/{id}",
            get(async |Path(id): Path<u64>| id.to_string()),
        )
        .route(
            "/list",
            get(async |Query(paging): Query<Paging>| paging.limit.to_string()),
        )
        .layer(axum::extract::DefaultBodyLimit::disable())
        .layer(BodyLimitLayer::new(100))
}

fn get_request(path: &str) -> Request<Body> {
    Request::builder().uri(path).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_good_body_comes_back() {
    let response = ask(&router(), posting("/orders", r#"{"sku":"a","quantity":2}"#)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(json(&response)["quantity"], 2);
}

#[tokio::test]
async fn bodies_are_refused_with_the_field() {
    let response = ask(
        &router(),
        posting("/orders", r#"{"sku":"a","quantity":"two"}"#),
    )
    .await;
    assert_eq!(response.status(), 422);
    let document = problem(&response);
    assert_eq!(document["errors"][0]["field"], "quantity");
    assert_eq!(document["title"], "Unprocessable Entity");
    assert_eq!(
        problem(&ask(&router(), posting("/orders", "{")).await)["status"],
        400
    );
}

#[tokio::test]
async fn another_content_type_is_415() {
    let mut request = posting("/orders", "{}");
    request
        .headers_mut()
        .insert("content-type", "text/plain".parse().unwrap());
    assert_eq!(problem(&ask(&router(), request).await)["status"], 415);
    let mut request = posting("/orders", "{}");
    request.headers_mut().remove("content-type");
    assert_eq!(problem(&ask(&router(), request).await)["status"], 415);
}

#[tokio::test]
async fn a_large_body_is_413_whether_it_says_so_or_not() {
    let large = format!(r#"{{"sku":"{}","quantity":1}}"#, "x".repeat(200));
    assert_eq!(
        problem(&ask(&router(), posting("/orders", &large)).await)["status"],
        413
    );
    let chunks = large
        .into_bytes()
        .chunks(10)
        .map(|chunk| Ok::<_, Error>(chunk.to_vec()))
        .collect::<Vec<_>>();
    let body = Body::from_stream(futures_util::stream::iter(chunks));
    let request = Request::post("/orders")
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    assert_eq!(problem(&ask(&router(), request).await)["status"], 413);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400() {
    let parts = [Ok("{\"sku\":".to_owned()), Err(Error::unavailable("gone"))];
    let body = Body::from_stream(futures_util::stream::iter(parts));
    let request = Request::post("/orders")
        .header("content-type", "application/json")
        .body(body)
        .unwrap();
    assert_eq!(problem(&ask(&router(), request).await)["status"], 400);
}

#[tokio::test]
async fn parameters_are_refused_by_name() {
    let document = problem(&ask(&router(), get_request("/orders/seven")).await);
    assert_eq!(document["status"], 422);
    assert_eq!(document["errors"][0]["detail"], "is no u64");
    let document = problem(&ask(&router(), get_request("/list?limit=many")).await);
    assert_eq!(document["errors"][0]["field"], "limit", "{document}");
    let document = problem(&ask(&router(), get_request("/list")).await);
    assert!(
        document["errors"][0]["detail"]
            .as_str()
            .unwrap()
            .contains("limit"),
        "{document}"
    );
    assert_eq!(
        &ask(&router(), get_request("/orders/7")).await.body()[..],
        b"7"
    );
}

#[tokio::test]
async fn problems_carry_what_they_are_given() {
    let handler = async || -> Result<(), ProblemResponse> {
        Err(ProblemResponse::conflict("sold out")
            .with_type("https://example.com/sold-out")
            .with_title("Sold out")
            .with_instance("/orders/7")
            .with_extension("left", 0)
            .with_retry_after(std::time::Duration::from_millis(1500)))
    };
    let router = Router::new().route("/", get(handler));
    let response = ask(&router, get_request("/")).await;
    assert_eq!(response.headers()["retry-after"], "2");
    let expected = serde_json::json!({
        "type": "https://example.com/sold-out", "title": "Sold out", "status": 409, "detail": "sold out",
        "instance": "/orders/7", "left": 0
    });
    assert_eq!(problem(&response), expected);
}

#[tokio::test]
async fn a_relayed_problem_keeps_its_document() {
    let handler = async || -> Result<(), ProblemResponse> {
        Err(Problem::new(404, "Not Found")
            .with_detail("no user 42")
            .into())
    };
    let router = Router::new().route("/", get(handler));
    let response = ask(&router, get_request("/")).await;
    assert_eq!(response.status(), 404);
    assert_eq!(problem(&response)["detail"], "no user 42");
}
