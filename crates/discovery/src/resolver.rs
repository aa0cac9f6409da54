//! Finding the instances of a service.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use futures_core::Stream;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use trunkline_core::Result;

use crate::erased::AnyResolver;
use crate::instance::{ServiceInstance, ServiceName};

/// A place that knows instances.
///
/// A list is never an error disguised: a registry that is away answers an error, and an empty list means that the
/// service has no instance. After shutdown every call fails with `Cancelled` and watches end.
pub trait Resolver: Send + Sync + Sized + 'static {
    /// The kind of resolver, as configuration names it.
    fn kind(&self) -> &'static str;

    /// The instances of a service now, whatever their status; instances whose lease ran out are not among them.
    ///
    /// Errors: `Unavailable`, `Timeout`, `Unauthenticated`. Cancel safe.
    fn resolve(&self, service: &ServiceName) -> impl Future<Output = Result<InstanceList>> + Send;

    /// The names of all services that have an instance. Cancel safe.
    fn services(&self) -> impl Future<Output = Result<Vec<ServiceName>>> + Send;

    /// Full lists of a service's instances: the first at once, then one after every change. After an error in between
    /// the next list is complete again; nothing that changed meanwhile is missed.
    ///
    /// Errors: as `resolve`. Cancel safe.
    fn watch(&self, service: &ServiceName) -> impl Future<Output = Result<InstanceWatch>> + Send;

    /// Whether a watch asks by itself whenever the time of an answer is over. The list is not fetched besides then: each
    /// answer holds for the time that it says. Default: false.
    fn polls(&self) -> bool {
        false
    }

    /// Erases the type. Erasing twice gives the same handle.
    fn erase(self) -> AnyResolver {
        AnyResolver::of(self)
    }
}

/// All instances of one service at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InstanceList {
    /// The instances, ordered by id.
    pub instances: Vec<ServiceInstance>,
    /// Grows with every change, where the backend counts.
    pub revision: u64,
}

impl InstanceList {
    /// A list; it is put in order of ids.
    #[must_use]
    pub fn new(mut instances: Vec<ServiceInstance>, revision: u64) -> Self {
        instances.sort_by(|one, other| one.id.cmp(&other.id));
        Self {
            instances,
            revision,
        }
    }
}

/// Lists as they change. It ends only when the backend is shut down; dropping it ends the watch.
#[must_use = "dropping a watch ends it"]
pub struct InstanceWatch(BoxStream<'static, Result<InstanceList>>);

impl InstanceWatch {
    /// Puts one together; for backends.
    pub fn new(lists: impl Stream<Item = Result<InstanceList>> + Send + 'static) -> Self {
        // Asking a watch that has ended again is no mistake.
        Self(lists.fuse().boxed())
    }

    /// The next list, or why there is none for the moment. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<InstanceList>> {
        self.0.next().await
    }
}

impl Stream for InstanceWatch {
    type Item = Result<InstanceList>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for InstanceWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InstanceWatch")
    }
}
