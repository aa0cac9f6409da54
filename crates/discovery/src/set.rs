//! The instances of one service at one moment.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::{Homes, Member, NoInstanceReason, Rotation};
use crate::instance::{ServiceInstance, ServiceName};

/// The instances of one service at one moment, and how far that can be trusted. A value: it does not change, a newer
/// one takes its place.
#[derive(Clone)]
pub struct InstanceSet {
    pub(crate) service: ServiceName,
    /// Ordered by id.
    pub(crate) members: Arc<[Arc<Member>]>,
    pub(crate) rotation: Arc<Rotation>,
    /// Where keys can stay, if they are to.
    pub(crate) homes: Option<Arc<Homes>>,
    pub(crate) generation: u64,
    pub(crate) revision: u64,
    pub(crate) freshness: Freshness,
    /// Everything was taken out from here, so all that take requests by their own word are used.
    pub(crate) panicking: bool,
    /// When the first of those taken out may come back, or those that vanished are given up.
    pub(crate) readmit_at: Option<Instant>,
    pub(crate) vanished: Vanished,
    /// Nobody used the service for long, so it is not watched; the next use wakes the watch.
    pub(crate) dormant: bool,
    /// It is as old as that, and a newer list is worth a moment's wait.
    pub(crate) awaited: bool,
    /// How many nothing spoke against when this took the place of an older one.
    pub(crate) sound: usize,
    /// The same by now.
    pub(crate) standing: Arc<Standing>,
}

/// How many instances are in and out, so that nobody need count them who decides on one: as they were counted when the set
/// was made, and kept while single ones are taken out.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Those that take requests by their own word.
    usable: usize,
    /// Of those, the ones that were taken out for what requests have shown.
    out: AtomicUsize,
    /// Those that nothing speaks against.
    sound: AtomicUsize,
}

impl Standing {
    pub(crate) fn of(members: &[Arc<Member>]) -> Self {
        let mut standing = Self::default();
        for member in members.iter().filter(|it| it.is_usable()) {
            standing.usable += 1;
            if member.load.is_ejected() {
                *standing.out.get_mut() += 1;
            } else if member.is_sound() {
                *standing.sound.get_mut() += 1;
            }
        }
        standing
    }

    pub(crate) fn usable(&self) -> usize {
        self.usable
    }

    pub(crate) fn out(&self) -> usize {
        self.out.load(Ordering::Relaxed)
    }

    pub(crate) fn sound(&self) -> usize {
        self.sound.load(Ordering::Relaxed)
    }

    /// One was taken out. One at a time says so.
    pub(crate) fn goes(&self, was_usable: bool, was_sound: bool) {
        let out = self.out() + usize::from(was_usable);
        let sound = self.sound().saturating_sub(usize::from(was_sound));
        self.out.store(out, Ordering::Relaxed);
        self.sound.store(sound, Ordering::Relaxed);
    }
}

/// Instances that a registry no longer lists though nothing else speaks against them: it may have lost what it knew, or let
/// leases run out that nobody could renew. They are asked when there is nobody else to ask.
#[derive(Clone, Default)]
pub(crate) struct Vanished {
    /// Each with the time when it is given up.
    pub(crate) members: Arc<[(Arc<Member>, Instant)]>,
    /// The registry has been away since, or nobody was left: retries go to them, too.
    pub(crate) doubted: bool,
}

/// What the registry said last, and whether it still stands behind it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Freshness {
    pub(crate) answered_at: Option<Instant>,
    pub(crate) stale: bool,
    pub(crate) error: Option<Arc<str>>,
}

impl Freshness {
    /// The registry says so now.
    pub(crate) fn now() -> Self {
        Self {
            answered_at: Some(Instant::now()),
            stale: false,
            error: None,
        }
    }
}

impl InstanceSet {
    /// The service.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// Every instance that is known, whatever its status, ordered by id.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = &Arc<ServiceInstance>> {
        self.members.iter().map(|member| &member.instance)
    }

    /// The instances that get requests now: where there are some in the caller's own zone, those alone. When the registry
    /// suddenly lists none that takes requests, those that it listed last, for
    /// [`keep_vanished`](crate::DiscoveryCacheConfig::keep_vanished).
    pub fn in_rotation(&self) -> impl ExactSizeIterator<Item = &Arc<ServiceInstance>> {
        self.rotation
            .members()
            .iter()
            .map(|member| &member.instance)
    }

    /// How many instances are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether no instance is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether anybody has answered yet who the instances are. Until then the set is empty for want of an answer.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        self.freshness.answered_at.is_some()
    }

    /// Whether the registry is away, so that this is the last known good answer.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.freshness.stale
    }

    /// How old the answer is: zero while the registry stands behind it, the time since its last word while it is away.
    #[must_use]
    pub fn age(&self) -> Duration {
        match self.freshness.answered_at {
            Some(at) if self.freshness.stale => at.elapsed(),
            _ => Duration::ZERO,
        }
    }

    /// Why the registry cannot be asked, while it is away.
    #[must_use]
    pub fn last_error(&self) -> Option<&str> {
        self.freshness.error.as_deref()
    }

    /// Grows with every change of the instances, of what is known of them, or of who gets requests.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The registry's own count of changes; 0 where it does not count.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether nearly every instance (`panic_percent`) was taken out for failing requests or checks, so that all of them
    /// are used for want of better ones.
    #[must_use]
    pub fn is_panicking(&self) -> bool {
        self.panicking
    }

    /// Whether there is an instance that takes requests and against which neither requests nor checks speak.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.sound > 0
    }

    /// How many were taken out because requests to them failed.
    #[must_use]
    pub fn ejected(&self) -> usize {
        self.members
            .iter()
            .filter(|member| member.load.is_ejected())
            .count()
    }

    pub(crate) fn member(&self, id: &str) -> Option<&Arc<Member>> {
        let at = self
            .members
            .binary_search_by(|member| member.instance.id.as_str().cmp(id));
        self.members.get(at.ok()?)
    }

    /// Why there is nothing to pick, when there is nothing.
    pub(crate) fn why_nothing(&self) -> NoInstanceReason {
        if !self.is_resolved() {
            NoInstanceReason::NotResolved(self.freshness.error.clone())
        } else if self.members.is_empty() {
            NoInstanceReason::None
        } else {
            let known = self.members.len();
            NoInstanceReason::NoneUsable { known }
        }
    }
}

impl fmt::Debug for InstanceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceSet")
            .field("service", &self.service)
            .field("known", &self.len())
            .field("in_rotation", &self.rotation.members().len())
            .field("generation", &self.generation)
            .field("stale", &self.is_stale())
            .finish_non_exhaustive()
    }
}
