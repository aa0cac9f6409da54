//! Runs a command to its end, but not for ever.

use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use super::wait::Limit;

/// How a command ended, and what it wrote (standard output, then standard error).
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) status: ExitStatus,
    pub(super) text: String,
}

/// Runs `command`; after `limit` it is killed and the call fails with `TimedOut`.
pub(super) fn run(command: &mut Command, limit: Duration) -> io::Result<Finished> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().map(reader);
    let errors = child.stderr.take().map(reader);
    let end = Limit::after(limit);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if !end.pause() {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("not finished after {limit:?}"),
            ));
        }
    };
    let text = [output, errors]
        .into_iter()
        .flatten()
        .map(|reader| reader.join().unwrap_or_default())
        .collect::<Vec<_>>()
        .concat();
    Ok(Finished { status, text })
}

/// Reads a pipe on its own thread, so that a talkative program never blocks on a full pipe.
fn reader(mut pipe: impl io::Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // A broken pipe still leaves what was read until then.
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match pipe.read_to_end(&mut bytes) {
            Ok(_) => text(&bytes),
            Err(error) => format!("{}\n(reading its output failed: {error})", text(&bytes)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_larger_than_a_pipe_is_read() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "head -c 300000 /dev/zero | tr '\\0' x; echo bad >&2; exit 3",
        ]);
        let finished = run(&mut command, Duration::from_secs(20)).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.text.len(), 300_004);
    }

    #[test]
    fn command_that_hangs_is_ended() {
        let error = run(Command::new("sleep").arg("600"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
