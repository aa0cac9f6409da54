//! async-nats with JetStream's own requests: publishes pipelined, each with an id by which the server knows a repetition;
//! messages pulled many at once, acknowledgements pipelined, each with the server's answer, as ours has them.

use anyhow::{Context as _, Result, ensure};
use async_nats::{Client, ConnectOptions, HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};
use trunkline_testing::servers::nats::USER;

use super::super::{Job, Order, PAUSE, Sample, median, ours};
use crate::stopwatch::Stopwatch;

const CONSUMER: &str = "bare";
/// How long a pull stays open, in nanoseconds.
const OPEN_FOR: u64 = 60_000_000_000;

pub(in super::super) fn measure(job: &Job) -> Result<Sample> {
    ours::runtime()?.block_on(async {
        let (user, password) = USER;
        let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
        let client = options.connect(job.url.as_str()).await?;
        Ok(Sample {
            publish: publish(&client, job).await?,
            consume: consume(&client, job).await?,
            round_trip: round_trip(&client, job).await?,
        })
    })
}

async fn send(client: &Client, subject: &str, id: u32) -> Result<()> {
    let body = Bytes::from(Order::bytes(id)?);
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", format!("{subject}.{id}"));
    let answer = client
        .request_with_headers(subject.to_owned(), headers, body)
        .await?;
    let answer: Value = serde_json::from_slice(&answer.payload)?;
    ensure!(answer.get("seq").is_some(), "not stored: {answer}");
    Ok(())
}

async fn publish(client: &Client, job: &Job) -> Result<f64> {
    let watch = Stopwatch::start();
    stream::iter((0..job.messages).map(Ok))
        .try_for_each_concurrent(job.under_way, |id| send(client, &job.address, id))
        .await?;
    Ok(watch.per_second(u64::from(job.messages)))
}

/// A durable consumer, pulled.
struct Pull {
    client: Client,
    next: String,
    inbox: String,
    messages: Subscriber,
    batch: usize,
    asked: usize,
}

impl Pull {
    async fn open(client: &Client, queue: &str, batch: usize) -> Result<Self> {
        let stream = format!("TRUNKLINE-Q-{}", queue.replace('.', "="));
        let config = json!({ "durable_name": CONSUMER, "ack_policy": "explicit", "max_ack_pending": 4 * batch });
        let create = json!({ "stream_name": stream, "config": config });
        let subject = format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{CONSUMER}");
        let answer = client.request(subject, create.to_string().into()).await?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(answer.get("error").is_none(), "no consumer: {answer}");
        let inbox = client.new_inbox();
        Ok(Self {
            messages: client.subscribe(inbox.clone()).await?,
            client: client.clone(),
            next: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}"),
            inbox,
            batch,
            asked: 0,
        })
    }

    /// The next message; more are asked for while half of them is still to come.
    async fn next(&mut self) -> Result<Message> {
        if self.asked <= self.batch / 2 {
            let more = json!({ "batch": self.batch, "expires": OPEN_FOR }).to_string();
            let (subject, inbox) = (self.next.clone(), self.inbox.clone());
            self.client
                .publish_with_reply(subject, inbox, more.into())
                .await?;
            self.asked += self.batch;
        }
        let message = self.messages.next().await.context("the consumer ended")?;
        ensure!(
            message.status.is_none(),
            "instead of a message: {:?}",
            message.status
        );
        self.asked -= 1;
        Ok(message)
    }
}

/// Returns when the server has heard it.
async fn acknowledge(client: &Client, message: Message) -> Result<()> {
    let reply = message.reply.context("nothing to acknowledge")?;
    client.request(reply, Bytes::from_static(b"+ACK")).await?;
    Ok(())
}

async fn consume(client: &Client, job: &Job) -> Result<f64> {
    let mut pull = Pull::open(client, &job.queue, job.under_way).await?;
    let watch = Stopwatch::start();
    let mut acknowledging = FuturesUnordered::new();
    for _ in 0..job.messages {
        acknowledging.push(acknowledge(client, pull.next().await?));
        while acknowledging.len() >= job.under_way {
            acknowledging.next().await.transpose()?;
        }
    }
    while acknowledging.next().await.transpose()?.is_some() {}
    Ok(watch.per_second(u64::from(job.messages)))
}

async fn round_trip(client: &Client, job: &Job) -> Result<f64> {
    let mut pull = Pull::open(client, &job.single, job.under_way).await?;
    let mut spans = Vec::new();
    for id in 0..job.singles {
        tokio::time::sleep(PAUSE).await;
        let watch = Stopwatch::start();
        let (sent, message) = tokio::join!(send(client, &job.single_address, id), pull.next());
        sent?;
        spans.push(watch.seconds() * 1e6);
        acknowledge(client, message?).await?;
    }
    Ok(median(&mut spans))
}
