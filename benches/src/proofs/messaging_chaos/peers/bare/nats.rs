//! async-nats: its example of a durable pull consumer.

use anyhow::{Result, anyhow, bail};
use async_nats::jetstream::{self, consumer::pull, stream};
use async_nats::{Client, ConnectOptions, ServerAddr};
use futures_util::StreamExt;

use crate::{Consumer, GROUP, say};

/// The driver does not take who it is from the address.
async fn connect(url: &str) -> Result<Client> {
    let address: ServerAddr = url.parse()?;
    let [user, password] = [address.username(), address.password()].map(Option::unwrap_or_default);
    let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    Ok(options.connect(address).await?)
}

pub struct Publisher {
    jetstream: jetstream::Context,
    subject: String,
}

impl Publisher {
    pub async fn open(url: &str, name: &str) -> Result<Self> {
        let client = connect(url).await?;
        Ok(Self {
            jetstream: jetstream::new(client),
            subject: name.to_owned(),
        })
    }

    pub async fn publish(&self, line: &str) -> Result<()> {
        let subject = self.subject.clone();
        let ack = self.jetstream.publish(subject, line.to_owned().into());
        ack.await?.await?;
        Ok(())
    }
}

pub async fn consume(mut to: Consumer, leave: impl Future<Output = Result<()>>) -> Result<()> {
    let client = connect(&to.url).await?;
    let stream = stream::Config {
        name: to.name.clone(),
        subjects: vec![to.name.clone()],
        ..Default::default()
    };
    let config = pull::Config {
        durable_name: Some(GROUP.to_owned()),
        ..Default::default()
    };
    let jetstream = jetstream::new(client.clone());
    let consumer = jetstream.get_or_create_stream(stream).await?;
    let consumer = consumer.create_consumer(config).await?;
    let mut messages = consumer.messages().await?;
    say("ready");
    tokio::pin!(leave);
    loop {
        let message = tokio::select! {
            message = messages.next() => message,
            left = &mut leave => {
                left?;
                client.drain().await?;
                return Ok(());
            }
        };
        let Some(message) = message else {
            bail!("the messages ended");
        };
        let message = message?;
        to.handle(&message.payload)?;
        message.ack().await.map_err(|error| anyhow!(error))?;
    }
}
