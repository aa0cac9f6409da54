//! Trunkline, as a service uses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{TryStreamExt as _, stream};
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use trunkline::core::Lifecycle as _;
use trunkline::messaging::{
    Destination, HandlerError, MessageBroker as _, MessageBrokerConfig, Messaging, Queue, TopicName,
};

use super::{Job, Order, PAUSE, Sample, median};
use crate::stopwatch::Stopwatch;

const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(2).enable_all().build()?)
}

fn open(job: &Job) -> Result<Messaging> {
    // As the others do, it does not wait for more to send.
    let options = if job.system == "kafka" {
        "?linger_ms=0"
    } else {
        ""
    };
    let config = MessageBrokerConfig::from_url(&format!("{}{options}", job.url))?;
    let broker = trunkline::backends::open_broker(&config)?;
    Ok(Messaging::builder(broker).service("bench").build())
}

/// Makes the queues of a job, for whoever is measured.
pub(super) fn declare(job: &Job) -> Result<()> {
    runtime()?.block_on(async {
        let messaging = open(job)?;
        messaging.start().await?;
        for queue in [&job.queue, &job.single] {
            let queue = Destination::Queue(TopicName::new(queue)?);
            messaging.broker().declare(queue).await?;
        }
        close(&messaging).await
    })
}

async fn close(messaging: &Messaging) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    messaging.drain(deadline).await?;
    Ok(messaging.shutdown(deadline).await?)
}

pub(super) fn measure(job: &Job) -> Result<Sample> {
    runtime()?.block_on(async {
        Ok(Sample {
            publish: publish(job).await?,
            consume: consume(job).await?,
            round_trip: round_trip(job).await?,
        })
    })
}

async fn publish(job: &Job) -> Result<f64> {
    let messaging = open(job)?;
    messaging.start().await?;
    let queue = Destination::Queue(TopicName::new(&job.queue)?);
    let watch = Stopwatch::start();
    stream::iter((0..job.messages).map(Ok::<_, trunkline::Error>))
        .try_for_each_concurrent(job.under_way, |id| {
            let (messaging, queue) = (&messaging, queue.clone());
            async move {
                messaging.publish(queue, &Order::new(id)).await?;
                Ok(())
            }
        })
        .await?;
    let rate = watch.per_second(u64::from(job.messages));
    close(&messaging).await?;
    Ok(rate)
}

async fn consume(job: &Job) -> Result<f64> {
    let messaging = open(job)?;
    let (tell, done) = oneshot::channel();
    let tell = Arc::new(Mutex::new(Some(tell)));
    let (begun, handled) = (
        Arc::new(std::sync::OnceLock::new()),
        Arc::new(AtomicU32::new(0)),
    );
    let all = job.messages;
    let listening = messaging
        .subscribe(Queue::<Order>::new(job.queue.clone().leak()))
        .concurrency(job.under_way)
        .prefetch(u32::try_from(job.under_way)?)
        .without_inbox()
        .handle(move |_: Order| {
            let watch = *begun.get_or_init(Stopwatch::start);
            let is_last = handled.fetch_add(1, Ordering::AcqRel) + 1 == all;
            let tell = Arc::clone(&tell);
            async move {
                if is_last && let Some(tell) = tell.lock().await.take() {
                    // Who waits may have given up.
                    tell.send(watch.per_second(u64::from(all))).ok();
                }
                Ok::<_, HandlerError>(())
            }
        })
        .await?;
    messaging.start().await?;
    let rate = timeout(PATIENCE, done).await.context("not all came")??;
    drop(listening);
    close(&messaging).await?;
    Ok(rate)
}

async fn round_trip(job: &Job) -> Result<f64> {
    let messaging = open(job)?;
    let (tell, mut handled) = mpsc::unbounded_channel();
    let listening = messaging
        .subscribe(Queue::<Order>::new(job.single.clone().leak()))
        .without_inbox()
        .handle(move |order: Order| {
            tell.send(order.id).ok();
            async { Ok::<_, HandlerError>(()) }
        })
        .await?;
    messaging.start().await?;
    listening.attached().await?;
    let queue = Destination::Queue(TopicName::new(&job.single)?);
    let mut spans = Vec::new();
    for id in 0..job.singles {
        tokio::time::sleep(PAUSE).await;
        let watch = Stopwatch::start();
        messaging.publish(queue.clone(), &Order::new(id)).await?;
        timeout(PATIENCE, handled.recv())
            .await?
            .context("it did not come back")?;
        spans.push(watch.seconds() * 1e6);
    }
    close(&messaging).await?;
    Ok(median(&mut spans))
}
