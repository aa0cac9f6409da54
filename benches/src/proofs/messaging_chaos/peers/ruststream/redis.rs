use std::io;
use std::sync::Arc;
use std::time::Duration;

use ruststream_fred::stream::prelude::*;

use crate::{Numbered, handle, publish_all};

pub async fn prepare(_: &str) -> anyhow::Result<()> {
    Ok(())
}

#[subscriber(RedisStream::new("chaos").group("members"))]
async fn take(numbered: &Numbered) -> HandlerOutcome {
    handle(numbered)
}

/// What a dead consumer has left.
#[subscriber(RedisStream::reclaim("chaos", Duration::from_secs(10)).group("members"))]
async fn recover(numbered: &Numbered) -> HandlerOutcome {
    handle(numbered)
}

pub fn consumer(info: AppInfo, url: &str) -> RustStream {
    RustStream::new(info).with_broker(RedisBroker::standalone(url), |b| {
        b.include(take);
        b.include(recover);
    })
}

pub fn publisher(info: AppInfo, url: &str) -> RustStream {
    RustStream::new(info).with_broker(RedisBroker::standalone(url), |b| {
        b.after_startup(Publish, |publisher| async {
            let publisher = Arc::new(publisher);
            tokio::spawn(publish_all(move |numbered| {
                let publisher = Arc::clone(&publisher);
                async move { publisher.message(&numbered).publish().await }
            }));
            Ok::<_, io::Error>(())
        });
    })
}
