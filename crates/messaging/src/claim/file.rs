//! Objects as files of one directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use trunkline_core::{Error, Result, SharedClock, SystemClock, Timestamp};

use super::{ObjectKey, ObjectStore};

/// Directories that the objects are spread over.
const SHARDS: u64 = 64;

/// Objects as files of one directory, which all processes that exchange messages share, perhaps by a network file system.
///
/// An object is written beside its place, synced and moved there, so that nobody sees a part of it. Every write and every read
/// clears one of 64 subdirectories of what has expired; [`FileStore::sweep`] clears them all.
#[derive(Clone, Debug)]
pub struct FileStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    directory: PathBuf,
    keep_for: Duration,
    clock: SharedClock,
    /// Which subdirectory is cleared next.
    turn: AtomicU64,
}

impl FileStore {
    /// Objects in a directory, which is made when it is first used, for its owner alone.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, keep_for: Duration) -> Self {
        Self::with_clock(directory, keep_for, SystemClock::shared())
    }

    /// The same with a clock that decides what has expired.
    #[must_use]
    pub fn with_clock(
        directory: impl Into<PathBuf>,
        keep_for: Duration,
        clock: SharedClock,
    ) -> Self {
        Self(Arc::new(Inner {
            directory: directory.into(),
            keep_for,
            clock,
            turn: AtomicU64::new(0),
        }))
    }

    /// Removes everything that has expired, and says how many objects.
    ///
    /// # Errors
    /// `Unavailable` when the directory cannot be read.
    ///
    /// # Cancel safety
    /// When dropped, it goes on.
    pub async fn sweep(&self) -> Result<u64> {
        let mut removed = 0;
        for shard in 0..SHARDS {
            removed += self.blocking(move |inner| inner.clear(shard)).await?;
        }
        Ok(removed)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        let failed = |error: io::Error| {
            let full = matches!(
                error.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            );
            let error = match (full, error.kind()) {
                (true, _) => Error::exhausted("the object store is full").with_source(error),
                (false, io::ErrorKind::FileTooLarge) => {
                    Error::invalid("the object is larger than expected")
                }
                (false, _) => {
                    Error::unavailable("the object store does not work").with_source(error)
                }
            };
            error.with_context("directory", self.0.directory.display())
        };
        done.map_err(|error| Error::internal("the object store ended").with_source(error))?
            .map_err(failed)
    }
}

impl ObjectStore for FileStore {
    async fn put(&self, key: &ObjectKey, object: Bytes) -> Result<()> {
        let key = key.clone();
        self.blocking(move |inner| {
            inner.clear_next();
            inner.write(&key, &object)
        })
        .await
    }

    async fn get(&self, key: &ObjectKey, largest: u64) -> Result<Option<Bytes>> {
        let key = key.clone();
        self.blocking(move |inner| {
            inner.clear_next();
            inner.read(&key, largest)
        })
        .await
    }

    async fn remove(&self, key: &ObjectKey) -> Result<bool> {
        let key = key.clone();
        self.blocking(move |inner| match fs::remove_file(inner.path(&key)) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        })
        .await
    }
}

impl Inner {
    /// The digits of a key are its only part, so that nothing leads out of the directory.
    fn path(&self, key: &ObjectKey) -> PathBuf {
        let sum: u64 = key.as_str().bytes().map(u64::from).sum();
        self.shard(sum % SHARDS).join(key.as_str())
    }

    fn shard(&self, shard: u64) -> PathBuf {
        self.directory.join(format!("{shard:02x}"))
    }

    fn write(&self, key: &ObjectKey, object: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.directory);
        let missing = folder.ancestors().take_while(|folder| !folder.exists());
        let missing: Vec<&Path> = missing.collect();
        make_private(folder)?;
        // Else a crash could take a new folder away with all that was confirmed in it.
        for parent in missing.iter().filter_map(|folder| folder.parent()) {
            sync(parent)?;
        }
        // Two writers of one key do not meet: each has a file of its own until it is whole.
        let beside = folder.join(format!("{}.part", ObjectKey::unique()));
        let written = private_file(&beside).and_then(|mut file| {
            file.write_all(object)?;
            file.sync_all()
        });
        let moved = written.and_then(|()| fs::rename(&beside, &path));
        if moved.is_err() {
            // What is left of it expires; the first error is the one that tells.
            drop(fs::remove_file(&beside));
        }
        moved?;
        sync(folder)
    }

    fn read(&self, key: &ObjectKey, largest: u64) -> io::Result<Option<Bytes>> {
        let file = match File::open(self.path(key)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if self.has_expired(&metadata) {
            return Ok(None);
        }
        let mut object = Vec::new();
        file.take(largest.saturating_add(1))
            .read_to_end(&mut object)?;
        if object.len() as u64 > largest {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(object.into()))
    }

    fn has_expired(&self, metadata: &fs::Metadata) -> bool {
        let Ok(modified) = metadata.modified().map(timestamp) else {
            return false;
        };
        self.clock.now() > modified.after(self.keep_for)
    }

    /// Clears one subdirectory of what has expired. That it fails must not stop who stores or reads.
    fn clear_next(&self) {
        let shard = self.turn.fetch_add(1, Ordering::Relaxed) % SHARDS;
        if let Err(error) = self.clear(shard) {
            tracing::warn!(
                target: "trunkline",
                directory = %self.directory.display(),
                error = %error,
                "expired objects could not be removed"
            );
        }
    }

    fn clear(&self, shard: u64) -> io::Result<u64> {
        let entries = match fs::read_dir(self.shard(shard)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry?;
            // Somebody else may have removed it meanwhile.
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file() && self.has_expired(&metadata) {
                match fs::remove_file(entry.path()) {
                    Ok(()) => removed += 1,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(removed)
    }
}

/// Makes sure that the entries of a folder survive a crash.
fn sync(folder: &Path) -> io::Result<()> {
    // The parent of a relative path of one part is where we are.
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    File::open(folder)?.sync_all()
}

fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(unix)]
fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(folder)
}

#[cfg(not(unix))]
fn make_private(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)
}

#[cfg(unix)]
fn private_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(not(unix))]
fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}
