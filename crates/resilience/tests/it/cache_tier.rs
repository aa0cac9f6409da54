//! The tier in memory does everything a tier promises, and stays within its bound.

use std::time::Duration;

use trunkline_resilience::cache::{AnyCacheTier, CacheTier, MemoryTier, TierEntry};
use trunkline_testing::Scope;
use trunkline_testing::cache::TierHarness;

struct Memory(MemoryTier);

impl TierHarness for Memory {
    async fn open(&self, _: &Scope) -> Option<AnyCacheTier> {
        Some(AnyCacheTier::new(self.0.clone()))
    }
}

mod suite {
    use super::{Memory, MemoryTier};

    trunkline_testing::cache_tier_conformance!(Memory(MemoryTier::new(1 << 22)));
}

#[tokio::test(start_paused = true)]
async fn what_was_put_first_makes_room_and_what_has_run_out_before_it() {
    let tier = MemoryTier::new(3 * 101);
    let brief = TierEntry::new(vec![0; 100], Duration::from_secs(1));
    let long = TierEntry::new(vec![0; 100], Duration::from_secs(60));
    tier.put("a", long.clone()).await.unwrap();
    tier.put("b", brief).await.unwrap();
    tier.put("c", long.clone()).await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    tier.put("d", long.clone()).await.unwrap();
    for (key, kept) in [("a", true), ("b", false), ("c", true), ("d", true)] {
        assert_eq!(tier.get(key).await.unwrap().is_some(), kept, "{key}");
    }
    tier.put("e", long).await.unwrap();
    assert_eq!(tier.get("a").await.unwrap(), None);
    let too_large = TierEntry::new(vec![0; 1000], Duration::from_secs(60));
    tier.put("f", too_large).await.unwrap();
    assert_eq!(tier.get("f").await.unwrap(), None);
}
