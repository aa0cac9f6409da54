//! Taking instances out of rotation for what requests to them show, and letting them back in.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::Pool;
use crate::balance::{EjectionState, Member};
use crate::check::Checks;
use crate::set::InstanceSet;

/// Instances are not compared more often than this, whatever the configuration says.
pub(super) const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

/// How many instances may be out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Most {
    /// The share of the configuration: that an instance does badly may be the fault of what is asked, or of those that are
    /// behind all of them.
    Share,
    /// There is no doubt about what cannot be connected to, and to ask it is of no use to anybody.
    AllButOne,
}

impl Pool {
    /// A request to an instance failed, so many in a row.
    pub(crate) fn failed(&self, member: &Member, failures: u32) {
        let ejection = &self.balance.ejection;
        let threshold = ejection.consecutive_failures;
        if ejection.enabled && threshold > 0 && failures >= threshold {
            self.eject_for_failing(member, "requests to it keep failing");
        }
    }

    /// No connection to an instance could be made.
    pub(crate) fn unreachable(&self, member: &Member) {
        if !self.is_gone_for_good(member) && self.balance.ejection.enabled {
            let ejection = &self.balance.ejection;
            let why = "it cannot be connected to";
            self.eject(member, why, Most::AllButOne, |state| {
                state.eject(ejection, Instant::now())
            });
        }
    }

    /// An instance says that it is too busy for so long.
    pub(crate) fn busy(&self, member: &Member, span: Duration) {
        let ejection = &self.balance.ejection;
        if ejection.enabled && span > Duration::ZERO {
            let why = "it says that it is too busy";
            self.eject(member, why, Most::Share, |state| {
                state.leave_alone(ejection, span, Instant::now())
            });
        }
    }

    /// Compares the instances with each other, and takes those out that do worse than the others.
    pub(crate) fn compare(&self, now: Instant) {
        let config = &self.balance.ejection;
        let set = self.set.load_full();
        let outliers = {
            // Two that find that it is time at the same moment: the second sees that nothing was counted since.
            let _replacing = self.replacing();
            let counts: Vec<_> = set.members.iter().map(|it| it.load.take_counts()).collect();
            config.outliers(&counts)
        };
        for (at, why) in outliers {
            if let Some(member) = set.members.get(at) {
                self.eject_for_failing(member, why.why());
            }
        }
        let every = config.interval.max(SHORTEST_INTERVAL);
        let next = now.checked_add(every).unwrap_or(now);
        for member in set.members.iter() {
            member.load.compare_at(next);
        }
    }

    fn eject_for_failing(&self, member: &Member, why: &'static str) {
        let ejection = &self.balance.ejection;
        self.eject(member, why, Most::Share, |state| {
            state.eject(ejection, Instant::now())
        });
    }

    fn eject(
        &self,
        member: &Member,
        why: &'static str,
        most: Most,
        eject: impl FnOnce(&mut EjectionState) -> Duration,
    ) {
        let replacing = self.replacing();
        let set = self.set.load_full();
        // What left meanwhile, or is out already, is no longer ours to take out.
        let known = set.member(&member.instance.id);
        if !known.is_some_and(|known| Arc::ptr_eq(&known.load, &member.load))
            || member.load.is_ejected()
        {
            return;
        }
        if !self.allows_one_more(&set, most) {
            return;
        }
        let lasts = member.load.change_ejection(eject);
        tracing::warn!(
            target: "trunkline::discovery",
            service = %self.service, instance = %member.instance.authority(), seconds = lasts.as_secs_f32(), why,
            "instance taken out of rotation"
        );
        let next = self.arrange(InstanceSet::clone(&set));
        self.replace(next, &replacing);
    }

    /// Whether one more instance may be taken out.
    fn allows_one_more(&self, set: &InstanceSet, most: Most) -> bool {
        let in_rotation = set.members.iter().filter(|member| member.is_sound());
        let in_rotation = in_rotation.count();
        if most == Most::AllButOne {
            return in_rotation > 1;
        }
        let usable = set.members.iter().filter(|member| member.is_usable());
        let (usable, out) = usable.fold((0, 0), |(usable, out), member| {
            (usable + 1, out + usize::from(member.load.is_ejected()))
        });
        self.balance.ejection.allows(usable, out, in_rotation)
    }

    /// Whether an instance gets no more requests while others do.
    pub(crate) fn is_out(&self, member: &Member) -> bool {
        let set = self.set.load();
        let is_it = |other: &Member| Arc::ptr_eq(&other.load, &member.load);
        let listed = set.member(&member.instance.id);
        let is_asked = listed.is_some_and(|it| is_it(it) && it.is_sound())
            || set.vanished.members.iter().any(|(it, _)| is_it(it));
        !is_asked && !set.panicking && has_others(&set, member)
    }

    /// Whether an instance is out, or may be taken out.
    pub(crate) fn is_dispensable(&self, member: &Member) -> bool {
        if self.is_out(member) {
            return true;
        }
        let set = self.set.load();
        if !self.balance.ejection.enabled || set.panicking || !has_others(&set, member) {
            return false;
        }
        // A last resort is asked only as long as it can be connected to.
        set.member(&member.instance.id).is_none() || self.allows_one_more(&set, Most::Share)
    }

    pub(super) fn readmit(&self, replacing: &MutexGuard<'_, Checks>) {
        let set = self.set.load_full();
        let now = Instant::now();
        let given_up = set.vanished.members.iter().any(|(_, until)| *until <= now);
        let mut changed = given_up;
        for member in set.members.iter().filter(|member| member.load.is_ejected()) {
            if member.load.change_ejection(|state| state.readmit(now)) {
                changed = true;
                tracing::info!(
                    target: "trunkline::discovery",
                    service = %self.service, instance = %member.instance.authority(),
                    "instance back in rotation"
                );
            }
        }
        if changed {
            let mut next = InstanceSet::clone(&set);
            if given_up {
                let left = set.vanished.members.iter().filter(|it| it.1 > now);
                next.vanished.members = left.cloned().collect();
                next.vanished.doubted &= !next.vanished.members.is_empty();
            }
            let next = self.arrange(next);
            self.replace(next, replacing);
        }
    }
}

/// Whether there is anybody else to ask: an instance that is listed and sound, or a last resort.
fn has_others(set: &InstanceSet, member: &Member) -> bool {
    let is_other = |other: &Arc<Member>| !Arc::ptr_eq(&other.load, &member.load);
    let sound = |other: &&Arc<Member>| other.is_sound();
    let mut listed = set.members.iter().filter(sound);
    listed.any(is_other) || set.rotation.members().iter().any(is_other)
}
