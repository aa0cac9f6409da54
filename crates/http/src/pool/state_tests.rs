use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// A connection with a number, which the test can declare dead.
#[derive(Clone, Debug, PartialEq)]
struct Fake(u64);

impl Pooled for Fake {
    fn is_dead(&mut self) -> bool {
        self.0 % 10 == 9
    }
}

type Pool = State<Fake, Fake>;

const CONNECTING: Duration = Duration::from_secs(10);

fn origin(port: u16) -> Origin {
    Origin::http("test", port).unwrap()
}

fn limits(open: usize, idle: usize) -> Limits {
    Limits {
        open,
        idle,
        expiry: Duration::from_secs(30),
        waiting: 100,
    }
}

struct Rig {
    pool: Pool,
    now: Instant,
    out: Discarded<Fake, Fake>,
}

impl Rig {
    fn new(open: usize, idle: usize) -> Self {
        Self {
            pool: Pool::new(limits(open, idle)),
            now: Instant::now(),
            out: Discarded::default(),
        }
    }

    fn ask(&mut self, port: u16) -> Checkout<Fake, Fake> {
        self.pool
            .checkout(&origin(port), false, CONNECTING, self.now, &mut self.out)
    }

    fn ask_shared(&mut self, port: u16) -> Checkout<Fake, Fake> {
        self.pool
            .checkout(&origin(port), true, CONNECTING, self.now, &mut self.out)
    }

    fn dial(&mut self, port: u16) {
        assert!(matches!(self.ask(port), Checkout::Granted(Grant::Dial)));
        self.pool
            .dialed(&origin(port), Some(false), self.now, &mut self.out);
    }

    fn wait(&mut self, port: u16) -> oneshot::Receiver<Grant<Fake, Fake>> {
        match self.ask(port) {
            Checkout::Wait(receiver) => receiver,
            _ => panic!("there was something to give"),
        }
    }

    fn give_back(&mut self, port: u16, number: u64) {
        self.pool
            .checkin(&origin(port), Fake(number), self.now, &mut self.out);
    }

    /// Drops what was discarded, as the pool does once the lock is free.
    fn settle(&mut self) -> usize {
        let mut dropped = 0;
        loop {
            let gone = std::mem::take(&mut self.out);
            let count = gone.connections.len() + gone.handles.len();
            if count == 0 {
                return dropped;
            }
            dropped += count;
            for _ in 0..count {
                self.pool.place_freed(self.now, &mut self.out);
            }
        }
    }
}

#[test]
fn the_youngest_is_reused_first_and_the_oldest_goes_when_there_are_too_many() {
    let mut rig = Rig::new(10, 2);
    (1..=3).for_each(|_| rig.dial(80));
    for number in 1..=3 {
        rig.now += Duration::from_millis(1);
        rig.give_back(80, number);
    }
    assert_eq!(rig.out.connections.len(), 1);
    assert_eq!(rig.out.connections[0], Fake(1));
    assert!(matches!(
        rig.ask(80),
        Checkout::Granted(Grant::Reuse(Fake(3)))
    ));
    assert!(matches!(
        rig.ask(80),
        Checkout::Granted(Grant::Reuse(Fake(2)))
    ));
}

#[test]
fn who_waits_for_the_same_origin_gets_the_connection_itself() {
    let mut rig = Rig::new(1, 1);
    rig.dial(80);
    let mut waiter = rig.wait(80);
    rig.give_back(80, 1);
    assert!(matches!(waiter.try_recv(), Ok(Grant::Reuse(Fake(1)))));
    assert!(rig.out.connections.is_empty());
}

#[test]
fn an_unused_connection_of_another_origin_makes_room() {
    let mut rig = Rig::new(1, 1);
    rig.dial(80);
    rig.give_back(80, 1);
    let mut waiter = rig.wait(81);
    assert_eq!(rig.out.connections, [Fake(1)]);
    assert!(waiter.try_recv().is_err());
    assert_eq!(rig.settle(), 1);
    assert!(matches!(waiter.try_recv(), Ok(Grant::Dial)));
    assert_eq!(rig.pool.stats().open, 1);
}

#[test]
fn a_connection_in_use_makes_room_when_it_is_done() {
    let mut rig = Rig::new(1, 1);
    rig.dial(80);
    let mut waiter = rig.wait(81);
    rig.give_back(80, 1);
    assert_eq!(rig.settle(), 1);
    assert!(matches!(waiter.try_recv(), Ok(Grant::Dial)));
}

#[test]
fn nobody_starves_while_others_pass_a_connection_on() {
    let mut rig = Rig::new(1, 1);
    rig.dial(80);
    let mut starving = rig.wait(81);
    let mut same = rig.wait(80);
    rig.give_back(80, 1);
    assert!(matches!(same.try_recv(), Ok(Grant::Reuse(_))));
    let _later = rig.wait(80);
    rig.now += PATIENCE;
    rig.give_back(80, 1);
    rig.settle();
    assert!(matches!(starving.try_recv(), Ok(Grant::Dial)));
}

#[test]
fn who_gave_up_waiting_is_passed_over() {
    let mut rig = Rig::new(1, 1);
    rig.dial(80);
    let gone = rig.wait(80);
    let mut next = rig.wait(80);
    drop(gone);
    assert_eq!(rig.pool.stats().waiting, 1);
    rig.give_back(80, 1);
    assert!(matches!(next.try_recv(), Ok(Grant::Reuse(_))));
}

#[test]
fn the_queue_is_bounded_and_forgets_who_has_gone() {
    let mut rig = Rig::new(1, 1);
    rig.pool.limits.waiting = 2;
    rig.dial(80);
    let first = rig.wait(80);
    let _second = rig.wait(80);
    assert!(matches!(rig.ask(80), Checkout::Full));
    drop(first);
    let _third = rig.wait(80);
}

#[test]
fn a_connection_that_may_be_shared_is_waited_for() {
    let mut rig = Rig::new(10, 10);
    assert!(matches!(
        rig.ask_shared(443),
        Checkout::Granted(Grant::Dial)
    ));
    let mut receivers: Vec<_> = (0..3)
        .map(|_| match rig.ask_shared(443) {
            Checkout::Wait(receiver) => receiver,
            _ => panic!("a second connection"),
        })
        .collect();
    let id = rig
        .pool
        .shared(&origin(443), Fake(1), 3, rig.now, &mut rig.out);
    let got: Vec<_> = receivers
        .iter_mut()
        .map(oneshot::Receiver::try_recv)
        .collect();
    // Room for three: the one who dialed and two more; the third who waits dials another.
    assert!(matches!(got[0], Ok(Grant::Stream(..))));
    assert!(matches!(got[1], Ok(Grant::Stream(..))));
    assert!(matches!(got[2], Ok(Grant::Dial)));
    for _ in 0..3 {
        rig.pool
            .stream_ended(&origin(443), id, true, rig.now, &mut rig.out);
    }
    assert_eq!(rig.pool.stats().idle, 1);
}

#[test]
fn when_it_turns_out_not_to_be_shared_everybody_dials() {
    let mut rig = Rig::new(10, 10);
    assert!(matches!(
        rig.ask_shared(443),
        Checkout::Granted(Grant::Dial)
    ));
    let Checkout::Wait(mut waiter) = rig.ask_shared(443) else {
        panic!("a second connection")
    };
    rig.pool
        .dialed(&origin(443), Some(false), rig.now, &mut rig.out);
    assert!(matches!(waiter.try_recv(), Ok(Grant::Dial)));
    assert!(matches!(
        rig.ask_shared(443),
        Checkout::Granted(Grant::Dial)
    ));
}

#[test]
fn a_shared_connection_that_died_is_forgotten() {
    let mut rig = Rig::new(10, 10);
    assert!(matches!(
        rig.ask_shared(443),
        Checkout::Granted(Grant::Dial)
    ));
    let id = rig
        .pool
        .shared(&origin(443), Fake(1), 100, rig.now, &mut rig.out);
    rig.pool
        .stream_ended(&origin(443), id, false, rig.now, &mut rig.out);
    assert_eq!(rig.out.handles.len(), 1);
    assert!(matches!(
        rig.ask_shared(443),
        Checkout::Granted(Grant::Dial)
    ));
}

#[test]
fn who_waits_for_a_connection_shares_its_fate() {
    let mut rig = Rig::new(10, 10);
    let refused = |limit: Option<Duration>| {
        let stage = crate::connect::ConnectStage::Tls;
        let error = match limit {
            None => ConnectFailed::error("test", stage, "refused"),
            Some(limit) => ConnectFailed::timed_out("test", stage, limit),
        };
        error.find::<ConnectFailed>().unwrap().clone()
    };
    let fail = |rig: &mut Rig, why: &ConnectFailed| {
        rig.pool
            .dial_failed(&origin(443), why, rig.now, &mut rig.out);
        rig.pool.place_freed(rig.now, &mut rig.out);
    };
    assert!(matches!(
        rig.ask_shared(443),
        Checkout::Granted(Grant::Dial)
    ));
    let wait = |rig: &mut Rig| match rig.ask_shared(443) {
        Checkout::Wait(receiver) => receiver,
        _ => panic!("a second connection"),
    };
    let (mut one, mut two) = (wait(&mut rig), wait(&mut rig));
    assert!(rig.pool.awaits_dial(&origin(443)));
    // Whoever may wait longer than the one that gave up tries it.
    fail(&mut rig, &refused(Some(CONNECTING / 2)));
    assert!(matches!(one.try_recv(), Ok(Grant::Dial)));
    assert!(two.try_recv().is_err());
    fail(&mut rig, &refused(Some(CONNECTING)));
    assert!(matches!(two.try_recv(), Ok(Grant::Failed(_))));
    assert!(!rig.pool.awaits_dial(&origin(443)));
    assert!(matches!(
        rig.ask_shared(443),
        Checkout::Granted(Grant::Dial)
    ));
    let mut three = wait(&mut rig);
    fail(&mut rig, &refused(None));
    assert!(matches!(three.try_recv(), Ok(Grant::Failed(_))));
    assert_eq!(rig.pool.stats(), PoolStats::default());
}

#[test]
fn what_is_too_old_or_dead_goes() {
    let mut rig = Rig::new(10, 10);
    (0..4).for_each(|_| rig.dial(80));
    [1, 2, 9, 10]
        .into_iter()
        .for_each(|number| rig.give_back(80, number));
    assert!(rig.pool.expire(rig.now, &mut rig.out));
    assert_eq!(rig.out.connections, [Fake(9)]);
    rig.now += Duration::from_secs(30);
    assert!(matches!(rig.ask(80), Checkout::Granted(Grant::Dial)));
    assert_eq!(
        rig.out.connections.len(),
        4,
        "none that is too old is handed out"
    );
    assert!(!rig.pool.expire(rig.now, &mut rig.out));
}

#[test]
fn a_closed_pool_gives_nothing_and_keeps_nothing() {
    let mut rig = Rig::new(2, 2);
    rig.dial(80);
    rig.dial(80);
    let mut waiter = rig.wait(80);
    rig.pool.close(&mut rig.out);
    assert!(matches!(waiter.try_recv(), Ok(Grant::Closed)));
    assert!(matches!(rig.ask(80), Checkout::Granted(Grant::Closed)));
    rig.give_back(80, 1);
    assert_eq!(rig.settle(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Ask {
        port: u16,
        share: bool,
    },
    /// Ends the dialing or the request that began first.
    Finish {
        fail: bool,
    },
    Cancel,
    Tick {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (80u16..84, any::<bool>()).prop_map(|(port, share)| Step::Ask { port, share }),
        4 => any::<bool>().prop_map(|fail| Step::Finish { fail }),
        1 => Just(Step::Cancel),
        1 => (0u64..20_000).prop_map(|millis| Step::Tick { millis }),
    ]
}

type Asked = (u16, bool, oneshot::Receiver<Grant<Fake, Fake>>);

enum Held {
    Dialing(u16, bool),
    Own(u16),
    Stream(u16, u64),
}

proptest! {
    /// Whatever happens, there are never more places taken than allowed, never more unused connections than allowed,
    /// and at the end, when everything has been given back, everybody who still waits has been served.
    #[test]
    fn limits_hold_and_nobody_is_forgotten(
        open in 1usize..5,
        idle in 0usize..4,
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let mut rig = Rig::new(open, idle);
        let mut held: Vec<Held> = Vec::new();
        let mut waiting: Vec<Asked> = Vec::new();
        let mut number = 1;
        let take = |held: &mut Vec<Held>, port, share, grant| match grant {
            Grant::Reuse(_) => held.push(Held::Own(port)),
            Grant::Stream(id, _) => held.push(Held::Stream(port, id)),
            Grant::Dial => held.push(Held::Dialing(port, share)),
            Grant::Failed(_) => unreachable!("who waits takes it"),
            Grant::Closed => unreachable!("it is never closed"),
        };
        let finish = |rig: &mut Rig, held: &mut Vec<Held>, number: &mut u64, fail: bool| {
            if held.is_empty() {
                return;
            }
            match held.remove(0) {
                // The ports below 82 share connections.
                Held::Dialing(port, share) if !fail && share && port < 82 => {
                    let id = rig.pool.shared(&origin(port), Fake(1), 2, rig.now, &mut rig.out);
                    held.push(Held::Stream(port, id));
                }
                Held::Dialing(port, _) if !fail => {
                    rig.pool.dialed(&origin(port), Some(false), rig.now, &mut rig.out);
                    held.push(Held::Own(port));
                }
                Held::Dialing(port, _) => {
                    rig.pool.dialed(&origin(port), None, rig.now, &mut rig.out);
                    rig.pool.place_freed(rig.now, &mut rig.out);
                }
                Held::Own(port) if !fail => {
                    *number += 1;
                    rig.give_back(port, *number * 10);
                }
                Held::Own(_) => rig.pool.place_freed(rig.now, &mut rig.out),
                Held::Stream(port, id) => {
                    rig.pool.stream_ended(&origin(port), id, !fail, rig.now, &mut rig.out);
                }
            }
        };
        for step in steps {
            match step {
                Step::Ask { port, share } => {
                    let share = share && port < 82;
                    match rig.pool.checkout(&origin(port), share, CONNECTING, rig.now, &mut rig.out) {
                        Checkout::Granted(grant) => take(&mut held, port, share, grant),
                        Checkout::Wait(receiver) => waiting.push((port, share, receiver)),
                        Checkout::Full => {}
                    }
                }
                Step::Finish { fail } => finish(&mut rig, &mut held, &mut number, fail),
                Step::Cancel => if !waiting.is_empty() {
                    waiting.remove(0);
                },
                Step::Tick { millis } => {
                    rig.now += Duration::from_millis(millis);
                    rig.pool.expire(rig.now, &mut rig.out);
                }
            }
            rig.settle();
            waiting.retain_mut(|(port, share, receiver)| match receiver.try_recv() {
                Ok(grant) => {
                    take(&mut held, *port, *share, grant);
                    false
                }
                Err(_) => true,
            });
            let stats = rig.pool.stats();
            prop_assert!(stats.open <= open);
            prop_assert!(stats.idle <= idle);
            prop_assert!(stats.waiting == 0 || stats.open == open || held.iter().any(|held| matches!(held, Held::Dialing(..))));
        }
        for _ in 0..2000 {
            finish(&mut rig, &mut held, &mut number, false);
            rig.settle();
            waiting.retain_mut(|(port, share, receiver)| match receiver.try_recv() {
                Ok(grant) => {
                    take(&mut held, *port, *share, grant);
                    false
                }
                Err(_) => true,
            });
        }
        prop_assert!(held.is_empty());
        prop_assert!(waiting.is_empty(), "{} still wait", waiting.len());
        rig.now += Duration::from_secs(60);
        rig.pool.expire(rig.now, &mut rig.out);
        rig.settle();
        let used: BTreeSet<_> = [rig.pool.stats().idle, rig.pool.stats().waiting].into();
        prop_assert_eq!(used, BTreeSet::from([0]));
        prop_assert_eq!(rig.pool.stats().open, 0);
    }
}
