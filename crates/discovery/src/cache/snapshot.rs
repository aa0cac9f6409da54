//! What was known last, on disk: where a process starts from when the registry is down at boot.
//!
//! It is written a moment after something has changed, and now and then when the registry says the same as before, so that
//! its age says how long the registry has been away. It is written as a whole and under another name first, so that a crash
//! leaves the older one. It is read once, and used only for services that the registry does not answer about.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use trunkline_core::{SharedClock, Timestamp};

use super::Cache;
use crate::config::DiscoveryCacheConfig;
use crate::instance::{ServiceInstance, ServiceName};

/// How the names end under which the file is written first.
const LAST: &str = ".new";

/// The form of the file; another one is not read.
const FORM: u32 = 1;

/// What is only said again is written when the file has this part of the age at which it is thrown away.
const AGE_PARTS: u32 = 8;

/// What a process that died while it wrote has left is this old at least.
const LEFT_BEHIND: Duration = Duration::from_secs(600);

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
    max_age: Duration,
    /// More services than are watched at once are not worth their place.
    most: usize,
    known: Mutex<Known>,
    changed: Notify,
}

#[derive(Default)]
struct Known {
    services: BTreeMap<ServiceName, Saved>,
    /// When this process has written the file last.
    written_at: Option<Timestamp>,
}

impl Snapshot {
    /// Reads what was written last, if a file is configured. One that cannot be read is told and begun anew.
    pub(crate) fn open(config: &DiscoveryCacheConfig, clock: &SharedClock) -> Option<Arc<Self>> {
        let path = config.snapshot_file.clone()?;
        let mut services = read(&path).unwrap_or_else(|error| {
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
        services.retain(|_, saved| now.since(saved.at) <= config.snapshot_max_age);
        Some(Arc::new(Self {
            path,
            clock: SharedClock::clone(clock),
            max_age: config.snapshot_max_age,
            most: usize::try_from(config.capacity)
                .unwrap_or(usize::MAX)
                .max(1),
            known: Mutex::new(Known {
                services,
                written_at: None,
            }),
            changed: Notify::new(),
        }))
    }

    /// What was known of a service, and how old that is.
    pub(crate) fn find(&self, service: &ServiceName) -> Option<(Vec<ServiceInstance>, Duration)> {
        let saved = self.known().services.get(service).cloned()?;
        Some((saved.instances, self.clock.now().since(saved.at)))
    }

    /// The registry has said something of a service. That there is no instance is no place to start from.
    pub(crate) fn note(&self, service: &ServiceName, instances: &[ServiceInstance], news: bool) {
        if instances.is_empty() {
            return;
        }
        let mut known = self.known();
        let at = self.clock.now();
        let write = match known.services.get_mut(service) {
            Some(saved) if !news => {
                saved.at = at;
                // The file says when the registry said so last: unwritten, it would be too old to start from, though the
                // registry has never been away.
                let since = known.written_at.map(|written| at.since(written));
                since.is_none_or(|since| since >= self.max_age / AGE_PARTS)
            }
            _ => {
                let instances = instances.to_vec();
                let saved = Saved { at, instances };
                known.services.insert(service.clone(), saved);
                true
            }
        };
        drop(known);
        if write {
            self.changed.notify_one();
        }
    }

    /// What is worth writing now: nothing that would be too old to be read, and of very many services those that were asked
    /// for last.
    fn worth_writing(&self) -> BTreeMap<ServiceName, Saved> {
        let now = self.clock.now();
        let mut known = self.known();
        known.written_at = Some(now);
        let services = &mut known.services;
        services.retain(|_, saved| now.since(saved.at) <= self.max_age);
        if services.len() > self.most {
            let mut by_age: Vec<_> = services
                .iter()
                .map(|(name, it)| (it.at, name.clone()))
                .collect();
            by_age.sort();
            for (_, oldest) in by_age.iter().take(services.len() - self.most) {
                services.remove(oldest);
            }
        }
        services.clone()
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
            let document = Document {
                form: FORM,
                services: myself.worth_writing(),
            };
            write(&myself.path, &document)
        });
        let error = match writing.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(join) => io::Error::other(join),
        };
        // Tried again with the registry's next word, whatever it says.
        self.known().written_at = None;
        tracing::warn!(
            target: "trunkline::discovery",
            file = %self.path.display(), %error,
            "the snapshot of discovery cannot be written"
        );
    }

    fn known(&self) -> MutexGuard<'_, Known> {
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
    let mut name = beginning(path);
    // Its own for each writer: processes of several containers may have the same id.
    name.push(format!(
        "{}-{:08x}{LAST}",
        std::process::id(),
        fastrand::u32(..)
    ));
    let new = path.with_file_name(name);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let written = write_new(&new, document).and_then(|written_at| {
        fs::rename(&new, path)?;
        Ok(written_at)
    });
    match written {
        Ok(written_at) => {
            if let Err(error) = sweep(path, written_at) {
                tracing::debug!(
                    target: "trunkline::discovery",
                    file = %path.display(), %error,
                    "what other writers may have left beside the snapshot of discovery stays"
                );
            }
            Ok(())
        }
        Err(error) => {
            // It may never have been there.
            drop(fs::remove_file(&new));
            Err(error)
        }
    }
}

/// Writes the file under its first name, and says when that was by the clock of the disk.
fn write_new(new: &Path, document: &Document) -> io::Result<SystemTime> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(new)?;
    file.write_all(&serde_json::to_vec(document)?)?;
    file.sync_all()?;
    file.metadata()?.modified()
}

/// Removes what processes have left that died while they wrote.
fn sweep(path: &Path, now: SystemTime) -> io::Result<()> {
    let Some(directory) = path.parent() else {
        return Ok(());
    };
    let first = beginning(path).into_encoded_bytes();
    let here = Path::new(".");
    let directory = if directory.as_os_str().is_empty() {
        here
    } else {
        directory
    };
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().into_encoded_bytes();
        if !name.starts_with(&first) || !name.ends_with(LAST.as_bytes()) {
            continue;
        }
        // Another process may be done with its own meanwhile.
        let modified = entry.metadata().and_then(|it| it.modified());
        let age = modified.ok().and_then(|at| now.duration_since(at).ok());
        if age.is_some_and(|age| age >= LEFT_BEHIND) {
            drop(fs::remove_file(entry.path()));
        }
    }
    Ok(())
}

/// How the names begin under which the file is written first.
fn beginning(path: &Path) -> OsString {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name
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
    async fn what_writers_left_that_died_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let left = |name: &str, hours: u64| {
            let file = fs::File::create(directory.path().join(name)).unwrap();
            let now = file.metadata().unwrap().modified().unwrap();
            let at = now - Duration::from_secs(hours * 3600);
            file.set_modified(at).unwrap();
        };
        left("services.json.1.new", 1);
        left("services.json.7-0badcafe.new", 1);
        left("services.json.8-0badcafe.new", 0);
        left("services.json.old", 1);
        left("others.json.1.new", 1);
        opened(&directory.path().join("services.json"))
            .write()
            .await;
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|it| it.unwrap().file_name()).collect();
        names.sort();
        let stay = [
            "others.json.1.new",
            "services.json",
            "services.json.8-0badcafe.new",
            "services.json.old",
        ];
        assert_eq!(names, stay);
    }

    #[tokio::test]
    async fn what_nobody_asked_for_in_long_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services.json");
        let at = Timestamp::from_unix_millis(1_700_000_000_000);
        let clock = Arc::new(trunkline_core::ManualClock::new(at));
        let config = DiscoveryCacheConfig {
            snapshot_file: Some(path.clone()),
            capacity: 3,
            ..DiscoveryCacheConfig::default()
        };
        let shared: SharedClock = Arc::clone(&clock) as SharedClock;
        let snapshot = Snapshot::open(&config, &shared).unwrap();
        let note = |n: usize| {
            let name = ServiceName::new(format!("s{n}")).unwrap();
            let instance = ServiceInstance::new(name.clone(), "h", 1);
            snapshot.note(&name, &[instance], true);
        };
        for n in 0..10 {
            note(n);
            clock.advance(Duration::from_secs(1));
        }
        snapshot.write().await;
        let kept = |snapshot: &Snapshot| -> Vec<String> {
            let known = snapshot.known();
            known.services.keys().map(ToString::to_string).collect()
        };
        assert_eq!(kept(&snapshot), ["s7", "s8", "s9"]);
        clock.advance(config.snapshot_max_age);
        note(1);
        snapshot.write().await;
        assert_eq!(kept(&snapshot), ["s1"]);
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
