//! The lists of one registry, through all its outages.

use std::time::Duration;

use futures_core::Stream;
use futures_util::stream;
use tokio::time::{sleep, timeout};
use trunkline_core::{Error, ErrorKind, Result};

use crate::backoff::Backoff;
use crate::erased::AnyResolver;
use crate::instance::ServiceName;
use crate::pulse::{Heard, Listener, spread};
use crate::resolver::{InstanceList, InstanceWatch, Resolver};

/// Time for opening a watch and its first list.
const OPENED_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait before one that is away is asked again.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

struct Lists {
    resolver: AnyResolver,
    service: ServiceName,
    /// Whether the registry answers at all: a watch over which nothing passes any more does not say so.
    pulse: Listener,
    watch: Option<InstanceWatch>,
    backoff: Backoff,
    failed: bool,
    ended: bool,
}

/// Lists as they change, and an error whenever a watch cannot be opened, breaks, or its registry falls silent; it is opened
/// again then. Ends when the registry is shut down in this process.
pub(super) fn lists(
    resolver: AnyResolver,
    service: ServiceName,
    pulse: Listener,
) -> impl Stream<Item = Result<InstanceList>> + Send + 'static {
    let lists = Lists {
        resolver,
        service,
        pulse,
        watch: None,
        backoff: Backoff::new(LONGEST_WAIT),
        failed: false,
        ended: false,
    };
    // Nobody waits for one that is known to be silent.
    let silent = lists.pulse.silent();
    stream::unfold((lists, silent), async |(mut lists, silent)| {
        if lists.ended {
            return None;
        }
        if let Some(error) = silent {
            lists.failed = true;
            return Some((Err(error), (lists, None)));
        }
        let next = lists.next().await;
        match &next {
            Ok(_) => {
                lists.failed = false;
                lists.backoff.reset();
            }
            Err(error) => {
                lists.failed = true;
                lists.ended = error.kind() == ErrorKind::Cancelled;
            }
        }
        Some((next, (lists, None)))
    })
}

impl Lists {
    async fn next(&mut self) -> Result<InstanceList> {
        loop {
            let Some(watch) = &mut self.watch else {
                match self.open().await {
                    Some(opened) => return opened,
                    None => continue,
                }
            };
            tokio::select! {
                next = watch.next() => {
                    let next = next.unwrap_or_else(|| Err(Error::unavailable("the watch ended")));
                    if next.is_ok() {
                        self.pulse.answers();
                    } else {
                        self.watch = None;
                        self.pulse.ask_now();
                    }
                    return next;
                }
                heard = self.pulse.next() => match heard {
                    // It may have been slow only: what it says next counts again.
                    Heard::Silent(error) => return Err(error),
                    // What it said meanwhile may be lost.
                    Heard::Back => {
                        self.watch = None;
                        self.failed = false;
                        self.backoff.reset();
                        spread().await;
                    }
                },
            }
        }
    }

    /// Opens a watch and takes its first list; nothing when the registry was silent meanwhile and is back: what was asked
    /// before may never be answered.
    async fn open(&mut self) -> Option<Result<InstanceList>> {
        if self.failed {
            tokio::select! {
                () = sleep(self.backoff.next()) => {}
                () = self.pulse.back() => self.backoff.reset(),
            }
        }
        let opening = async {
            let mut watch = self.resolver.watch(&self.service).await?;
            let first = watch.next().await;
            let first = first.unwrap_or_else(|| Err(Error::unavailable("the watch ended at once")));
            Ok((watch, first?))
        };
        let slow = |_| Err(Error::timeout("it did not answer in time"));
        let opened = tokio::select! {
            opened = timeout(OPENED_WITHIN, opening) => opened.unwrap_or_else(slow),
            heard = self.pulse.next() => match heard {
                Heard::Silent(error) => Err(error),
                Heard::Back => {
                    self.failed = false;
                    self.backoff.reset();
                    return None;
                }
            },
        };
        Some(match opened {
            Ok((watch, first)) => {
                self.watch = Some(watch);
                self.pulse.answers();
                Ok(first)
            }
            Err(error) => {
                self.pulse.ask_now();
                Err(error)
            }
        })
    }
}
