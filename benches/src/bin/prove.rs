//! Runs proofs; `cargo xtask prove` builds and calls it.

use std::process::ExitCode;

use trunkline_benches::command::{self, PROVE};

fn main() -> ExitCode {
    command::main(&PROVE)
}
