use std::io;
use std::sync::Arc;

use ruststream::HeaderMap;
use ruststream_rdkafka::PARTITION_KEY_HEADER;
use ruststream_rdkafka::prelude::*;

use crate::{Numbered, handle, publish_all};

fn broker(url: &str) -> KafkaBroker {
    KafkaBroker::new([url.trim_start_matches("kafka://")])
        .producer_config("acks", "all")
        .producer_config("enable.idempotence", "true")
}

pub async fn prepare(_: &str) -> anyhow::Result<()> {
    Ok(())
}

#[subscriber(
    KafkaTopic::new("chaos").group("members").commit(Commit::Tracked).start(StartOffset::Earliest)
)]
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
        b.after_startup(Publish::default(), |publisher| async {
            let publisher = Arc::new(publisher);
            tokio::spawn(publish_all(move |numbered| {
                let publisher = Arc::clone(&publisher);
                let mut headers = HeaderMap::new();
                headers.insert(PARTITION_KEY_HEADER, numbered.key.to_string());
                async move {
                    let message = publisher.message(&numbered).with_headers(headers);
                    message.publish().await
                }
            }));
            Ok::<_, io::Error>(())
        });
    })
}
