//! The `trunkline` command.

mod cli;
mod commands;
mod demo;
mod exit;
mod logs;
mod open;
mod output;
mod stop;

use clap::Parser as _;

use crate::cli::Cli;
use crate::exit::{ExitCode, ReaderGone};
use crate::output::Output;

fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refused) => return exit::refused(&refused),
    };
    let output = Output::new(cli.output, cli.no_color);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            output.error(&anyhow::Error::new(error).context("cannot start the runtime"));
            return ExitCode::Failed.into();
        }
    };
    let ended = runtime.block_on(commands::run(cli, &output));
    // A subscriber may sit in a read that nothing will end any more.
    runtime.shutdown_background();
    match ended {
        Ok(code) => code.into(),
        Err(gone) if gone.is::<ReaderGone>() => ExitCode::Done.into(),
        Err(error) => {
            output.error(&error);
            exit::code_of(&error).into()
        }
    }
}
