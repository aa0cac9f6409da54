//! What goes wrong, and in which order.

use std::fmt;

use fastrand::Rng;

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The server dies (SIGKILL) and is started again once the client has noticed.
    KillServer,
    /// The server stands still (SIGSTOP) for a while.
    PauseServer,
    /// Every connection is reset.
    ResetLink,
    /// Nothing passes over the link for a while, and nobody says so.
    StallLink,
    /// The link is slow for a while.
    SlowLink,
    /// A consumer dies (SIGKILL) with messages in its handlers; another takes its place.
    KillMember,
    /// One more consumer comes.
    AddMember,
    /// A consumer leaves in good order.
    RemoveMember,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KillServer => "server killed and restarted",
            Self::PauseServer => "server paused",
            Self::ResetLink => "all connections reset",
            Self::StallLink => "link stalled",
            Self::SlowLink => "link slow",
            Self::KillMember => "consumer killed in its handlers",
            Self::AddMember => "consumer added",
            Self::RemoveMember => "consumer removed",
        })
    }
}

pub(super) const EVERY_ACT: [Act; 8] = [
    Act::KillServer,
    Act::PauseServer,
    Act::ResetLink,
    Act::StallLink,
    Act::SlowLink,
    Act::KillMember,
    Act::AddMember,
    Act::RemoveMember,
];

/// The acts in the order that the seed gives: the server dies so many times, everything else happens so often.
pub(super) fn acts(kills: usize, others: usize, seed: u64) -> Vec<Act> {
    let mut acts = vec![Act::KillServer; kills];
    for act in EVERY_ACT.into_iter().filter(|act| *act != Act::KillServer) {
        acts.extend(std::iter::repeat_n(act, others));
    }
    Rng::with_seed(seed).shuffle(&mut acts);
    acts
}
