//! One process of the benchmark `embedded-broker`; the benchmark starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline_benches::load::main()
}
