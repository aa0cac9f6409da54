//! What can go wrong with the embedded directory, and the one place that maps SQLite's errors to ours.

use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::ErrorCode;
use trunkline_core::{Error, Retry};

/// The disk (or a quota on it) is full. The cause of an error of kind `Exhausted`; nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no space left for {}", path.display())]
#[non_exhaustive]
pub struct DiskFull {
    /// The database file that could not grow.
    pub path: PathBuf,
}

/// A database file was written by a release that is more than one step newer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} has schema version {found}, and this release understands up to {newest}: use a newer release, or another \
     directory", path.display()
)]
#[non_exhaustive]
pub struct SchemaTooNew {
    /// The file.
    pub path: PathBuf,
    /// The version it has.
    pub found: u32,
    /// The newest version that this release can share.
    pub newest: u32,
}

/// A file in the embedded directory is not what it should be: no database, damaged, or of another program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} cannot be used: {why}; restore it from a copy or move it away", path.display())]
#[non_exhaustive]
pub struct DamagedFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// The directory lies on a network file system, where SQLite's locks and shared memory do not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} lies on a network file system ({kind}); the embedded directory must be on a local disk", path.display()
)]
#[non_exhaustive]
pub struct NetworkFileSystem {
    /// The directory.
    pub path: PathBuf,
    /// The kind of file system.
    pub kind: String,
}

/// Why a group of writes failed. Cheap to copy: every caller of the group gets it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    cause: Cause,
    /// Whether the write may have happened all the same.
    unsure: bool,
}

#[derive(Clone, Debug)]
enum Cause {
    DiskFull(DiskFull),
    Damaged(DamagedFile),
    Sqlite(Arc<rusqlite::Error>),
    Io(Arc<std::io::Error>, &'static str),
    Panic(Arc<str>),
    Gone(&'static str),
    Closed,
}

impl Failure {
    pub(crate) fn sqlite(error: rusqlite::Error, path: &std::path::Path) -> Self {
        let cause = match classify(&error, path) {
            Class::DiskFull => Cause::DiskFull(DiskFull {
                path: path.to_owned(),
            }),
            Class::Damaged => Cause::Damaged(DamagedFile {
                path: path.to_owned(),
                why: error.to_string(),
            }),
            Class::Other => Cause::Sqlite(Arc::new(error)),
        };
        Self {
            cause,
            unsure: false,
        }
    }

    pub(crate) fn io(error: std::io::Error, what: &'static str) -> Self {
        Self::of(Cause::Io(Arc::new(error), what))
    }

    pub(crate) fn panic(panic: &(dyn std::any::Any + Send)) -> Self {
        let error = trunkline_core::task::panic_error(panic);
        Self::of(Cause::Panic(error.message().into()))
    }

    pub(crate) fn gone(why: &'static str) -> Self {
        Self::of(Cause::Gone(why))
    }

    /// SQLite ended a transaction by itself, after an error that one of its jobs kept to itself.
    pub(crate) fn gave_up(path: &std::path::Path) -> Self {
        if has_no_space(path) {
            let path = path.to_owned();
            return Self::of(Cause::DiskFull(DiskFull { path }));
        }
        Self::gone("SQLite gave up the transaction: the disk failed or memory is short")
    }

    pub(crate) fn closed() -> Self {
        Self::of(Cause::Closed)
    }

    fn of(cause: Cause) -> Self {
        Self {
            cause,
            unsure: false,
        }
    }

    /// The commit itself failed: nobody knows whether it will be there after a restart.
    pub(crate) fn in_commit(mut self) -> Self {
        self.unsure = !matches!(self.cause, Cause::DiskFull(_));
        self
    }

    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self.cause, Cause::DiskFull(_))
    }

    /// Whether it was a full disk that has hardly any room yet.
    pub(crate) fn still_has_no_space(&self) -> bool {
        match &self.cause {
            Cause::DiskFull(full) => has_less_than(ROOM_TO_WORK, &full.path),
            _ => false,
        }
    }

    /// Whether one bad statement is to blame, so that the other writes of the group can still succeed.
    pub(crate) fn is_of_one_job(&self) -> bool {
        match &self.cause {
            Cause::Panic(_) => true,
            Cause::Sqlite(error) => !matches!(
                error.sqlite_error_code(),
                Some(
                    ErrorCode::SystemIoFailure
                        | ErrorCode::CannotOpen
                        | ErrorCode::ReadOnly
                        | ErrorCode::DatabaseBusy
                        | ErrorCode::DatabaseLocked
                        | ErrorCode::PermissionDenied
                        | ErrorCode::FileLockingProtocolFailed
                        | ErrorCode::OutOfMemory
                )
            ),
            _ => false,
        }
    }

    pub(crate) fn to_error(&self, operation: &'static str) -> Error {
        let error = match &self.cause {
            Cause::DiskFull(full) => Error::exhausted("the disk of the embedded directory is full")
                .with_retry(Retry::Safe)
                .with_source(full.clone()),
            Cause::Damaged(damaged) => {
                Error::internal("a file of the embedded directory is damaged")
                    .with_source(damaged.clone())
            }
            Cause::Sqlite(error) => sqlite_error(error).with_source(Arc::clone(error)),
            Cause::Io(error, what) => Error::unavailable(*what)
                .with_retry(Retry::Safe)
                .with_source(Arc::clone(error)),
            Cause::Panic(text) => Error::internal(text.to_string()),
            Cause::Gone(why) => Error::unavailable(*why).with_retry(Retry::Safe),
            Cause::Closed => Error::cancelled("the embedded directory was closed"),
        };
        let error = error.with_operation(operation);
        if self.unsure {
            error.with_retry(Retry::IfIdempotent)
        } else {
            error
        }
    }
}

/// Maps an error of a read or of opening; writes go through [`Failure`].
pub(crate) fn from_sqlite(
    operation: &'static str,
    error: rusqlite::Error,
    path: &std::path::Path,
) -> Error {
    Failure::sqlite(error, path).to_error(operation)
}

enum Class {
    DiskFull,
    Damaged,
    Other,
}

fn classify(error: &rusqlite::Error, path: &std::path::Path) -> Class {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Class::DiskFull,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Class::Damaged,
        // Growing the shared-memory file on a full disk and writing over a quota are reported as I/O errors.
        Some(ErrorCode::SystemIoFailure) if has_no_space(path) => Class::DiskFull,
        _ => Class::Other,
    }
}

/// With less than this on the disk, an I/O error is taken for what it most likely is.
const NOTHING: u64 = 256 * 1024;
/// With less than this a disk that was full is still full.
const ROOM_TO_WORK: u64 = 4 << 20;

fn has_no_space(path: &std::path::Path) -> bool {
    has_less_than(NOTHING, path)
}

fn has_less_than(bytes: u64, path: &std::path::Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_bavail.saturating_mul(fs.f_frsize) < bytes)
}

fn sqlite_error(error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            Error::unavailable("another program holds the database").with_retry(Retry::Safe)
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::FileLockingProtocolFailed) => {
            Error::unavailable("the disk of the embedded directory failed")
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            Error::unavailable("the database cannot be opened for writing").with_retry(Retry::Safe)
        }
        Some(ErrorCode::ConstraintViolation) => Error::conflict("a constraint of the database"),
        Some(ErrorCode::TooBig) => Error::invalid("a value is too large for the database"),
        _ => Error::internal("the database refused a statement"),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;
    use trunkline_core::ErrorKind;

    use super::*;

    #[test]
    fn sqlite_codes_become_kinds() {
        let table = [
            (ffi::SQLITE_FULL, ErrorKind::Exhausted, Retry::Safe),
            (ffi::SQLITE_BUSY, ErrorKind::Unavailable, Retry::Safe),
            (
                ffi::SQLITE_IOERR_WRITE,
                ErrorKind::Unavailable,
                Retry::IfIdempotent,
            ),
            (ffi::SQLITE_CORRUPT, ErrorKind::Internal, Retry::Never),
            (ffi::SQLITE_NOTADB, ErrorKind::Internal, Retry::Never),
            (ffi::SQLITE_READONLY, ErrorKind::Unavailable, Retry::Safe),
            (
                ffi::SQLITE_CONSTRAINT_UNIQUE,
                ErrorKind::Conflict,
                Retry::Never,
            ),
            (ffi::SQLITE_TOOBIG, ErrorKind::Invalid, Retry::Never),
            (ffi::SQLITE_ERROR, ErrorKind::Internal, Retry::Never),
        ];
        for (code, kind, retry) in table {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            let mapped = from_sqlite("test", error, std::path::Path::new("/"));
            assert_eq!(
                (mapped.kind(), mapped.retry()),
                (kind, retry),
                "code {code}"
            );
        }
    }

    #[test]
    fn a_failed_commit_may_have_happened() {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None);
        let failure = Failure::sqlite(error, std::path::Path::new("/")).in_commit();
        assert_eq!(failure.to_error("publish").retry(), Retry::IfIdempotent);
    }

    #[test]
    fn a_full_disk_is_a_typed_cause() {
        let error = rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None);
        let error = from_sqlite("publish", error, std::path::Path::new("/x/broker.db"));
        assert!(error.find::<DiskFull>().is_some());
    }
}
