//! Taking instances out of rotation for what requests to them show, and letting them back in.

use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::Pool;
use crate::EjectionConfig;
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
    /// A request to an instance failed: whoever checks it asks now whether it is well.
    pub(crate) fn doubt(&self, member: &Member, now: Instant) {
        if self.doubted.receiver_count() > 0 && member.load.doubt(now) {
            self.doubted.send_replace(());
        }
    }

    /// Whether there are enough others: no more than the share of ejection would be left out, and somebody is there.
    pub(crate) fn can_spare(&self, id: &str) -> bool {
        let set = self.set.load();
        let standing = &set.standing;
        let left = standing.sound();
        let is_out = set.member(id).is_none_or(|it| !it.is_sound());
        let out = standing.usable().saturating_sub(left);
        is_out || self.balance.ejection.allows(standing.usable(), out, left)
    }

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
        if !self.gives_up(member) && self.balance.ejection.enabled {
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

    /// One of those that vanished is gone for good. Says whether it was one of them.
    fn gives_up(&self, member: &Member) -> bool {
        if !has_vanished(&self.set.load(), member) {
            return false;
        }
        member.load.give_up();
        self.rearrange();
        true
    }

    /// Compares the instances with each other, and takes those out that do worse than the others.
    pub(super) fn compare(&self, _replacing: &MutexGuard<'_, Checks>) {
        let config = &self.balance.ejection;
        let set = self.set.load_full();
        let counts: Vec<_> = set.members.iter().map(|it| it.load.take_counts()).collect();
        for (at, why) in config.outliers(&counts) {
            if let Some(member) = set.members.get(at) {
                self.eject_for_failing(member, why.why());
            }
        }
        let every = config.interval.max(SHORTEST_INTERVAL);
        let now = Instant::now();
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
        // What left meanwhile, or is out already, is no longer ours to take out.
        let may_go = |set: &InstanceSet| {
            let listed = set.member(&member.instance.id);
            !member.load.is_ejected()
                && allows_one_more(&self.balance.ejection, set, most)
                && listed.is_some_and(|listed| is_same(listed, member))
        };
        // Without a lock: when everything fails, nearly nobody may go, and all who call are told so here.
        if !may_go(&self.set.load()) {
            return;
        }
        let leaving = self.leaving();
        let set = self.set.load();
        if !may_go(&set) {
            return;
        }
        let (was_usable, was_sound) = (member.is_usable(), member.is_sound());
        let lasts = member.load.change_ejection(eject);
        if member.load.is_ejected() {
            set.standing.goes(was_usable, was_sound);
        }
        drop(leaving);
        tracing::warn!(
            target: "trunkline::discovery",
            service = %self.service, instance = %member.instance.authority(), seconds = lasts.as_secs_f32(), why,
            "instance taken out of rotation"
        );
        self.rearrange();
    }

    /// Whether an instance gets no more requests while others do.
    pub(crate) fn is_out(&self, member: &Member) -> bool {
        let set = self.set.load();
        let listed = set.member(&member.instance.id);
        let is_asked = listed.is_some_and(|it| is_same(it, member) && it.is_sound())
            || (has_vanished(&set, member) && !member.load.is_given_up());
        !is_asked && !set.panicking && has_others(&set, member)
    }

    /// Whether an instance is out, or may be taken out.
    pub(crate) fn is_dispensable(&self, member: &Member) -> bool {
        if self.is_out(member) {
            return true;
        }
        let set = self.set.load();
        let ejection = &self.balance.ejection;
        if !ejection.enabled || set.panicking || !has_others(&set, member) {
            return false;
        }
        // A last resort is asked only as long as it can be connected to.
        set.member(&member.instance.id).is_none() || allows_one_more(ejection, &set, Most::Share)
    }

    /// Lets those back in whose time is over. Says whether there were any.
    pub(super) fn readmit(&self, set: &InstanceSet, now: Instant) -> bool {
        let mut any = false;
        for member in set.members.iter().filter(|member| member.load.is_ejected()) {
            if member.load.change_ejection(|state| state.readmit(now)) {
                any = true;
                tracing::info!(
                    target: "trunkline::discovery",
                    service = %self.service, instance = %member.instance.authority(),
                    "instance back in rotation"
                );
            }
        }
        any
    }
}

/// Whether one more instance may be taken out. Counts nothing: it is asked at every failure.
fn allows_one_more(ejection: &EjectionConfig, set: &InstanceSet, most: Most) -> bool {
    let standing = &set.standing;
    match most {
        Most::AllButOne => standing.sound() > 1,
        Most::Share => ejection.allows(standing.usable(), standing.out(), standing.sound()),
    }
}

/// Whether there is anybody else to ask: an instance that is listed and sound, or a last resort.
fn has_others(set: &InstanceSet, member: &Member) -> bool {
    let listed = set.member(&member.instance.id);
    let is_itself_sound = listed.is_some_and(|it| is_same(it, member) && it.is_sound());
    let is_other = |it: &&Arc<Member>| !is_same(it, member) && !it.load.is_given_up();
    set.standing.sound() > usize::from(is_itself_sound)
        || set.rotation.members().iter().any(|it| is_other(&it))
}

fn has_vanished(set: &InstanceSet, member: &Member) -> bool {
    let mut vanished = set.vanished.members.iter();
    vanished.any(|(it, _)| is_same(it, member))
}

fn is_same(one: &Member, other: &Member) -> bool {
    Arc::ptr_eq(&one.load, &other.load)
}
