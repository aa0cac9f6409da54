//! What compiles, and what each mistake says and where it points.
//!
//! What compiles is compiled with this test: with a case that has to run, trybuild would build everything once more in
//! place of only checking it.
//!
//! A case is a file; what the compiler must say stands beside it. After a change of a text:
//! `TRYBUILD=overwrite cargo test -p trunkline-macros`, then read the difference.

#[path = "ui/pass/everything.rs"]
mod everything;

#[test]
fn mistakes_are_told_where_they_are() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/fail/*.rs");
}
