//! Signals, in a process of their own: this test binary again, running the one test that is ignored.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};
use trunkline_core::{AnyLifecycle, ErrorKind, Lifecycle, Result};
use trunkline_manager::{CommunicationManager, Stage};

use crate::alone;
use crate::scripted::{Scripted, in_memory, orders};

/// A process that plays a role, ended with the test.
struct Process {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Process {
    fn playing(role: &str) -> Self {
        let mut child = alone::playing("signals::the_other_process", role)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// Reads until it says this; everything that it said until then.
    fn until(&mut self, wanted: &str) -> Vec<String> {
        let mut said = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended without saying {wanted}: {said:?}");
            if let Some(line) = line.trim_end().strip_prefix("child: ") {
                said.push(line.to_owned());
                if line == wanted {
                    return said;
                }
            }
        }
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Everything that it still says, and how it ends.
    fn end(mut self) -> (Vec<String>, ExitStatus) {
        let said = (&mut self.lines)
            .lines()
            .filter_map(|line| line.unwrap().strip_prefix("child: ").map(ToOwned::to_owned))
            .collect();
        (said, self.child.wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A line of its own, whatever the test harness has begun.
    writeln!(out, "\nchild: {line}").unwrap();
    out.flush().unwrap();
}

struct Intake(Duration);

impl Lifecycle for Intake {
    async fn start(&self) -> Result<()> {
        Ok(())
    }

    async fn drain(&self, _: Instant) -> Result<()> {
        say("draining");
        sleep(self.0).await;
        say("drained");
        Ok(())
    }

    async fn shutdown(&self, _: Instant) -> Result<()> {
        say("closed");
        Ok(())
    }
}

async fn serve(manager: CommunicationManager, draining: Duration) -> Result<()> {
    manager
        .lifespan(async move |manager| {
            manager.attach("intake", Stage::Intake, AnyLifecycle::new(Intake(draining)));
            say("ready");
            manager.until_shutdown().await;
            say("asked");
            manager
                .publish_message("default", "last.words", "bye")
                .await?;
            say("published");
            Ok(())
        })
        .await
}

#[tokio::test]
#[ignore = "a process that other tests start"]
async fn the_other_process() {
    match alone::role().as_str() {
        "serve" => serve(in_memory(), Duration::from_millis(50)).await.unwrap(),
        "drain slowly" => serve(in_memory(), Duration::from_secs(20)).await.unwrap(),
        "end by itself" => {
            let manager = in_memory();
            manager.attach(
                "intake",
                Stage::Intake,
                AnyLifecycle::new(Intake(Duration::from_secs(20))),
            );
            manager.lifespan(async |_| Ok(())).await.unwrap();
        }
        "start" => {
            let broker = Scripted::default();
            broker.leave();
            let connecting = broker.clone();
            let tells = trunkline_core::task::spawn("test", async move {
                // Signals are listened to before anything is connected.
                while connecting.connects() == 0 {
                    tokio::task::yield_now().await;
                }
                say("starting");
            });
            let error = orders(&broker)
                .lifespan(async |_| Ok(()))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Cancelled);
            tells.await.unwrap();
            say("given up");
        }
        other => panic!("there is no role `{other}`"),
    }
}

#[test]
fn man2_sigterm_and_ctrl_c_end_with_success_after_the_drain() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut process = Process::playing("serve");
        process.until("ready");
        process.send(signal);
        let (mut said, status) = process.end();
        assert_eq!(status.code(), Some(0), "{said:?}");
        assert_eq!(said.pop().unwrap(), "closed");
        for line in ["asked", "published", "draining", "drained"] {
            assert!(said.contains(&line.to_owned()), "{line} is not in {said:?}");
        }
    }
}

#[test]
fn man2_a_second_signal_ends_the_process_at_once() {
    for (role, signal, code) in [
        ("drain slowly", Signal::TERM, 143),
        ("drain slowly", Signal::INT, 130),
        // Also while a closure that ended by itself is cleaned up after.
        ("end by itself", Signal::TERM, 143),
    ] {
        let mut process = Process::playing(role);
        if role == "drain slowly" {
            process.until("ready");
            process.send(signal);
        }
        process.until("draining");
        // Two that come before the first is read are one to the system.
        while process.child.try_wait().unwrap().is_none() {
            process.send(signal);
            std::thread::yield_now();
        }
        let (said, status) = process.end();
        assert_eq!(status.code(), Some(code), "{role}: {said:?}");
        assert!(!said.contains(&"closed".to_owned()), "{said:?}");
    }
}

#[test]
fn man2_a_signal_during_the_start_gives_it_up() {
    let mut process = Process::playing("start");
    process.until("starting");
    process.send(Signal::TERM);
    let (said, status) = process.end();
    assert_eq!(
        (said, status.code()),
        (vec!["given up".to_owned()], Some(0))
    );
}
