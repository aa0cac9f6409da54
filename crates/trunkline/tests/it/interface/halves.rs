//! The server's half, mocks, documents and rules.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trunkline::http::{Body, EnhancedHttpClient, Multipart, Response, ServiceError};
use trunkline::{Error, Problem, service_interface};

use super::server::Server;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
pub(crate) struct Item {
    #[garde(skip)]
    id: u64,
    #[garde(length(min = 1))]
    name: String,
    #[garde(range(min = 1, max = 100))]
    quantity: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    Name,
    Quantity,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Validate, JsonSchema)]
#[garde(allow_unvalidated)]
pub(crate) struct Filter {
    order: Option<Order>,
    above: u32,
}

/// The items of a shop.
#[service_interface("item-service", "/api/v1", server, mock, openapi, validate)]
pub(crate) trait Items {
    /// One item.
    ///
    /// Whoever asks gets it.
    #[get("/items/{item_id}")]
    async fn item(&self, item_id: u64) -> Result<Option<Item>, ServiceError>;

    #[get("/items")]
    async fn list(
        &self,
        #[query(default = 20)] limit: Option<u32>,
        ids: &[u64],
        #[header("X-Tenant")] tenant: &str,
    ) -> Result<Vec<Item>, ServiceError>;

    #[get("/items/search")]
    async fn search(&self, #[query(flatten)] filter: &Filter) -> Result<Filter, ServiceError>;

    #[post("/items")]
    #[idempotent]
    async fn add(&self, #[body] item: &Item) -> Result<Item, ServiceError>;

    #[put("/items/{id}")]
    async fn replace(&self, id: u64, #[body(msgpack)] item: Item) -> Result<Item, ServiceError>;

    #[post("/items/{id}/order")]
    async fn order(&self, id: u64, #[body(form)] filter: Filter) -> Result<(), ServiceError>;

    #[delete("/items/{id}")]
    async fn remove(&self, id: u64) -> Result<(), ServiceError<String>>;

    #[put("/files/{path...}")]
    async fn upload(&self, path: &str, #[body(stream)] content: Body) -> Result<u64, ServiceError>;

    #[get("/files/{path...}")]
    async fn download(&self, path: &str) -> Result<Body, ServiceError>;

    #[post("/items/{id}/pictures")]
    async fn pictures(
        &self,
        id: u64,
        #[body(multipart, text = "title", file = "picture")] form: Multipart,
    ) -> Result<Vec<String>, ServiceError>;

    #[post("/anything")]
    async fn anything(&self, #[body(multipart)] form: Multipart) -> Result<(), ServiceError>;

    #[get("/raw")]
    async fn raw(&self) -> Result<Response, ServiceError>;
}

struct Shop;

fn tea(id: u64) -> Item {
    Item {
        id,
        name: "tea".to_owned(),
        quantity: 1,
    }
}

impl Items for Shop {
    async fn item(&self, item_id: u64) -> Result<Option<Item>, ServiceError> {
        match item_id {
            0 => Err(Error::conflict("item 0 is locked").into()),
            1 => Err(Error::internal("the secret of the shop").into()),
            2 => Err(ServiceError::answer(
                axum::http::StatusCode::PAYMENT_REQUIRED,
                Problem::new(402, "Pay first"),
            )),
            404 => Ok(None),
            id => Ok(Some(tea(id))),
        }
    }

    async fn list(
        &self,
        limit: Option<u32>,
        ids: &[u64],
        tenant: &str,
    ) -> Result<Vec<Item>, ServiceError> {
        let name = format!("{tenant} {}", limit.unwrap());
        Ok(ids
            .iter()
            .map(|id| Item {
                id: *id,
                name: name.clone(),
                quantity: 1,
            })
            .collect())
    }

    async fn search(&self, filter: &Filter) -> Result<Filter, ServiceError> {
        Ok(filter.clone())
    }

    async fn add(&self, item: &Item) -> Result<Item, ServiceError> {
        Ok(item.clone())
    }

    async fn replace(&self, id: u64, item: Item) -> Result<Item, ServiceError> {
        // What breaks the rules of the answer.
        let quantity = if id == 0 { 0 } else { item.quantity };
        Ok(Item {
            id,
            quantity,
            ..item
        })
    }

    async fn order(&self, _: u64, filter: Filter) -> Result<(), ServiceError> {
        assert_eq!(
            filter,
            Filter {
                order: Some(Order::Quantity),
                above: 3
            }
        );
        Ok(())
    }

    async fn remove(&self, id: u64) -> Result<(), ServiceError<String>> {
        let gone = axum::http::StatusCode::GONE;
        Err(ServiceError::answer(gone, format!("{id} is gone")))
    }

    async fn upload(&self, path: &str, content: Body) -> Result<u64, ServiceError> {
        assert_eq!(path, "a b/c.txt");
        Ok(content.bytes(8 << 20).await?.len() as u64)
    }

    async fn download(&self, path: &str) -> Result<Body, ServiceError> {
        Ok(Body::from(path.to_owned()))
    }

    async fn pictures(&self, id: u64, form: Multipart) -> Result<Vec<String>, ServiceError> {
        let mut found = vec![id.to_string()];
        for part in form.into_parts() {
            let (name, file) = (part.name().to_owned(), part.file_name().map(str::to_owned));
            let size = part.into_body().bytes(100).await?.len();
            found.push(format!("{name} {file:?} {size}"));
        }
        Ok(found)
    }

    async fn anything(&self, _form: Multipart) -> Result<(), ServiceError> {
        Ok(())
    }

    async fn raw(&self) -> Result<Response, ServiceError> {
        let answer = axum::http::Response::builder()
            .status(418)
            .body(Body::from("short"));
        Ok(answer.unwrap().into())
    }
}

async fn shop() -> (ItemsClient, String) {
    serve(ItemsServer::router(Shop)).await
}

async fn serve(router: axum::Router) -> (ItemsClient, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async move { axum::serve(listener, router).await.unwrap() };
    drop(trunkline::task::spawn("test-shop", serve));
    (
        ItemsClient::new(EnhancedHttpClient::new(&url).unwrap()),
        url,
    )
}

#[tokio::test]
async fn both_halves_mean_the_same() {
    let (items, _) = shop().await;
    assert_eq!(items.item(7).await.unwrap(), Some(tea(7)));
    assert_eq!(items.item(404).await.unwrap(), None);
    let listed = items.list(None, &[1, 2], "acme").await.unwrap();
    assert_eq!(
        listed.iter().map(|item| item.id).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(listed[0].name, "acme 20");
    let filter = Filter {
        order: Some(Order::Quantity),
        above: 3,
    };
    assert_eq!(items.search(&filter).await.unwrap(), filter);
    let none = Filter {
        order: None,
        above: 0,
    };
    assert_eq!(items.search(&none).await.unwrap(), none);
    assert_eq!(items.add(&tea(3)).await.unwrap(), tea(3));
    assert_eq!(items.replace(9, tea(3)).await.unwrap(), tea(9));
    items.order(1, filter).await.unwrap();
    assert_eq!(
        items
            .upload("a b/c.txt", Body::from("12345"))
            .await
            .unwrap(),
        5
    );
    let body = items.download("x/y").await.unwrap();
    assert_eq!(body.bytes(100).await.unwrap(), "x/y");
    let raw = items.raw().await.unwrap();
    assert_eq!(raw.status(), 418);
    assert_eq!(raw.text().await.unwrap(), "short");
}

#[tokio::test]
async fn a_form_with_files_arrives() {
    let (items, url) = shop().await;
    let told = Arc::new(AtomicU64::new(0));
    let form = Multipart::new().text("title", "tea").bytes(
        "front",
        "front.png",
        "image/png",
        vec![0_u8, 13, 10],
    );
    let call = items.pictures(7, form).on_progress({
        let told = Arc::clone(&told);
        move |progress| told.store(progress.sent, Ordering::SeqCst)
    });
    assert_eq!(
        call.await.unwrap(),
        ["7", "title None 3", "front Some(\"front.png\") 3"]
    );
    assert!(told.load(Ordering::SeqCst) > 100);
    let client = EnhancedHttpClient::new(&url).unwrap();
    for (kind, status) in [
        ("multipart/form-data; boundary=x", 400),
        ("text/plain", 415),
    ] {
        let answer = client
            .post("/api/v1/items/7/pictures")
            .body("--x\r\n")
            .header("content-type", kind);
        assert_eq!(answer.await.unwrap().status(), status, "{kind}");
    }
}

#[tokio::test]
async fn the_server_says_how_large_a_body_may_be() {
    let limit = axum::extract::DefaultBodyLimit::max(4 << 20);
    let (items, _) = serve(ItemsServer::router(Shop).layer(limit)).await;
    let large = |megabytes: usize| Item {
        name: "x".repeat(megabytes << 20),
        ..tea(1)
    };
    assert_eq!(items.add(&large(3)).await.unwrap(), large(3));
    let error = items.add(&large(5)).await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 413);
    // A stream is as long as its reader lets it be.
    let content = Body::from(vec![1_u8; 6 << 20]);
    assert_eq!(items.upload("a b/c.txt", content).await.unwrap(), 6 << 20);
}

#[tokio::test]
async fn errors_of_the_implementation_arrive() {
    let (items, url) = shop().await;
    let error = items.item(0).await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 409);
    assert!(error.to_string().contains("item 0 is locked"), "{error}");
    let error = items.item(1).no_retry().await.unwrap_err();
    assert_eq!(error.status_code().unwrap(), 500);
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!(items.item(2).await.unwrap_err().status_code().unwrap(), 402);
    match items.remove(4).await.unwrap_err() {
        ServiceError::Status(answer) => assert_eq!(answer.problem, "4 is gone"),
        other => panic!("{other}"),
    }
    let client = EnhancedHttpClient::new(&url).unwrap();
    let raw = client.get("/api/v1/items/0").await.unwrap();
    assert_eq!(raw.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_request_is_told_at_once() {
    let (_, url) = shop().await;
    let client = EnhancedHttpClient::new(&url).unwrap();
    let answer = client
        .get("/api/v1/items?limit=many&ids=1&ids=x")
        .await
        .unwrap();
    assert_eq!(answer.status(), 422);
    let problem: Value = answer.json().await.unwrap();
    let errors = problem["errors"].as_array().unwrap();
    let fields: Vec<_> = errors
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["limit", "ids", "x-tenant"]);
    for (path, status) in [("/api/v1/items/x", 422), ("/api/v1/nothing", 404)] {
        assert_eq!(client.get(path).await.unwrap().status(), status, "{path}");
    }
    let answer = client.post("/api/v1/items").body("{}").await.unwrap();
    assert_eq!(answer.status(), 415);
    let answer = client
        .post("/api/v1/items")
        .json(&json!({"id": 1, "name": 2}))
        .await
        .unwrap();
    assert_eq!(answer.status(), 422);
    let answer = client
        .post("/api/v1/items/1/order")
        .body("above=x")
        .header("content-type", "application/x-www-form-urlencoded");
    let problem: Value = answer.await.unwrap().json().await.unwrap();
    assert_eq!(problem["errors"][0]["field"], "above");
}

#[tokio::test]
async fn rules_hold_before_sending_on_arrival_and_in_answers() {
    let (items, url) = shop().await;
    let wrong = Item {
        id: 1,
        name: String::new(),
        quantity: 101,
    };
    let error = items.add(&wrong).await.unwrap_err();
    assert!(matches!(error, ServiceError::Validation(_)), "{error}");
    let fields: Vec<_> = error
        .mismatch()
        .unwrap()
        .fields
        .iter()
        .map(|field| field.path.as_str())
        .collect();
    assert_eq!(fields, ["name", "quantity"]);
    assert!(error.to_string().contains("was not sent"), "{error}");
    // An answer that breaks them.
    let error = items.replace(0, tea(1)).await.unwrap_err();
    assert_eq!(
        error.mismatch().unwrap().fields[0].path,
        "quantity",
        "{error}"
    );
    // A caller that does not know them.
    let client = EnhancedHttpClient::new(&url).unwrap();
    let answer = client.post("/api/v1/items").json(&wrong).await.unwrap();
    assert_eq!(answer.status(), 422);
    let problem: Value = answer.json().await.unwrap();
    assert_eq!(problem["errors"][1]["field"], "quantity");
}

#[tokio::test]
async fn rules_of_a_body_are_kept_without_a_request() {
    let server = Server::start(|_, _| axum::http::StatusCode::OK).await;
    let items = ItemsClient::new(server.client());
    items
        .add(&Item {
            id: 1,
            name: String::new(),
            quantity: 1,
        })
        .await
        .unwrap_err();
    assert!(server.seen().is_empty());
}

/// What is tested: code over the trait.
async fn names(items: &impl Items) -> Result<Vec<String>, ServiceError> {
    let all = items.list(Some(2), &[1, 2], "acme").await?;
    Ok(all.into_iter().map(|item| item.name).collect())
}

#[tokio::test]
async fn a_mock_answers_as_the_test_says() {
    let mock = ItemsMock::new();
    mock.expect_list()
        .with((Some(2), vec![1, 2], "acme".to_owned()))
        .once()
        .returns(vec![tea(1)]);
    mock.expect_item()
        .when(|id| *id > 5)
        .times(1..)
        .answers(|id| Ok(Some(tea(id))));
    mock.expect_item()
        .with(1)
        .times(..=2)
        .fails(|| Error::not_found("no item 1").into());
    assert_eq!(names(&mock).await.unwrap(), ["tea"]);
    assert_eq!(mock.item(6).await.unwrap(), Some(tea(6)));
    assert!(mock.item(1).await.is_err());
    assert_eq!(mock.item_calls(), ["6", "1"]);
    mock.verify();
}

#[tokio::test]
async fn a_mock_stands_behind_a_real_server() {
    let mock = ItemsMock::new();
    mock.expect_item().with(6).once().returns(Some(tea(6)));
    let (items, _) = serve(ItemsServer::router(mock.clone())).await;
    assert_eq!(items.item(6).await.unwrap(), Some(tea(6)));
    mock.verify();
}

fn told(work: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let panic = std::panic::catch_unwind(work).unwrap_err();
    *panic.downcast::<String>().unwrap()
}

#[test]
fn a_mock_tells_what_came_and_what_did_not() {
    let call = |mock: &ItemsMock| futures_util::FutureExt::now_or_never(mock.item(7)).unwrap();
    let text = told(|| {
        let mock = ItemsMock::new();
        mock.expect_item().with(1).once().returns(None);
        drop(call(&mock));
    });
    assert_eq!(
        text,
        "Items::item was called with 7, which is not expected; expected: 1, once, came never"
    );
    let text = told(|| {
        let mock = ItemsMock::new();
        mock.expect_item().with(8).times(2).returns(None);
        mock.expect_item().returns(None);
        drop(call(&mock));
    });
    assert_eq!(
        text,
        "Items::item with 8 was expected 2 times, and came never; calls so far: 7"
    );
    let text = told(|| {
        let mock = ItemsMock::new();
        mock.expect_item().once().returns(None);
        drop(call(&mock));
        drop(call(&mock));
    });
    assert!(text.contains("any arguments, once, came once"), "{text}");
}

#[test]
fn the_document_describes_all_of_it() {
    let document = ItemsOpenApi::document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["description"], "The items of a shop.");
    let item = &document["paths"]["/api/v1/items/{item_id}"]["get"];
    assert_eq!(item["operationId"], "item");
    assert_eq!(item["summary"], "One item.");
    assert_eq!(item["description"], "Whoever asks gets it.");
    let id = &item["parameters"][0];
    assert_eq!(
        (&id["name"], &id["in"], &id["required"]),
        (&json!("item_id"), &json!("path"), &json!(true))
    );
    assert_eq!(id["schema"]["type"], "integer");
    let schema = &item["responses"]["200"]["content"]["application/json"]["schema"];
    assert_eq!(schema["$ref"], "#/components/schemas/Item");
    assert!(item["responses"]["404"].is_object() && item["responses"]["default"].is_object());
    let list = &document["paths"]["/api/v1/items"]["get"]["parameters"];
    assert_eq!(list[0]["schema"]["default"], 20);
    assert_eq!(list[0]["required"], false);
    assert_eq!(list[1]["schema"]["type"], "array");
    assert_eq!(
        (&list[2]["name"], &list[2]["in"]),
        (&json!("x-tenant"), &json!("header"))
    );
    let add = &document["paths"]["/api/v1/items"]["post"];
    assert_eq!(add["parameters"][0]["name"], "Idempotency-Key");
    let body = &add["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(body, "#/components/schemas/Item");
    let remove = &document["paths"]["/api/v1/items/{id}"]["delete"]["responses"];
    assert_eq!(
        remove["default"]["content"]["application/json"]["schema"]["type"],
        "string"
    );
    assert!(remove["204"].is_object());
    let pictures = &document["paths"]["/api/v1/items/{id}/pictures"]["post"];
    let form = &pictures["requestBody"]["content"]["multipart/form-data"];
    assert_eq!(
        *form,
        json!({
            "schema": {
                "type": "object",
                "properties": {
                    "title": { "type": "string" },
                    "picture": { "contentMediaType": "application/octet-stream" },
                },
            },
            "encoding": {
                "title": { "contentType": "text/plain" },
                "picture": { "contentType": "application/octet-stream" },
            },
        })
    );
    let anything = &document["paths"]["/api/v1/anything"]["post"]["requestBody"]["content"];
    let parts = &anything["multipart/form-data"]["schema"]["additionalProperties"]["anyOf"];
    assert_eq!(parts[0], json!({ "type": "string" }));
    assert_eq!(
        parts[1],
        json!({ "contentMediaType": "application/octet-stream" })
    );
    let schemas = document["components"]["schemas"].as_object().unwrap();
    assert_eq!(schemas["Item"]["properties"]["quantity"]["type"], "integer");
    // Every reference leads somewhere.
    let text = document.to_string();
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}
