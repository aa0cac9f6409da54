//! One process of the proof `messaging-chaos`; the proof starts it, and kills it.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline_benches::member::main()
}
