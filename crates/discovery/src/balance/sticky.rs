//! Keys that stay at their instance: a memory of bounded size beside the table of hashes, read and written without locks.
//!
//! Where a key goes at first, the table of hashes says, the same for every caller. From then on it stays, although the table
//! would lead it elsewhere when others come. A key that was pushed out of the memory goes where the table leads, which for
//! nearly all keys is where it was.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::load::Member;
use super::maglev::hash;

/// Keys that share a part of the memory; the newest pushes out one of them.
const WAYS: usize = 4;

/// Where keys were sent.
#[derive(Debug)]
pub(crate) struct Sticky {
    /// Each a part of a key's hash and the number of an instance; 0 while it is free.
    places: Box<[AtomicU64]>,
    /// Whether a key goes back when its instance does.
    fail_back: bool,
}

/// The instances that keys can stay at, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Homes {
    /// Those that get requests.
    sound: HashMap<u32, Arc<Member>>,
    /// Those that are listed and get none now.
    away: HashMap<u32, Arc<Member>>,
    /// Those that were taken out get requests as well, for want of others.
    whole: bool,
}

/// A key in the memory.
pub(crate) struct Place<'a> {
    sticky: &'a Sticky,
    bucket: &'a [AtomicU64],
    tag: u32,
}

impl Homes {
    pub(crate) fn of<'a>(members: impl Iterator<Item = &'a Arc<Member>>, panicking: bool) -> Self {
        let mut homes = Self {
            whole: panicking,
            ..Self::default()
        };
        for member in members {
            let gets = member.is_sound() || (panicking && member.is_usable());
            let list = if gets {
                &mut homes.sound
            } else {
                &mut homes.away
            };
            list.insert(member.load.number(), Arc::clone(member));
        }
        homes
    }

    /// The instance of a number, if it gets requests: it may have been taken out since.
    fn asked(&self, number: u32) -> Option<&Arc<Member>> {
        let member = self.sound.get(&number);
        member.filter(|it| self.whole || !it.load.is_passed_over())
    }

    /// Whether it is listed, though it gets no requests.
    fn is_away(&self, number: u32) -> bool {
        self.away.contains_key(&number) || self.sound.contains_key(&number)
    }
}

impl Sticky {
    /// Room for about so many keys.
    pub(crate) fn new(keys: u32, fail_back: bool) -> Self {
        let keys = usize::try_from(keys).unwrap_or(usize::MAX).max(WAYS);
        let size = keys.checked_next_power_of_two().unwrap_or(WAYS);
        Self {
            places: (0..size).map(|_| AtomicU64::new(0)).collect(),
            fail_back,
        }
    }

    pub(crate) fn place(&self, key: &str) -> Place<'_> {
        let hash = hash(key.as_bytes(), 3);
        let (tag, low) = ((hash >> 32) as u32, hash as u32);
        let buckets = self.places.len() / WAYS;
        let at = (low as usize & (buckets - 1)) * WAYS;
        Place {
            sticky: self,
            bucket: &self.places[at..at + WAYS],
            tag,
        }
    }
}

impl Place<'_> {
    /// The number of the instance where the key was sent last.
    fn home(&self) -> Option<u32> {
        let known = self.bucket.iter().map(|it| it.load(Ordering::Relaxed));
        let mut known = known.filter(|it| *it != 0 && (it >> 32) as u32 == self.tag);
        known.next().map(|it| it as u32)
    }

    /// The instance where the key stays, as long as it gets requests.
    pub(crate) fn stays<'h>(&self, homes: &'h Homes) -> Option<&'h Arc<Member>> {
        homes.asked(self.home()?)
    }

    /// The key is sent elsewhere: it stays there, unless it is to come back to where it was.
    pub(crate) fn moved(&self, homes: &Homes, to: &Member) {
        let home = self.home();
        let waits = home.is_some_and(|home| {
            homes.asked(home).is_some() || (self.sticky.fail_back && homes.is_away(home))
        });
        if waits {
            return;
        }
        let entry = (u64::from(self.tag) << 32) | u64::from(to.load.number());
        let at = |test: &dyn Fn(u64) -> bool| {
            let mut places = self.bucket.iter();
            places.find(|it| test(it.load(Ordering::Relaxed)))
        };
        let own = at(&|it| it != 0 && (it >> 32) as u32 == self.tag);
        let place = own.or_else(|| at(&|it| it == 0));
        let place = place.unwrap_or(&self.bucket[self.tag as usize % WAYS]);
        place.store(entry, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_bounded_whatever_was_asked_for() {
        for (asked, size) in [(0, 4), (4, 4), (5, 8), (16_384, 16_384)] {
            assert_eq!(Sticky::new(asked, true).places.len(), size);
        }
        let sticky = Sticky::new(8, true);
        for key in 0..100 {
            assert_eq!(sticky.place(&key.to_string()).bucket.len(), WAYS);
        }
    }
}
