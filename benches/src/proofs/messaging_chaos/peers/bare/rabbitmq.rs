//! lapin: its example of automatic recovery, with confirms.

use anyhow::{Result, bail, ensure};
use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};

use crate::{Consumer, say};

async fn open(url: &str, name: &str) -> Result<(Connection, Channel)> {
    let properties = ConnectionProperties::default().enable_auto_recover();
    let connection = Connection::connect(url, properties).await?;
    let channel = connection.create_channel().await?;
    let mut arguments = FieldTable::default();
    arguments.insert(
        "x-queue-type".into(),
        AMQPValue::LongString("quorum".into()),
    );
    channel
        .queue_declare(name.into(), QueueDeclareOptions::durable(), arguments)
        .await?;
    Ok((connection, channel))
}

pub struct Publisher {
    _connection: Connection,
    channel: Channel,
    queue: String,
}

impl Publisher {
    pub async fn open(url: &str, name: &str) -> Result<Self> {
        let (connection, channel) = open(url, name).await?;
        let confirm = channel.confirm_select(ConfirmSelectOptions::default());
        confirm.await?;
        Ok(Self {
            _connection: connection,
            channel,
            queue: name.to_owned(),
        })
    }

    pub async fn publish(&self, line: &str) -> Result<()> {
        match self.send(line).await {
            Ok(is_taken) => {
                ensure!(is_taken, "not taken");
                Ok(())
            }
            Err(error) => {
                let what = error.to_string();
                self.channel.wait_for_recovery(error).await?;
                bail!(what)
            }
        }
    }

    async fn send(&self, line: &str) -> lapin::Result<bool> {
        let confirm = self.channel.basic_publish(
            "".into(),
            self.queue.as_str().into(),
            BasicPublishOptions::default(),
            line.as_bytes(),
            BasicProperties::default().with_delivery_mode(2),
        );
        Ok(confirm.await?.await?.is_ack())
    }
}

pub async fn consume(mut to: Consumer, leave: impl Future<Output = Result<()>>) -> Result<()> {
    let (connection, channel) = open(&to.url, &to.name).await?;
    let consumer = channel.basic_consume(
        to.name.as_str().into(),
        format!("consumer-{}", to.number).into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut consumer = consumer.await?;
    say("ready");
    tokio::pin!(leave);
    loop {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            left = &mut leave => {
                left?;
                connection.close(200, "leaving".into()).await?;
                return Ok(());
            }
        };
        let Some(delivery) = delivery else {
            bail!("the consumer ended");
        };
        match delivery {
            Ok(delivery) => {
                to.handle(&delivery.data)?;
                // Any error of a channel is waited out in that way; one that is not recoverable comes back.
                if let Err(error) = delivery.ack(BasicAckOptions::default()).await {
                    channel.wait_for_recovery(error).await?;
                }
            }
            Err(error) => channel.wait_for_recovery(error).await?,
        }
    }
}
