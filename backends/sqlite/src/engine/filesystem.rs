//! The directory itself: private to its user, and on a local disk.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use trunkline_core::{Error, ErrorKind, Result};

use crate::error::NetworkFileSystem;

const PRIVATE: u32 = 0o700;

/// Creates the directory where it is missing, makes it private, and refuses what cannot work. Returns its one true path.
pub(super) fn prepare(path: &Path) -> Result<PathBuf> {
    create(path).map_err(|error| refuse(path, "cannot create the embedded directory", error))?;
    let path = fs::canonicalize(path)
        .map_err(|error| refuse(path, "cannot find the embedded directory", error))?;
    let metadata = fs::metadata(&path)
        .map_err(|error| refuse(&path, "cannot look at the embedded directory", error))?;
    if !metadata.is_dir() {
        return Err(Error::config(format!(
            "{} is not a directory",
            path.display()
        )));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(Error::config(format!(
            "{} belongs to user {}, and this process runs as user {user}: the embedded directory is for one user",
            path.display(),
            metadata.uid()
        )));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(&path, fs::Permissions::from_mode(PRIVATE))
            .map_err(|error| refuse(&path, "cannot make the embedded directory private", error))?;
    }
    if let Some(kind) = network_kind(&path) {
        let cause = NetworkFileSystem { path, kind };
        return Err(Error::config(cause.to_string()).with_source(cause));
    }
    Ok(path)
}

/// Creates a directory inside, or takes the one that is there.
pub(super) fn create(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE)
        .create(path)
}

fn refuse(path: &Path, what: &str, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Denied,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => ErrorKind::Config,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("{what} {}", path.display())).with_source(error)
}

#[cfg(target_os = "linux")]
fn network_kind(path: &Path) -> Option<String> {
    const FUSE: u64 = 0x6573_5546;
    let magic = rustix::fs::statfs(path).ok()?.f_type;
    // The type of the field differs between platforms; the magic numbers have 32 bits.
    let magic = u64::try_from(magic).unwrap_or(0) & 0xFFFF_FFFF;
    if magic == FUSE {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        return network_fuse(&mounts, path);
    }
    network_magic(magic).map(str::to_owned)
}

/// The magic numbers of statfs(2) that stand for file systems of other machines.
#[cfg(any(target_os = "linux", test))]
fn network_magic(magic: u64) -> Option<&'static str> {
    Some(match magic {
        0x0000_6969 => "nfs",
        0x0000_517B => "smb",
        0xFE53_4D42 => "smb2",
        0xFF53_4D42 => "cifs",
        0x0102_1997 => "9p",
        0x5346_414F | 0x6B41_4653 => "afs",
        0x7375_7245 => "coda",
        0x0000_564C => "ncp",
        0x00C3_6400 => "ceph",
        0x0116_1970 => "gfs2",
        0x7461_636F => "ocfs2",
        0x0BD0_0BD0 => "lustre",
        0x4750_4653 => "gpfs",
        0x1983_0326 => "beegfs",
        0x786F_4256 => "vboxsf",
        _ => return None,
    })
}

/// FUSE serves local and remote file systems alike: the mount table tells which.
#[cfg(any(target_os = "linux", test))]
fn network_fuse(mountinfo: &str, path: &Path) -> Option<String> {
    const REMOTE: [&str; 10] = [
        "sshfs",
        "s3fs",
        "rclone",
        "glusterfs",
        "gcsfuse",
        "curlftpfs",
        "davfs",
        "goofys",
        "blobfuse",
        "juicefs",
    ];
    // "36 35 98:0 /root /mount/point options … - type source options"; the last mount over a path counts.
    let over = mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.replace("\\040", " ");
        let kind = after.split(' ').next()?;
        path.starts_with(&point)
            .then(|| (point.len(), kind.to_owned()))
    });
    let (_, kind) = over.max_by_key(|(length, _)| *length)?;
    let subtype = kind.strip_prefix("fuse.")?;
    REMOTE
        .iter()
        .any(|remote| subtype.starts_with(remote))
        .then_some(kind)
}

#[cfg(target_vendor = "apple")]
fn network_kind(path: &Path) -> Option<String> {
    const LOCAL: u32 = 0x1000;
    let fs = rustix::fs::statfs(path).ok()?;
    (fs.f_flags & LOCAL == 0).then(|| "remote".to_owned())
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn network_kind(_: &Path) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_directory_is_made_private() {
        let parent = tempfile::tempdir().unwrap();
        let path = prepare(&parent.path().join("a/b")).unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn an_open_directory_is_closed_to_others() {
        let parent = tempfile::tempdir().unwrap();
        fs::set_permissions(parent.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = prepare(parent.path()).unwrap();
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_its_place_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, b"x").unwrap();
        assert_eq!(prepare(&path).unwrap_err().kind(), ErrorKind::Config);
    }

    #[test]
    fn network_file_systems_are_known_by_their_magic() {
        assert_eq!(network_magic(0x6969), Some("nfs"));
        assert_eq!(network_magic(0xFF53_4D42), Some("cifs"));
        assert_eq!(network_magic(0xEF53), None, "ext4");
        assert_eq!(network_magic(0x0102_1994), None, "tmpfs");
    }

    #[test]
    fn remote_fuse_mounts_are_known_by_the_mount_table() {
        let table = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
                     2 1 0:50 / /mnt/remote rw - fuse.sshfs host:/ rw\n\
                     3 1 0:51 / /mnt/local rw - fuse.fuse-overlayfs x rw\n";
        let kind = |path: &str| network_fuse(table, Path::new(path));
        assert_eq!(kind("/mnt/remote/app").as_deref(), Some("fuse.sshfs"));
        assert_eq!(kind("/mnt/local/app"), None);
        assert_eq!(kind("/home"), None);
    }
}
