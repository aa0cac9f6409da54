//! How the body of an answer ended, for those who judge by it.

use trunkline_core::ErrorKind;
use trunkline_resilience::Outcome;

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All of it has come.
    Whole,
    /// It broke off, or went silent.
    Broken(ErrorKind),
    /// Its time was over while more of it was waited for.
    Late,
    /// Its time was over when somebody came to read more of it.
    Overslept,
    /// Whoever read it did not want more of it; `in_vain` says that more was waited for just then, and none had come before.
    Dropped { in_vain: bool },
    /// It broke off after the request, of which the body failed on this side.
    OwnFault(ErrorKind),
}

/// What those who are told of the end know; one after the other, so that the first may tell the next.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    /// What went wrong is the matter of one place that the service does without.
    pub(crate) of_one_place: bool,
}

pub(crate) type Tell = Box<dyn FnOnce(&mut Ended) + Send>;

impl End {
    /// What it says about the other side, of which the head of the answer spoke well. `fair` says whether the caller gave
    /// it time enough.
    pub(crate) fn outcome(self, fair: bool) -> Outcome {
        match self {
            Self::Broken(_) => Outcome::Failure,
            Self::Late if fair => Outcome::Failure,
            Self::Late | Self::Overslept | Self::OwnFault(_) => Outcome::Ignored,
            // Who hangs up while waiting may have waited for something that would never have come.
            Self::Dropped { in_vain: true } => Outcome::Ignored,
            // Who hangs up while nothing was missing has what they wanted; and of a stream without an end somebody always waits
            // for more. Were that no word for the other side, failures of weeks would add up beside them.
            Self::Whole | Self::Dropped { in_vain: false } => Outcome::Success,
        }
    }
}
