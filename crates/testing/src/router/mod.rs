//! What the router promises, over any broker: a backend that passes the broker suite should pass this one too, and a
//! failure here shows how a defect there looks to a user.
//!
//! Give [`router_conformance!`](crate::router_conformance) the harness of the broker suite.

pub mod cases;
mod fixture;

/// Makes one test of every case of the router suite. The argument is an expression of a type that implements
/// [`BrokerHarness`](crate::broker::BrokerHarness).
#[macro_export]
macro_rules! router_conformance {
    ($harness:expr) => {
        $crate::__conformance_tests!(
            $crate::broker::run,
            $harness,
            $crate::router::cases::handling,
            [
                a_handler_gets_its_message,
                arguments_come_in_any_order,
                the_context_travels,
                headers_say_who_sent_what,
                a_header_of_the_sender_wins,
                message_pack_is_read_by_its_content_type,
                middleware_runs_from_outside_to_inside,
                handlers_of_one_group_and_topic_are_refused,
                a_handler_without_a_group_is_refused,
                handlers_run_side_by_side,
                messages_of_one_key_are_handled_in_turn,
            ]
        );
        $crate::__conformance_tests!(
            $crate::broker::run,
            $harness,
            $crate::router::cases::eventing,
            [
                events_are_the_same_in_both_modes,
                a_foreign_structured_event_is_read,
            ]
        );
        $crate::__conformance_tests!(
            $crate::broker::run,
            $harness,
            $crate::router::cases::failing,
            [
                a_failing_handler_is_tried_so_often_then_gives_up,
                a_panic_is_a_failed_attempt,
                a_slow_handler_is_stopped_and_tried_again,
                an_unreadable_message_is_given_up_at_once,
                a_handler_may_give_up_at_once,
                a_rejected_message_is_gone,
                one_failing_handler_repeats_nothing_for_others,
                a_failed_message_stays_before_the_next_of_its_key,
                who_overruns_the_senders_deadline_is_done_with,
                a_dead_letter_tells_everything,
                without_dead_letters_a_message_is_dropped,
                a_retry_comes_no_earlier_than_asked,
                a_slow_handler_keeps_its_message,
                an_open_circuit_holds_messages_back,
            ]
        );
        $crate::__conformance_tests!(
            $crate::broker::run,
            $harness,
            $crate::router::cases::once,
            [
                a_repetition_is_handled_once,
                a_failed_message_is_not_remembered,
                groups_remember_apart,
                a_message_in_progress_waits,
                a_repeated_question_gets_the_same_answer,
            ]
        );
        $crate::__conformance_tests!(
            $crate::broker::run,
            $harness,
            $crate::router::cases::stopping,
            [
                draining_finishes_what_runs,
                draining_gives_back_what_does_not_finish,
                draining_takes_nothing_new,
                consumers_that_end_are_no_failures_of_the_handler,
                readiness_waits_for_subscriptions,
            ]
        );
        $crate::__conformance_tests!(
            $crate::broker::run,
            $harness,
            $crate::router::cases::talking,
            [
                a_question_is_answered,
                a_question_that_nobody_hears_fails,
                an_unanswered_question_times_out,
                an_error_comes_back,
                a_late_answer_is_dropped,
                many_questions_at_once_do_not_mix,
                the_event_bus_reads_both_envelopes,
                events_reach_every_handler,
                a_prefix_keeps_environments_apart,
            ]
        );
        $crate::__conformance_tests!(
            $crate::broker::run,
            $harness,
            $crate::router::cases::reviving,
            [
                dead_letters_are_listed_and_shown,
                a_replayed_letter_goes_to_its_handler_alone,
                letters_of_a_queue_go_back_to_it,
                replay_keeps_order_and_obeys_its_filter,
                a_letter_that_fails_again_comes_back,
                who_handles_dead_letters_begins_anew,
                purged_letters_are_gone,
            ]
        );
    };
}
