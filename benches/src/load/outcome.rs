//! What one process measured.

use serde::{Deserialize, Serialize};

/// When something happened to a message, in microseconds since 1970.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) message: u64,
    pub(crate) at: u64,
}

/// What one process measured; what does not apply stays empty.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Operations.
    pub(crate) count: u64,
    /// How long they took.
    pub(crate) seconds: f64,
    /// Processor time of this process meanwhile.
    pub(crate) cpu_seconds: f64,
    /// Microseconds from publish to confirm.
    pub(crate) spans: Vec<u64>,
    pub(crate) moments: Vec<Moment>,
}

impl Outcome {
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub(crate) fn rate(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}
