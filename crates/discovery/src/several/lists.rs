//! The lists of one registry, through all its outages.

use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use tokio::time::{sleep, timeout};
use trunkline_core::{Error, ErrorKind, Result};

use crate::backoff::Backoff;
use crate::erased::AnyResolver;
use crate::instance::ServiceName;
use crate::resolver::{InstanceList, InstanceWatch, Resolver};

/// Time for opening a watch and its first list.
const OPENED_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait before one that is away is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

struct Lists {
    resolver: AnyResolver,
    service: ServiceName,
    watch: Option<InstanceWatch>,
    backoff: Backoff,
    failed: bool,
    ended: bool,
}

/// Lists as they change, and an error whenever a watch cannot be opened or breaks; it is opened again then. Ends when the
/// registry is shut down in this process.
pub(super) fn lists(
    resolver: AnyResolver,
    service: ServiceName,
) -> impl Stream<Item = Result<InstanceList>> + Send + 'static {
    let lists = Lists {
        resolver,
        service,
        watch: None,
        backoff: Backoff::new(LONGEST_WAIT),
        failed: false,
        ended: false,
    };
    stream::unfold(lists, async |mut lists| {
        if lists.ended {
            return None;
        }
        let next = lists.next().await;
        match &next {
            Ok(_) => {
                lists.failed = false;
                lists.backoff.reset();
            }
            Err(error) => {
                lists.failed = true;
                lists.watch = None;
                lists.ended = error.kind() == ErrorKind::Cancelled;
            }
        }
        Some((next, lists))
    })
}

impl Lists {
    async fn next(&mut self) -> Result<InstanceList> {
        if let Some(watch) = &mut self.watch {
            let next = watch.next().await;
            return next.unwrap_or_else(|| Err(Error::unavailable("the watch ended")));
        }
        if self.failed {
            sleep(self.backoff.next()).await;
        }
        let opening = async {
            let mut watch = self.resolver.watch(&self.service).await?;
            let first = watch.next().await;
            let first = first.unwrap_or_else(|| Err(Error::unavailable("the watch ended at once")));
            Ok((watch, first?))
        };
        let opened = timeout(OPENED_WITHIN, opening).await;
        let slow = |_| Err(Error::timeout("it did not answer in time"));
        let (watch, first) = opened.unwrap_or_else(slow)?;
        self.watch = Some(watch);
        Ok(first)
    }
}
