//! One named test for every case.

/// Makes one test of every case of the suite of resolvers. The argument is an expression of a type that implements
/// [`ResolverHarness`](crate::resolver::ResolverHarness).
#[macro_export]
macro_rules! resolver_conformance {
    ($harness:expr) => {
        $crate::__conformance_tests!(
            $crate::resolver::run,
            $harness,
            $crate::resolver::cases,
            [
                what_is_written_is_found,
                an_unknown_service_has_no_instances,
                instances_are_sound_and_in_order,
                an_instance_is_the_same_every_time,
                services_are_apart,
                spellings_of_a_name_are_one,
                many_instances_are_found,
                services_are_those_with_an_instance,
                what_is_taken_out_is_gone,
                nothing_can_be_announced,
                a_health_check_passes,
                a_watch_begins_with_the_list,
                a_watch_of_nobody_begins_with_an_empty_list,
                a_watch_sees_instances_come_and_go,
                a_watch_tells_nothing_twice,
                every_watch_sees_every_change,
                a_watch_hears_of_its_own_service_only,
                a_watch_ends_up_with_the_truth,
                a_watch_that_begins_amid_changes_misses_nothing,
                waiting_for_a_list_is_cancel_safe,
                erasing_twice_is_erasing_once,
                calls_after_shutdown_are_cancelled,
                watches_end_at_shutdown,
                calls_under_way_end_at_shutdown,
            ]
        );
    };
}
