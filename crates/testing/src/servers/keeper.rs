//! Servers that die with the process that started them.
//!
//! A test process may be killed or may end without running destructors (statics have none), and its
//! servers must not stay behind. On Linux the kernel kills a child when the *thread* that started it
//! ends; a test's thread ends with the test. So one thread that lives as long as the process starts
//! them all. `setpriv` (util-linux) asks the kernel for it; without it servers are only stopped by
//! their handles.

use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::thread;

struct Job {
    command: Command,
    answer: mpsc::SyncSender<io::Result<Child>>,
}

static KEEPER: LazyLock<Mutex<io::Result<mpsc::Sender<Job>>>> = LazyLock::new(|| {
    let (jobs, inbox) = mpsc::channel::<Job>();
    let started = thread::Builder::new()
        .name("server-keeper".to_owned())
        .spawn(move || {
            for Job {
                mut command,
                answer,
            } in inbox
            {
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    // Nobody waits for it any more, so nobody would stop it.
                    let ended = child.kill().and_then(|()| child.wait());
                    drop(ended);
                }
            }
        });
    Mutex::new(started.map(|_| jobs))
});

/// A command for `program` that the kernel ends together with the keeper's thread.
pub(super) fn command(program: &Path) -> Command {
    for setpriv in ["/usr/bin/setpriv", "/bin/setpriv"] {
        if Path::new(setpriv).exists() {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            return command;
        }
    }
    Command::new(program)
}

/// Starts `command` from the thread that lives as long as this process.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts servers has ended");
    let (answer, child) = mpsc::sync_channel(1);
    {
        let keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = keeper
            .as_ref()
            .map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
        jobs.send(Job { command, answer }).map_err(|_| gone())?;
    }
    child.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_outlives_the_thread_that_asked_for_it() {
        let mut child = thread::spawn(|| {
            let mut command = command(Path::new("/bin/sleep"));
            command.arg("600");
            spawn(command).unwrap()
        })
        .join()
        .unwrap();
        // The asking thread has ended; with a plain spawn below `setpriv` the child is dead by now.
        let still_there = super::super::wait::Limit::after(std::time::Duration::from_millis(200))
            .poll(|| child.try_wait().unwrap().is_some());
        assert!(!still_there, "the child died with the thread of the test");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn missing_program_is_an_error() {
        let error = spawn(Command::new("/no/such/program")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
