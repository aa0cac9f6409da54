//! All processes of the demo together: started in order, restarted when they die, stopped in order.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::{Instant, sleep};
use trunkline::discovery::{AnyResolver, Resolver as _, ServiceName};
use trunkline::http::HttpClient;

use super::members::Member;
use super::narrator::Narrator;
use super::ports::Ports;
use super::process::Process;
use crate::open;

/// How long a member may take until it is ready.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long a member may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at something that is about to change.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// The running system.
pub(crate) struct System {
    dir: PathBuf,
    ports: Ports,
    narrator: Narrator,
    processes: BTreeMap<Member, Process>,
    registry: AnyResolver,
}

impl System {
    /// Starts every member and waits until each is ready.
    pub(crate) async fn start(
        dir: &Path,
        ports: Ports,
        narrator: Narrator,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir.join("logs"))
            .with_context(|| format!("cannot create {}", dir.display()))?;
        let (_, registry) = open::registry(&registry_url(dir))?;
        let processes = BTreeMap::new();
        let mut system = Self {
            dir: dir.to_owned(),
            ports,
            narrator,
            processes,
            registry,
        };
        for member in Member::ALL {
            system.launch(member)?;
        }
        for member in Member::ALL {
            system.until_ready(member).await?;
        }
        Ok(system)
    }

    /// The gateway's base URL.
    pub(crate) fn gateway_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.port(Member::Gateway))
    }

    /// Where a member can be asked directly, as discovery knows it.
    pub(crate) async fn url(&self, member: Member) -> anyhow::Result<String> {
        if member == Member::Gateway {
            return Ok(self.gateway_url());
        }
        let name = ServiceName::new(member.service())?;
        let list = self.registry.resolve(&name).await?;
        let newest = list.instances.iter().max_by_key(|instance| &instance.id);
        Ok(newest
            .with_context(|| format!("{member} is not registered"))?
            .base_url())
    }

    /// Kills a member outright. It stays away until [`System::launch`].
    pub(crate) async fn kill(&mut self, member: Member) -> anyhow::Result<()> {
        match self.processes.remove(&member) {
            Some(process) => process.kill().await,
            None => bail!("{member} is not running"),
        }
    }

    /// Stops a member in order, starts it again and waits until it is ready.
    pub(crate) async fn restart(&mut self, member: Member) -> anyhow::Result<()> {
        match self.processes.remove(&member) {
            Some(process) => process.stop(STOP_PATIENCE).await?,
            None => bail!("{member} is not running"),
        }
        self.launch(member)?;
        self.until_ready(member).await
    }

    /// Starts a member that is not running.
    pub(crate) fn launch(&mut self, member: Member) -> anyhow::Result<()> {
        let process = Process::start(member, &self.dir, self.ports.port(member), &self.narrator)?;
        self.processes.insert(member, process);
        Ok(())
    }

    /// Waits until a member answers that it is ready.
    pub(crate) async fn until_ready(&mut self, member: Member) -> anyhow::Result<()> {
        let end = Instant::now() + START_PATIENCE;
        let mut why = "it did not answer".to_owned();
        while Instant::now() < end {
            if let Some(status) = self.processes.get_mut(&member).and_then(Process::ended) {
                bail!(
                    "{member} ended with {status} while starting; see {}",
                    self.log(member).display()
                );
            }
            match self.ask_ready(member).await {
                Ok(()) => return Ok(()),
                Err(error) => why = error.to_string(),
            }
            sleep(LOOK_AGAIN).await;
        }
        bail!(
            "{member} was not ready in time: {why}; see {}",
            self.log(member).display()
        )
    }

    async fn ask_ready(&self, member: Member) -> anyhow::Result<()> {
        let client = HttpClient::new(&self.url(member).await?)?;
        let answer = client
            .get("/health/ready")
            .timeout(Duration::from_secs(1))
            .send()
            .await?;
        if !answer.status().is_success() {
            bail!("/health/ready answered {}", answer.status());
        }
        Ok(())
    }

    fn log(&self, member: Member) -> PathBuf {
        super::process::log_file(&self.dir, member)
    }

    /// Restarts members that died. Returns only with an error: a member that cannot be started.
    pub(crate) async fn keep_alive(&mut self) -> anyhow::Result<()> {
        loop {
            sleep(Duration::from_millis(200)).await;
            let died: Vec<Member> = self
                .processes
                .iter_mut()
                .filter_map(|(member, process)| process.ended().map(|_| *member))
                .collect();
            for member in died {
                self.narrator
                    .warn(&format!("{member} died; starting it again"));
                self.launch(member)?;
            }
        }
    }

    /// Stops every member, the way in first, and says which did not stop cleanly.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        let mut unclean = Vec::new();
        for member in Member::ALL.into_iter().rev() {
            if let Some(process) = self.processes.remove(&member)
                && let Err(error) = process.stop(STOP_PATIENCE).await
            {
                unclean.push(error.to_string());
            }
        }
        if unclean.is_empty() {
            Ok(())
        } else {
            bail!(unclean.join("; "))
        }
    }
}

/// The registry's URL in a demo's directory.
pub(crate) fn registry_url(dir: &Path) -> String {
    format!("embedded://{}", data_dir(dir).display())
}

/// Where brokers, registry and stores of a demo are.
pub(crate) fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}
