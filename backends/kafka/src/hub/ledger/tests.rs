//! What the books say, step by step and after any steps.

use proptest::prelude::*;
use trunkline_messaging::TopicName;

use super::*;

const LEASE: Duration = Duration::from_secs(60);

fn place(partition: i32) -> Place {
    ("orders".into(), partition)
}

fn record(partition: i32, offset: i64, key: &str) -> Record {
    let mut message = Message::new("p");
    if !key.is_empty() {
        message = message.with_key(key.to_owned());
    }
    Record {
        place: place(partition),
        offset,
        destination: Destination::Topic(TopicName::new("orders").unwrap()),
        message: Arc::new(message),
        expires: None,
        due: None,
        time: offset,
    }
}

fn ledger(partitions: i32) -> Ledger {
    let mut ledger = Ledger::default();
    for partition in 0..partitions {
        ledger.assign(place(partition), 0, Ranges::default(), 0, 0);
    }
    ledger
}

fn ranges(offsets: &[i64]) -> Ranges {
    let mut ranges = Ranges::default();
    for offset in offsets {
        ranges.insert(*offset, offset + 1);
    }
    ranges
}

fn committed(ledger: &mut Ledger) -> Vec<(i64, Ranges)> {
    let standing = ledger.uncommitted();
    for one in &standing {
        ledger.committed(one);
    }
    let told = standing.into_iter();
    told.map(|one| (one.position, one.done)).collect()
}

#[tokio::test(start_paused = true)]
async fn only_the_prefix_that_is_done_is_committed_and_the_rest_noted() {
    let mut ledger = ledger(1);
    for offset in [0, 1, 2, 5] {
        ledger.take_in(record(0, offset, ""), 0);
    }
    let member = ledger.join(10, LEASE);
    let numbers: Vec<u64> = (0..4)
        .map(|_| ledger.hand_out(member, 0).unwrap().number)
        .collect();
    assert_eq!(committed(&mut ledger), []);
    ledger.done(numbers[1]).unwrap();
    let last = ledger.done(numbers[2]).unwrap();
    assert_eq!((last.place, last.changes), (place(0), 2));
    // What was never there between 2 and 5 counts as done.
    assert_eq!(committed(&mut ledger), [(0, ranges(&[1, 2, 3, 4]))]);
    assert_eq!(committed(&mut ledger), []);
    ledger.done(numbers[0]).unwrap();
    assert_eq!(committed(&mut ledger), [(5, ranges(&[]))]);
    ledger.done(numbers[3]).unwrap();
    assert_eq!(committed(&mut ledger), [(6, ranges(&[]))]);
    assert_eq!(ledger.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_noted_as_done_is_not_handed_out() {
    let mut ledger = Ledger::default();
    ledger.assign(place(0), 3, ranges(&[4, 6]), 0, 8);
    for offset in 3..8 {
        ledger.take_in(record(0, offset, ""), 0);
    }
    let member = ledger.join(10, LEASE);
    let mut offsets = Vec::new();
    while let Some(handed) = ledger.hand_out(member, 0) {
        offsets.push(handed.offset);
        ledger.done(handed.number).unwrap();
    }
    assert_eq!(offsets, [3, 5, 7]);
    assert_eq!(committed(&mut ledger), [(8, ranges(&[]))]);
}

#[tokio::test(start_paused = true)]
async fn messages_are_removed_from_any_hands_and_before_they_are_fetched() {
    let mut ledger = ledger(1);
    for offset in 0..3 {
        ledger.take_in(record(0, offset, "a"), 0);
    }
    let member = ledger.join(10, LEASE);
    let held = ledger.hand_out(member, 0).unwrap();
    let remove = |ledger: &mut Ledger, offsets: &[i64]| match ledger
        .remove(&place(0), offsets, 6, 100)
        .unwrap()
    {
        Removed::Some(count, _) => Some(count),
        Removed::NoRoom => None,
    };
    assert_eq!(remove(&mut ledger, &[0, 2, 4, 6, 7]), Some(3));
    assert_eq!(remove(&mut ledger, &[0, 2, 4]), Some(0));
    assert_eq!(ledger.done(held.number), None);
    assert_eq!(committed(&mut ledger), [(1, ranges(&[2, 4]))]);
    for offset in 3..6 {
        ledger.take_in(record(0, offset, "a"), 0);
    }
    let mut offsets = Vec::new();
    while let Some(handed) = ledger.hand_out(member, 0) {
        offsets.push(handed.offset);
        ledger.done(handed.number).unwrap();
    }
    assert_eq!(offsets, [1, 3, 5]);
    assert_eq!(ledger.pending(), 0);
    assert_eq!(ledger.remove(&place(1), &[0], 6, 100), None);
    let far = 5_000_000_000;
    let removed = ledger.remove(&place(0), &[far], far + 1, 100);
    assert_eq!(removed, Some(Removed::NoRoom));
}

#[tokio::test(start_paused = true)]
async fn a_key_waits_and_others_do_not() {
    let mut ledger = ledger(1);
    for (offset, key) in [(0, "a"), (1, "a"), (2, "b"), (3, "")] {
        ledger.take_in(record(0, offset, key), 0);
    }
    let member = ledger.join(10, LEASE);
    let take = |ledger: &mut Ledger| {
        ledger
            .hand_out(member, 0)
            .map(|one| (one.offset, one.number))
    };
    let (first, a) = take(&mut ledger).unwrap();
    assert_eq!(first, 0);
    assert_eq!(take(&mut ledger).unwrap().0, 2);
    assert_eq!(take(&mut ledger).unwrap().0, 3);
    assert_eq!(take(&mut ledger), None);
    assert!(ledger.give_back(a));
    let (again, a) = take(&mut ledger).unwrap();
    assert_eq!(again, 0);
    ledger.done(a).unwrap();
    assert_eq!(take(&mut ledger).unwrap().0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_and_its_holder_is_late() {
    let mut ledger = ledger(1);
    ledger.take_in(record(0, 0, "a"), 0);
    let member = ledger.join(1, LEASE);
    let held = ledger.hand_out(member, 0).unwrap();
    assert_eq!(held.attempt, 1);
    tokio::time::advance(LEASE / 2).await;
    assert!(!ledger.end_leases());
    assert!(ledger.extend(held.number, LEASE));
    tokio::time::advance(LEASE / 2).await;
    assert!(!ledger.end_leases());
    tokio::time::advance(LEASE / 2).await;
    assert!(ledger.end_leases());
    let again = ledger.hand_out(member, 0).unwrap();
    assert_eq!(again.attempt, 2);
    assert_eq!(ledger.done(held.number), None);
    assert!(!ledger.extend(held.number, LEASE));
    assert!(ledger.done(again.number).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_goes_to_another_member_cannot_be_settled_here() {
    let mut ledger = ledger(2);
    ledger.take_in(record(0, 0, ""), 0);
    ledger.take_in(record(1, 0, ""), 0);
    let member = ledger.join(10, LEASE);
    let first = ledger.hand_out(member, 0).unwrap();
    let second = ledger.hand_out(member, 0).unwrap();
    ledger.leaving(&[place(0)]);
    ledger.take_in(record(0, 1, ""), 0);
    assert!(ledger.hand_out(member, 0).is_none());
    assert_eq!(ledger.held_of(&[place(0)]), 1);
    let standing = ledger.standing(&[place(0)]);
    assert_eq!((standing[0].position, standing[0].handed), (0, 1));
    ledger.revoke(&[place(0)]);
    assert_eq!(ledger.done(first.number), None);
    assert!(ledger.done(second.number).is_some());
    assert_eq!(ledger.pending(), 0);
    // It comes back, and what was handed out is a repetition.
    ledger.assign(place(0), 0, Ranges::default(), 1, 0);
    ledger.take_in(record(0, 0, ""), 0);
    ledger.take_in(record(0, 1, ""), 0);
    let attempts: Vec<u32> = (0..2)
        .map(|_| ledger.hand_out(member, 0).unwrap().attempt)
        .collect();
    assert_eq!(attempts, [2, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_done() {
    let mut ledger = ledger(1);
    let mut expiring = record(0, 0, "a");
    expiring.expires = Some(10);
    ledger.take_in(expiring, 5);
    ledger.take_in(record(0, 1, "a"), 5);
    let member = ledger.join(10, LEASE);
    assert_eq!(ledger.hand_out(member, 10).unwrap().offset, 1);
    assert_eq!(committed(&mut ledger), [(1, ranges(&[]))]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_again_later_keeps_its_key_waiting_and_nothing_else() {
    let mut ledger = ledger(1);
    for (offset, key) in [(0, "a"), (1, "a"), (2, "b"), (3, "")] {
        ledger.take_in(record(0, offset, key), 0);
    }
    let member = ledger.join(1, LEASE);
    let first = ledger.hand_out(member, 0).unwrap();
    assert_eq!((first.offset, first.returned), (0, 0));
    assert!(ledger.put_off(first.number, LEASE, 0));
    assert_eq!((ledger.pending(), ledger.load()), (4, 3));
    assert!(!ledger.put_off(first.number, LEASE, 0));
    // It takes no room of its member's, and the position stays before it.
    for expected in [2, 3] {
        let other = ledger.hand_out(member, 0).unwrap();
        assert_eq!(other.offset, expected);
        ledger.done(other.number).unwrap();
    }
    assert!(ledger.hand_out(member, 0).is_none());
    assert_eq!(committed(&mut ledger), [(0, ranges(&[2, 3]))]);
    tokio::time::advance(LEASE / 2).await;
    assert!(!ledger.wake());
    assert_eq!(ledger.next_due(), Some(Instant::now() + LEASE / 2));
    tokio::time::advance(LEASE / 2).await;
    assert!(ledger.wake());
    assert_eq!(ledger.load(), 2);
    let again = ledger.hand_out(member, 0).unwrap();
    assert_eq!((again.offset, again.attempt, again.returned), (0, 2, 1));
    ledger.done(again.number).unwrap();
    assert_eq!(ledger.hand_out(member, 0).unwrap().offset, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_due_is_not_handed_out_and_does_not_hold_its_key() {
    let mut ledger = ledger(1);
    for (offset, due) in [(0, Some(300)), (1, Some(100)), (2, None)] {
        let mut record = record(0, offset, "a");
        record.due = due;
        ledger.take_in(record, 0);
    }
    let member = ledger.join(10, LEASE);
    let mut offsets = Vec::new();
    for _ in 0..3 {
        while let Some(handed) = ledger.hand_out(member, 0) {
            offsets.push(handed.offset);
            ledger.done(handed.number).unwrap();
        }
        tokio::time::advance(Duration::from_millis(150)).await;
        ledger.wake();
    }
    assert_eq!(offsets, [2, 1, 0]);
    assert_eq!((ledger.pending(), ledger.next_due()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn what_is_overdue_goes_by_when_it_was_due() {
    let mut ledger = ledger(2);
    for (partition, offset, due) in [(0, 0, 300), (0, 1, 100), (1, 0, 200)] {
        let mut record = record(partition, offset, "");
        record.due = Some(due);
        ledger.take_in(record, if due == 300 { 0 } else { 1000 });
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(ledger.wake());
    let member = ledger.join(10, LEASE);
    let next = || Some(ledger.hand_out(member, 1000)?.offset);
    let offsets: Vec<i64> = std::iter::from_fn(next).collect();
    assert_eq!(offsets, [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_waits_can_be_removed_expire_and_go() {
    let mut ledger = ledger(2);
    let mut expiring = record(0, 0, "a");
    expiring.expires = Some(10);
    for record in [expiring, record(0, 1, "a"), record(1, 0, "b")] {
        ledger.take_in(record, 0);
    }
    let member = ledger.join(10, LEASE);
    for _ in 0..2 {
        let handed = ledger.hand_out(member, 0).unwrap();
        assert!(ledger.put_off(handed.number, LEASE, 0));
    }
    let none = BTreeSet::new();
    assert_eq!(ledger.crowded(&none, 1, 1000).len(), 2);
    // At the time when it expires, not when it would come again.
    tokio::time::advance(Duration::from_millis(10)).await;
    assert!(ledger.wake());
    let next = ledger.hand_out(member, 10).unwrap();
    assert_eq!(next.offset, 1);
    assert!(ledger.put_off(next.number, LEASE, 0));
    assert!(ledger.remove(&place(0), &[1], 2, 100).is_some());
    assert_eq!(ledger.crowded(&none, 1, 1000), [place(1)].into());
    ledger.revoke(&[place(1)]);
    assert_eq!((ledger.pending(), ledger.load()), (0, 0));
    assert_eq!(ledger.next_due(), None);
    assert!(ledger.crowded(&none, 1, 1000).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_one_until_half_of_it_is_gone() {
    let mut ledger = ledger(1);
    for offset in 0..4 {
        let mut record = record(0, offset, "");
        record.due = Some(100 * (offset + 1));
        ledger.take_in(record, 0);
    }
    let mut before = BTreeSet::new();
    let mut seen = Vec::new();
    for _ in 0..4 {
        before = ledger.crowded(&before, 4, 1000);
        seen.push(!before.is_empty());
        tokio::time::advance(Duration::from_millis(100)).await;
        assert!(ledger.wake());
    }
    assert_eq!(seen, [true, true, true, false]);
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(i32, u8),
    Take,
    Done(usize),
    Back(usize),
    Later(usize),
    Wake,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3, 0..4_u8).prop_map(|(partition, key)| Step::Arrive(partition, key)),
        Just(Step::Take),
        (0..8_usize).prop_map(Step::Done),
        (0..8_usize).prop_map(Step::Back),
        (0..8_usize).prop_map(Step::Later),
        Just(Step::Wake),
    ]
}

proptest! {
    #[test]
    fn nothing_is_lost_committed_early_or_out_of_order(steps in proptest::collection::vec(step(), 1..120)) {
        let mut ledger = ledger(3);
        let member = ledger.join(8, LEASE);
        let mut next = [0_i64; 3];
        let mut undone: [BTreeMap<i64, String>; 3] = Default::default();
        let mut holding: Vec<(u64, usize, i64)> = Vec::new();
        for step in steps {
            match step {
                Step::Arrive(partition, key) => {
                    let at = usize::try_from(partition).unwrap();
                    let key = if key == 0 { String::new() } else { format!("{partition}/{key}") };
                    ledger.take_in(record(partition, next[at], &key), 0);
                    undone[at].insert(next[at], key);
                    next[at] += 1;
                }
                Step::Take => {
                    let Some(handed) = ledger.hand_out(member, 0) else { continue };
                    let place = ledger.held[&handed.number].place.clone();
                    let at = usize::try_from(place.1).unwrap();
                    let key = &undone[at][&handed.offset];
                    if !key.is_empty() {
                        let earlier = undone[at].range(..handed.offset).any(|(_, other)| other == key);
                        prop_assert!(!earlier, "the one before with its key is not done");
                    }
                    holding.push((handed.number, at, handed.offset));
                }
                Step::Done(which) if which < holding.len() => {
                    let (number, at, offset) = holding.swap_remove(which);
                    prop_assert!(ledger.done(number).is_some());
                    undone[at].remove(&offset);
                }
                Step::Back(which) if which < holding.len() => {
                    let (number, ..) = holding.swap_remove(which);
                    prop_assert!(ledger.give_back(number));
                }
                // So short that waking ends it whenever that comes.
                Step::Later(which) if which < holding.len() => {
                    let (number, ..) = holding.swap_remove(which);
                    prop_assert!(ledger.put_off(number, Duration::from_nanos(1), 0));
                }
                Step::Wake => drop(ledger.wake()),
                Step::Done(_) | Step::Back(_) | Step::Later(_) => {}
            }
            for standing in ledger.uncommitted() {
                let at = usize::try_from(standing.place.1).unwrap();
                let first = undone[at].keys().next().copied().unwrap_or(next[at]);
                prop_assert_eq!(standing.position, first);
                for offset in first..next[at] + 3 {
                    let is_done = offset < next[at] && !undone[at].contains_key(&offset);
                    prop_assert_eq!(standing.done.contains(offset), is_done);
                }
            }
            prop_assert_eq!(ledger.pending(), undone.iter().map(BTreeMap::len).sum::<usize>());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sealed_stays_with_its_holder_and_counts_as_done_when_that_is_asked() {
    let mut ledger = ledger(2);
    for offset in 0..3 {
        ledger.take_in(record(0, offset, ""), 0);
    }
    let member = ledger.join(10, LEASE);
    let held: Vec<u64> = (0..3)
        .map(|_| ledger.hand_out(member, 0).unwrap().number)
        .collect();
    assert_eq!(ledger.seal(held[0]), Some((place(0), 0)));
    assert_eq!(ledger.seal(held[2]), Some((place(0), 2)));
    tokio::time::advance(LEASE * 2).await;
    ledger.end_leases();
    assert_eq!(ledger.seal(held[1]), None);
    let after = ledger.standing_after([held[0], held[2]].into_iter());
    assert_eq!(after.len(), 1);
    assert_eq!((after[0].position, after[0].done.contains(2)), (1, true));
    assert!(ledger.uncommitted().is_empty());
    // One fails, and its lease runs again; the other is done.
    ledger.unseal(held[0]);
    assert!(ledger.done(held[2]).is_some());
    assert!(ledger.is_held(held[0]));
    tokio::time::advance(LEASE * 2).await;
    assert!(ledger.end_leases());
    assert_eq!(ledger.hand_out(member, 0).unwrap().offset, 0);
}

#[tokio::test(start_paused = true)]
async fn what_the_servers_know_to_be_done_is_finished_whoever_holds_it() {
    let mut ledger = ledger(1);
    for offset in 0..3 {
        ledger.take_in(record(0, offset, "key"), 0);
    }
    let member = ledger.join(10, LEASE);
    let first = ledger.hand_out(member, 0).unwrap().number;
    // Another has it by now.
    assert!(ledger.give_back(first));
    let second = ledger.hand_out(member, 0).unwrap();
    assert_eq!(second.offset, 0);
    assert!(ledger.finish(&place(0), 0));
    assert!(!ledger.is_held(second.number));
    assert!(!ledger.finish(&place(0), 0), "once");
    // Its key is free, and what waits is finished too.
    let held = ledger.hand_out(member, 0).unwrap();
    assert_eq!(held.offset, 1);
    assert!(ledger.put_off(held.number, LEASE, 0));
    assert!(ledger.finish(&place(0), 1));
    assert_eq!(ledger.next_due(), None);
    // What is not fetched yet never comes.
    assert!(ledger.finish(&place(0), 3));
    ledger.take_in(record(0, 3, ""), 0);
    assert_eq!(ledger.hand_out(member, 0).unwrap().offset, 2);
    assert!(ledger.hand_out(member, 0).is_none());
    assert_eq!(committed(&mut ledger), [(2, ranges(&[3]))]);
    assert!(!ledger.finish(&place(1), 0), "not ours");
}
