//! Runs programs: the only place of xtask that looks at the time.
#![expect(
    clippy::disallowed_methods,
    reason = "times and limits real processes; there is no runtime and no paused clock here"
)]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command that must succeed and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!("{} failed ({})", shown(command), output.status);
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} wrote what is not text", shown(command)))
}

/// Runs a command that must succeed, and shows each line of its standard output to `see`.
pub(crate) fn watched(command: &mut Command, mut see: impl FnMut(&str)) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .context("cannot read its output")?
            > 0
        {
            see(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            line.clear();
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs a command that must succeed within `limit`.
pub(crate) fn limited(command: &mut Command, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    let status = loop {
        if let Some(status) = child.try_wait().context("cannot wait")? {
            break status;
        }
        if Instant::now() >= end {
            child.kill().context("cannot kill")?;
            child.wait().context("cannot wait")?;
            bail!("{} was not finished after {limit:?}", shown(command));
        }
        thread::sleep(Duration::from_millis(10));
    };
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs `work` and says how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// The command as somebody would type it.
fn shown(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let name = program
        .file_name()
        .unwrap_or(program.as_os_str())
        .to_string_lossy()
        .into_owned();
    let words = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned());
    format!(
        "`{}`",
        std::iter::once(name)
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_names_the_command_and_its_status() {
        let error = run(Command::new("sh").args(["-c", "exit 7"]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("`sh -c exit 7`"), "{error}");
        assert!(error.contains('7'), "{error}");
        let error = run(&mut Command::new("/no/such/program"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot run `program`"), "{error}");
    }

    #[test]
    fn lines_are_seen_even_if_the_command_fails() {
        let mut seen = Vec::new();
        let failed = watched(
            Command::new("sh").args(["-c", "printf 'a\\nb'; exit 1"]),
            |line| {
                seen.push(line.to_owned());
            },
        );
        assert!(failed.is_err());
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn endless_command_is_ended() {
        let error = limited(Command::new("sleep").arg("600"), Duration::from_millis(30));
        assert!(error.unwrap_err().to_string().contains("not finished"));
    }
}
