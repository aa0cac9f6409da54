//! One manager for the whole process, for those who ask for it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use trunkline_core::{Error, Result};

use crate::{CommunicationConfig, CommunicationManager};

static GLOBAL: Mutex<Option<CommunicationManager>> = Mutex::new(None);

/// Makes the global manager and initialises it.
///
/// # Errors
/// `Conflict` when there is one already; else those of [`CommunicationManager::initialize`], after which there is none.
///
/// # Cancel safety
/// When dropped, [`shutdown_communication`] cleans up.
pub async fn initialize_communication(config: CommunicationConfig) -> Result<CommunicationManager> {
    let manager = CommunicationManager::new(config);
    {
        let mut global = lock();
        if global.is_some() {
            return Err(Error::conflict(
                "the global manager exists already; call shutdown_communication first",
            ));
        }
        *global = Some(manager.clone());
    }
    let started = manager.initialize().await;
    if started.is_err() {
        let mut global = lock();
        // Meanwhile it may have been shut down and another one made.
        if global.as_ref().is_some_and(|current| current.is(&manager)) {
            *global = None;
        }
    }
    started.map(|()| manager)
}

/// The global manager, if there is one.
#[doc(alias = "get_communication_manager")]
#[must_use]
pub fn communication_manager() -> Option<CommunicationManager> {
    lock().clone()
}

/// Shuts the global manager down. Does nothing when there is none.
///
/// # Errors
/// Those of [`CommunicationManager::shutdown`]; the global manager is gone either way.
///
/// # Cancel safety
/// Not cancel safe: parts may be left running.
pub async fn shutdown_communication() -> Result<()> {
    let manager = lock().take();
    match manager {
        Some(manager) => manager.shutdown().await,
        None => Ok(()),
    }
}

fn lock() -> MutexGuard<'static, Option<CommunicationManager>> {
    GLOBAL.lock().unwrap_or_else(PoisonError::into_inner)
}
