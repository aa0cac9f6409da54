use std::io;
use std::sync::Arc;

use async_nats::ConnectOptions;
use async_nats::jetstream::stream;
use ruststream::Broker;
use ruststream_nats::prelude::*;

use crate::{Numbered, handle, publish_all};

/// It does not take who it is from the address.
fn broker(url: &str) -> NatsBroker {
    let login = url
        .split_once("://")
        .and_then(|(_, rest)| rest.split_once('@'));
    let (user, password) = login
        .and_then(|(login, _)| login.split_once(':'))
        .unwrap_or_default();
    let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    NatsBroker::new(url).with_options(options)
}

/// `nats stream add`, as it would be typed before the first start.
pub async fn prepare(url: &str) -> anyhow::Result<()> {
    let broker = broker(url).connect().await?;
    let stream = stream::Config {
        name: "chaos".to_owned(),
        subjects: vec!["chaos".to_owned()],
        ..stream::Config::default()
    };
    broker.jetstream().get_or_create_stream(stream).await?;
    Ok(())
}

#[subscriber(JetStreamSubject::new("chaos", "chaos").durable("members"))]
async fn take(numbered: &Numbered) -> HandlerOutcome {
    handle(numbered)
}

pub fn consumer(info: AppInfo, url: &str) -> RustStream {
    RustStream::new(info).with_broker(broker(url), |b| {
        b.include(take);
    })
}

pub fn publisher(info: AppInfo, url: &str) -> RustStream {
    RustStream::new(info).with_broker(broker(url), |b| {
        b.after_startup(JetStreamPublish::default(), |publisher| async {
            let publisher = Arc::new(publisher);
            tokio::spawn(publish_all(move |numbered| {
                let publisher = Arc::clone(&publisher);
                async move { publisher.message(&numbered).publish().await }
            }));
            Ok::<_, io::Error>(())
        });
    })
}
