//! The ground that other proofs stand on: a real server that is started, killed, restarted, paused
//! and stopped does what a real server does.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use trunkline_testing::servers::{Ending, Launch, REDIS, Server, redis};

use crate::entry::{Entry, Options};
use crate::report::{Report, Table, short};
use crate::stopwatch::Stopwatch;

/// How long a frozen server is given to answer.
const PATIENCE: Duration = Duration::from_millis(300);

pub(super) static ENTRY: Entry = Entry {
    name: "servers",
    about: "A real Redis started by the test kit keeps its data over kill -9, freezes and resumes, stops and leaves nothing.",
    run,
};

fn run(options: &Options) -> Result<Report> {
    let keys = options.choose(2_000, 100);
    let mut report = Report::new();
    let mut steps = Table::new("What was done to Redis", ["step", "ms", "seen"]);

    let mut server = step(&mut steps, "start on a free port", || {
        // Each write reaches the disk before its answer, so that nothing may be lost.
        let server = Launch::new(&REDIS)
            .arguments(["--appendfsync", "always"])
            .start()?;
        let seen = format!("ready, process {}", server.pid());
        Ok((server, seen))
    })?;
    let address = server.address();
    step(&mut steps, "write", || {
        write(address, keys).map(|()| ((), format!("{keys} keys")))
    })?;

    let first = server.pid();
    step(&mut steps, "kill -9", || {
        server.kill()?;
        Ok(((), "process gone".to_owned()))
    })?;
    let refused = redis::call(address, &["PING"]);
    report.check(
        "a killed server does not answer",
        refused
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused),
        refused.map_or_else(|error| error.to_string(), |answer| format!("{answer:?}")),
    );

    step(&mut steps, "start again", || {
        server.restart()?;
        Ok(((), format!("ready, process {}", server.pid())))
    })?;
    report.check(
        "it is another process at the same address",
        server.pid() != first && server.address() == address,
        format!("process {first}, then {}", server.pid()),
    );
    let kept = step(&mut steps, "read", || {
        let kept = read(address, keys)?;
        Ok((kept, format!("{kept} of {keys} keys")))
    })?;
    report.check(
        "everything confirmed before kill -9 is there",
        kept == keys,
        format!("{kept} of {keys}"),
    );

    freeze(&mut steps, &mut report, &mut server)?;
    let directory = server.directory().to_owned();
    stop(&mut steps, &mut report, server, &directory)?;
    report.table(steps);
    Ok(report)
}

fn freeze(steps: &mut Table, report: &mut Report, server: &mut Server) -> Result<()> {
    let address = server.address();
    let frozen = step(steps, "pause, then ask", || {
        server.pause()?;
        let answer = ask_briefly(address)?;
        let seen = answer
            .clone()
            .unwrap_or_else(|kind| format!("nothing ({kind:?})"));
        Ok((answer, seen))
    })?;
    report.check(
        "a paused server accepts and does not answer",
        matches!(frozen, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        frozen.unwrap_or_else(|_| format!("connected, nothing within {PATIENCE:?}")),
    );
    let answer = step(steps, "resume, then ask", || {
        server.resume()?;
        let answer = redis::call(address, &["PING"])?;
        let seen = answer.clone().unwrap_or_default();
        Ok((answer, seen))
    })?;
    report.check(
        "a resumed server answers",
        answer.as_deref() == Some("PONG"),
        answer.unwrap_or_default(),
    );
    Ok(())
}

/// Sends PING on a new connection and returns what comes back, or why nothing did.
fn ask_briefly(address: SocketAddr) -> Result<std::result::Result<String, ErrorKind>> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).context("not even accepted")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"PING\r\n")?;
    let mut bytes = [0; 64];
    Ok(match stream.read(&mut bytes) {
        Ok(length) => {
            Ok(String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).into_owned())
        }
        Err(error) => Err(error.kind()),
    })
}

fn stop(
    steps: &mut Table,
    report: &mut Report,
    mut server: Server,
    directory: &Path,
) -> Result<()> {
    let ending = step(steps, "stop", || {
        let ending = server.stop()?;
        Ok((ending, format!("{ending:?}")))
    })?;
    report.check(
        "SIGTERM is enough",
        ending == Ending::Stopped,
        format!("{ending:?}"),
    );
    drop(server);
    let gone = !directory.exists();
    report.check(
        "nothing stays behind",
        gone,
        if gone {
            "directory removed"
        } else {
            "directory left"
        },
    );
    Ok(())
}

/// Runs one step and notes its time and what was seen.
fn step<T>(steps: &mut Table, name: &str, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
    let watch = Stopwatch::start();
    let (value, seen) = work().with_context(|| format!("step `{name}`"))?;
    steps.row([name.to_owned(), short(watch.seconds() * 1e3), seen]);
    Ok(value)
}

fn write(address: SocketAddr, keys: usize) -> Result<()> {
    for key in 0..keys {
        redis::call(
            address,
            &["SET", &format!("key-{key}"), &format!("value-{key}")],
        )?;
    }
    Ok(())
}

fn read(address: SocketAddr, keys: usize) -> Result<usize> {
    let mut kept = 0;
    for key in 0..keys {
        let value = redis::call(address, &["GET", &format!("key-{key}")])?;
        kept += usize::from(value == Some(format!("value-{key}")));
    }
    Ok(kept)
}
