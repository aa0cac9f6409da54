use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;
use trunkline_core::{AnyLifecycle, Lifecycle, Result};

struct Counting(Arc<AtomicUsize>);

impl Lifecycle for Counting {
    async fn start(&self) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn shutdown(&self, _: Instant) -> Result<()> {
        self.0.fetch_add(100, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test]
async fn an_erased_component_passes_every_phase_on() {
    let count = Arc::new(AtomicUsize::new(0));
    let component = AnyLifecycle::new(Counting(Arc::clone(&count)));
    component.start().await.unwrap();
    component.ready().await.unwrap();
    component.drain(Instant::now()).await.unwrap();
    component.shutdown(Instant::now()).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 101);
}
