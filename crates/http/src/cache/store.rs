//! The memory: answers by key, bounded in bytes, with what is needed to clear them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use http::HeaderMap;
use quick_cache::sync::Cache;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};
use trunkline_telemetry::metrics::CacheStoreMetrics;

use super::Clear;
use super::stored::{About, Stored, Use};

/// Answers under one key, for requests that differ in the headers named by `Vary`; the oldest goes.
const MOST_VARIANTS: usize = 32;

/// Clearings that are remembered for calls under way.
const MOST_CLEARINGS: usize = 256;

/// Parts of the memory with a lock each.
const PARTS: usize = 4;

/// What stands under one key.
#[derive(Debug, Default)]
pub(super) struct Slot {
    variants: Vec<Arc<Stored>>,
    /// Until then nobody waits for another's answer under this key: it could not be shared.
    pass_until: Option<SystemTime>,
    weight: u64,
}

impl Slot {
    fn new(variants: Vec<Arc<Stored>>, pass_until: Option<SystemTime>) -> Arc<Self> {
        let weight: usize = variants.iter().map(|stored| stored.weight()).sum();
        Arc::new(Self {
            weight: u64::try_from(weight).unwrap_or(u64::MAX).max(256),
            variants,
            pass_until,
        })
    }

    /// The newest answer to a request, and what it is to it.
    pub(super) fn find(
        &self,
        headers: &HeaderMap,
        plain: bool,
        now: SystemTime,
    ) -> Option<(Arc<Stored>, Use)> {
        let known = self.variants.iter().rev();
        let mut answers = known.map(|stored| (stored, stored.answers(headers, plain, now)));
        let (stored, is) = answers.find(|(_, is)| *is != Use::No)?;
        Some((Arc::clone(stored), is))
    }

    pub(super) fn passes(&self, now: SystemTime) -> bool {
        self.pass_until.is_some_and(|until| now < until)
    }
}

#[derive(Clone, Debug)]
struct ByBytes;

impl Weighter<Arc<str>, Arc<Slot>> for ByBytes {
    fn weight(&self, key: &Arc<str>, slot: &Arc<Slot>) -> u64 {
        slot.weight + u64::try_from(key.len()).unwrap_or(u64::MAX)
    }
}

/// Keys by the path that they lead to, so that a change there clears them without a search.
#[derive(Debug, Default)]
struct Index(Mutex<HashMap<u64, HashSet<Arc<str>>>>);

impl Index {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, HashSet<Arc<str>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, path: u64, key: &Arc<str>) {
        let mut known = self.lock();
        known.entry(path).or_default().insert(Arc::clone(key));
    }

    fn unlist(&self, hasher: &RandomState, key: &Arc<str>, slot: &Slot) {
        for stored in &slot.variants {
            self.forget(hash(hasher, &stored.about), key);
        }
    }

    fn forget(&self, path: u64, key: &Arc<str>) {
        let mut known = self.lock();
        if let Some(keys) = known.get_mut(&path) {
            keys.remove(key);
            if keys.is_empty() {
                known.remove(&path);
            }
        }
    }
}

/// Hears of what made room for others.
#[derive(Clone, Debug)]
struct Evictions {
    index: Arc<Index>,
    hasher: RandomState,
    metrics: CacheStoreMetrics,
    count: Arc<AtomicU64>,
}

impl Lifecycle<Arc<str>, Arc<Slot>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), key: Arc<str>, slot: Arc<Slot>) {
        if !slot.variants.is_empty() {
            self.index.unlist(&self.hasher, &key, &slot);
            self.metrics.evicted();
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn hash(hasher: &RandomState, about: &About) -> u64 {
    hasher.hash_one((&*about.service, &*about.path))
}

/// What was cleared lately: an answer that was asked for before must not be kept after.
#[derive(Debug, Default)]
struct Journal {
    last: u64,
    recent: VecDeque<(u64, Arc<str>, Cleared)>,
}

/// What was cleared.
#[derive(Clone, Debug)]
pub(super) enum Cleared {
    /// What leads to a path.
    Path(String),
    By(Clear),
}

impl Cleared {
    fn takes(&self, about: &About) -> bool {
        match self {
            Self::Path(path) => *about.path == **path,
            Self::By(Clear::Key(key)) => *about.key == **key,
            Self::By(Clear::Prefix(prefix)) => about.key.starts_with(prefix.as_str()),
            Self::By(Clear::Tag(tag)) => about.tags.contains(tag),
            Self::By(Clear::All) => true,
        }
    }
}

/// The memory of a cache.
#[derive(Debug)]
pub(super) struct Store {
    kept: Cache<Arc<str>, Arc<Slot>, ByBytes, RandomState, Evictions>,
    index: Arc<Index>,
    hasher: RandomState,
    journal: Mutex<Journal>,
    /// The journal's last number.
    last: AtomicU64,
    /// Puts read what is there and write it back.
    writing: Mutex<()>,
    used: AtomicBool,
    metrics: CacheStoreMetrics,
    evictions: Arc<AtomicU64>,
}

impl Store {
    pub(super) fn new(max_bytes: u64, metrics: CacheStoreMetrics) -> Self {
        let (index, evictions) = (Arc::<Index>::default(), Arc::<AtomicU64>::default());
        let hasher = RandomState::new();
        let options = OptionsBuilder::new()
            .shards(PARTS)
            .estimated_items_capacity(256)
            .weight_capacity(max_bytes)
            .build()
            .expect("both capacities are given");
        let lifecycle = Evictions {
            index: Arc::clone(&index),
            hasher: hasher.clone(),
            metrics: metrics.clone(),
            count: Arc::clone(&evictions),
        };
        Self {
            kept: Cache::with_options(options, ByBytes, hasher.clone(), lifecycle),
            index,
            hasher,
            journal: Mutex::default(),
            last: AtomicU64::new(0),
            writing: Mutex::default(),
            used: AtomicBool::new(false),
            metrics,
            evictions,
        }
    }

    /// Whether anything has ever been kept.
    pub(super) fn is_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Slot>> {
        self.kept.get(key)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.kept.weight()
    }

    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// To be asked before a request is sent whose answer may be kept.
    pub(super) fn moment(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// Keeps an answer in place of those to the same request, unless it has been cleared since a moment.
    pub(super) fn put(&self, key: &Arc<str>, stored: Arc<Stored>, since: u64) -> bool {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_cleared(&stored.about, since) {
            return false;
        }
        let mut variants = match self.kept.peek(&**key) {
            Some(slot) => {
                self.index.unlist(&self.hasher, key, &slot);
                slot.variants.clone()
            }
            None => Vec::new(),
        };
        variants.retain(|known| known.answers(&stored.asked.headers, false, stored.at) == Use::No);
        if variants.len() >= MOST_VARIANTS {
            variants.remove(0);
        }
        self.used.store(true, Ordering::Relaxed);
        variants.push(stored);
        // Before it is kept: it may be evicted at once, which ends in the index.
        for stored in &variants {
            self.index.add(hash(&self.hasher, &stored.about), key);
        }
        self.kept.insert(Arc::clone(key), Slot::new(variants, None));
        self.metrics.holds(self.kept.weight());
        true
    }

    /// Notes that answers under this key cannot be shared.
    pub(super) fn pass(&self, key: &Arc<str>, until: SystemTime) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self
            .kept
            .peek(&**key)
            .is_none_or(|slot| slot.variants.is_empty())
        {
            self.kept
                .insert(Arc::clone(key), Slot::new(Vec::new(), Some(until)));
        }
    }

    /// Forgets what is under a key.
    pub(super) fn forget(&self, key: &str) {
        if let Some((key, slot)) = self.kept.remove(key) {
            self.unlist(&key, &slot);
        }
    }

    fn unlist(&self, key: &Arc<str>, slot: &Slot) {
        self.index.unlist(&self.hasher, key, slot);
        self.metrics.holds(self.kept.weight());
    }

    /// Clears, and says how many keys there were.
    pub(super) fn clear(&self, service: &Arc<str>, what: Cleared) -> u64 {
        // Who is putting has asked the journal before or does so after: no answer slips through between.
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: HashSet<Arc<str>> = match &what {
            Cleared::Path(path) => {
                let path = self.hasher.hash_one((&**service, path.as_str()));
                self.index.lock().get(&path).cloned().unwrap_or_default()
            }
            Cleared::By(_) => {
                let of = |slot: &Slot| {
                    let mut known = slot.variants.iter().map(|stored| &stored.about);
                    known.any(|about| about.service == *service && what.takes(about))
                };
                let kept = self.kept.iter();
                kept.filter(|(_, slot)| of(slot))
                    .map(|(key, _)| key)
                    .collect()
            }
        };
        self.note(service, what);
        for key in &keys {
            self.forget(key);
        }
        u64::try_from(keys.len()).unwrap_or(u64::MAX)
    }

    fn note(&self, service: &Arc<str>, what: Cleared) {
        let mut journal = self.journal();
        journal.last += 1;
        let number = journal.last;
        self.last.store(number, Ordering::Release);
        journal
            .recent
            .push_back((number, Arc::clone(service), what));
        if journal.recent.len() > MOST_CLEARINGS {
            journal.recent.pop_front();
        }
    }

    /// Whether it has been cleared since; what is no longer known may have been.
    pub(super) fn is_cleared(&self, about: &About, since: u64) -> bool {
        if self.moment() == since {
            return false;
        }
        let journal = self.journal();
        let known = u64::try_from(journal.recent.len()).unwrap_or(u64::MAX);
        if journal.last - since > known {
            return true;
        }
        let mut since = journal.recent.iter().filter(|(number, ..)| *number > since);
        since.any(|(_, service, what)| *service == about.service && what.takes(about))
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
