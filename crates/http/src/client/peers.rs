//! The places of instances, found by all who call without a lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use trunkline_discovery::ServiceInstance;

use super::destination::Peer;

/// Slots of the smallest table.
const LEAST: usize = 64;

/// What is known of places, by the address of the instance's description, which is kept with it and so stays its own.
///
/// Whoever looks for a place loads a few pointers. One that is not known yet is taken in under a lock, for which nobody waits
/// but others who do the same.
#[derive(Debug)]
pub(super) struct Peers {
    table: ArcSwap<Table>,
    taking_in: Mutex<()>,
}

/// A table of hashes, at most half full: what is not in its slot is in one of the next, before the first free one.
#[derive(Debug)]
struct Table {
    slots: Box<[ArcSwapOption<Known>]>,
    taken: AtomicUsize,
}

#[derive(Debug)]
struct Known {
    instance: Arc<ServiceInstance>,
    peer: Arc<Peer>,
}

impl Default for Peers {
    fn default() -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::of(LEAST)),
            taking_in: Mutex::default(),
        }
    }
}

impl Peers {
    /// The place of an instance, if it is known.
    pub(super) fn find(&self, instance: &Arc<ServiceInstance>) -> Option<Arc<Peer>> {
        self.table.load().find(instance)
    }

    /// Takes a place in. Gives the one that counts: somebody may have been faster.
    pub(super) fn take_in(&self, instance: &Arc<ServiceInstance>, peer: Arc<Peer>) -> Arc<Peer> {
        let _taking_in = self.taking_in.lock();
        let _taking_in = _taking_in.unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load_full();
        if let Some(known) = table.find(instance) {
            return known;
        }
        let known = Arc::new(Known {
            instance: Arc::clone(instance),
            peer: Arc::clone(&peer),
        });
        if !table.is_half_full() {
            table.add(&known);
            return peer;
        }
        // What nobody else holds is in no list any more.
        let slots = table.slots.iter().filter_map(ArcSwapOption::load_full);
        let in_use: Vec<_> = slots
            .filter(|known| Arc::strong_count(&known.instance) > 1)
            .collect();
        let size = (in_use.len() + 1).saturating_mul(4).next_power_of_two();
        let roomier = Table::of(size.max(LEAST));
        for known in in_use {
            roomier.add(&known);
        }
        roomier.add(&known);
        self.table.store(Arc::new(roomier));
        peer
    }
}

impl Table {
    /// The size is a power of two.
    fn of(size: usize) -> Self {
        Self {
            slots: (0..size).map(|_| ArcSwapOption::empty()).collect(),
            taken: AtomicUsize::new(0),
        }
    }

    fn is_half_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.slots.len() / 2
    }

    /// The slots in which an instance may be, the likeliest first.
    fn slots_of(
        &self,
        instance: &Arc<ServiceInstance>,
    ) -> impl Iterator<Item = &ArcSwapOption<Known>> {
        let address = Arc::as_ptr(instance).addr() as u64;
        // Nobody chooses it from outside: one multiplication, of which every bit of the address has a part in the high half.
        let mixed = (address.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize;
        let (before, from) = self.slots.split_at(mixed & (self.slots.len() - 1));
        from.iter().chain(before)
    }

    fn find(&self, instance: &Arc<ServiceInstance>) -> Option<Arc<Peer>> {
        for slot in self.slots_of(instance) {
            let slot = slot.load();
            let known = slot.as_ref()?;
            if Arc::ptr_eq(&known.instance, instance) {
                return Some(Arc::clone(&known.peer));
            }
        }
        None
    }

    fn add(&self, known: &Arc<Known>) {
        let mut slots = self.slots_of(&known.instance);
        if let Some(free) = slots.find(|slot| slot.load().is_none()) {
            free.store(Some(Arc::clone(known)));
            self.taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use trunkline_discovery::ServiceName;
    use trunkline_telemetry::Metrics;

    use super::*;
    use crate::origin::Origin;

    fn instance(port: u16) -> Arc<ServiceInstance> {
        let name = ServiceName::new("users").unwrap();
        Arc::new(ServiceInstance::new(name, "127.0.0.1", port))
    }

    fn peer(instance: &Arc<ServiceInstance>) -> Arc<Peer> {
        let origin = Origin::of_instance(instance).unwrap();
        Peer::new(origin, &Metrics::disabled().http_client("users"))
    }

    fn leads_to(peers: &Peers, instance: &Arc<ServiceInstance>) -> bool {
        let found = peers.find(instance);
        found.is_some_and(|peer| peer.origin.authority().port_u16() == Some(instance.port))
    }

    fn taken(peers: &Peers) -> usize {
        peers.table.load().taken.load(Ordering::Relaxed)
    }

    #[test]
    fn places_are_known_as_long_as_their_instances_are() {
        let peers = Peers::default();
        let note = |instance: &Arc<ServiceInstance>| drop(peers.take_in(instance, peer(instance)));
        let known: Vec<_> = (1_001..=4_000).map(instance).collect();
        known.iter().for_each(note);
        assert!(
            known.iter().all(|it| leads_to(&peers, it)),
            "all are in use"
        );
        assert_eq!(taken(&peers), known.len());
        drop(known);
        for port in 1..=20_000 {
            note(&instance(port));
            assert!(taken(&peers) <= 8_192);
        }
        assert!(taken(&peers) <= LEAST);
        assert_eq!(peers.table.load().slots.len(), LEAST);
    }

    #[test]
    fn who_comes_second_is_given_the_place_of_the_first() {
        let (peers, instance) = (Peers::default(), instance(8080));
        let first = peers.take_in(&instance, peer(&instance));
        let second = peers.take_in(&instance, peer(&instance));
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(taken(&peers), 1);
    }

    #[test]
    fn whoever_knows_a_place_does_not_wait_for_one_who_takes_another_in() {
        let (peers, instance) = (Peers::default(), instance(8080));
        let _ = peers.take_in(&instance, peer(&instance));
        let _taking_in = peers.taking_in.lock().unwrap();
        assert!(leads_to(&peers, &instance));
    }

    #[test]
    fn a_place_is_found_while_the_table_grows() {
        let peers = Peers::default();
        let known: Vec<_> = (1..=2_000).map(instance).collect();
        let peer = peer(&known[0]);
        let _ = peers.take_in(&known[0], Arc::clone(&peer));
        std::thread::scope(|threads| {
            let looks = || {
                while taken(&peers) < known.len() {
                    assert!(peers.find(&known[0]).is_some());
                }
            };
            threads.spawn(looks);
            threads.spawn(looks);
            for instance in &known {
                let _ = peers.take_in(instance, Arc::clone(&peer));
            }
        });
        assert!(known.iter().all(|it| peers.find(it).is_some()));
    }
}
