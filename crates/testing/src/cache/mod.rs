//! The conformance suite of cache tiers.
//!
//! Implement [`TierHarness`] and let [`cache_tier_conformance!`](crate::cache_tier_conformance) make one test of every case,
//! from `tests/it/` of your crate.

pub mod cases;
mod harness;

pub use harness::{OpenTier, TierHarness, run};

/// Makes one test of every case of the suite of cache tiers. The argument is an expression of a type that implements
/// [`TierHarness`].
#[macro_export]
macro_rules! cache_tier_conformance {
    ($harness:expr) => {
        $crate::__conformance_tests!(
            $crate::cache::run,
            $harness,
            $crate::cache::cases,
            [
                what_is_put_is_got_as_it_was,
                a_later_put_replaces_value_time_and_tags,
                what_has_run_out_is_gone,
                one_key_is_removed_alone,
                a_prefix_removes_what_begins_so,
                a_tag_removes_what_has_it,
                removing_nothing_is_no_error,
                handles_share_what_is_kept,
                odd_keys_tags_and_values_are_kept,
                many_at_once_do_not_mix,
                what_is_dropped_midway_leaves_all_or_nothing,
            ]
        );
    };
}
