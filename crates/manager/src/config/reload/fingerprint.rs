//! Notices that files have changed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::source;

/// What files looked like. Times of files may be coarse, so that a file whose time is new is read twice: a change
/// within the same tick is seen by the second look.
#[derive(Clone, Debug, Default)]
pub(super) struct Fingerprints(BTreeMap<PathBuf, Fingerprint>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fingerprint {
    stamp: Option<Stamp>,
    content: u64,
    settled: bool,
}

/// What tells, without reading it, that a file may be another.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl Fingerprints {
    /// Follows these files, too; says whether one of them is new. Files no longer asked for stay: there are few.
    pub(super) fn follow(&mut self, paths: &[PathBuf]) -> bool {
        let before = self.0.len();
        for path in paths {
            self.0.entry(path.clone()).or_default();
        }
        self.0.len() > before
    }

    /// Looks at every file; says whether one of them has another content.
    pub(super) fn look_again(&mut self) -> bool {
        let mut changed = false;
        for (path, fingerprint) in &mut self.0 {
            changed |= fingerprint.look(path);
        }
        changed
    }
}

impl Fingerprint {
    fn look(&mut self, path: &Path) -> bool {
        let stamp = Stamp::of(path);
        let same = stamp == self.stamp;
        if same && (self.settled || stamp.is_none()) {
            return false;
        }
        let content = stamp.as_ref().map_or(0, |_| content(path));
        let changed = content != self.content;
        *self = Self {
            stamp,
            content,
            settled: same,
        };
        changed
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            inode: inode(&metadata),
        })
    }
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

/// A file that cannot be read has a content of its own, so that a change to and from it is noticed.
fn content(path: &Path) -> u64 {
    match source::read_text(path) {
        Ok(Some(text)) => hash(text.as_bytes()),
        Ok(None) => 0,
        Err(why) => hash(why.as_bytes()) | 1,
    }
}

/// Tells contents apart within one process.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_modified(path: &Path, time: SystemTime) {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    }

    fn followed(path: &Path, looks: usize) -> Fingerprints {
        let mut files = Fingerprints::default();
        assert!(files.follow(&[path.to_owned()]));
        for _ in 0..looks {
            files.look_again();
        }
        assert!(!files.look_again());
        files
    }

    #[test]
    fn another_file_of_the_same_size_and_time_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, new) = (directory.path().join("a"), directory.path().join("b"));
        std::fs::write(&path, "one").unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        let mut files = followed(&path, 5);
        std::fs::write(&new, "two").unwrap();
        set_modified(&new, time);
        std::fs::rename(&new, &path).unwrap();
        assert!(files.look_again());
        assert!(!files.look_again());
    }

    #[test]
    fn a_change_within_the_same_tick_is_noticed_by_the_second_look() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "zero").unwrap();
        let mut files = followed(&path, 5);
        std::fs::write(&path, "one").unwrap();
        let time = std::fs::metadata(&path).unwrap().modified().unwrap();
        assert!(files.look_again());
        std::fs::write(&path, "two").unwrap();
        set_modified(&path, time);
        assert!(files.look_again());
    }

    #[test]
    fn a_touched_file_with_the_same_content_has_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "one").unwrap();
        let mut files = followed(&path, 5);
        set_modified(&path, SystemTime::UNIX_EPOCH);
        assert!(!files.look_again());
        std::fs::remove_file(&path).unwrap();
        assert!(files.look_again());
        assert!(!files.look_again());
    }
}
