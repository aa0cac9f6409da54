use std::io;
use std::sync::Arc;

use ruststream_lapin::prelude::*;

use crate::{Numbered, handle, publish_all};

// Recovery is off unless it is asked for.
fn broker(url: &str) -> LapinBroker {
    LapinBroker::new(url)
        .declare_topology(true)
        .auto_recover(true)
}

pub async fn prepare(_: &str) -> anyhow::Result<()> {
    Ok(())
}

#[subscriber(RabbitQuorumQueue::new("chaos"))]
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
        // Confirmed, outside of a transaction.
        b.after_startup(TransactionalPublish::default(), |publisher| async {
            let publisher = Arc::new(publisher);
            tokio::spawn(publish_all(move |numbered| {
                let publisher = Arc::clone(&publisher);
                async move { publisher.message(&numbered).publish().await }
            }));
            Ok::<_, io::Error>(())
        });
    })
}
