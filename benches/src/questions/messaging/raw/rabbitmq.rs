//! lapin: confirms pipelined, deliveries prefetched, acknowledgements of many at once.

use anyhow::{Context as _, Result, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer};

use super::super::{Job, Order, PAUSE, Sample, median, ours};
use crate::stopwatch::Stopwatch;

/// Deliveries that are acknowledged together.
const TOGETHER: u32 = 64;

pub(in super::super) fn measure(job: &Job) -> Result<Sample> {
    ours::runtime()?.block_on(async {
        let connection = Connection::connect(&job.url, ConnectionProperties::default()).await?;
        let publisher = connection.create_channel().await?;
        publisher
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        let sample = Sample {
            publish: publish(&publisher, job).await?,
            consume: consume(&connection, job).await?,
            round_trip: round_trip(&connection, &publisher, job).await?,
        };
        connection.close(200, "done".into()).await?;
        Ok(sample)
    })
}

async fn send(channel: &Channel, queue: &str, id: u32) -> Result<()> {
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into());
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let body = Order::bytes(id)?;
    let confirm = channel.basic_publish("".into(), queue.into(), options, &body, properties);
    let confirm = confirm.await?.await?;
    ensure!(
        confirm.is_ack() && confirm.take_message().is_none(),
        "not taken"
    );
    Ok(())
}

async fn publish(channel: &Channel, job: &Job) -> Result<f64> {
    let watch = Stopwatch::start();
    stream::iter((0..job.messages).map(Ok))
        .try_for_each_concurrent(job.under_way, |id| send(channel, &job.address, id))
        .await?;
    Ok(watch.per_second(u64::from(job.messages)))
}

async fn consumer(
    connection: &Connection,
    queue: &str,
    under_way: usize,
) -> Result<(Channel, Consumer)> {
    let channel = connection.create_channel().await?;
    channel
        .basic_qos(u16::try_from(under_way)?, BasicQosOptions::default())
        .await?;
    let consumer = channel.basic_consume(
        queue.into(),
        "raw".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let consumer = consumer.await?;
    Ok((channel, consumer))
}

async fn consume(connection: &Connection, job: &Job) -> Result<f64> {
    let (channel, mut consumer) = consumer(connection, &job.address, job.under_way).await?;
    let mut watch = None;
    for taken in 1..=job.messages {
        let delivery = consumer.next().await.context("the consumer ended")??;
        watch.get_or_insert_with(Stopwatch::start);
        if taken % TOGETHER == 0 || taken == job.messages {
            let options = BasicAckOptions { multiple: true };
            channel.basic_ack(delivery.delivery_tag, options).await?;
        }
    }
    let rate = watch
        .context("nothing to consume")?
        .per_second(u64::from(job.messages));
    channel.close(200, "done".into()).await?;
    Ok(rate)
}

async fn round_trip(connection: &Connection, publisher: &Channel, job: &Job) -> Result<f64> {
    let (_channel, mut consumer) = consumer(connection, &job.single_address, job.under_way).await?;
    let mut spans = Vec::new();
    for id in 0..job.singles {
        tokio::time::sleep(PAUSE).await;
        let watch = Stopwatch::start();
        send(publisher, &job.single_address, id).await?;
        let delivery = consumer.next().await.context("the consumer ended")??;
        spans.push(watch.seconds() * 1e6);
        delivery.ack(BasicAckOptions::default()).await?;
    }
    Ok(median(&mut spans))
}
