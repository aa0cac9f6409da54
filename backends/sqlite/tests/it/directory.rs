//! Directories for tests, in the target directory: a temporary file system would sync nothing.

use std::path::PathBuf;
use std::sync::Once;
use std::time::Duration;

use tempfile::TempDir;

/// A directory that is removed when it is dropped.
pub(crate) fn temporary() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A directory by a name; those of earlier runs are removed.
pub(crate) fn named(name: &str) -> PathBuf {
    static SWEEP: Once = Once::new();
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("embedded");
    SWEEP.call_once(|| {
        let entries = std::fs::read_dir(&root).into_iter().flatten().flatten();
        let old = entries.filter(|entry| {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|time| {
                time.elapsed()
                    .is_ok_and(|age| age > Duration::from_secs(600))
            })
        });
        old.for_each(|entry| drop(std::fs::remove_dir_all(entry.path())));
    });
    root.join(name)
}
