//! Identifiers that sort by the time they were made.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Bits of an id that count time within a millisecond (RFC 9562, section 6.2, method 3).
const FRACTION_BITS: u32 = 12;

/// The time of the youngest id of this process, in 1/4096 of a millisecond since 1970.
static YOUNGEST: AtomicU64 = AtomicU64::new(0);

/// A UUID version 7 (RFC 9562): unique without coordination, and sorted by time in every store. Ids of one process are
/// sorted in the order in which they were made. They are not secret: who knows one may guess another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(uuid::Uuid);

impl Id {
    /// A new id.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "two defaults would differ")]
    pub fn new() -> Self {
        let time = next_time();
        let (millis, fraction) = (time >> FRACTION_BITS, time & ((1 << FRACTION_BITS) - 1));
        // 62 random bits from the thread's own generator: a system call for each id would cost more than a publish.
        let random = (u128::from(fraction) << 64) | u128::from(fastrand::u64(..));
        let [_, _, _, _, _, _, rest @ ..] = random.to_be_bytes();
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid())
    }

    /// The id as text, written into a buffer.
    pub(crate) fn encode<'a>(&self, buffer: &'a mut [u8; 36]) -> &'a str {
        self.0.hyphenated().encode_lower(buffer)
    }

    /// The sixteen bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

/// The time now, later than that of every id before.
#[expect(
    clippy::disallowed_methods,
    reason = "an id needs the machine's time; a clock of tests would repeat ids"
)]
fn next_time() -> u64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> FRACTION_BITS);
    let fraction = u64::from(since.subsec_nanos() % 1_000_000) * (1 << FRACTION_BITS) / 1_000_000;
    let now = (millis << FRACTION_BITS) | fraction;
    let next = |youngest: u64| Some(now.max(youngest + 1));
    match YOUNGEST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
        Ok(before) | Err(before) => now.max(before + 1),
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Id {
    type Err = crate::Error;

    fn from_str(text: &str) -> crate::Result<Self> {
        text.parse().map(Self).map_err(|error: uuid::Error| {
            crate::Error::invalid("not a UUID")
                .with_context("value", text)
                .with_source(error)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_version_7_of_now_unique_and_in_order() {
        let made: Vec<Id> = (0..10_000).map(|_| Id::new()).collect();
        assert!(made.is_sorted());
        assert_eq!(made.iter().collect::<BTreeSet<_>>().len(), made.len());
        for id in &made {
            assert_eq!(id.0.get_version_num(), 7);
            assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
        }
        let (first, _) = made[0].0.get_timestamp().expect("a time").to_unix();
        let (reference, _) = uuid::Uuid::now_v7()
            .get_timestamp()
            .expect("a time")
            .to_unix();
        assert!(reference.abs_diff(first) <= 60);
    }

    #[test]
    fn threads_make_different_ids() {
        let threads: Vec<_> = (0..4)
            .map(|_| std::thread::spawn(|| (0..5_000).map(|_| Id::new()).collect::<Vec<_>>()))
            .collect();
        let all: Vec<Id> = threads
            .into_iter()
            .flat_map(|t| t.join().expect("ids"))
            .collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
