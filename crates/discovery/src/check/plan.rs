//! When each instance is asked next, and how many at a time.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::{LEAST_WAIT, confirming_wait, spread};
use crate::config::HealthCheckConfig;

/// However few the instances are, so many of them may be asked at a time.
pub(super) const AT_ONCE: usize = 16;

/// What is known of the checks of one instance.
#[derive(Debug, Default)]
struct Entry {
    /// When it is due; `None` while it is being asked.
    at: Option<Instant>,
    /// When the last check began and ended.
    last: Option<(Instant, Instant)>,
    /// The last one failed.
    ill: bool,
    /// A call to it has failed since: the check that is due or under way is to say whether it is well.
    called_for: bool,
    /// How far behind the last check one that is called for comes at least.
    gap: Duration,
}

/// The instances in the order in which they are due.
#[derive(Debug, Default)]
pub(super) struct Plan {
    entries: HashMap<String, Entry>,
    /// Those that passed last, and those that failed: who does not answer holds a place for long, and these are half of all
    /// places at most, so that they keep nobody waiting who answers.
    due: [BTreeSet<(Instant, String)>; 2],
    under_way: [usize; 2],
}

/// How many checks may be under way: by this rule all come in the interval though nobody answers within the time allowed, and
/// those that answer have as many places again.
pub(super) fn at_once(instances: usize, config: &HealthCheckConfig) -> usize {
    let share = config.timeout.as_secs_f64() / config.interval.max(LEAST_WAIT).as_secs_f64();
    let needed = (instances as f64 * share).ceil() * 2.0;
    let most = usize::try_from(config.max_concurrent).unwrap_or(usize::MAX);
    // A float that is too large is the largest number there is.
    (needed as usize).max(AT_ONCE).min(most.max(1))
}

impl Plan {
    pub(super) fn knows(&self, id: &str) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &String> {
        self.entries.keys()
    }

    /// Nothing more is planned for an instance. What is under way goes on.
    pub(super) fn forget(&mut self, id: &str) {
        if let Some(entry) = self.entries.remove(id) {
            match entry.at {
                Some(at) => drop(self.due[usize::from(entry.ill)].remove(&(at, id.to_owned()))),
                None => self.is_over(entry.ill),
            }
        }
    }

    /// An instance is asked after this time.
    pub(super) fn wait(&mut self, id: &str, span: Duration) {
        self.move_to(id, Instant::now() + span);
    }

    fn move_to(&mut self, id: &str, to: Instant) {
        let entry = self.entries.entry(id.to_owned()).or_default();
        let due = &mut self.due[usize::from(entry.ill)];
        if let Some(before) = entry.at.replace(to) {
            due.remove(&(before, id.to_owned()));
        }
        due.insert((to, id.to_owned()));
    }

    /// A call to an instance has failed, at this time: it is asked soon, unless it was asked since, is being asked, or is
    /// out anyway. One that passed such a check is not asked at every failure that follows.
    pub(super) fn is_doubted(&mut self, id: &str, when: Instant, config: &HealthCheckConfig) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let Some(at) = entry.at else {
            return;
        };
        let mut soonest = Instant::now();
        if let Some((began, ended)) = entry.last {
            if when <= began {
                return;
            }
            let gap = if entry.ill {
                confirming_wait(config)
            } else {
                entry.gap
            };
            soonest = soonest.max(ended + gap);
        }
        entry.called_for = true;
        if soonest < at {
            self.move_to(id, soonest);
        }
    }

    /// When somebody is due for whom there is a place.
    pub(super) fn next(&self, at_once: usize) -> Option<Instant> {
        self.first(at_once).map(|(at, _)| *at)
    }

    fn first(&self, at_once: usize) -> Option<&(Instant, String)> {
        let [sound, ill] = self.under_way;
        if sound + ill >= at_once {
            return None;
        }
        let failing = self.due[1].first().filter(|_| ill < (at_once / 2).max(1));
        self.due[0].first().into_iter().chain(failing).min()
    }

    /// Takes the one that is due first: it is being asked from now on.
    pub(super) fn take(&mut self, at_once: usize) -> Option<String> {
        let (at, id) = self.first(at_once)?.clone();
        let entry = self.entries.get_mut(&id)?;
        entry.at = None;
        self.under_way[usize::from(entry.ill)] += 1;
        self.due[usize::from(entry.ill)].remove(&(at, id.clone()));
        Some(id)
    }

    fn is_over(&mut self, ill: bool) {
        let under_way = &mut self.under_way[usize::from(ill)];
        *under_way = under_way.saturating_sub(1);
    }

    /// A check is over. Says whether a failed call had called for it.
    pub(super) fn asked(
        &mut self,
        id: &str,
        began: Instant,
        failed: bool,
        config: &HealthCheckConfig,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(id) else {
            return false;
        };
        let before = std::mem::replace(&mut entry.ill, failed);
        let called_for = std::mem::take(&mut entry.called_for);
        entry.gap = match (called_for, failed) {
            (true, false) => (entry.gap * 2)
                .max(confirming_wait(config))
                .min(config.interval),
            _ => Duration::ZERO,
        };
        entry.last = Some((began, Instant::now()));
        self.is_over(before);
        called_for
    }
}

/// How long one waits that keeps failing, with so many failures beyond those that count: not much longer than it has been away,
/// so that it is soon back, and an interval at most.
pub(super) fn failing_wait(beyond: u32, config: &HealthCheckConfig) -> Duration {
    let factor = 1_u32
        .checked_shl(beyond.saturating_add(1))
        .unwrap_or(u32::MAX);
    let base = config.confirm_interval.min(config.interval);
    spread(base.saturating_mul(factor).min(config.interval), config)
}
