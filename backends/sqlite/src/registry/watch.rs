//! Lists of a service's instances as they change, whichever process changes them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use rusqlite::Connection;
use tokio::sync::watch;
use trunkline_core::{Error, Result};
use trunkline_discovery::{InstanceList, InstanceWatch, ServiceName};

use super::Found;
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
}

impl Listener for Watcher {
    fn wake(&mut self, connection: &Connection, _: bool) -> Option<Duration> {
        let list = self
            .found
            .list(connection, &self.service)
            .map_err(|error| error.to_string());
        self.newest.send_if_modified(|newest| {
            let news = match (&*newest, &list) {
                (Some(Ok(before)), Ok(now)) => before.instances != now.instances,
                (Some(Err(_)), Err(_)) => false,
                _ => true,
            };
            if news {
                *newest = Some(list);
            }
            news
        });
        let next = self
            .found
            .next_end(connection, &self.service)
            .ok()
            .flatten();
        // Without instances there is nothing that could end by itself.
        next.map(|next| next.min(LOOK_AFTER_OWNERS))
    }

    fn is_over(&self) -> bool {
        self.newest.is_closed()
    }
}
