//! Processes: whether they live, their descendants, signals.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// One process, recognised by its number *and* its start time: numbers are reused.
#[derive(Debug)]
pub(super) struct Process {
    pid: i32,
    started: Option<u64>,
    /// Present for our own children, which must be reaped.
    child: Option<Child>,
}

/// What `/proc/PID/stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

impl Process {
    pub(super) fn of_child(child: Child) -> Self {
        let pid = i32::try_from(child.id()).unwrap_or(0);
        Self {
            pid,
            started: stat(pid).map(|stat| stat.started),
            child: Some(child),
        }
    }

    /// A process that another command started and wrote down.
    pub(super) fn recorded(pid: i32, started: Option<u64>) -> Self {
        Self {
            pid,
            started,
            child: None,
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn started(&self) -> Option<u64> {
        self.started
    }

    /// Whether it still runs. A zombie does not; our own children are reaped by this call.
    pub(super) fn is_alive(&mut self) -> bool {
        if let Some(child) = &mut self.child {
            return matches!(child.try_wait(), Ok(None));
        }
        if !cfg!(target_os = "linux") {
            return as_pid(self.pid).is_some_and(|pid| test_kill_process(pid).is_ok());
        }
        stat(self.pid).is_some_and(|stat| {
            !matches!(stat.state, 'Z' | 'X') && self.started.is_none_or(|at| at == stat.started)
        })
    }

    /// How it ended, for our own children.
    pub(super) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child
            .as_mut()
            .and_then(|child| child.try_wait().ok().flatten())
    }

    /// Sends `signal`; a process that has ended is no error.
    pub(super) fn signal(&mut self, signal: Signal) -> io::Result<()> {
        // Checked first: a reaped child's number may belong to somebody else by now.
        if !self.is_alive() {
            return Ok(());
        }
        let Some(pid) = as_pid(self.pid) else {
            return Ok(());
        };
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether SIGSTOP has taken effect.
    pub(super) fn is_stopped(&self) -> bool {
        stat(self.pid).is_none_or(|stat| stat.state == 'T')
    }
}

fn as_pid(pid: i32) -> Option<Pid> {
    // 0 and negative numbers name groups of processes, never one.
    (pid > 0).then(|| Pid::from_raw(pid)).flatten()
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3 (state), 4 (parent) and 22 (start time). Field 2 is the name in parentheses and may
/// contain anything, parentheses and spaces included.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

/// The process and all its descendants.
pub(super) fn family(pid: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    if let Ok(entries) = fs::read_dir("/proc") {
        let numbers = entries
            .flatten()
            .filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
        for (number, stat) in numbers.filter_map(|number| Some((number, stat(number)?))) {
            children.entry(stat.parent).or_default().push(number);
        }
    }
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&member) = found.get(next) {
        found.extend(children.remove(&member).unwrap_or_default());
        next += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::super::wait::Limit;
    use super::*;

    #[test]
    fn name_with_parentheses_does_not_confuse() {
        let line = "77 (a) b (c)) S 12 77 77 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(
            parse_stat(line),
            Some(Stat {
                state: 'S',
                parent: 12,
                started: 98765
            })
        );
        assert_eq!(parse_stat("77 (short) S 1"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn zombie_counts_as_gone() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        // Seen as by a command that did not start it, and so cannot reap it.
        let mut recorded = Process::recorded(pid, None);
        assert!(Limit::after(Duration::from_secs(10)).poll(|| !recorded.is_alive()));
        assert_eq!(stat(pid).map(|stat| stat.state), Some('Z'));
        child.wait().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn reused_number_is_another_process() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = stat(pid).map(|stat| stat.started);
        assert!(Process::recorded(pid, started).is_alive());
        let mut other = Process::recorded(pid, started.map(|at| at + 1));
        assert!(!other.is_alive());
        other.signal(Signal::KILL).unwrap();
        assert!(child.try_wait().unwrap().is_none(), "a stranger was killed");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn grandchildren_belong_to_the_family() {
        let mut shell = Command::new("sh")
            .args(["-c", "sleep 600 & wait"])
            .spawn()
            .unwrap();
        let pid = i32::try_from(shell.id()).unwrap();
        let mut members = Vec::new();
        assert!(Limit::after(Duration::from_secs(10)).poll(|| {
            members = family(pid);
            members.len() == 2
        }));
        assert!(family(i32::try_from(std::process::id()).unwrap()).contains(&members[1]));
        for member in members.iter().rev() {
            Process::recorded(*member, None)
                .signal(Signal::KILL)
                .unwrap();
        }
        shell.wait().unwrap();
    }

    #[test]
    fn groups_are_never_signalled() {
        assert!(as_pid(0).is_none());
        assert!(as_pid(-1).is_none());
    }
}
