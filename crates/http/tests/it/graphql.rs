//! GraphQL against a real server of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_graphql::extensions::apollo_persisted_queries::{
    ApolloPersistedQueries, LruCacheStorage,
};
use async_graphql::{
    Context, EmptySubscription, ErrorExtensions as _, FieldResult, Object, Schema, SimpleObject,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};
use trunkline_core::ErrorKind;
use trunkline_discovery::ServiceConfig;
use trunkline_http::graphql::GraphQlClient;
use trunkline_http::{Next, ServiceError, ServiceRequest, ServiceSdk};
use trunkline_resilience::breaker::State;

use crate::rig::{Server, enhanced, status};

#[derive(SimpleObject)]
struct Person {
    id: u64,
    name: String,
}

/// How many mutations were carried out.
type Added = Arc<AtomicUsize>;

struct Query;

#[Object]
impl Query {
    async fn user(&self, id: u64) -> FieldResult<Person> {
        let found = ["Ada", "Grace"].get(usize::try_from(id)?);
        let person = found.map(|name| Person {
            id,
            name: (*name).to_owned(),
        });
        person.ok_or_else(|| {
            async_graphql::Error::new("there is no such user")
                .extend_with(|_, extensions| extensions.set("code", "NOT_FOUND"))
        })
    }

    /// What may be missing, and is.
    async fn orders(&self) -> FieldResult<Option<Vec<u64>>> {
        Err("the orders cannot be read".into())
    }
}

struct Mutation;

#[Object]
impl Mutation {
    async fn add(&self, context: &Context<'_>, name: String) -> FieldResult<Person> {
        let id = context.data::<Added>()?.fetch_add(1, Ordering::SeqCst);
        let id = u64::try_from(id)?;
        Ok(Person { id, name })
    }
}

/// A server of GraphQL, and what it was sent.
struct GraphQl {
    server: Server,
    seen: Arc<Mutex<Vec<String>>>,
    added: Added,
}

impl GraphQl {
    /// `first` are the statuses with which the first requests are turned away.
    async fn start(keeps_documents: bool, first: &'static [u16]) -> Self {
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let added = Added::default();
        let schema = Schema::build(Query, Mutation, EmptySubscription).data(Arc::clone(&added));
        let schema = match keeps_documents {
            true => schema.extension(ApolloPersistedQueries::new(LruCacheStorage::new(64))),
            false => schema,
        };
        let (schema, log, number) = (schema.finish(), Arc::clone(&seen), Added::default());
        let server = Server::start(move |request: Request<Incoming>| {
            let (schema, log) = (schema.clone(), Arc::clone(&log));
            let turned_away = first.get(number.fetch_add(1, Ordering::SeqCst));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let sent = match head.uri.query() {
                    Some(query) => query.to_owned(),
                    None => String::from_utf8_lossy(&body).into_owned(),
                };
                let line = format!("{} {}", head.method, sent);
                log.lock().unwrap().push(line);
                if let Some(code) = turned_away {
                    return status(*code);
                }
                let request = match head.uri.query() {
                    Some(query) => async_graphql::http::parse_query_string(query).unwrap(),
                    None => serde_json::from_slice(&body).unwrap(),
                };
                answer(&schema.execute(request).await)
            }
        })
        .await;
        Self {
            server,
            seen,
            added,
        }
    }

    fn client(&self) -> GraphQlClient {
        enhanced(self.server.url()).graphql("/graphql")
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

/// As the specification wants it: a request that was refused has an error status.
fn answer(answer: &async_graphql::Response) -> Response<Full<Bytes>> {
    let refused = answer.data == async_graphql::Value::Null;
    Response::builder()
        .status(if refused { 400 } else { 200 })
        .header(
            "content-type",
            "application/graphql-response+json; charset=utf-8",
        )
        .body(Full::from(serde_json::to_vec(answer).unwrap()))
        .unwrap()
}

#[derive(Debug, PartialEq, Deserialize)]
struct Found {
    user: User,
}

#[derive(Debug, PartialEq, Deserialize)]
struct User {
    id: u64,
    name: String,
}

const USER: &str = "query User($id: Int!) { user(id: $id) { id name } }";

#[tokio::test]
async fn a_query_with_variables_answers_with_typed_data() {
    let graphql = GraphQl::start(false, &[]).await;
    let found: Found = graphql
        .client()
        .request(USER)
        .variable("id", 0)
        .fetch()
        .await
        .unwrap();
    let ada = User {
        id: 0,
        name: "Ada".to_owned(),
    };
    assert_eq!(found.user, ada);
    let two =
        "query A { user(id: 0) { id name } } query B($id: Int!) { user(id: $id) { id name } }";
    let found: Found = graphql
        .client()
        .request(two)
        .operation("B")
        .variables(json!({ "id": 1 }))
        .fetch()
        .await
        .unwrap();
    assert_eq!(found.user.name, "Grace");
    let sent: Value =
        serde_json::from_str(graphql.seen()[1].strip_prefix("POST ").unwrap()).unwrap();
    assert_eq!(
        sent,
        json!({ "query": two, "operationName": "B", "variables": { "id": 1 } })
    );
}

#[tokio::test]
async fn what_is_there_comes_beside_what_is_missing() {
    #[derive(Debug, Deserialize)]
    struct Page {
        user: User,
        orders: Option<Vec<u64>>,
    }
    let graphql = GraphQl::start(false, &[]).await;
    let page = "query Page { user(id: 0) { id name } orders }";
    let answer = graphql.client().request(page).send::<Page>().await.unwrap();
    assert!(answer.is_partial());
    let data = answer.data.unwrap();
    assert_eq!((data.user.name.as_str(), data.orders), ("Ada", None));
    let told = &answer.errors[0];
    assert_eq!(told.to_string(), "the orders cannot be read (orders)");
    assert_eq!((told.locations[0].line, told.locations[0].column), (1, 38));

    // Whoever wants all or nothing gets the errors as an error.
    let error = graphql
        .client()
        .request(page)
        .fetch::<Page>()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(error.graphql_errors().unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_wrong_is_told_as_the_service_tells_it() {
    let graphql = GraphQl::start(false, &[]).await;
    let client = graphql.client();
    let nobody = client.request(USER).variable("id", 9).fetch::<Found>();
    let error = nobody.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "GraphQL: there is no such user (user)");

    let refused = client.request("query Q { nothing }").fetch::<Value>().await;
    let error = refused.unwrap_err();
    assert!(matches!(error, ServiceError::Validation(_)), "{error:?}");
    assert!(error.to_string().contains("nothing"), "{error}");

    // Data of another form than asked for: the place is told.
    #[derive(Debug, Deserialize)]
    struct Other {
        #[expect(dead_code, reason = "it is never read")]
        user: BTreeMap<String, u64>,
    }
    let other = client.request(USER).variable("id", 0).send::<Other>().await;
    let error = other.unwrap_err();
    let places = error.mismatch().unwrap().to_string();
    assert!(places.contains("data.user"), "{places}");

    for (request, wrong) in [
        (
            client.request("query A { a } query B { b }"),
            "2 operations",
        ),
        (client.request("subscription S { s }"), "subscriptions"),
        (client.request(USER).variables([1]), "mapping"),
    ] {
        let error = request.fetch::<Value>().await.unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
    }
    assert_eq!(
        graphql.server.count.requests(),
        3,
        "the last ones were not sent"
    );
}

#[tokio::test]
async fn a_query_is_repeated_and_a_mutation_only_with_a_key() {
    let graphql = GraphQl::start(false, &[503, 503]).await;
    let client = graphql.client();
    let found = client
        .request(USER)
        .variable("id", 0)
        .fetch::<Found>()
        .await;
    assert_eq!(found.unwrap().user.name, "Ada");
    assert_eq!(graphql.seen().len(), 3);

    let add = "mutation Add($name: String!) { add(name: $name) { id name } }";
    let graphql = GraphQl::start(false, &[503]).await;
    let client = graphql.client();
    let plain = client
        .request(add)
        .variable("name", "Joan")
        .fetch::<Value>();
    let error = plain.await.unwrap_err();
    assert_eq!(error.status_code(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(
        (graphql.seen().len(), graphql.added.load(Ordering::SeqCst)),
        (1, 0)
    );

    let graphql = GraphQl::start(false, &[503]).await;
    let keyed = graphql.client().request(add).variable("name", "Joan");
    let added: Value = keyed.idempotency_key("add-1").fetch().await.unwrap();
    assert_eq!(added["add"]["name"], "Joan");
    assert_eq!(
        (graphql.seen().len(), graphql.added.load(Ordering::SeqCst)),
        (2, 1)
    );
}

#[tokio::test]
async fn a_document_is_sent_once_and_known_by_its_hash() {
    let graphql = GraphQl::start(true, &[]).await;
    let client = graphql.client().persisted();
    for number in 0..3 {
        let found: Found = client
            .request(USER)
            .variable("id", number % 2)
            .fetch()
            .await
            .unwrap();
        assert_eq!(found.user.id, number % 2);
    }
    let seen = graphql.seen();
    let documents: Vec<bool> = seen
        .iter()
        .map(|line| line.contains("query User"))
        .collect();
    // Hash, hash and document, then the hash alone.
    assert_eq!(documents, [false, true, false, false], "{seen:#?}");
    assert!(seen.iter().all(|line| line.contains("sha256Hash")));

    // A mutation that was not known was not carried out, and is once it is.
    let add = "mutation Add { add(name: \"Joan\") { id } }";
    client.request(add).fetch::<Value>().await.unwrap();
    assert_eq!(graphql.added.load(Ordering::SeqCst), 1);
    graphql.seen();
    // One key is one request, the document in it: a server that keeps answers by key would keep that a hash is not known.
    let again = client.request("mutation Again { add(name: \"Grace\") { id } }");
    let again = again.idempotency_key("again").fetch::<Value>();
    again.await.unwrap();
    let seen = graphql.seen();
    assert!(
        seen.len() == 1 && seen[0].contains("mutation Again"),
        "{seen:#?}"
    );
}

#[tokio::test]
async fn hashes_travel_by_get() {
    let graphql = GraphQl::start(true, &[]).await;
    let client = graphql.client().persisted().queries_by_get();
    for _ in 0..2 {
        let found = client
            .request(USER)
            .variable("id", 1)
            .fetch::<Found>()
            .await;
        assert_eq!(found.unwrap().user.name, "Grace");
    }
    let methods: Vec<String> = graphql
        .seen()
        .iter()
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(methods, ["GET", "POST", "GET"]);
    // Without hashes the whole of it does.
    let plain = graphql.client().queries_by_get();
    plain
        .request(USER)
        .variable("id", 1)
        .fetch::<Found>()
        .await
        .unwrap();
    assert!(graphql.seen()[0].starts_with("GET "));
    // A mutation never does.
    let add = "mutation Add { add(name: \"Joan\") { id } }";
    client.request(add).fetch::<Value>().await.unwrap();
    assert!(graphql.seen().iter().all(|line| line.starts_with("POST ")));
}

#[tokio::test]
async fn a_service_that_keeps_no_documents_is_noticed() {
    let count = Added::default();
    let seen = Arc::clone(&count);
    let server = Server::start(move |request: Request<Incoming>| {
        seen.fetch_add(1, Ordering::SeqCst);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let sent: Value = serde_json::from_slice(&body).unwrap();
            let text = match sent.get("extensions") {
                Some(_) => json!({ "errors": [{ "message": "PersistedQueryNotSupported" }] }),
                None => json!({ "data": { "user": { "id": 1, "name": "Grace" } } }),
            };
            Response::new(Full::from(text.to_string()))
        }
    })
    .await;
    let client = enhanced(server.url()).graphql("graphql").persisted();
    for asked in [2, 3, 4] {
        client.request(USER).fetch::<Found>().await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), asked);
    }
}

/// Operations are endpoints: the circuit of one does not stop the others; middleware sees which one it is.
#[tokio::test]
async fn every_operation_has_a_circuit_of_its_own() {
    let graphql = GraphQl::start(false, &[500]).await;
    let mut service = ServiceConfig::at("127.0.0.1", graphql.server.address.port());
    service.circuit_breaker.failure_threshold = Some(1);
    service.retry.enabled = Some(false);
    let names = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&names);
    let sdk = ServiceSdk::builder()
        .service("user-service", service)
        .build()
        .unwrap()
        .middleware(async move |request: ServiceRequest, next: Next| {
            log.lock().unwrap().push(request.endpoint().to_owned());
            next.run(request).await
        });
    let client = sdk.graphql("user-service", "/graphql").unwrap();
    let user = || {
        client
            .request(USER)
            .variable("id", 0)
            .timeout(Duration::from_secs(10))
    };
    let failed = user().fetch::<Found>().await.unwrap_err();
    assert_eq!(
        failed.status_code(),
        Some(StatusCode::INTERNAL_SERVER_ERROR)
    );
    let open = user().fetch::<Found>().await.unwrap_err();
    assert!(matches!(open, ServiceError::CircuitOpen(_)), "{open:?}");
    let other = "query Other { user(id: 0) { id name } }";
    client.request(other).fetch::<Found>().await.unwrap();
    // An error in the body is an answer all the same.
    for _ in 0..3 {
        let nobody = client.request("query Nobody { user(id: 9) { id } }");
        assert_eq!(
            nobody.fetch::<Value>().await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
    let open: Vec<String> = sdk
        .circuit_states()
        .into_iter()
        .filter(|state| state.circuit.state == State::Open)
        .map(|state| state.target.to_string())
        .collect();
    assert_eq!(open, ["user-service QUERY /graphql/User"]);
    assert_eq!(
        names.lock().unwrap()[..3],
        [
            "QUERY /graphql/User",
            "QUERY /graphql/User",
            "QUERY /graphql/Other"
        ]
    );
}
