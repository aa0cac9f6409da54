//! A tier in the memory of this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use trunkline_core::Result;

use super::tier::{CacheTier, Selector, TierEntry};
use crate::timeout::later;

/// A tier in the memory of this process, bounded in bytes; the entry that was put first goes first. For tests, and for
/// several clients of one process. Clones share what is kept.
///
/// ```
/// use std::time::Duration;
/// use trunkline_resilience::cache::{CacheTier, MemoryTier, Selector, TierEntry};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> trunkline_core::Result<()> {
/// let tier = MemoryTier::new(1024 * 1024);
/// let entry = TierEntry::new(*b"Ada", Duration::from_secs(60)).with_tags(["users"]);
/// tier.put("user:1", entry).await?;
/// assert_eq!(tier.get("user:1").await?.as_deref(), Some(&b"Ada"[..]));
/// assert_eq!(tier.remove(&Selector::Tag("users".into())).await?, 1);
/// assert_eq!(tier.get("user:1").await?, None);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryTier {
    kept: Arc<Mutex<Kept>>,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Kept {
    entries: HashMap<String, Held>,
    bytes: usize,
    puts: u64,
}

#[derive(Debug)]
struct Held {
    entry: TierEntry,
    until: Instant,
    number: u64,
}

impl MemoryTier {
    /// Keeps at most so many bytes of keys, tags and values.
    #[must_use]
    pub fn new(max_bytes: usize) -> Self {
        Self {
            kept: Arc::default(),
            max_bytes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn take(&mut self, key: &str) -> Option<Held> {
        let held = self.entries.remove(key)?;
        self.bytes -= size(key, &held.entry);
        Some(held)
    }

    /// Makes room: first what has run out, then what was put first.
    fn shrink(&mut self, most: usize, now: Instant) {
        if self.bytes <= most {
            return;
        }
        let mut order: Vec<(bool, u64, String)> = self
            .entries
            .iter()
            .map(|(key, held)| (held.until > now, held.number, key.clone()))
            .collect();
        order.sort_unstable();
        for (_, _, key) in order {
            if self.bytes <= most {
                return;
            }
            self.take(&key);
        }
    }
}

fn size(key: &str, entry: &TierEntry) -> usize {
    key.len() + entry.value.len() + entry.tags.iter().map(String::len).sum::<usize>()
}

impl CacheTier for MemoryTier {
    async fn get(&self, key: &str) -> Result<Option<Arc<[u8]>>> {
        let now = Instant::now();
        let mut kept = self.lock();
        let value = match kept.entries.get(key) {
            Some(held) if held.until > now => Some(Arc::clone(&held.entry.value)),
            Some(_) => {
                kept.take(key);
                None
            }
            None => None,
        };
        Ok(value)
    }

    async fn put(&self, key: &str, entry: TierEntry) -> Result<()> {
        let now = Instant::now();
        let mut kept = self.lock();
        kept.take(key);
        kept.puts += 1;
        let held = Held {
            until: later(now, entry.ttl),
            number: kept.puts,
            entry,
        };
        kept.bytes += size(key, &held.entry);
        kept.entries.insert(key.to_owned(), held);
        kept.shrink(self.max_bytes, now);
        Ok(())
    }

    async fn remove(&self, selector: &Selector) -> Result<u64> {
        let mut kept = self.lock();
        let chosen: Vec<String> = match selector {
            Selector::Key(key) => vec![key.clone()],
            Selector::Prefix(prefix) => {
                let keys = kept.entries.keys();
                keys.filter(|key| key.starts_with(prefix))
                    .cloned()
                    .collect()
            }
            Selector::Tag(tag) => {
                let tagged = kept.entries.iter();
                let tagged = tagged.filter(|(_, held)| held.entry.tags.contains(tag));
                tagged.map(|(key, _)| key.clone()).collect()
            }
        };
        let removed = chosen.iter().filter(|key| kept.take(key).is_some()).count();
        Ok(u64::try_from(removed).unwrap_or(u64::MAX))
    }
}
