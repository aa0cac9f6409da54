//! The logs of a managed process.

use std::io::IsTerminal;

use trunkline_telemetry::{LogOutput, Logs};

use crate::CommunicationConfig;

/// Logs as configured, to standard error: a program's results are on standard output.
pub(crate) fn of(config: &CommunicationConfig) -> Logs {
    let terminal = std::io::stderr().is_terminal();
    let plain = std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty());
    let mut output = LogOutput::stderr()
        .for_people(terminal && config.environment == "development")
        .with_color(terminal && !plain);
    if let Some(name) = &config.service.name {
        output = output.with_service(name);
    }
    let logs = Logs::new(&config.logging, output);
    logs.set_debug(config.debug_mode);
    logs
}
