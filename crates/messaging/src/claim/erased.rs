//! Any object store, behind one cheap handle.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use trunkline_core::{BoxFuture, Result};

use super::{ObjectKey, ObjectStore};

trait DynStore: Send + Sync {
    fn put_dyn<'a>(&'a self, key: &'a ObjectKey, object: Bytes) -> BoxFuture<'a, Result<()>>;
    fn get_dyn<'a>(
        &'a self,
        key: &'a ObjectKey,
        largest: u64,
    ) -> BoxFuture<'a, Result<Option<Bytes>>>;
    fn remove_dyn<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<bool>>;
}

impl<S: ObjectStore> DynStore for S {
    fn put_dyn<'a>(&'a self, key: &'a ObjectKey, object: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.put(key, object))
    }

    fn get_dyn<'a>(
        &'a self,
        key: &'a ObjectKey,
        largest: u64,
    ) -> BoxFuture<'a, Result<Option<Bytes>>> {
        Box::pin(self.get(key, largest))
    }

    fn remove_dyn<'a>(&'a self, key: &'a ObjectKey) -> BoxFuture<'a, Result<bool>> {
        Box::pin(self.remove(key))
    }
}

/// Any object store; cloning copies a pointer.
#[derive(Clone)]
pub struct AnyObjectStore(Arc<dyn DynStore>);

impl AnyObjectStore {
    /// Erases a store.
    #[must_use]
    pub fn of(store: impl ObjectStore) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for AnyObjectStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyObjectStore").finish_non_exhaustive()
    }
}

impl ObjectStore for AnyObjectStore {
    async fn put(&self, key: &ObjectKey, object: Bytes) -> Result<()> {
        self.0.put_dyn(key, object).await
    }

    async fn get(&self, key: &ObjectKey, largest: u64) -> Result<Option<Bytes>> {
        self.0.get_dyn(key, largest).await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<bool> {
        self.0.remove_dyn(key).await
    }

    fn erase(self) -> Self {
        self
    }
}
