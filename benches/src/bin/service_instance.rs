//! One instance of a service, for the proofs of discovery; a proof starts it, and kills it.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline_benches::instance::main()
}
