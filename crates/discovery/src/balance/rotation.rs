//! The instances that get requests, prepared so that picking one takes constant time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::draw::Draw;
use super::load::Member;
use super::maglev::{Maglev, hash};
use super::pick::PickRequest;
use super::schedule::schedule;
use crate::instance::ServiceInstance;
use crate::{BalanceStrategy, LoadBalancerConfig};

/// Up to so many instances the least loaded one is found by looking at all of them.
const LOOK_AT_ALL: usize = 32;

/// Beyond that, so many are drawn by chance.
const DRAWN: usize = 4;

/// How often another instance is picked by the rule before the next one that is not excluded is taken.
const TRIES: usize = 3;

/// How many places of a table of hashes are looked at before the first one is taken, however loaded it is.
const PLACES: usize = 64;

/// What a newcomer gets at the least, of its share.
const LEAST_SHARE: f32 = 0.1;

/// The instances in rotation and what the rule needs to pick one.
#[derive(Debug)]
pub(crate) struct Rotation {
    members: Box<[Arc<Member>]>,
    rule: Rule,
    /// Newcomers get their share bit by bit.
    warming: Option<Warming>,
    /// Where to go when all of these were tried: the instances of other zones.
    beyond: Option<Box<Self>>,
    /// The part of the calls that goes beyond though these work: they are too few for all.
    spilled: f32,
}

#[derive(Debug)]
enum Rule {
    RoundRobin(Turns),
    Random(Draw),
    LeastRequests(Draw),
    PowerOfTwoChoices(Draw),
    ConsistentHash {
        table: Maglev,
        /// In percent of an even share; none where it is 0.
        bound: u32,
        /// For requests without a key.
        draw: Draw,
    },
}

/// Until when there are newcomers, and how long each is one.
#[derive(Debug)]
struct Warming {
    until: Instant,
    window: Duration,
}

#[derive(Debug)]
enum Turns {
    /// All weigh the same: one after the other.
    Plain,
    Weighted(Box<[u32]>),
}

impl Rotation {
    /// Prepares picking among these, all of which have a weight above 0.
    pub(crate) fn new(members: Vec<Arc<Member>>, config: &LoadBalancerConfig) -> Self {
        let weights: Vec<u32> = members
            .iter()
            .map(|member| member.instance.weight)
            .collect();
        let rule = match config.strategy {
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
            BalanceStrategy::ConsistentHash | BalanceStrategy::Sticky => {
                let is_sticky = config.strategy == BalanceStrategy::Sticky;
                let members = members.iter().map(|it| &it.instance);
                Rule::ConsistentHash {
                    table: Maglev::new(members.map(|it| (it.id.as_str(), it.weight))),
                    // A session that is there cannot be served elsewhere, however busy its instance is.
                    bound: if is_sticky { 0 } else { bound(config) },
                    draw: Draw::new(&weights),
                }
            }
        };
        let newcomers = members.iter().filter_map(|it| it.load.newcomer_since());
        let last = newcomers.max().filter(|_| !config.slow_start.is_zero());
        let until = last.and_then(|since| since.checked_add(config.slow_start));
        let warming = until.map(|until| Warming {
            until,
            window: config.slow_start,
        });
        Self {
            members: members.into_boxed_slice(),
            rule,
            warming,
            beyond: None,
            spilled: 0.0,
        }
    }

    /// Of these, the ones of a zone; the others for what was tried at all of them, and for what is more than they take. Where
    /// the zone has none, all. `spilled` is the part of the calls that is more.
    pub(crate) fn near(
        members: Vec<Arc<Member>>,
        zone: &str,
        spilled: f32,
        config: &LoadBalancerConfig,
    ) -> Self {
        let is_near = |member: &Arc<Member>| member.instance.zone.as_deref() == Some(zone);
        let (near, far): (Vec<_>, Vec<_>) = members.into_iter().partition(is_near);
        if near.is_empty() {
            return Self::new(far, config);
        }
        let mut near = Self::new(near, config).or_else(Self::new(far, config));
        near.spilled = spilled;
        near
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

    /// Picks one. What is excluded, or was taken out since this was made, is picked only when there is nothing else, not in
    /// other zones either. `whole` says that those that were taken out are in it on purpose.
    pub(crate) fn pick(
        &self,
        cursor: &AtomicUsize,
        request: &PickRequest<'_>,
        whole: bool,
    ) -> Option<&Arc<Member>> {
        let fits = |at: usize| self.fits(at, request.exclude, whole);
        // A key stays in its zone: it is to find there what it left.
        if self.spilled > 0.0
            && request.key.is_none()
            && fastrand::f32() < self.spilled
            && let Some(picked) = self.pick_beyond(cursor, request, whole)
        {
            return Some(picked);
        }
        let first = match (self.members.len(), &self.rule, request.key) {
            (0, ..) => return None,
            (1, ..) => 0,
            (_, Rule::ConsistentHash { table, bound, .. }, Some(key)) => {
                self.by_key(table, *bound, key, fits)
            }
            _ => self.choose(cursor),
        };
        if fits(first) {
            return self.members.get(first);
        }
        let other = (0..TRIES).map(|_| self.choose(cursor)).find(|at| fits(*at));
        // Each exclusion speaks against one instance, so this looks at few; the tables are made anew soon after somebody was
        // taken out.
        let next = || {
            let after = (first + 1..self.members.len()).chain(0..first);
            after.into_iter().find(|at| fits(*at))
        };
        if let Some(other) = other.or_else(next) {
            return self.members.get(other);
        }
        let beyond = self.pick_beyond(cursor, request, whole);
        let first = || self.members.get(first);
        beyond.or_else(|| first().filter(|it| !it.load.is_given_up()))
    }

    /// One of the others, if it is none of those that are excluded.
    fn pick_beyond(
        &self,
        cursor: &AtomicUsize,
        request: &PickRequest<'_>,
        whole: bool,
    ) -> Option<&Arc<Member>> {
        let picked = self.beyond.as_ref()?.pick(cursor, request, whole)?;
        (!is_among(picked, request.exclude)).then_some(picked)
    }

    fn fits(&self, at: usize, exclude: &[Arc<ServiceInstance>], whole: bool) -> bool {
        let member = &self.members[at];
        let is_tried = !exclude.is_empty() && is_among(member, exclude);
        !is_tried && (whole || !member.load.is_passed_over())
    }

    /// Where a key leads; elsewhere when that does not fit, or has more than its share of requests under way.
    fn by_key(&self, table: &Maglev, bound: u32, key: &str, fits: impl Fn(usize) -> bool) -> usize {
        let mut places = table.of(key).take(PLACES);
        let first = places.next().unwrap_or_default();
        // Each key comes to a newcomer at a time of its own, and then stays.
        let warming = self.warming.as_ref().map(|it| (it, Instant::now()));
        let warming = warming.filter(|(it, now)| *now < it.until);
        let due = warming.map(|(it, now)| (it, now, part_of(key)));
        let is_due =
            |at: usize| due.is_none_or(|(it, now, part)| self.members[at].share(it, now) > part);
        let takes = |at: usize| fits(at) && is_due(at) && (bound == 0 || self.has_room(at, bound));
        if takes(first) {
            return first;
        }
        places.find(|at| takes(*at)).unwrap_or(first)
    }

    /// Whether an instance would have no more than a share of the requests under way, with one more. Of many instances,
    /// those after it stand for all.
    fn has_room(&self, at: usize, bound: u32) -> bool {
        let own = &self.members[at];
        if own.load.active() == 0 {
            return true;
        }
        let (after, before) = (&self.members[at..], &self.members[..at]);
        let sample = after.iter().chain(before).take(LOOK_AT_ALL);
        let (requests, weights) = sample.fold((1, 0), |(requests, weights), member| {
            (
                requests + u128::from(member.load.active()),
                weights + u128::from(member.instance.weight),
            )
        });
        // (own + 1) / weight <= bound * requests / weights, rounded up.
        let most = u128::from(bound) * requests * u128::from(own.instance.weight);
        u128::from(own.load.active()) < most.div_ceil(100 * weights.max(1))
    }

    /// Chooses by the rule; of newcomers, as many as are due to them by now.
    fn choose(&self, cursor: &AtomicUsize) -> usize {
        let mut at = self.choose_any(cursor);
        if let Some(warming) = &self.warming {
            let now = Instant::now();
            for _ in 0..TRIES {
                if now >= warming.until || self.members[at].share(warming, now) >= fastrand::f32() {
                    break;
                }
                at = self.choose_any(cursor);
            }
        }
        at
    }

    fn choose_any(&self, cursor: &AtomicUsize) -> usize {
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
            Rule::PowerOfTwoChoices(draw) | Rule::ConsistentHash { draw, .. } => {
                self.less_loaded_of_two(draw)
            }
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

/// With less than an even share for each nobody would ever have room.
fn bound(config: &LoadBalancerConfig) -> u32 {
    match config.bound_percent {
        0 => 0,
        percent => percent.max(100),
    }
}

/// A part of one, always the same for a key, and spread evenly over all keys.
fn part_of(key: &str) -> f32 {
    let part = (hash(key.as_bytes(), 4) >> 40) as f32;
    part / (1_u32 << 24) as f32
}

impl Member {
    /// How much of its share it gets by now.
    fn share(&self, warming: &Warming, now: Instant) -> f32 {
        let Some(since) = self.load.newcomer_since() else {
            return 1.0;
        };
        let age = now.saturating_duration_since(since);
        (age.as_secs_f32() / warming.window.as_secs_f32()).max(LEAST_SHARE)
    }
}

/// The part of a zone's calls that is more than its instances take: they take `percent` of what each of these instances would
/// have if all shared all calls, of which each of so many zones makes the same part.
pub(crate) fn spilled(members: &[Arc<Member>], zone: &str, zones: usize, percent: u32) -> f32 {
    let (mut near, mut all) = (0.0, 0.0);
    for member in members {
        let weight = f64::from(member.instance.weight);
        // Those that do not say where they are belong to no zone's share.
        if let Some(its) = member.instance.zone.as_deref() {
            all += weight;
            near += if its == zone { weight } else { 0.0 };
        }
    }
    if percent == 0 || near >= all {
        return 0.0;
    }
    let zones = f64::from(u32::try_from(zones).unwrap_or(u32::MAX));
    let kept = near * zones / all * f64::from(percent) / 100.0;
    #[expect(clippy::cast_possible_truncation, reason = "a part of one")]
    let spilled = (1.0 - kept).max(0.0) as f32;
    spilled
}

/// Whether it is one of these.
pub(crate) fn is_among(candidate: &Member, instances: &[Arc<ServiceInstance>]) -> bool {
    let candidate = &candidate.instance;
    instances
        .iter()
        .any(|other| Arc::ptr_eq(other, candidate) || other.id == candidate.id)
}
