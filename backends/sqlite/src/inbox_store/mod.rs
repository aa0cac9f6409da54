//! The inbox in the embedded directory: doing a thing once although it is asked for twice, across restarts and processes.

mod entry;

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use trunkline_core::size::ByteSize;
use trunkline_core::{Result, SharedClock, SystemClock};
use trunkline_messaging::inbox::{Claim, ClaimRequest, ClaimToken, InboxStore};

use crate::engine::{Manner, Schema, Stop, Tx};
use crate::part::Part;
use entry::Room;

static SCHEMA: Schema = Schema {
    steps: &["CREATE TABLE entry (
            id INTEGER PRIMARY KEY,
            scope TEXT NOT NULL,
            key TEXT NOT NULL,
            generation INTEGER NOT NULL,
            done INTEGER NOT NULL,
            -- When the lease runs out, or the result is forgotten.
            until INTEGER NOT NULL,
            fingerprint BLOB,
            result BLOB,
            size INTEGER NOT NULL,
            UNIQUE (scope, key)
        ) STRICT;
        CREATE INDEX entry_until ON entry (until);
        CREATE INDEX entry_done ON entry (until) WHERE done = 1;
        -- Generations are never given twice, so that an old token can never fit a newer claim.
        CREATE TABLE counter (one INTEGER PRIMARY KEY CHECK (one = 1), generation INTEGER NOT NULL, entries INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
        INSERT INTO counter VALUES (1, 0, 0, 0);",
        // The process that has the claim; none where a release before this one made it.
        "ALTER TABLE entry ADD COLUMN owner TEXT;"],
};

/// Remembers on disk what was done; shared by the processes of this machine. Clones share it.
///
/// A claim ends with its process, however long its lease: what a process that died was doing can be claimed at once.
///
/// ```
/// use std::time::Duration;
/// use trunkline_messaging::inbox::{Claim, ClaimRequest, InboxStore};
/// use trunkline_sqlite::EmbeddedInbox;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let directory = directory.path();
/// let inbox = EmbeddedInbox::new(directory);
/// let Claim::Granted(token) = inbox.claim(ClaimRequest::new("mail", "message-1")).await? else {
///     panic!("nobody did it before");
/// };
/// inbox.complete(token, "sent".into(), Duration::from_secs(3600)).await?;
/// let again = inbox.claim(ClaimRequest::new("mail", "message-1")).await?;
/// assert_eq!(again, Claim::Done("sent".into()));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct EmbeddedInbox {
    part: Part,
    clock: SharedClock,
    room: Room,
}

impl EmbeddedInbox {
    /// The inbox of a directory, with room for a million keys and 1 GiB; opened when it is first used.
    #[must_use]
    pub fn new(directory: impl AsRef<Path>) -> Self {
        let part = Part::new(directory.as_ref(), "inbox".to_owned(), &SCHEMA);
        let room = Room {
            keys: 1_000_000,
            bytes: 1 << 30,
        };
        Self {
            part,
            clock: SystemClock::shared(),
            room,
        }
    }

    /// Takes the time from another clock. All processes of a directory must agree about the time.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets for how many keys there is room, at least one. When it is full the completed key that would be forgotten
    /// first makes room; claims that are still held never do.
    #[must_use]
    pub fn with_max_keys(mut self, keys: u64) -> Self {
        self.room.keys = keys.max(1);
        self
    }

    /// Sets how many bytes keys and results may have, by the same rule.
    #[must_use]
    pub fn with_max_bytes(mut self, bytes: ByteSize) -> Self {
        self.room.bytes = bytes.bytes();
        self
    }

    /// Ends it: later calls fail with `Cancelled`.
    pub fn shutdown(&self) {
        self.part.close();
    }

    async fn write<T, F>(&self, manner: Manner, function: F) -> Result<T>
    where
        F: FnMut(&mut Tx<'_>) -> Result<T, Stop> + Send + 'static,
        T: Send + 'static,
    {
        let database = self.part.database(manner.operation).await?;
        database.calls().write(manner, function).await
    }

    fn now(&self) -> i64 {
        self.clock.now().unix_micros()
    }
}

impl InboxStore for EmbeddedInbox {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        let (now, room) = (self.now(), self.room);
        // A claim that a power cut undoes was never acted upon for long: its result was not recorded either.
        let manner = Manner::relaxed("claim", Part::deadline());
        let database = self.part.database(manner.operation).await?;
        let directory = database.directory().clone();
        let claim = move |tx: &mut Tx<'_>| {
            let liveness = directory.liveness();
            entry::claim(tx.connection(), &request, liveness, now, room)
        };
        database.calls().write(manner, claim).await
    }

    async fn complete(&self, token: ClaimToken, result: Bytes, keep: Duration) -> Result<()> {
        let (until, room) = (entry::after(self.now(), keep), self.room);
        let manner = Manner::durable("complete", Part::deadline());
        self.write(manner, move |tx| {
            entry::complete(tx.connection(), &token, &result, until, room)
        })
        .await
    }

    async fn extend(&self, token: &ClaimToken, lease: Duration) -> Result<()> {
        let (token, now) = (token.clone(), self.now());
        let manner = Manner::relaxed("extend", Part::deadline());
        self.write(manner, move |tx| {
            entry::extend(tx.connection(), &token, now, lease)
        })
        .await
    }

    async fn release(&self, token: ClaimToken) -> Result<()> {
        let manner = Manner::relaxed("release", Part::deadline()).shrinking();
        self.write(manner, move |tx| entry::release(tx.connection(), &token))
            .await
    }
}
