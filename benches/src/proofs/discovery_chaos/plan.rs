//! What goes wrong, and in which order.

use std::fmt;

use fastrand::Rng;

use crate::proofs::registries::Subject;

/// One thing that goes wrong with the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// It dies (SIGKILL), and is started again on its data.
    Killed,
    /// It dies, and is started again without its data.
    Wiped,
    /// It stands still (SIGSTOP) for longer than leases last.
    Paused,
    /// Callers are cut off: every connection is reset.
    CallersCutOff,
    /// Nothing passes between callers and it, and nobody says so.
    CallersStalled,
    /// Nothing passes between instances and it for longer than leases last.
    LeasesExpired,
    /// Every announcement is removed behind the back of who made it.
    Forgotten,
    /// Callers are cut off, and what happens meanwhile is compacted away.
    Compacted,
}

/// What happens to the instances meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Move {
    /// One dies (SIGKILL), another comes.
    Killed,
    /// One leaves in good order, another comes.
    Replaced,
    /// One more comes.
    Joined,
    /// One leaves in good order.
    Left,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "killed and restarted",
            Self::Wiped => "killed and restarted without its data",
            Self::Paused => "paused for longer than a lease",
            Self::CallersCutOff => "callers cut off",
            Self::CallersStalled => "link of callers stalled",
            Self::LeasesExpired => "leases expired: link of instances stalled",
            Self::Forgotten => "all announcements removed",
            Self::Compacted => "history compacted while callers are cut off",
        })
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "instance killed, another came",
            Self::Replaced => "instance left, another came",
            Self::Joined => "instance joined",
            Self::Left => "instance left",
        })
    }
}

const TO_SERVERS: [Act; 6] = [
    Act::Killed,
    Act::Wiped,
    Act::Paused,
    Act::CallersCutOff,
    Act::CallersStalled,
    Act::LeasesExpired,
];

pub(super) const MOVES: [Move; 4] = [Move::Killed, Move::Replaced, Move::Joined, Move::Left];

/// The acts in the order that the seed gives, each so often, and what the instances do meanwhile.
pub(super) fn acts(subject: &Subject, quick: bool, seed: u64) -> Vec<(Act, Move)> {
    let mut rng = Rng::with_seed(seed);
    let mut acts = vec![Act::Forgotten];
    if !subject.kinds.is_empty() {
        acts.extend(TO_SERVERS);
    }
    if subject.compacts() {
        acts.push(Act::Compacted);
    }
    if subject.is_written() {
        // There are no leases.
        acts.retain(|act| *act != Act::LeasesExpired);
    }
    if quick {
        // Much as a pause, and as long.
        acts.retain(|act| *act != Act::CallersStalled);
    }
    let times = if quick { 1 } else { 5 };
    let mut acts: Vec<Act> = acts.repeat(times);
    if subject.kinds.is_empty() {
        acts = acts.repeat(MOVES.len());
    }
    rng.shuffle(&mut acts);
    let mut moves: Vec<Move> = MOVES.iter().copied().cycle().take(acts.len()).collect();
    rng.shuffle(&mut moves);
    acts.into_iter().zip(moves).collect()
}
