//! Random histories against the promises of a mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::task::Waker;

use proptest::prelude::*;

use super::*;
use crate::message::Message;

#[derive(Clone, Debug)]
enum Step {
    Publish { key: u8, delay: u16, expiry: u16 },
    Take { consumer: usize },
    Ack { held: usize },
    Nack { held: usize, delay: u16 },
    Pass { millis: u16 },
    Rejoin { consumer: usize },
}

fn steps(longest_delay: u16) -> impl Strategy<Value = Vec<Step>> {
    let delay = prop_oneof![Just(0u16), 0..=longest_delay];
    let step = prop_oneof![
        4 => (0u8..4, delay, prop_oneof![3 => Just(0u16), 1 => 1u16..80])
            .prop_map(|(key, delay, expiry)| Step::Publish { key, delay, expiry }),
        5 => (0usize..3).prop_map(|consumer| Step::Take { consumer }),
        3 => (0usize..8).prop_map(|held| Step::Ack { held }),
        2 => (0usize..8, prop_oneof![Just(0u16), 1u16..50])
            .prop_map(|(held, delay)| Step::Nack { held, delay }),
        2 => (1u16..120).prop_map(|millis| Step::Pass { millis }),
        1 => (0usize..3).prop_map(|consumer| Step::Rejoin { consumer }),
    ];
    proptest::collection::vec(step, 1..120)
}

struct Held {
    lease: Key,
    number: usize,
    key: u8,
    until: Instant,
}

struct World {
    state: State,
    now: Instant,
    mailbox: Key,
    consumers: Vec<Key>,
    subscribe: Subscribe,
    held: Vec<Held>,
    /// Expiry, key and whether it is done, by number.
    published: Vec<(Option<Instant>, u8, bool)>,
    attempts: BTreeMap<usize, u32>,
    /// Whether something was published for later: that takes its place when it is due.
    delays: bool,
}

const LEASE: Duration = Duration::from_millis(100);
const PREFETCH: u32 = 3;

impl World {
    fn new() -> Self {
        let config = MemoryConfig {
            max_messages: 40,
            retain_messages: 10,
            ..MemoryConfig::default()
        };
        let mut state = State::new(&config);
        let now = Instant::now();
        let topic = TopicName::new("t").expect("a name");
        let subscribe = Subscribe::topics(topic)
            .with_group("g")
            .with_lease(LEASE)
            .with_prefetch(PREFETCH);
        let joined: Vec<(Key, Key)> = (0..3)
            .map(|_| state.subscribe(&subscribe, &Now::at(now)))
            .collect();
        Self {
            state,
            now,
            mailbox: joined[0].0,
            consumers: joined.into_iter().map(|(_, consumer)| consumer).collect(),
            subscribe,
            held: Vec::new(),
            published: Vec::new(),
            attempts: BTreeMap::new(),
            delays: false,
        }
    }

    fn forget_lost_leases(&mut self) {
        let now = self.now;
        self.held.retain(|held| held.until > now);
    }

    fn step(&mut self, step: &Step) {
        self.forget_lost_leases();
        let mut wake = Wake::new();
        match *step {
            Step::Publish { key, delay, expiry } => self.publish(key, delay, expiry),
            Step::Take { consumer } => self.take(consumer),
            Step::Ack { held } if held < self.held.len() => {
                let held = self.held.swap_remove(held);
                let done = self.state.finish(self.mailbox, held.lease, &mut wake);
                assert!(done.is_some(), "a lease that has not run out is held");
                self.published[held.number].2 = true;
            }
            Step::Nack { held, delay } if held < self.held.len() => {
                let held = self.held.swap_remove(held);
                let delay = (delay > 0).then(|| Duration::from_millis(delay.into()));
                let given =
                    self.state
                        .requeue(self.mailbox, held.lease, delay, self.now, &mut wake);
                assert!(given.is_some(), "a lease that has not run out is held");
            }
            Step::Ack { .. } | Step::Nack { .. } => {}
            Step::Pass { millis } => self.now += Duration::from_millis(millis.into()),
            Step::Rejoin { consumer } => {
                let gone = self.consumers[consumer];
                self.state.unsubscribe(self.mailbox, gone, &mut wake);
                self.consumers[consumer] =
                    self.state.subscribe(&self.subscribe, &Now::at(self.now)).1;
            }
        }
        self.state.store.check();
    }

    fn publish(&mut self, key: u8, delay: u16, expiry: u16) {
        let number = self.published.len();
        let mut message = Message::new(number.to_string());
        if key > 0 {
            message = message.with_key(vec![key]);
        }
        let topic = Destination::Topic(TopicName::new("t").expect("a name"));
        let mut publish = Publish::new(topic, message);
        publish.delay = (delay > 0).then(|| Duration::from_millis(delay.into()));
        publish.expires_in = (expiry > 0).then(|| Duration::from_millis(expiry.into()));
        self.delays |= publish.delay.is_some();
        let expires = publish.expires_in.map(|span| self.now + span);
        match self.state.publish(
            Incoming::new(publish, Timestamp::UNIX_EPOCH),
            &Now::at(self.now),
            &mut Wake::new(),
        ) {
            Ok(receipt) => {
                assert_eq!(receipt.routed, Routed::Yes);
                self.published.push((expires, key, false));
            }
            Err(Refused::Full { .. }) => {
                assert_eq!(self.state.fill().0, 40, "only a full broker refuses");
            }
            Err(Refused::Never(error)) => panic!("{error:?}"),
        }
    }

    fn take(&mut self, consumer: usize) {
        let key = self.consumers[consumer];
        let mut wake = Wake::new();
        let taken = self
            .state
            .take(self.mailbox, key, Waker::noop(), self.now, &mut wake);
        let Taken::Message(out) = taken else { return };
        let text = std::str::from_utf8(&out.message.payload).expect("text");
        let number: usize = text.parse().expect("a number");
        let (expires, key, is_done) = self.published[number];
        assert!(!is_done, "{number} is done");
        assert!(expires.is_none_or(|at| at > self.now), "expired");
        assert!(self.held.iter().all(|held| held.number != number), "twice");
        let first_of_key = (0..self.published.len()).find(|other| {
            let (expires, other_key, is_done) = self.published[*other];
            other_key == key && !is_done && expires.is_none_or(|at| at > self.now)
        });
        let in_order = key == 0 || self.delays || first_of_key == Some(number);
        assert!(in_order, "{number} before {first_of_key:?}");
        let same_key = self.held.iter().any(|held| key > 0 && held.key == key);
        assert!(!same_key, "two of the key {key} at once");
        let attempts = self.attempts.entry(number).or_default();
        *attempts += 1;
        assert_eq!(out.attempt, *attempts);
        self.held.push(Held {
            lease: out.lease,
            number,
            key,
            until: self.now + LEASE,
        });
    }

    /// Takes and finishes everything: what is left must have expired.
    fn work_off(&mut self) {
        self.now += Duration::from_secs(1);
        self.forget_lost_leases();
        for _ in 0..=self.published.len() {
            self.take(0);
            let Some(held) = self.held.pop() else { break };
            self.state
                .finish(self.mailbox, held.lease, &mut Wake::new())
                .expect("held");
            self.published[held.number].2 = true;
        }
        let lost: BTreeSet<usize> = (0..self.published.len())
            .filter(|number| {
                let (expires, _, is_done) = self.published[*number];
                !is_done && expires.is_none_or(|at| at > self.now)
            })
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        let history = self.state.fill().0;
        assert!(history <= 10, "only what is kept for replay is left");
    }
}

proptest! {
    #[test]
    fn nothing_is_lost_repeated_or_out_of_turn(steps in prop_oneof![steps(0), steps(50)]) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.work_off();
    }
}
