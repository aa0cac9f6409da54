//! The instances: processes that come, go and die.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

/// The process of one instance; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// It leaves when this is closed.
    input: Option<ChildStdin>,
    address: SocketAddr,
}

impl Process {
    /// Starts one that announces itself to a registry, and waits until it serves.
    pub(crate) fn start(registry: &str, service: &str, lease: Duration) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), registry, service, lease)
    }

    /// As [`start`](Self::start), listening at an address of this machine.
    pub(crate) fn start_at(
        host: IpAddr,
        registry: &str,
        service: &str,
        lease: Duration,
    ) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("service-instance");
        let mut child = Command::new(&program)
            .args([registry, service])
            .arg(format!("{}ms", lease.as_millis()))
            .arg(host.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut line = String::new();
        BufReader::new(output.context("its output is piped")?).read_line(&mut line)?;
        let Some(address) = line.trim_end().strip_prefix("ready ") else {
            bail!("an instance did not become ready: {}", child.wait()?);
        };
        let address = address.parse()?;
        Ok(Self {
            child,
            input,
            address,
        })
    }

    /// Where it serves.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as text.
    pub(crate) fn authority(&self) -> String {
        self.address.to_string()
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to leave in good order.
    pub(crate) fn ask_to_leave(&mut self) {
        drop(self.input.take());
    }

    /// Waits until it has left.
    pub(crate) fn left(mut self) -> Result<()> {
        self.ask_to_leave();
        let ended = self.child.wait()?;
        ensure!(
            ended.success(),
            "an instance did not leave in good order: {ended}"
        );
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
