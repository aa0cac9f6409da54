//! `cargo xtask`: the one door for build, test, proof and release commands.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

mod arguments;
mod cargo;
mod command;
mod environment;
mod live;
mod process;
mod release;
mod stage;
mod tally;
mod testing;
mod tidy;
mod workspace;

use std::process::ExitCode;

use arguments::Usage;

fn main() -> ExitCode {
    let Err(error) = command::dispatch(std::env::args().skip(1).collect()) else {
        return ExitCode::SUCCESS;
    };
    if let Some(release::Exit(code)) = error.downcast_ref() {
        return ExitCode::from(u8::try_from(*code).unwrap_or(1));
    }
    eprintln!("error: {error:#}");
    if error.is::<Usage>() {
        eprintln!("try `cargo xtask --help`");
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}
