//! What clients send and what they make of answers.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use serde_json::json;
use trunkline::http::{Body, Response, ServiceError};
use trunkline::server::Json;
use trunkline::{Problem, service_interface};

use super::server::Server;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct User {
    pub(crate) id: u64,
    pub(crate) name: String,
}

#[derive(Debug, Serialize)]
struct Filter<'a> {
    name: &'a str,
    older_than: Option<u8>,
}

/// What the service says went wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ApiError {
    code: u32,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}", self.code)
    }
}

#[derive(Debug, PartialEq)]
enum ShopError {
    NoUser,
    Other(String),
}

impl From<ServiceError<ApiError>> for ShopError {
    fn from(error: ServiceError<ApiError>) -> Self {
        match error {
            ServiceError::Status(answer) if answer.problem.code == 7 => Self::NoUser,
            other => Self::Other(other.to_string()),
        }
    }
}

#[service_interface("user-service", "/api/v1")]
trait Users {
    #[get("/users/{user_id}")]
    async fn get_user(&self, user_id: u64) -> Result<User, ServiceError>;

    #[get("/users/{user-id}/friends/{name}")]
    async fn friend(
        &self,
        #[path("user-id")] id: u64,
        name: &str,
    ) -> Result<Option<User>, ServiceError>;

    #[get("/users")]
    async fn list(
        &self,
        #[query(default = 20)] limit: Option<u32>,
        active: Option<bool>,
        #[query("tag")] tags: &[&str],
        ids: Option<Vec<u64>>,
        #[header("X-Tenant")] tenant: &str,
        #[header("X-Trace-Level")] level: Option<u8>,
    ) -> Result<Vec<User>, ServiceError>;

    #[get("/search")]
    async fn search(
        &self,
        #[query(flatten)] filter: Filter<'_>,
        page: u32,
    ) -> Result<Vec<User>, ServiceError>;

    #[post("/users")]
    async fn create(&self, #[body] user: &User) -> Result<User, ServiceError>;

    #[put("/users/form")]
    async fn form(&self, #[body(form)] user: &User) -> Result<(), ServiceError>;

    #[post("/users/packed")]
    async fn packed(&self, #[body(msgpack)] user: User) -> Result<User, ServiceError>;

    #[post("/files/{path...}")]
    async fn upload(
        &self,
        path: &str,
        #[body(stream)] content: Body,
    ) -> Result<Response, ServiceError>;

    #[get("/files/{path...}")]
    async fn download(&self, path: &str) -> Result<Body, ServiceError>;

    #[delete("/users/{id}")]
    async fn remove(&self, id: u64) -> Result<(), ServiceError<ApiError>>;

    #[get("/")]
    async fn root(&self) -> Result<u64, ServiceError>;
}

#[service_interface("user-service", problem = ApiError)]
trait Shop {
    #[get("/buyers/{id}")]
    async fn buyer(&self, id: u64) -> Result<User, ShopError>;
}

fn ada() -> User {
    User {
        id: 7,
        name: "Ada".to_owned(),
    }
}

#[tokio::test]
async fn paths_queries_and_headers_are_written() {
    let server = Server::start(|_, _| Json(json!([]))).await;
    let users = UsersClient::new(server.client());
    users
        .list(None, None, &[], None, "acme", None)
        .await
        .unwrap();
    let seen = server.last();
    assert_eq!(seen.line(), "GET /api/v1/users?limit=20");
    assert_eq!(seen.header("x-tenant"), Some("acme"));
    assert_eq!(seen.header("x-trace-level"), None);
    users
        .list(
            Some(50),
            Some(true),
            &["a b", "c&d"],
            Some(vec![1, 2]),
            "acme",
            Some(3),
        )
        .await
        .unwrap();
    let seen = server.last();
    assert_eq!(
        seen.line(),
        "GET /api/v1/users?limit=50&active=true&tag=a+b&tag=c%26d&ids=1&ids=2"
    );
    assert_eq!(seen.header("x-trace-level"), Some("3"));
    users
        .search(
            Filter {
                name: "Ada",
                older_than: None,
            },
            2,
        )
        .await
        .unwrap();
    assert_eq!(server.last().line(), "GET /api/v1/search?name=Ada&page=2");
}

#[tokio::test]
async fn a_segment_cannot_lead_elsewhere() {
    let server = Server::start(|_, _| StatusCode::NOT_FOUND).await;
    let users = UsersClient::new(server.client());
    assert_eq!(users.friend(1, "a/b ü").await.unwrap(), None);
    assert_eq!(
        server.last().line(),
        "GET /api/v1/users/1/friends/a%2Fb%20%C3%BC"
    );
    for name in ["", "..", "."] {
        let error = users.friend(1, name).await.unwrap_err();
        assert!(matches!(error, ServiceError::Validation(_)), "{error}");
        assert!(error.to_string().contains("`name`"), "{error}");
    }
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn bodies_are_written_in_their_form() {
    let server = Server::start(|seen, _| match seen.uri.ends_with("/packed") {
        false => (StatusCode::CREATED, Json(ada())).into_response(),
        true => {
            let packed = ([("content-type", "application/msgpack")], seen.body.clone());
            packed.into_response()
        }
    })
    .await;
    let users = UsersClient::new(server.client());
    assert_eq!(users.create(&ada()).await.unwrap(), ada());
    let seen = server.last();
    assert_eq!(seen.line(), "POST /api/v1/users");
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.body, r#"{"id":7,"name":"Ada"}"#);
    users
        .form(&User {
            id: 7,
            name: "Ada L".to_owned(),
        })
        .await
        .unwrap();
    let seen = server.last();
    assert_eq!(
        seen.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    assert_eq!(seen.body, "id=7&name=Ada+L");
    assert_eq!(users.packed(ada()).await.unwrap(), ada());
    assert_eq!(
        server.last().header("content-type"),
        Some("application/msgpack")
    );
    let answer = users.upload("a/b.txt", Body::from("text")).await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(server.last().line(), "POST /api/v1/files/a/b.txt");
    assert_eq!(server.last().body, "text");
}

#[tokio::test]
async fn an_answer_of_another_form_says_where() {
    let server = Server::start(|_, before| {
        Json(match before {
            0 => json!([{"id": 1, "name": "Ada"}, {"id": "two", "name": "Bob"}]),
            _ => json!([{"id": 1}]),
        })
    })
    .await;
    let users = UsersClient::new(server.client());
    for path in ["[1].id", "[0].name"] {
        let error = users
            .list(None, None, &[], None, "acme", None)
            .await
            .unwrap_err();
        assert!(matches!(error, ServiceError::Validation(_)), "{error}");
        assert_eq!(error.mismatch().unwrap().fields[0].path, path, "{error}");
    }
}

#[tokio::test]
async fn errors_are_read_as_the_method_says() {
    let server = Server::start(|seen, _| match seen.uri.as_str() {
        "/api/v1/users/1" => (StatusCode::CONFLICT, Json(json!({"code": 3}))).into_response(),
        "/buyers/1" => (StatusCode::NOT_FOUND, Json(json!({"code": 7}))).into_response(),
        _ => {
            let problem = Problem::new(403, "Forbidden").with_detail("not yours");
            let kind = [("content-type", Problem::CONTENT_TYPE)];
            (
                StatusCode::FORBIDDEN,
                kind,
                serde_json::to_string(&problem).unwrap(),
            )
                .into_response()
        }
    })
    .await;
    let users = UsersClient::new(server.client());
    match users.remove(1).await.unwrap_err() {
        ServiceError::Status(answer) => {
            assert_eq!(
                (answer.status, answer.problem),
                (StatusCode::CONFLICT, ApiError { code: 3 })
            );
        }
        other => panic!("{other}"),
    }
    match users.get_user(1).await {
        Err(ServiceError::Status(answer)) => {
            assert_eq!(answer.problem, ApiError { code: 3 }.into_problem())
        }
        other => panic!("{other:?}"),
    }
    let error = users.get_user(2).await.unwrap_err();
    assert_eq!(error.status_code(), Some(StatusCode::FORBIDDEN));
    assert!(error.to_string().contains("not yours"), "{error}");
    let shop = ShopClient::new(server.client());
    assert_eq!(shop.buyer(1).await.unwrap_err(), ShopError::NoUser);
    // A body that is not of the method's form is told as such.
    assert!(matches!(
        shop.buyer(2).await.unwrap_err(),
        ShopError::Other(_)
    ));
}

impl ApiError {
    /// What a problem document is made of it where nobody knows its type.
    fn into_problem(self) -> Problem {
        Problem::new(409, "Conflict").with_extension("code", self.code)
    }
}

#[tokio::test]
async fn answers_that_are_no_value() {
    let server = Server::start(|seen, _| match seen.uri.as_str() {
        "/api/v1" => Json(3).into_response(),
        "/api/v1/files/big" => "streamed".into_response(),
        "/api/v1/files/none" => StatusCode::GONE.into_response(),
        _ => StatusCode::NO_CONTENT.into_response(),
    })
    .await;
    let users = UsersClient::new(server.client());
    users.remove(2).await.unwrap();
    assert_eq!(users.root().await.unwrap(), 3);
    let body = users.download("big").await.unwrap();
    assert_eq!(body.bytes(100).await.unwrap(), "streamed");
    let error = users.download("none").await.unwrap_err();
    assert_eq!(error.status_code(), Some(StatusCode::GONE));
    let raw = users.download("none").response().await.unwrap();
    assert_eq!(raw.status(), StatusCode::GONE);
}

#[tokio::test]
async fn one_call_asks_for_more() {
    let server = Server::start(|_, _| Json(ada())).await;
    let users = UsersClient::new(server.client())
        .with_header("X-Tenant", "acme")
        .unwrap();
    let call = users.get_user(7).header("X-Mood", "good").bearer("secret");
    assert_eq!(call.await.unwrap(), ada());
    let seen = server.last();
    assert_eq!(seen.header("x-mood"), Some("good"));
    assert_eq!(seen.header("x-tenant"), Some("acme"));
    assert_eq!(seen.header("authorization"), Some("Bearer secret"));
    assert!(users.with_header("no name", "x").is_err());
}

/// Code that takes any implementation.
async fn name_of(users: &impl Users, id: u64) -> Result<String, ServiceError> {
    users.get_user(id).await.map(|user| user.name)
}

#[tokio::test]
async fn the_client_is_an_implementation_of_the_trait() {
    let server = Server::start(|_, _| Json(ada())).await;
    let users = UsersClient::new(server.client());
    let call = name_of(&users, 7);
    assert_send(&call);
    assert_eq!(call.await.unwrap(), "Ada");
}

fn assert_send(_: &impl Send) {}

#[tokio::test]
async fn a_base_url_that_has_the_base_path_is_not_given_it_twice() {
    let server = Server::start(|_, _| Json(ada())).await;
    let url = format!("{}/api/v1", server.url);
    let users = UsersClient::new(trunkline::http::EnhancedHttpClient::new(url).unwrap());
    users.get_user(7).await.unwrap();
    assert_eq!(server.lines(), ["GET /api/v1/users/7"]);
}
