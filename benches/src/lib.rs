//! Proofs and benchmarks, one file per question.
//!
//! `cargo xtask prove` and `cargo xtask bench` run the two programs of this crate. A proof shows that
//! a promise holds, against real processes; a benchmark compares with peers measured in the same run.
//! How to add one: `README.md` beside this crate.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "command-line programs"
)]

pub mod command;
mod document;
mod entry;
mod environment;
mod fresh_clone;
pub mod instance;
pub mod load;
mod machine;
pub mod member;
mod peers;
pub mod proofs;
pub mod questions;
pub mod race;
pub mod report;
mod stopwatch;
mod text;

pub use entry::{Entry, Options};
pub use race::{Better, Race, Results};
pub use report::{Report, Spread, Table};
pub use stopwatch::Stopwatch;
