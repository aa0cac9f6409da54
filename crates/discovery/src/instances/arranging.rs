//! Working out who gets requests, beside those who pick and call: they say that it is to be done, and go on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, Weak};
use std::time::Duration;

use arc_swap::Guard;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Pool;
use crate::balance::{Homes, Member, Rotation, spilled, subset};
use crate::check::Checks;
use crate::set::InstanceSet;

/// Tables for more instances than this are made on a thread for blocking work: those of hashes take milliseconds.
pub(super) const MANY: usize = 1024;

/// Tables for so many are made this long after the last ones at the soonest: whoever leaves meanwhile is left out of the next
/// ones together with the others.
const GATHERED: Duration = Duration::from_millis(20);

/// What is to be worked out anew for one service.
#[derive(Debug, Default)]
pub(super) struct Todo {
    /// Somebody was taken out since the tables were made.
    outdated: AtomicBool,
    /// It is time to compare the instances with each other.
    compare: AtomicBool,
    /// Somebody sees to it.
    at_it: AtomicBool,
    /// Tells him that there is more, or that nobody needs it any more.
    more: Notify,
}

impl Todo {
    fn is_any(&self) -> bool {
        self.outdated.load(Ordering::SeqCst) || self.compare.load(Ordering::SeqCst)
    }

    /// Whether the one who asks is to see to it, as nobody else does.
    fn begins(&self) -> bool {
        !self.at_it.load(Ordering::SeqCst) && !self.at_it.swap(true, Ordering::SeqCst)
    }

    pub(super) fn tell(&self) {
        self.more.notify_one();
    }
}

/// The one who sees to it, for as long as somebody is out whose time will be over. Should the task be dropped with its
/// runtime, the next one who picks finds another.
struct AtIt {
    pool: Weak<Pool>,
    todo: Arc<Todo>,
    still: bool,
}

impl AtIt {
    async fn run(mut self, stop: CancellationToken) {
        while let Some(pool) = self.pool.upgrade().filter(|_| self.still) {
            let many = pool.set.load().len() > MANY;
            let readmit_at = settled(pool).await;
            if many {
                tokio::select! {
                    () = sleep(GATHERED) => {}
                    () = stop.cancelled() => return,
                }
            }
            match readmit_at {
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.todo.more.notified() => {}
                    () = stop.cancelled() => return,
                },
                // What was said since it was looked at is for whoever comes first: this one, or a new one.
                None => {
                    self.todo.at_it.store(false, Ordering::SeqCst);
                    self.still = self.todo.is_any() && self.todo.begins();
                }
            }
        }
    }
}

/// Does what is to be done; says when there is more.
async fn settled(pool: Arc<Pool>) -> Option<Instant> {
    if pool.set.load().len() <= MANY {
        pool.settle(&pool.replacing());
    } else {
        let pool = Arc::clone(&pool);
        let made = tokio::task::spawn_blocking(move || pool.settle(&pool.replacing()));
        if let Err(failed) = made.await
            && failed.is_panic()
        {
            std::panic::resume_unwind(failed.into_panic());
        }
    }
    pool.set.load().readmit_at
}

impl Drop for AtIt {
    fn drop(&mut self) {
        if self.still {
            self.todo.at_it.store(false, Ordering::SeqCst);
        }
    }
}

impl Pool {
    /// The present set, with everything in it that is known by now; of very many instances as it was made last. Whoever
    /// asks never waits for somebody else.
    pub(super) fn current(&self) -> Guard<Arc<InstanceSet>> {
        let set = self.set.load();
        if !self.is_behind(&set) {
            return set;
        }
        if set.len() <= MANY
            && let Some(replacing) = self.try_replacing()
        {
            drop(set);
            self.settle(&replacing);
            return self.set.load();
        }
        self.see_to_it();
        set
    }

    /// Whether there is something to be worked out: instances were taken out, or their time is over.
    pub(super) fn is_behind(&self, set: &InstanceSet) -> bool {
        self.todo.is_any() || set.readmit_at.is_some_and(|at| at <= Instant::now())
    }

    /// Whether somebody knows that there is something to be done, and when.
    pub(super) fn is_seen_to(&self) -> bool {
        self.todo.at_it.load(Ordering::Relaxed)
    }

    /// Somebody was taken out: tables without him are made soon. Until then he is passed over.
    pub(super) fn rearrange(&self) {
        self.todo.outdated.store(true, Ordering::SeqCst);
        self.see_to_it();
    }

    /// It is time to compare the instances with each other.
    pub(crate) fn compare_soon(&self) {
        self.todo.compare.store(true, Ordering::SeqCst);
        self.see_to_it();
    }

    /// Has somebody do what is to be done, and come back when the first of those who are out may. Outside a runtime it is
    /// done at once.
    pub(super) fn see_to_it(&self) {
        if !self.todo.begins() {
            self.todo.tell();
            return;
        }
        let at_it = AtIt {
            pool: Weak::clone(&self.myself),
            todo: Arc::clone(&self.todo),
            still: true,
        };
        if Handle::try_current().is_err() {
            if let Some(replacing) = self.try_replacing() {
                self.settle(&replacing);
            }
            return;
        }
        let scope = self.scope.clone().unwrap_or_default();
        scope.spawn("discovery-arrange", at_it.run(scope.token()));
    }

    /// Does what is to be done: compares the instances, lets those back in whose time is over, and makes new tables if that
    /// or anything since has changed who gets requests.
    fn settle(&self, replacing: &MutexGuard<'_, Checks>) {
        if self.todo.compare.swap(false, Ordering::SeqCst) {
            self.compare(replacing);
        }
        // Before anything is looked at: who is taken out from here on is seen the next time, if not now.
        let outdated = self.todo.outdated.swap(false, Ordering::SeqCst);
        let set = self.set.load_full();
        let now = Instant::now();
        let is_over = |it: &(Arc<Member>, Instant)| it.1 <= now || it.0.load.is_given_up();
        let given_up = set.vanished.members.iter().any(is_over);
        if !self.readmit(&set, now) && !given_up && !outdated {
            return;
        }
        let mut next = InstanceSet::clone(&set);
        if given_up {
            let left = set.vanished.members.iter().filter(|it| !is_over(it));
            next.vanished.members = left.cloned().collect();
            next.vanished.doubted &= !next.vanished.members.is_empty();
        }
        let next = self.arrange(next);
        self.replace(next, replacing);
    }

    /// Works out who gets requests.
    pub(super) fn arrange(&self, mut set: InstanceSet) -> InstanceSet {
        for member in set.members.iter() {
            member.load.is_listed();
        }
        let among = |test: fn(&Member) -> bool| -> Vec<Arc<Member>> {
            set.members
                .iter()
                .filter(|member| test(member))
                .cloned()
                .collect()
        };
        let mut rotation = among(Member::is_sound);
        let mut panicking = false;
        let usable = set.members.iter().filter(|it| it.is_usable()).count();
        let few = usable * usize::from(self.balance.ejection.panic_percent);
        if rotation.is_empty() || rotation.len() * 100 < few {
            rotation = among(Member::is_usable);
            panicking = !rotation.is_empty();
        }
        let until = set
            .members
            .iter()
            .filter_map(|member| member.load.ejected_until());
        let given_up = set.vanished.members.iter().map(|(_, until)| *until);
        set.readmit_at = until.chain(given_up).min();
        let zones: BTreeSet<&str> = set
            .members
            .iter()
            .filter(|it| it.is_usable())
            .filter_map(|it| it.instance.zone.as_deref())
            .collect();
        let rotation = self.in_order(rotation, zones.len(), panicking);
        // Who leaves still answers: better than nobody.
        let leaving = Rotation::new(among(Member::is_leaving), &self.balance);
        let rotation = rotation.or_else(leaving);
        let last_resort = if set.vanished.doubted || rotation.members().is_empty() {
            let members = set.vanished.members.iter();
            members.map(|(member, _)| Arc::clone(member)).collect()
        } else {
            Vec::new()
        };
        let last_resort = Rotation::new(last_resort, &self.balance);
        set.rotation = Arc::new(rotation.or_else(last_resort));
        let homes = || Arc::new(Homes::of(set.members.iter(), panicking));
        set.homes = self.sticky.is_some().then(homes);
        set.panicking = panicking;
        set.generation += 1;
        set
    }

    /// Who is asked first: by priority, then those that were chosen out of many, then those of the caller's zone.
    fn in_order(&self, members: Vec<Arc<Member>>, zones: usize, panicking: bool) -> Rotation {
        let mut levels: BTreeMap<u32, Vec<Arc<Member>>> = BTreeMap::new();
        for member in members {
            let level = levels.entry(member.instance.priority()).or_default();
            level.push(member);
        }
        // When nothing anywhere is known to work, being near is no reason to be asked first.
        let zone = self.zone.as_deref().filter(|_| !panicking);
        let size = usize::try_from(self.balance.subset).unwrap_or(usize::MAX);
        let levels = levels.into_values().map(|members| {
            // Of all of them: how many of those that were chosen are near is chance.
            let percent = self.balance.zone_overload_percent;
            let spilled = zone.map(|zone| spilled(&members, zone, zones, percent));
            let near = |members| match zone.zip(spilled) {
                Some((zone, spilled)) => Rotation::near(members, zone, spilled, &self.balance),
                None => Rotation::new(members, &self.balance),
            };
            let (chosen, others) = subset(members, size, self.caller);
            near(chosen).or_else(near(others))
        });
        let order = levels.reduce(Rotation::or_else);
        order.unwrap_or_else(|| Rotation::new(Vec::new(), &self.balance))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::mpsc;
    use std::time::Duration;

    use tokio::time::sleep;
    use tokio_util::sync::CancellationToken;
    use trunkline_resilience::Outcome;

    use crate::balance::{PickRequest, Picked};
    use crate::check::{Results, Running};
    use crate::instance::{ServiceInstance, ServiceName};
    use crate::instances::Instances;

    fn instances(count: usize) -> Instances {
        let name = ServiceName::new("users").unwrap();
        let all = (0..count).map(|n| {
            let instance = ServiceInstance::new(name.clone(), format!("h{n}"), 80);
            instance.with_id(format!("i{n:05}"))
        });
        Instances::fixed(name.clone(), all.collect())
    }

    fn pick(instances: &Instances) -> Picked {
        instances.pick(&PickRequest::any()).unwrap()
    }

    fn fail(instances: &Instances) {
        pick(instances).finish(Outcome::Failure, Duration::from_millis(1));
    }

    /// Whoever makes tables may take long.
    #[test]
    fn nobody_who_picks_or_calls_waits_for_whoever_makes_the_tables() {
        let instances = instances(100);
        let pool = std::sync::Arc::clone(instances.pool());
        let _replacing = pool.replacing();
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            for _ in 0..2_000 {
                fail(&instances);
                let picked = pick(&instances);
                picked.busy(Duration::from_secs(1));
                assert!(!picked.is_dispensable() || picked.active() > 0);
            }
            for _ in 0..200 {
                pick(&instances).unreachable();
            }
            done.send(()).unwrap();
        });
        // A bound for a test that hangs.
        let ended = ended.recv_timeout(Duration::from_secs(60));
        ended.expect("somebody waits for whoever makes the tables");
    }

    /// A rack goes down: each of its instances is found out by another call.
    #[tokio::test(start_paused = true)]
    async fn tables_are_made_once_for_many_that_leave_at_once_and_not_by_those_who_call() {
        let instances = instances(1_000);
        let before = instances.pool().peek().generation();
        let mut gone = BTreeSet::new();
        for _ in 0..900 {
            let mut picked = pick(&instances);
            picked.unreachable();
            assert!(
                gone.insert(picked.instance().id.clone()),
                "taken out already"
            );
        }
        let generations = || instances.pool().peek().generation() - before;
        assert_eq!(generations(), 0, "made by those who call");
        while instances.pool().peek().in_rotation().len() > 100 {
            tokio::task::yield_now().await;
        }
        assert!(generations() <= 2, "made {} times", generations());
        assert!((0..1_000).all(|_| !gone.contains(&pick(&instances).instance().id)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_everything_makes_no_tables_once_enough_are_out() {
        let instances = instances(100);
        for _ in 0..2_000 {
            fail(&instances);
        }
        let half_is_in = || instances.pool().peek().in_rotation().len() == 50;
        while !half_is_in() {
            tokio::task::yield_now().await;
        }
        let before = instances.pool().peek().generation();
        for _ in 0..2_000 {
            fail(&instances);
            tokio::task::yield_now().await;
        }
        assert_eq!(instances.pool().peek().generation(), before);
        assert!(half_is_in());
    }

    /// A network goes away: all checks fail within moments.
    #[tokio::test(start_paused = true)]
    async fn tables_of_very_many_are_made_once_for_all_whose_checks_fail() {
        let instances = instances(3_000);
        let pool = instances.pool();
        let results = Results::default();
        pool.begin_checks(Running {
            stop: CancellationToken::new(),
            results: results.clone(),
        });
        let before = pool.peek().generation();
        let generations = || pool.peek().generation() - before;
        let in_rotation = || pool.peek().in_rotation().len();
        for n in 0..2_000 {
            assert!(pool.checked(&results, &format!("i{n:05}"), false));
            if n % 500 == 0 {
                tokio::task::yield_now().await;
            }
        }
        while in_rotation() > 1_000 {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(generations() <= 4, "made {} times", generations());
        assert!(!pool.can_spare("i02999"), "half of them are out");
        for n in 0..2_000 {
            assert!(pool.checked(&results, &format!("i{n:05}"), true));
        }
        while in_rotation() < 3_000 {
            sleep(Duration::from_millis(1)).await;
        }
        assert!(generations() <= 8, "made {} times", generations());
    }

    #[test]
    fn outside_a_runtime_it_is_done_at_once() {
        let instances = instances(3);
        pick(&instances).unreachable();
        assert_eq!(instances.pool().peek().in_rotation().len(), 2);
    }
}
