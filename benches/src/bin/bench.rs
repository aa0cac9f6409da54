//! Runs benchmarks; `cargo xtask bench` builds and calls it.

use std::process::ExitCode;

use trunkline_benches::command::{self, BENCH};

fn main() -> ExitCode {
    command::main(&BENCH)
}
