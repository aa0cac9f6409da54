//! What was known last, on disk: where a process starts from when the registry is down at boot.
//!
//! It is written a moment after something has changed, as a whole and under another name first, so that a crash leaves the
//! older one. It is read once, and used only for services that the registry does not answer about.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use trunkline_core::{SharedClock, Timestamp};

use super::Cache;
use crate::config::DiscoveryCacheConfig;
use crate::instance::{ServiceInstance, ServiceName};

/// The form of the file; another one is not read.
const FORM: u32 = 1;

/// Changes in this time are written together.
const SETTLE: Duration = Duration::from_secs(1);

/// The file.
#[derive(Serialize, Deserialize)]
struct Document {
    form: u32,
    services: BTreeMap<ServiceName, Saved>,
}

/// What was known of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// When the registry said so.
    pub(crate) at: Timestamp,
    pub(crate) instances: Vec<ServiceInstance>,
}

/// The snapshot of one cache.
pub(crate) struct Snapshot {
    path: PathBuf,
    clock: SharedClock,
    known: Mutex<BTreeMap<ServiceName, Saved>>,
    changed: Notify,
}

impl Snapshot {
    /// Reads what was written last, if a file is configured. One that cannot be read is told and begun anew.
    pub(crate) fn open(config: &DiscoveryCacheConfig, clock: &SharedClock) -> Option<Arc<Self>> {
        let path = config.snapshot_file.clone()?;
        let mut known = read(&path).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(
                    target: "trunkline::discovery",
                    file = %path.display(), %error,
                    "the snapshot of discovery cannot be read; it is written anew"
                );
            }
            BTreeMap::new()
        });
        let now = clock.now();
        known.retain(|_, saved| now.since(saved.at) <= config.snapshot_max_age);
        Some(Arc::new(Self {
            path,
            clock: SharedClock::clone(clock),
            known: Mutex::new(known),
            changed: Notify::new(),
        }))
    }

    /// What was known of a service, and how old that is.
    pub(crate) fn find(&self, service: &ServiceName) -> Option<(Vec<ServiceInstance>, Duration)> {
        let saved = self.known().get(service).cloned()?;
        Some((saved.instances, self.clock.now().since(saved.at)))
    }

    /// The registry has said something of a service. That there is no instance is no place to start from.
    pub(crate) fn note(&self, service: &ServiceName, instances: &[ServiceInstance], news: bool) {
        if instances.is_empty() {
            return;
        }
        let mut known = self.known();
        let at = self.clock.now();
        match known.get_mut(service) {
            // That it was said again is no reason to write; it goes along with the next change.
            Some(saved) if !news => saved.at = at,
            _ => {
                let instances = instances.to_vec();
                known.insert(service.clone(), Saved { at, instances });
                drop(known);
                self.changed.notify_one();
            }
        }
    }

    /// Writes what has changed until it is stopped, and once more then.
    pub(super) async fn keep(self: Arc<Self>, cache: Weak<Cache>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.cancelled() => break,
            }
            tokio::select! {
                () = sleep(SETTLE) => {}
                () = stop.cancelled() => break,
            }
            if cache.strong_count() == 0 {
                break;
            }
            self.write().await;
        }
        self.write().await;
    }

    async fn write(self: &Arc<Self>) {
        let myself = Arc::clone(self);
        let writing = tokio::task::spawn_blocking(move || {
            let services = myself.known().clone();
            let document = Document {
                form: FORM,
                services,
            };
            write(&myself.path, &document)
        });
        let error = match writing.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(join) => io::Error::other(join),
        };
        tracing::warn!(
            target: "trunkline::discovery",
            file = %self.path.display(), %error,
            "the snapshot of discovery cannot be written"
        );
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Saved>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<ServiceName, Saved>> {
    let document: Document = serde_json::from_slice(&fs::read(path)?)?;
    if document.form != FORM {
        return Err(io::Error::other(format!(
            "its form is {}, not {FORM}",
            document.form
        )));
    }
    Ok(document.services)
}

/// Puts it in the place of the older one in one step. Metadata may be meant for few: others cannot read it.
fn write(path: &Path, document: &Document) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = path.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut file = options.open(&new)?;
    file.write_all(&serde_json::to_vec(document)?)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use trunkline_core::SystemClock;

    use super::*;

    fn opened(path: &Path) -> Arc<Snapshot> {
        let config = DiscoveryCacheConfig {
            snapshot_file: Some(path.to_owned()),
            ..DiscoveryCacheConfig::default()
        };
        Snapshot::open(&config, &SystemClock::shared()).unwrap()
    }

    #[tokio::test]
    async fn what_was_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/services.json");
        let users = ServiceName::new("users").unwrap();
        let instance = ServiceInstance::new(users.clone(), "h", 1);
        let snapshot = opened(&path);
        assert_eq!(snapshot.find(&users), None);
        snapshot.note(&users, std::slice::from_ref(&instance), true);
        snapshot.write().await;
        let (instances, age) = opened(&path).find(&users).unwrap();
        assert_eq!(instances, [instance]);
        assert!(age < Duration::from_secs(600));
        // No half-written file is left.
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_no_reason_not_to_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services.json");
        let users = ServiceName::new("users").unwrap();
        for text in ["", "{", "{\"form\":7,\"services\":{}}", "[]"] {
            fs::write(&path, text).unwrap();
            assert_eq!(opened(&path).find(&users), None, "{text}");
        }
    }
}
