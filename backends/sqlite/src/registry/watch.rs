//! Lists of a service's instances as they change, whichever process changes them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use rusqlite::Connection;
use tokio::sync::watch;
use trunkline_core::{Error, Result};
use trunkline_discovery::{InstanceList, InstanceWatch, ServiceName};

use super::{Found, Looked};
use crate::engine::{Database, Listener};
use crate::part::Part;

/// How often the owners of instances are looked after: a process that dies rings no bell.
const LOOK_AFTER_OWNERS: Duration = Duration::from_millis(250);

/// The newest list, or why there is none; nothing before the first look.
type Newest = Option<std::result::Result<InstanceList, String>>;

pub(super) fn watch(
    part: &Part,
    database: Arc<Database>,
    found: Found,
    service: ServiceName,
) -> Result<InstanceWatch> {
    let (newest, seen) = watch::channel(None);
    database.listen(|_| {
        Box::new(Watcher {
            newest,
            found,
            service,
            looked: None,
        })
    })?;
    let closing = Box::pin(part.closing());
    // The stream keeps the database open.
    let state = (seen, closing, database);
    Ok(InstanceWatch::new(stream::unfold(
        state,
        |(mut seen, mut closing, database)| async move {
            tokio::select! {
                biased;
                () = &mut closing => return None,
                changed = seen.changed() => changed.ok()?,
            }
            let list = match seen.borrow_and_update().clone()? {
                Ok(list) => Ok(list),
                Err(why) => Err(Error::unavailable(why).with_operation("watch")),
            };
            Some((list, (seen, closing, database)))
        },
    )))
}

struct Watcher {
    newest: watch::Sender<Newest>,
    found: Found,
    service: ServiceName,
    /// The last look that succeeded, if none failed since.
    looked: Option<Looked>,
}

impl Watcher {
    /// Looks, unless that would tell the same as the last look; says whether it did.
    fn look(&mut self, connection: &Connection, changed: bool) -> rusqlite::Result<bool> {
        if let Some(mut known) = self.looked.take() {
            let (found, service) = (&self.found, &self.service);
            if found.would_tell(connection, service, &mut known, changed)? {
                self.looked = Some(known);
                return Ok(false);
            }
        }
        self.looked = Some(self.found.look(connection, &self.service)?);
        Ok(true)
    }
}

impl Listener for Watcher {
    fn wake(&mut self, connection: &Connection, changed: bool) -> Option<Duration> {
        let looked = self.look(connection, changed);
        let next = self
            .looked
            .as_ref()
            .and_then(|it| it.next_end(&self.found.clock));
        // Without instances there is nothing that could end by itself.
        let next = next.map(|next| next.min(LOOK_AFTER_OWNERS));
        let list = match (looked, &self.looked) {
            (Ok(false), _) | (Ok(true), None) => return next,
            (Ok(true), Some(looked)) => Ok(&looked.list),
            (Err(error), _) => Err(error.to_string()),
        };
        self.newest.send_if_modified(|newest| {
            let news = match (&*newest, &list) {
                (Some(Ok(before)), Ok(now)) => before.instances != now.instances,
                (Some(Err(_)), Err(_)) => false,
                _ => true,
            };
            if news {
                *newest = Some(list.cloned());
            }
            news
        });
        next
    }

    fn is_over(&self) -> bool {
        self.newest.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::params;
    use trunkline_core::{Clock as _, ManualClock, SharedClock, SystemClock};
    use trunkline_discovery::ServiceInstance;

    use super::*;
    use crate::engine::EmbeddedDirectory;
    use crate::registry::SCHEMA;

    /// A registry of one service with an instance, and who watches it.
    fn watched(
        folder: &Path,
        clock: &ManualClock,
    ) -> (Connection, Watcher, watch::Receiver<Newest>) {
        let connection = Connection::open_in_memory().unwrap();
        for step in SCHEMA.steps {
            connection.execute_batch(step).unwrap();
        }
        let directory = EmbeddedDirectory::open(folder).unwrap();
        let (newest, seen) = watch::channel(None);
        let watcher = Watcher {
            newest,
            found: Found::new(&directory, &(Arc::new(clock.clone()) as SharedClock)),
            service: ServiceName::new("users").unwrap(),
            looked: None,
        };
        (connection, watcher, seen)
    }

    fn put(connection: &Connection, port: u16, owner: &str, expires: i64) {
        let users = ServiceName::new("users").unwrap();
        let instance = ServiceInstance::new(users, "127.0.0.1", port).with_id(port.to_string());
        let body = serde_json::to_string(&instance).unwrap();
        connection
            .execute(
                "INSERT OR REPLACE INTO instance VALUES (?1, 'users', 'token', ?2, ?3, ?4)",
                params![instance.id, owner, expires, body],
            )
            .unwrap();
    }

    fn count(connection: &Connection) {
        let counted = connection.execute("UPDATE revision SET count = count + 1", []);
        assert_eq!(counted.unwrap(), 1);
    }

    fn ports(seen: &watch::Receiver<Newest>) -> Vec<u16> {
        let newest = seen.borrow().clone();
        let list = newest.unwrap().unwrap();
        list.instances.into_iter().map(|it| it.port).collect()
    }

    #[test]
    fn what_did_not_change_is_not_listed_again() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(SystemClock.now());
        let (connection, mut watcher, seen) = watched(folder.path(), &clock);
        put(&connection, 1, "", i64::MAX);
        assert_eq!(watcher.wake(&connection, true), Some(LOOK_AFTER_OWNERS));
        assert_eq!(ports(&seen), [1]);
        // Written without being counted, which nobody does: who listed would see it.
        put(&connection, 2, "", i64::MAX);
        for changed in [false, true] {
            assert_eq!(watcher.wake(&connection, changed), Some(LOOK_AFTER_OWNERS));
            assert_eq!(ports(&seen), [1]);
        }
        count(&connection);
        let _next = watcher.wake(&connection, true);
        assert_eq!(ports(&seen), [1, 2]);
    }

    #[test]
    fn what_ends_by_itself_is_seen_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let clock = ManualClock::new(SystemClock.now());
        let (connection, mut watcher, seen) = watched(folder.path(), &clock);
        // Its process died without a word.
        let dead = EmbeddedDirectory::open(tempfile::tempdir().unwrap().path()).unwrap();
        let dead = dead.liveness().token().to_string();
        std::fs::write(folder.path().join("alive").join(&dead), "").unwrap();
        let alive = std::fs::File::open(folder.path().join("alive").join(&dead)).unwrap();
        alive.lock().unwrap();
        put(&connection, 1, &dead, i64::MAX);
        put(&connection, 2, "", i64::MAX);
        let _next = watcher.wake(&connection, true);
        assert_eq!(ports(&seen), [1, 2]);
        drop(alive);
        let _next = watcher.wake(&connection, false);
        assert_eq!(ports(&seen), [2]);
        // Its lease is over, while others renew.
        let now = clock.now().unix_micros();
        put(&connection, 3, "", now + 1_000_000);
        count(&connection);
        let _next = watcher.wake(&connection, true);
        assert_eq!(ports(&seen), [2, 3]);
        // A sign of life puts it off.
        put(&connection, 3, "", now + 3_000_000);
        clock.advance(Duration::from_millis(900));
        let _next = watcher.wake(&connection, true);
        clock.advance(Duration::from_millis(900));
        let _next = watcher.wake(&connection, false);
        assert_eq!(ports(&seen), [2, 3]);
        clock.advance(Duration::from_secs(2));
        let _next = watcher.wake(&connection, true);
        assert_eq!(ports(&seen), [2]);
    }
}
