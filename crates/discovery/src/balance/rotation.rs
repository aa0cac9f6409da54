//! The instances that get requests, prepared so that picking one takes constant time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::draw::Draw;
use super::load::Member;
use super::schedule::schedule;
use crate::BalanceStrategy;
use crate::instance::ServiceInstance;

/// Up to so many instances the least loaded one is found by looking at all of them.
const LOOK_AT_ALL: usize = 32;

/// Beyond that, so many are drawn by chance.
const DRAWN: usize = 4;

/// How often another instance is picked by the rule before the next one that is not excluded is taken.
const TRIES: usize = 3;

/// The instances in rotation and what the rule needs to pick one.
#[derive(Debug)]
pub(crate) struct Rotation {
    members: Box<[Arc<Member>]>,
    rule: Rule,
    /// Where to go when all of these were tried: the instances of other zones.
    beyond: Option<Box<Self>>,
}

#[derive(Debug)]
enum Rule {
    RoundRobin(Turns),
    Random(Draw),
    LeastRequests(Draw),
    PowerOfTwoChoices(Draw),
}

#[derive(Debug)]
enum Turns {
    /// All weigh the same: one after the other.
    Plain,
    Weighted(Box<[u32]>),
}

impl Rotation {
    /// Prepares picking among these, all of which have a weight above 0.
    pub(crate) fn new(members: Vec<Arc<Member>>, strategy: BalanceStrategy) -> Self {
        let weights: Vec<u32> = members
            .iter()
            .map(|member| member.instance.weight)
            .collect();
        let rule = match strategy {
            BalanceStrategy::RoundRobin => {
                let equal = weights.windows(2).all(|pair| pair[0] == pair[1]);
                let turns = if equal {
                    Turns::Plain
                } else {
                    Turns::Weighted(schedule(&weights))
                };
                Rule::RoundRobin(turns)
            }
            BalanceStrategy::Random => Rule::Random(Draw::new(&weights)),
            BalanceStrategy::LeastRequests => Rule::LeastRequests(Draw::new(&weights)),
            BalanceStrategy::PowerOfTwoChoices => Rule::PowerOfTwoChoices(Draw::new(&weights)),
        };
        Self {
            members: members.into_boxed_slice(),
            rule,
            beyond: None,
        }
    }

    /// Of these, the ones of a zone; the others only for what was tried at all of them. Where the zone has none, all.
    pub(crate) fn near(members: Vec<Arc<Member>>, zone: &str, strategy: BalanceStrategy) -> Self {
        let is_near = |member: &Arc<Member>| member.instance.zone.as_deref() == Some(zone);
        let (near, far): (Vec<_>, Vec<_>) = members.into_iter().partition(is_near);
        if near.is_empty() {
            return Self::new(far, strategy);
        }
        let beyond = (!far.is_empty()).then(|| Box::new(Self::new(far, strategy)));
        Self {
            beyond,
            ..Self::new(near, strategy)
        }
    }

    /// The same, and others for when all of these were tried, or there are none.
    pub(crate) fn or_else(self, last: Self) -> Self {
        if last.members.is_empty() {
            return self;
        }
        if self.members.is_empty() {
            return last;
        }
        let beyond = match self.beyond {
            Some(beyond) => beyond.or_else(last),
            None => last,
        };
        Self {
            beyond: Some(Box::new(beyond)),
            ..self
        }
    }

    pub(crate) fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Picks one. What is excluded is picked only when there is nothing else, not in other zones either.
    pub(crate) fn pick(
        &self,
        cursor: &AtomicUsize,
        exclude: &[Arc<ServiceInstance>],
    ) -> Option<&Arc<Member>> {
        let first = match self.members.len() {
            0 => return None,
            1 => 0,
            _ => self.choose(cursor),
        };
        if exclude.is_empty() || !self.is_excluded(first, exclude) {
            return self.members.get(first);
        }
        let other = (0..TRIES)
            .map(|_| self.choose(cursor))
            .find(|at| !self.is_excluded(*at, exclude));
        // Each exclusion speaks against one instance, so this looks at few.
        let next = || {
            let after = (first + 1..self.members.len()).chain(0..first);
            after.into_iter().find(|at| !self.is_excluded(*at, exclude))
        };
        if let Some(other) = other.or_else(next) {
            return self.members.get(other);
        }
        let beyond = self.beyond.as_ref().and_then(|far| {
            let picked = far.pick(cursor, exclude)?;
            (!is_among(picked, exclude)).then_some(picked)
        });
        beyond.or_else(|| self.members.get(first))
    }

    fn is_excluded(&self, at: usize, exclude: &[Arc<ServiceInstance>]) -> bool {
        is_among(&self.members[at], exclude)
    }

    fn choose(&self, cursor: &AtomicUsize) -> usize {
        match &self.rule {
            Rule::RoundRobin(turns) => {
                let turn = cursor.fetch_add(1, Ordering::Relaxed);
                match turns {
                    Turns::Plain => turn % self.members.len(),
                    Turns::Weighted(round) => round[turn % round.len()] as usize,
                }
            }
            Rule::Random(draw) => draw.one(),
            Rule::LeastRequests(draw) => self.least_requests(draw),
            Rule::PowerOfTwoChoices(draw) => self.less_loaded_of_two(draw),
        }
    }

    fn least_requests(&self, draw: &Draw) -> usize {
        let count = self.members.len();
        if count > LOOK_AT_ALL {
            // Drawn by weight already, so requests alone decide.
            return self.least((0..DRAWN).map(|_| draw.one()), |_| 1);
        }
        // From a random one on, so that equals share.
        let start = fastrand::usize(..count);
        self.least((start..count).chain(0..start), |member| {
            u64::from(member.instance.weight)
        })
    }

    /// The one with the fewest requests for its weight, counting the request to come.
    fn least(&self, candidates: impl Iterator<Item = usize>, weight: fn(&Member) -> u64) -> usize {
        let mut best = None;
        for at in candidates {
            let member = &self.members[at];
            let (requests, weight) = (u64::from(member.load.active()) + 1, weight(member));
            let better = best.is_none_or(|(_, fewest, its): (usize, u64, u64)| {
                u128::from(requests) * u128::from(its) < u128::from(fewest) * u128::from(weight)
            });
            if better {
                best = Some((at, requests, weight));
            }
        }
        best.map_or(0, |(at, ..)| at)
    }

    fn less_loaded_of_two(&self, draw: &Draw) -> usize {
        let one = draw.one();
        let other = draw.another(one);
        if one == other {
            return one;
        }
        let now = Instant::now();
        let cost = |at: usize| self.members[at].load.cost(now);
        if cost(other) < cost(one) { other } else { one }
    }
}

fn is_among(candidate: &Member, instances: &[Arc<ServiceInstance>]) -> bool {
    let candidate = &candidate.instance;
    instances
        .iter()
        .any(|other| Arc::ptr_eq(other, candidate) || other.id == candidate.id)
}
