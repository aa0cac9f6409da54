//! A customer of the system, who comes in by the gateway.

use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use trunkline::core::names::header::CORRELATION_ID;
use trunkline::http::{HttpClient, Response};

use crate::demo::services::notifications::Notification;
use crate::demo::services::orders::Order;
use crate::demo::services::payments::Receipt;

/// Longer than any deadline inside the system.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that retries nothing by itself: what it sees is what the system did.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    client: HttpClient,
}

impl Shop {
    pub(super) fn new(gateway: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: HttpClient::new(gateway)?,
        })
    }

    /// Orders under a key and returns whatever is answered.
    pub(super) async fn try_order(&self, user_id: u64, key: &str) -> anyhow::Result<Response> {
        let body = json!({ "user_id": user_id, "item": "book", "amount": 1999 });
        let order = self
            .client
            .post("/api/v1/orders")
            .idempotency_key(key)
            .json(&body);
        Ok(order.timeout(PATIENCE).send().await?)
    }

    /// Makes payments, which is asked directly, take longer for every charge.
    pub(super) async fn delay_charges(
        &self,
        payments: &HttpClient,
        delay: Duration,
    ) -> anyhow::Result<()> {
        let body = json!({ "delay_ms": delay.as_millis() });
        let answer = payments.put("/mood").json(&body).send().await?;
        answer.error_for_status().await?;
        Ok(())
    }

    /// Orders under a key; anything but a placed order is an error.
    pub(super) async fn order(&self, user_id: u64, key: &str) -> anyhow::Result<Order> {
        let answer = self.try_order(user_id, key).await?;
        let status = answer.status().as_u16();
        ensure!(status == 201, "the order was answered with {status}");
        Ok(answer.json().await?)
    }

    /// Orders in a conversation with a given id.
    pub(super) async fn order_as(&self, correlation_id: &str, key: &str) -> anyhow::Result<Order> {
        let body = json!({ "user_id": 1, "item": "book", "amount": 1999 });
        let order = self
            .client
            .post("/api/v1/orders")
            .idempotency_key(key)
            .json(&body);
        let answer = order.header(CORRELATION_ID, correlation_id).send().await?;
        let echoed = answer
            .headers()
            .get(CORRELATION_ID)
            .and_then(|id| id.to_str().ok());
        ensure!(
            echoed == Some(correlation_id),
            "the answer carries the correlation id {echoed:?}"
        );
        Ok(answer.json().await?)
    }

    /// Sends any body to the orders.
    pub(super) async fn post_raw(&self, body: &Value) -> anyhow::Result<Response> {
        Ok(self
            .client
            .post("/api/v1/orders")
            .json(body)
            .timeout(PATIENCE)
            .send()
            .await?)
    }

    pub(super) async fn read_order(&self, id: &str) -> anyhow::Result<Order> {
        self.read(&format!("/api/v1/orders/{id}")).await
    }

    pub(super) async fn orders(&self) -> anyhow::Result<Vec<Order>> {
        self.read("/api/v1/orders").await
    }

    pub(super) async fn notifications(&self) -> anyhow::Result<Vec<Notification>> {
        self.read("/api/v1/notifications").await
    }

    pub(super) async fn charges(&self, payments: &str) -> anyhow::Result<Vec<Receipt>> {
        let client = HttpClient::new(payments)?;
        Ok(client
            .get("/api/v1/payments/charges")
            .send()
            .await?
            .json()
            .await?)
    }

    async fn read<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let answer = self.client.get(path).timeout(PATIENCE).send().await?;
        if !answer.status().is_success() {
            bail!("GET {path} answered {}", answer.status());
        }
        answer
            .json()
            .await
            .with_context(|| format!("GET {path} answered something else"))
    }
}

/// A key that nobody else uses.
pub(super) fn fresh_key() -> String {
    trunkline::core::Id::new().to_string()
}
