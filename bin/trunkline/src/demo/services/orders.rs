//! The orders service: takes orders, keeps them as events, and publishes them.
//!
//! An order is placed when its event is in the store: that is the moment of truth, and the answer 201 comes after it.
//! Publishing is the relay's work, which reads the store from its checkpoint; this service never writes to a store and
//! a broker in two steps. A caller that repeats a request under its `Idempotency-Key` gets the same order: the key
//! decides the order's id, the id is the key of the charge, and the event's id follows from it.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use trunkline::core::Id;
use trunkline::core::names::header::IDEMPOTENCY_KEY;
use trunkline::events::{
    AnyEventStore, Event, EventStore, ExpectedVersion, ReadAll, ReadStream, RecordedEvent,
    StreamName,
};
use trunkline::http::EnhancedHttpClient;
use trunkline::server::{Json, Path, ProblemResponse};
use trunkline::{CommunicationManager, Result};

use super::payments::{Charge, Receipt};
use super::users::User;
use crate::demo::narrator::STORY;

/// The type of the event that says that an order was placed, and the topic it is published to.
pub(crate) const ORDER_CREATED: &str = "order.created";

/// What a customer sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NewOrder {
    pub(crate) user_id: u64,
    pub(crate) item: String,
    /// In cents.
    pub(crate) amount: u64,
}

impl NewOrder {
    /// What can be seen to be wrong before anybody is asked, and anything is charged.
    fn check(&self) -> Result<(), ProblemResponse> {
        if self.item.trim().is_empty() {
            return Err(ProblemResponse::invalid_fields([("item", "must be named")]));
        }
        if self.amount == 0 {
            let field = ("amount", "must be at least 1");
            return Err(ProblemResponse::invalid_fields([field]));
        }
        Ok(())
    }
}

/// An order that was placed and paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) user_id: u64,
    pub(crate) email: String,
    pub(crate) item: String,
    pub(crate) amount: u64,
    pub(crate) charge_id: String,
}

#[derive(Clone)]
struct Orders {
    users: EnhancedHttpClient,
    payments: EnhancedHttpClient,
    store: AnyEventStore,
}

/// Serves until the process is asked to stop.
pub(crate) async fn run(manager: CommunicationManager) -> Result<()> {
    let orders = Orders {
        users: manager.http_client("user-service")?,
        payments: manager.http_client("payment-service")?,
        store: manager.event_store()?,
    };
    let router = Router::new()
        .route("/api/v1/orders", post(place).get(list))
        .route("/api/v1/orders/{id}", get(read))
        .with_state(orders);
    manager.serve(router).await
}

async fn place(
    State(orders): State<Orders>,
    headers: HeaderMap,
    Json(new): Json<NewOrder>,
) -> Result<Response, ProblemResponse> {
    new.check()?;
    let id = match headers.get(IDEMPOTENCY_KEY) {
        Some(key) => order_id(key)?,
        None => Id::new().to_string(),
    };
    let stream = StreamName::of("order", &id)?;
    if let Some(placed) = orders.find(&stream).await? {
        return placed_before(placed, &new);
    }
    let user = orders.user(new.user_id).await?;
    let receipt = orders.charge(&id, new.amount).await?;
    let order = Order {
        id: id.clone(),
        user_id: user.id,
        email: user.email,
        item: new.item.clone(),
        amount: new.amount,
        charge_id: receipt.charge_id,
    };
    let event = Event::new(ORDER_CREATED, &id, &order)?.with_id(format!("{id}-created"));
    match orders
        .store
        .append(&stream, ExpectedVersion::NoStream, vec![event])
        .await
    {
        Ok(_) => tracing::info!(target: STORY, "placed order {id} for user {}", order.user_id),
        // The same request, served twice at once: the other one was first.
        Err(conflict) if conflict.kind() == trunkline::ErrorKind::Conflict => {
            let placed = orders.find(&stream).await?;
            return placed_before(placed.ok_or(conflict)?, &new);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(created(order))
}

impl Orders {
    /// Asks the users service, by name.
    async fn user(&self, id: u64) -> Result<User> {
        let answer = self
            .users
            .get(format!("/api/v1/users/{id}"))
            .endpoint("GET /api/v1/users/{id}");
        Ok(answer.fetch().await?)
    }

    /// Charges under the order's id, which makes it safe to try again.
    async fn charge(&self, order_id: &str, amount: u64) -> Result<Receipt> {
        let charge = Charge {
            order_id: order_id.to_owned(),
            amount,
        };
        let answer = self
            .payments
            .post("/api/v1/payments/charges")
            .endpoint("POST /api/v1/payments/charges")
            .idempotency_key(order_id)
            .json(&charge);
        Ok(answer.fetch().await?)
    }

    async fn find(&self, stream: &StreamName) -> Result<Option<Order>> {
        let events = self
            .store
            .read_stream(ReadStream::new(stream.clone()).with_limit(1))
            .await?;
        events.first().map(order_of).transpose()
    }
}

async fn read(
    State(orders): State<Orders>,
    Path(id): Path<String>,
) -> Result<Json<Order>, ProblemResponse> {
    let found = orders.find(&StreamName::of("order", &id)?).await?;
    found
        .map(Json)
        .ok_or_else(|| ProblemResponse::not_found(format!("there is no order {id}")))
}

/// Every order, oldest first.
async fn list(State(orders): State<Orders>) -> Result<Json<Vec<Order>>, ProblemResponse> {
    let mut all = Vec::new();
    let mut position = 0;
    loop {
        let page = ReadAll::after(position).with_type(ORDER_CREATED);
        let events = orders.store.read_all(page).await?;
        let Some(last) = events.last() else {
            return Ok(Json(all));
        };
        position = last.position;
        for event in &events {
            all.push(order_of(event)?);
        }
    }
}

fn order_of(recorded: &RecordedEvent) -> Result<Order> {
    recorded.event.data()
}

fn created(order: Order) -> Response {
    let location = format!("/api/v1/orders/{}", order.id);
    (
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(order),
    )
        .into_response()
}

/// The answer to a repeated request; under a key that stands for another order there is none.
fn placed_before(placed: Order, new: &NewOrder) -> Result<Response, ProblemResponse> {
    let same =
        (placed.user_id, &placed.item, placed.amount) == (new.user_id, &new.item, new.amount);
    if same {
        Ok(created(placed))
    } else {
        Err(ProblemResponse::unprocessable(
            "this Idempotency-Key was used for another order",
        ))
    }
}

/// The key is the order's id, so that the same key gives the same order and no other key does.
fn order_id(key: &HeaderValue) -> Result<String, ProblemResponse> {
    let fits = |key: &&str| {
        (1..=64).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let key = key.to_str().ok().filter(fits);
    key.map(str::to_owned).ok_or_else(|| {
        ProblemResponse::bad_request("an Idempotency-Key has 1 to 64 letters, digits and dashes")
    })
}
