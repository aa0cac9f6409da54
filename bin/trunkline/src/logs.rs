//! What happens inside, for those who ask with `--verbose`.

use std::io::{IsTerminal as _, stderr};

use trunkline::telemetry::{LogLevel, LogOutput, LoggingConfig, Logs};

use crate::output::Output;

/// Writes logs on stderr: debug lines for one `-v`, all for two.
pub(crate) fn show(verbose: u8, output: &Output) {
    let level = match verbose {
        0 => return,
        1 => LogLevel::Debug,
        _ => LogLevel::Trace,
    };
    let written = LogOutput::stderr().for_people(stderr().is_terminal());
    let logs = Logs::new(&LoggingConfig::default().with_level(level), written);
    if !logs.install() {
        output.note("the logs are written elsewhere already");
    }
}
