//! One file per command.

mod asyncapi;
mod call;
mod circuits;
mod config;
mod dlq;
mod gateway;
mod health;
mod policy;
mod publish;
mod services;
mod subscribe;

use std::io::Read as _;

use anyhow::Context as _;
use clap::CommandFactory as _;
use trunkline::http::ServiceError;
use trunkline::{Error, ErrorKind};

use crate::cli::{Cli, Command};
use crate::demo;
use crate::exit::ExitCode;
use crate::logs;
use crate::output::Output;

/// Runs the command that was asked for.
pub(crate) async fn run(cli: Cli, output: &Output) -> anyhow::Result<ExitCode> {
    // The gateway writes logs in any case.
    if !matches!(cli.command, Command::Gateway(_)) {
        logs::show(cli.verbose, output);
    }
    match cli.command {
        Command::Demo(args) => demo::run(args, output).await,
        Command::Gateway(args) => gateway::run(args, cli.verbose).await,
        Command::Config(command) => config::run(command, output),
        Command::Policy(command) => policy::run(command, output),
        Command::Call(args) => call::run(args, output).await,
        Command::Publish(args) => publish::run(args, output).await,
        Command::Subscribe(args) => subscribe::run(args, output).await,
        Command::Dlq(command) => dlq::run(command, output).await,
        Command::Services(command) => services::run(command, output).await,
        Command::Health(target) => health::run(target, output).await,
        Command::Circuits(target) => circuits::run(target, output).await,
        Command::Asyncapi(args) => asyncapi::run(args, output).await,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "trunkline", &mut script);
            output.bytes(&script)?;
            Ok(ExitCode::Done)
        }
    }
}

/// A body given on the command line, or read from stdin for `-` and for nothing.
fn body(argument: Option<&str>) -> anyhow::Result<Vec<u8>> {
    match argument {
        Some(text) if text != "-" => Ok(text.as_bytes().to_vec()),
        _ => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .read_to_end(&mut bytes)
                .context("cannot read the body from stdin")?;
            Ok(bytes)
        }
    }
}

/// An answer that is not what was asked for: a failure, not a wrong use.
fn unreadable(error: ServiceError) -> anyhow::Error {
    match error.kind() {
        ErrorKind::Invalid => anyhow::Error::msg(error.to_string()),
        _ => Error::from(error).into(),
    }
}

/// The media type of a body that came without one.
fn guess_content_type(body: &[u8]) -> &'static str {
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        "application/json"
    } else if std::str::from_utf8(body).is_ok() {
        "text/plain; charset=utf-8"
    } else {
        "application/octet-stream"
    }
}
