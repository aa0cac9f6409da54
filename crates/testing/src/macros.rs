//! What the macros of all suites share.

/// Turns cases into tests of the same names.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($run:path, $harness:expr, $cases:path, [$($case:ident),* $(,)?]) => {
        $(
            #[test]
            fn $case() {
                use $cases as cases;
                $run(&$harness, stringify!($case), |subject, scope| {
                    Box::pin(cases::$case(subject, scope))
                });
            }
        )*
    };
}
