//! An inbox in memory: for one process, as long as it runs.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, Result};

use super::{Claim, ClaimRequest, ClaimToken, InboxStore};

/// Remembers in memory what was done. Clones share it. A restart forgets everything, so a message that is delivered
/// again after a crash is handled again; several processes do not share it.
///
/// ```
/// use trunkline_messaging::inbox::{Claim, ClaimRequest, InboxStore, MemoryInbox};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let inbox = MemoryInbox::default();
/// let Claim::Granted(token) = inbox.claim(ClaimRequest::new("mail", "message-1")).await? else {
///     panic!("nobody did it before");
/// };
/// inbox.complete(token, "sent".into(), std::time::Duration::from_secs(3600)).await?;
/// let again = inbox.claim(ClaimRequest::new("mail", "message-1")).await?;
/// assert_eq!(again, Claim::Done("sent".into()));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemoryInbox(Arc<Mutex<Entries>>);

impl Default for MemoryInbox {
    /// Room for 100 000 keys and 64 MiB.
    fn default() -> Self {
        Self::new(100_000, ByteSize::mib(64))
    }
}

impl MemoryInbox {
    /// An inbox with room for so many keys, at least one, and so many bytes of keys, fingerprints and results.
    #[must_use]
    pub fn new(max_keys: usize, max_bytes: ByteSize) -> Self {
        Self(Arc::new(Mutex::new(Entries {
            max_keys: max_keys.max(1),
            max_bytes: max_bytes.as_usize(),
            ..Entries::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryInbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.lock();
        f.debug_struct("MemoryInbox")
            .field("keys", &entries.by_name.len())
            .field("bytes", &entries.bytes)
            .finish_non_exhaustive()
    }
}

impl InboxStore for MemoryInbox {
    async fn claim(&self, request: ClaimRequest) -> Result<Claim> {
        self.lock().claim(request, Instant::now())
    }

    async fn complete(&self, token: ClaimToken, result: Bytes, keep: Duration) -> Result<()> {
        self.lock().complete(token, result, keep, Instant::now())
    }

    async fn extend(&self, token: &ClaimToken, lease: Duration) -> Result<()> {
        self.lock().extend(token, lease, Instant::now())
    }

    async fn release(&self, token: ClaimToken) -> Result<()> {
        self.lock().release(token);
        Ok(())
    }
}

/// Scope and key.
type Name = (String, String);

#[derive(Debug)]
struct Entry {
    generation: u64,
    fingerprint: Option<Bytes>,
    /// The result, once it is done.
    result: Option<Bytes>,
    /// When the lease runs out, or the result is forgotten.
    until: Instant,
    size: usize,
}

#[derive(Debug, Default)]
struct Entries {
    by_name: HashMap<Name, Entry>,
    /// Done keys by when they are forgotten, and claimed ones by when their lease runs out.
    done: BTreeMap<(Instant, u64), Name>,
    claimed: BTreeMap<(Instant, u64), Name>,
    bytes: usize,
    generation: u64,
    max_keys: usize,
    max_bytes: usize,
}

impl Entries {
    fn claim(&mut self, request: ClaimRequest, now: Instant) -> Result<Claim> {
        let name = (request.scope, request.key);
        if let Some(known) = self.by_name.get(&name).filter(|entry| entry.until > now) {
            let both = known.fingerprint.as_ref().zip(request.fingerprint.as_ref());
            if both.is_some_and(|(known, asked)| known != asked) {
                return Ok(Claim::Mismatch);
            }
            return Ok(match &known.result {
                Some(result) => Claim::Done(result.clone()),
                None => Claim::InProgress {
                    retry_after: known.until - now,
                },
            });
        }
        self.forget(&name);
        let fingerprint = request.fingerprint.as_ref().map_or(0, Bytes::len);
        let size = name.0.len() + name.1.len() + fingerprint;
        self.make_room(size, now)?;
        self.generation += 1;
        let token = ClaimToken::new(&name.0, &name.1, self.generation);
        let entry = Entry {
            generation: self.generation,
            fingerprint: request.fingerprint,
            result: None,
            until: now + request.lease,
            size,
        };
        self.insert(name, entry);
        Ok(Claim::Granted(token))
    }

    fn complete(
        &mut self,
        token: ClaimToken,
        result: Bytes,
        keep: Duration,
        now: Instant,
    ) -> Result<()> {
        let name = (token.scope, token.key);
        let Some(entry) = self.held(&name, token.generation) else {
            return Err(lost(&name));
        };
        if entry.result.is_some() {
            return Ok(());
        }
        let Some(claimed) = self.forget(&name) else {
            return Err(lost(&name));
        };
        let size = claimed.size + result.len();
        if let Err(full) = self.make_room(size, now) {
            // The claim stands, so that completing can be tried again.
            self.insert(name, claimed);
            return Err(full);
        }
        let done = Entry {
            result: Some(result),
            until: now + keep,
            size,
            ..claimed
        };
        self.insert(name, done);
        Ok(())
    }

    fn extend(&mut self, token: &ClaimToken, lease: Duration, now: Instant) -> Result<()> {
        let name = (token.scope.clone(), token.key.clone());
        match self.held(&name, token.generation) {
            Some(entry) if entry.result.is_none() => {
                if let Some(mut entry) = self.forget(&name) {
                    entry.until = now + lease;
                    self.insert(name, entry);
                }
                Ok(())
            }
            _ => Err(lost(&name)),
        }
    }

    fn release(&mut self, token: ClaimToken) {
        let name = (token.scope, token.key);
        let open = self
            .held(&name, token.generation)
            .is_some_and(|entry| entry.result.is_none());
        if open {
            self.forget(&name);
        }
    }

    fn held(&self, name: &Name, generation: u64) -> Option<&Entry> {
        let entry = self.by_name.get(name)?;
        (entry.generation == generation).then_some(entry)
    }

    fn insert(&mut self, name: Name, entry: Entry) {
        let order = (entry.until, entry.generation);
        match &entry.result {
            Some(_) => self.done.insert(order, name.clone()),
            None => self.claimed.insert(order, name.clone()),
        };
        self.bytes += entry.size;
        self.by_name.insert(name, entry);
    }

    fn forget(&mut self, name: &Name) -> Option<Entry> {
        let entry = self.by_name.remove(name)?;
        let order = (entry.until, entry.generation);
        match &entry.result {
            Some(_) => self.done.remove(&order),
            None => self.claimed.remove(&order),
        };
        self.bytes -= entry.size;
        Some(entry)
    }

    /// Forgets what has had its time and then, while there is no room, the oldest done key. Claims that hold are never
    /// forgotten.
    fn make_room(&mut self, size: usize, now: Instant) -> Result<()> {
        while let Some(name) = self.over(now) {
            self.forget(&name);
        }
        while self.by_name.len() >= self.max_keys || self.bytes + size > self.max_bytes {
            let Some(oldest) = self.done.first_key_value().map(|(_, name)| name.clone()) else {
                return Err(Error::exhausted(format!(
                    "the inbox is full: {} keys are being worked on, {} bytes",
                    self.by_name.len(),
                    self.bytes
                )));
            };
            self.forget(&oldest);
        }
        Ok(())
    }

    /// A key that has had its time.
    fn over(&self, now: Instant) -> Option<Name> {
        let first = [self.done.first_key_value(), self.claimed.first_key_value()];
        let mut over = first.into_iter().flatten().filter(|(at, _)| at.0 <= now);
        over.next().map(|(_, name)| name.clone())
    }
}

fn lost((scope, key): &Name) -> Error {
    Error::conflict("the claim was lost: its lease ran out and another took it, or it is done")
        .with_context("scope", scope)
        .with_context("key", key)
}
