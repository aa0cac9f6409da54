//! Waking other processes after a commit: each waiting process has a datagram socket in `bells/`, and whoever commits
//! sends a byte to all sockets of that database.
//!
//! A lost byte costs at most one turn of the waker's poll. Sockets of dead processes refuse the byte and are removed by
//! whoever notices.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::net::RecvFlags;

/// Longest path of a socket that every platform takes, with room for the final zero.
const LONGEST_PATH: usize = 100;
/// A folder changed so recently may change again without its time moving on.
const UNSURE: Duration = Duration::from_millis(200);

/// The folder of the sockets, addressed so that its own path may be long.
#[derive(Debug)]
pub(super) struct Belfry {
    folder: PathBuf,
    /// The folder as part of a socket's address.
    address: PathBuf,
    _held: File,
}

impl Belfry {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let folder = directory.join("bells");
        super::filesystem::create(&folder)?;
        let held = File::open(&folder)?;
        let address = short_address(&folder, &held);
        Ok(Self {
            folder,
            address,
            _held: held,
        })
    }

    /// A bell of this process for one database.
    pub(super) fn hang(&self, database: &str, token: &str) -> io::Result<Bell> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Ids begin with their time; the random part at the end tells processes apart.
        let unique = token.rsplit('-').next().unwrap_or(token);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{database}.{unique}.{number}");
        let socket = UnixDatagram::bind(self.address.join(&name))?;
        Ok(Bell {
            socket,
            timeout: Cell::new(Duration::ZERO),
            path: self.folder.join(&name),
            name,
        })
    }

    /// A handle to wake one bell of this process.
    pub(super) fn cord(&self, bell: &Bell) -> io::Result<Cord> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(self.address.join(&bell.name))?;
        Ok(Cord { socket })
    }
}

#[cfg(target_os = "linux")]
fn short_address(folder: &Path, held: &File) -> PathBuf {
    use std::os::fd::AsRawFd;
    if folder.as_os_str().len() + 48 <= LONGEST_PATH {
        return folder.to_owned();
    }
    PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

#[cfg(not(target_os = "linux"))]
fn short_address(folder: &Path, _: &File) -> PathBuf {
    folder.to_owned()
}

/// A socket on which this process waits.
#[derive(Debug)]
pub(super) struct Bell {
    socket: UnixDatagram,
    /// How long the socket waits now.
    timeout: Cell<Duration>,
    name: String,
    path: PathBuf,
}

impl Bell {
    /// Waits until it is rung, or for that long. Several rings in a row count as one.
    pub(super) fn wait(&self, at_most: Duration) -> io::Result<bool> {
        let mut byte = [0; 8];
        let at_most = at_most.max(Duration::from_millis(1));
        if self.timeout.replace(at_most) != at_most {
            self.socket.set_read_timeout(Some(at_most))?;
        }
        match self.socket.recv(&mut byte) {
            Ok(_) => {}
            Err(error) if is_timeout(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
        while rustix::net::recv(self.socket.as_fd(), &mut byte, RecvFlags::DONTWAIT).is_ok() {}
        Ok(true)
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}

/// Rings one bell of the same process.
#[derive(Debug)]
pub(super) struct Cord {
    socket: UnixDatagram,
}

impl Cord {
    pub(super) fn pull(&self) {
        // A full socket is about to wake its owner anyway; a closed one has nobody to wake.
        drop(self.socket.send(&[1]));
    }
}

#[cfg(test)]
impl Cord {
    /// One that rings nothing.
    pub(super) fn idle() -> Self {
        let (socket, _) = UnixDatagram::pair().expect("two sockets");
        socket
            .set_nonblocking(true)
            .expect("a socket may not block");
        Self { socket }
    }
}

/// Rings every bell of one database, in this process and others.
#[derive(Debug)]
pub(super) struct Ringer {
    folder: PathBuf,
    address: PathBuf,
    prefix: String,
    socket: UnixDatagram,
    names: Vec<String>,
    /// The folder's time when the names were read, once it is sure not to hide a later change.
    read_at: Option<SystemTime>,
}

impl Ringer {
    pub(super) fn new(belfry: &Belfry, database: &str) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            folder: belfry.folder.clone(),
            address: belfry.address.clone(),
            prefix: format!("{database}."),
            socket,
            names: Vec::new(),
            read_at: None,
        })
    }

    pub(super) fn ring(&mut self) {
        if let Err(error) = self.look() {
            tracing::debug!(target: "trunkline", %error, "cannot list the bells; pollers notice later");
            return;
        }
        let (folder, address, socket) = (&self.folder, &self.address, &self.socket);
        self.names.retain(|name| {
            let Err(error) = socket.send_to(&[1], address.join(name)) else {
                return true;
            };
            match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    remove(&folder.join(name));
                    false
                }
                io::ErrorKind::NotFound => false,
                // Full: it has rings enough waiting.
                _ => true,
            }
        });
    }

    fn look(&mut self) -> io::Result<()> {
        let changed = fs::metadata(&self.folder)?.modified()?;
        if self.read_at == Some(changed) {
            return Ok(());
        }
        self.names.clear();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if let Some(name) = name.to_str()
                && name.starts_with(&self.prefix)
            {
                self.names.push(name.to_owned());
            }
        }
        let sure = changed.elapsed().is_ok_and(|age| age > UNSURE);
        self.read_at = sure.then_some(changed);
        Ok(())
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(target: "trunkline", path = %path.display(), %error, "cannot remove a bell");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_ring_reaches_every_bell_of_its_database() {
        let directory = tempfile::tempdir().unwrap();
        let belfry = Belfry::open(directory.path()).unwrap();
        let one = belfry.hang("broker", "a-1").unwrap();
        let two = belfry.hang("broker", "a-2").unwrap();
        let other = belfry.hang("registry", "a-1").unwrap();
        Ringer::new(&belfry, "broker").unwrap().ring();
        assert!(one.wait(LONG).unwrap());
        assert!(two.wait(LONG).unwrap());
        assert!(!other.wait(Duration::from_millis(1)).unwrap());
    }

    #[test]
    fn a_bell_hung_later_is_rung_too() {
        let directory = tempfile::tempdir().unwrap();
        let belfry = Belfry::open(directory.path()).unwrap();
        let mut ringer = Ringer::new(&belfry, "broker").unwrap();
        ringer.ring();
        let bell = belfry.hang("broker", "a-1").unwrap();
        ringer.ring();
        assert!(bell.wait(LONG).unwrap());
    }

    #[test]
    fn the_socket_of_a_dead_process_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let belfry = Belfry::open(directory.path()).unwrap();
        let path = directory.path().join("bells/broker.dead.0");
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(path.exists());
        Ringer::new(&belfry, "broker").unwrap().ring();
        assert!(!path.exists());
    }

    #[test]
    fn rings_in_a_row_count_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let belfry = Belfry::open(directory.path()).unwrap();
        let bell = belfry.hang("broker", "a-1").unwrap();
        let cord = belfry.cord(&bell).unwrap();
        cord.pull();
        cord.pull();
        assert!(bell.wait(LONG).unwrap());
        assert!(!bell.wait(Duration::from_millis(1)).unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_long_path_is_no_hindrance() {
        let directory = tempfile::tempdir().unwrap();
        let deep = directory.path().join("x".repeat(120));
        fs::create_dir(&deep).unwrap();
        let belfry = Belfry::open(&deep).unwrap();
        let bell = belfry.hang("broker", "a-1").unwrap();
        Ringer::new(&belfry, "broker").unwrap().ring();
        assert!(bell.wait(LONG).unwrap());
    }
}
