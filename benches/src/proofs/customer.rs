//! A customer of the demo, who repeats an order under its key until it is confirmed.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use trunkline::Id;
use trunkline::http::{HttpClient, HttpClientConfig};

/// How long a customer goes on trying: any process may be away for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// An order as the shop shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
}

/// A notification, or a charge, by the order it is about.
#[derive(Debug, Deserialize)]
pub(super) struct About {
    pub(super) order_id: String,
}

#[derive(Clone, Debug)]
pub(super) struct Customer {
    client: HttpClient,
}

impl Customer {
    pub(super) fn new(url: &str) -> Result<Self> {
        Ok(Self {
            client: HttpClient::new(url)?,
        })
    }

    /// A customer who opens a connection for every request, so that a connection that breaks has carried one alone.
    pub(super) fn with_fresh_connections(url: &str) -> Result<Self> {
        let config = HttpClientConfig::new(url).with_keepalive(0, Duration::ZERO);
        Ok(Self {
            client: HttpClient::builder().config(config).build()?,
        })
    }

    /// Orders, and repeats the order under the same key until it is confirmed.
    pub(super) async fn order_until_confirmed(&self, user: u64) -> Result<Order> {
        let key = Id::new().to_string();
        let end = Instant::now() + PATIENCE;
        let mut why = String::new();
        while Instant::now() < end {
            match self.order(user, &key).await {
                Ok(Answer::Confirmed(order)) => return Ok(order),
                Ok(Answer::Refused(status)) => why = format!("answered with {status}"),
                Err(error) => why = error.to_string(),
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("an order was not confirmed within a minute; the last time: {why}")
    }

    /// Orders once.
    pub(super) async fn order(&self, user: u64, key: &str) -> trunkline::Result<Answer> {
        let body = json!({ "user_id": user, "item": "book", "amount": 1999 });
        let order = self
            .client
            .post("/api/v1/orders")
            .idempotency_key(key)
            .json(&body);
        let answer = order.timeout(Duration::from_secs(10)).send().await?;
        if answer.status().as_u16() != 201 {
            return Ok(Answer::Refused(answer.status().as_u16()));
        }
        Ok(Answer::Confirmed(answer.json().await?))
    }

    /// Reads a list, trying again while the system recovers.
    pub(super) async fn list<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = self
                .client
                .get(path)
                .timeout(Duration::from_secs(10))
                .send()
                .await;
            match answer {
                Ok(answer) if answer.status().is_success() => {
                    return answer.json().await.with_context(|| format!("GET {path}"));
                }
                _ if Instant::now() > end => bail!("GET {path} gave no answer"),
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Waits until the other side answers that it is ready.
    pub(super) async fn until_ready(&self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.client.get("/health/ready").send().await {
                Ok(answer) if answer.status().is_success() => return Ok(()),
                _ if Instant::now() > end => bail!("it was not ready in time"),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Makes payments slow or flaky.
    pub(super) async fn set_mood(&self, mood: &Value) -> Result<()> {
        let answer = self.client.put("/mood").json(mood).send().await?;
        if !answer.status().is_success() {
            bail!("PUT /mood was answered with {}", answer.status());
        }
        Ok(())
    }
}

pub(super) enum Answer {
    Confirmed(Order),
    Refused(u16),
}
