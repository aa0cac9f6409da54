//! What calls on the path without a lock know of the machine, in one word.

/// How calls take the path without a lock, and which results they need not report, in one word:
/// generation (32 bits), probe (28 bits, only in the copy that a permit holds), flags (4 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hot(pub(super) u64);

impl Hot {
    /// Closed, nothing failed lately, only failures matter: a success has nothing to report.
    pub(super) const QUIET: u64 = 0;
    /// Closed: a success that was not slow is counted, which takes no lock.
    pub(super) const COUNTED: u64 = 1;
    /// Closed: every result is reported.
    pub(super) const NOISY: u64 = 2;
    /// Admission takes the lock.
    pub(super) const LOCKED: u64 = 3;
    /// Everything passes and nothing is reported.
    pub(super) const OFF: u64 = 4;
    const PATH: u64 = 7;
    /// Calls note when they began.
    const TIMED: u64 = 8;
    const PROBE_SHIFT: u32 = 4;
    /// Numbers of probes are below this.
    pub(super) const PROBES: u32 = 1 << 28;

    pub(super) fn new(path: u64, timed: bool, generation: u32) -> Self {
        let timed = if timed { Self::TIMED } else { 0 };
        Self(u64::from(generation) << 32 | timed | path)
    }

    #[inline]
    pub(super) fn is_quiet(self) -> bool {
        self.0 & Self::PATH == Self::QUIET
    }

    #[inline]
    pub(super) fn is_counted(self) -> bool {
        self.0 & Self::PATH == Self::COUNTED
    }

    #[inline]
    pub(super) fn is_locked(self) -> bool {
        self.0 & Self::PATH == Self::LOCKED
    }

    pub(super) fn is_off(self) -> bool {
        self.0 & Self::PATH == Self::OFF
    }

    #[inline]
    pub(super) fn is_timed(self) -> bool {
        self.0 & Self::TIMED != 0
    }

    pub(super) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn with_probe(self, probe: u32) -> Self {
        Self(self.0 | u64::from(probe) << Self::PROBE_SHIFT)
    }

    #[inline]
    pub(super) fn without_probe(self) -> Self {
        Self(self.0 & !(u64::from(Self::PROBES - 1) << Self::PROBE_SHIFT))
    }

    #[inline]
    pub(super) fn probe(self) -> u32 {
        (self.0 as u32) >> Self::PROBE_SHIFT
    }
}
