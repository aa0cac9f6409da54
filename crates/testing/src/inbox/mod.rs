//! The conformance suite of inboxes.
//!
//! Implement [`InboxHarness`] and let [`inbox_conformance!`](crate::inbox_conformance) make one test of every case, from
//! `tests/it/` of your crate.

pub mod cases;
mod harness;

pub use harness::{InboxHarness, OpenInbox, run, run_with_harness};

/// Makes one test of every case of the inbox suite. The argument is an expression of a type that implements
/// [`InboxHarness`].
#[macro_export]
macro_rules! inbox_conformance {
    ($harness:expr) => {
        $crate::__conformance_tests!(
            $crate::inbox::run,
            $harness,
            $crate::inbox::cases,
            [
                a_key_is_granted_once,
                a_claimed_key_is_in_progress,
                a_done_key_tells_its_result,
                a_released_key_can_be_claimed_again,
                a_lease_that_runs_out_frees_the_key,
                an_extended_claim_holds,
                a_lost_claim_cannot_complete,
                completing_twice_is_one_completion,
                another_input_is_a_mismatch,
                without_fingerprint_nothing_mismatches,
                scopes_are_apart,
                a_done_key_is_forgotten_after_its_time,
                generations_grow,
                odd_names_and_results_are_kept,
                a_dropped_claim_is_free_after_its_lease,
                many_keys_at_once_do_not_mix,
            ]
        );
        $crate::__conformance_tests!(
            $crate::inbox::run_with_harness,
            $harness,
            $crate::inbox::cases,
            [
                a_full_inbox_forgets_the_oldest_done_key,
                a_full_inbox_keeps_claims,
                handles_share_claims,
            ]
        );
    };
}
