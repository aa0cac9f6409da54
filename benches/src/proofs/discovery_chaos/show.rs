//! What is under way, and what is done to it.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use futures_util::future::try_join_all;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep, timeout};
use trunkline::backends;
use trunkline::discovery::{
    AnyResolver, Discovery, Instances, Resolver as _, ServiceDiscoveryConfig, ServiceName, Several,
};
use trunkline::http::EnhancedHttpClient;

use super::judge::{Evidence, Played, Start};
use super::plan::{Act, Move};
use crate::proofs::registries::{Stage, Subject, Way};
use crate::proofs::scribe::{SERVICE, Writer};
use crate::proofs::services::{Calls, Process};

const INSTANCES: usize = 5;
/// There are never fewer than this, nor more than that.
const FEWEST: usize = 4;
const MOST: usize = 7;
const CALLS_A_SECOND: u32 = 200;
/// How long the work of each call takes.
const WORK: Duration = Duration::from_millis(5);
/// How long an announcement outlives an instance that does not renew it.
pub(super) const LEASE: Duration = Duration::from_secs(3);
/// How long a server is down, or a link is cut.
const AWAY: Duration = Duration::from_millis(1500);
/// How long something stands still: longer than a lease, and than it takes to notice.
const SPELL: Duration = Duration::from_secs(5);
/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(60);
/// Calls of a process that starts without a registry.
const CALLS_AT_START: usize = 50;

pub(super) struct Show<'a> {
    subject: &'a Subject,
    runtime: Runtime,
    rng: Rng,
    stage: Stage,
    /// Asks the registries themselves.
    direct: Vec<AnyResolver>,
    /// Writes where instances are, where they do not say so themselves.
    writer: Option<Writer>,
    /// What callers have of several registries at once.
    several: Option<Several>,
    service: ServiceName,
    callers: Discovery,
    known: Instances,
    calls: Calls,
    processes: Vec<Process>,
    leaving: Vec<Process>,
    evidence: Evidence,
}

impl<'a> Show<'a> {
    pub(super) fn open(subject: &'a Subject, seed: u64) -> Result<Self> {
        let stage = Stage::set(subject)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let direct = stage.each()?;
        let writer = stage.writer()?;
        let service = ServiceName::new(SERVICE)?;
        let (callers, several) = callers(&stage)?;
        let known = callers.instances(&service);
        let client = client(&callers)?;
        let processes = (0..INSTANCES).map(|_| start(subject, &stage));
        let processes = processes.collect::<Result<Vec<_>>>()?;
        if let Some(writer) = &writer {
            writer.write(processes.iter().map(Process::address).collect());
        }
        let until = Instant::now() + PATIENCE;
        runtime.block_on(known.ready(until))?;
        let calls = Calls::begin(client, CALLS_A_SECOND, WORK, runtime.handle());
        drop(entered);
        let mut show = Self {
            subject,
            runtime,
            rng: Rng::with_seed(seed),
            stage,
            direct,
            writer,
            several,
            service,
            callers,
            known,
            calls,
            processes,
            leaving: Vec::new(),
            evidence: Evidence::default(),
        };
        show.converged(Instant::now())?;
        Ok(show)
    }

    pub(super) fn play(&mut self, act: Act, meanwhile: Move) -> Result<()> {
        let mut noticed = None;
        self.choose(act);
        match act {
            Act::Killed | Act::Wiped => {
                self.stage.post()?.server.kill()?;
                self.move_on(meanwhile)?;
                self.pass(AWAY);
                if act == Act::Wiped {
                    self.stage.post()?.wipe()?;
                }
                self.stage.post()?.restart()?;
                self.write_again();
            }
            Act::Paused => {
                self.stage.post()?.server.pause()?;
                self.move_on(meanwhile)?;
                self.pass(SPELL);
                noticed = Some(self.is_noticed());
                self.stage.post()?.server.resume()?;
            }
            Act::CallersCutOff | Act::Compacted => {
                let link = &self.stage.post()?.callers;
                link.refuse(true);
                link.reset_all();
                self.move_on(meanwhile)?;
                self.pass(AWAY);
                let post = self.stage.post()?;
                if act == Act::Compacted {
                    post.compact()?;
                }
                post.callers.refuse(false);
            }
            Act::CallersStalled => {
                self.stage.post()?.callers.stall(true);
                self.move_on(meanwhile)?;
                self.pass(SPELL);
                noticed = Some(self.is_noticed());
                self.stage.post()?.callers.stall(false);
            }
            Act::LeasesExpired => {
                self.stage.post()?.instances.stall(true);
                self.move_on(meanwhile)?;
                self.pass(SPELL);
                self.stage.post()?.instances.stall(false);
            }
            Act::Forgotten => {
                self.move_on(meanwhile)?;
                self.stage.forget()?;
                self.write_again();
            }
        }
        let (converged, announced) = self.converged(Instant::now())?;
        self.evidence.played.push(Played {
            act,
            meanwhile,
            converged,
            announced,
            noticed,
        });
        Ok(())
    }

    /// Which of several it is done to.
    fn choose(&mut self, act: Act) {
        let posts = self.stage.posts.iter().enumerate();
        let able = posts.filter(|(_, post)| act != Act::Compacted || post.compacts());
        let able: Vec<usize> = able.map(|(at, _)| at).collect();
        self.stage.hit = self.rng.choice(able).unwrap_or_default();
    }

    fn write_again(&self) {
        if let Some(writer) = &self.writer {
            writer.again();
        }
    }

    /// Whether callers know that the registry does not answer; of several, that this one does not.
    fn is_noticed(&self) -> bool {
        match &self.several {
            None => self.known.snapshot().is_stale(),
            Some(several) => several
                .standing()
                .get(self.stage.hit)
                .is_some_and(|member| member.problem.is_some()),
        }
    }

    /// Instances come, leave and die.
    fn move_on(&mut self, meanwhile: Move) -> Result<()> {
        let meanwhile = match meanwhile {
            Move::Joined if self.processes.len() >= MOST => Move::Replaced,
            Move::Left if self.processes.len() <= FEWEST => Move::Replaced,
            other => other,
        };
        if meanwhile != Move::Joined {
            let at = self.rng.usize(..self.processes.len());
            let mut victim = self.processes.remove(at);
            if meanwhile == Move::Killed {
                victim.kill()?;
            } else {
                victim.ask_to_leave();
                self.leaving.push(victim);
            }
        }
        if meanwhile != Move::Left {
            self.processes.push(start(self.subject, &self.stage)?);
        }
        if let Some(writer) = &self.writer {
            writer.write(self.processes.iter().map(Process::address).collect());
        }
        Ok(())
    }

    /// Waits until callers know what the registry knows, which is all that is there. Says how long that took, and how long
    /// until the registry knew.
    fn converged(&mut self, since: Instant) -> Result<(Duration, Duration)> {
        let there: BTreeSet<String> = self.processes.iter().map(Process::authority).collect();
        let (direct, service, known) = (&self.direct, &self.service, &self.known);
        let looking = async {
            let mut announced = None;
            loop {
                let asked = direct.iter().map(|direct| direct.resolve(service));
                let lists = timeout(Duration::from_secs(1), try_join_all(asked)).await;
                if let Ok(Ok(lists)) = lists {
                    let lists = lists.iter().map(|list| {
                        let usable = list.instances.iter().filter(|it| it.is_usable());
                        usable.map(|it| it.authority()).collect()
                    });
                    let lists: Vec<BTreeSet<String>> = lists.collect();
                    if lists.iter().all(|listed| listed.is_superset(&there)) {
                        announced.get_or_insert(since.elapsed());
                    }
                    let listed: BTreeSet<String> = lists.into_iter().flatten().collect();
                    let set = known.snapshot();
                    let usable = set.instances().filter(|it| it.is_usable());
                    let usable: BTreeSet<String> = usable.map(|it| it.authority()).collect();
                    if let Some(announced) = announced
                        && !set.is_stale()
                        && usable == listed
                    {
                        return (since.elapsed(), announced);
                    }
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let seen = self
            .runtime
            .block_on(async { timeout(PATIENCE, looking).await })
            .with_context(|| {
                let problem = self.writer.as_ref().and_then(Writer::problem);
                let problem = problem.unwrap_or_default();
                let known = self.known.snapshot();
                format!("callers know {known:?} and not {there:?} {problem}")
            })?;
        for process in self.leaving.drain(..) {
            process.left()?;
        }
        Ok(seen)
    }

    fn pass(&self, span: Duration) {
        self.runtime.block_on(async { sleep(span).await });
    }

    /// Ends the calls, and starts once more without the registry.
    pub(super) fn close(mut self) -> Result<Evidence> {
        let deadline = Instant::now() + PATIENCE;
        self.evidence.calls = self.calls.end(self.runtime.handle())?;
        ensure!(!self.evidence.calls.is_empty(), "nothing was called");
        // Written at the end, too.
        self.runtime.block_on(self.callers.shutdown(deadline))?;
        if !self.stage.posts.is_empty() {
            for post in &mut self.stage.posts {
                post.server.kill()?;
            }
            let started = start_without(&self.runtime, &self.stage)?;
            self.evidence.start = Some(started);
        }
        for process in self.processes.drain(..) {
            drop(process);
        }
        Ok(self.evidence)
    }
}

/// A process that starts while the registry is down.
fn start_without(runtime: &Runtime, stage: &Stage) -> Result<Start> {
    let entered = runtime.enter();
    let (callers, _) = callers(stage)?;
    let client = client(&callers)?;
    let known = callers.instances(&ServiceName::new(SERVICE)?);
    drop(entered);
    runtime.block_on(async {
        let mut errors = Vec::new();
        for _ in 0..CALLS_AT_START {
            let answer = async { client.get("/work?ms=0").send().await?.text().await };
            errors.extend(answer.await.err().map(|error| error.to_string()));
        }
        let set = known.snapshot();
        let start = Start {
            calls: CALLS_AT_START,
            errors,
            stale: set.is_stale(),
            age: set.age(),
        };
        callers.shutdown(Instant::now() + PATIENCE).await?;
        Ok(start)
    })
}

fn callers(stage: &Stage) -> Result<(Discovery, Option<Several>)> {
    let mut config = ServiceDiscoveryConfig::from_url(&stage.url(Way::Callers))?;
    config.cache.snapshot_file = Some(stage.directory.path().join("known.json"));
    let builder = Discovery::builder().config(&config);
    if stage.posts.len() > 1 {
        let several = backends::open_several(&config)?;
        let builder = builder.registry(several.clone()).resolver(several.clone());
        return Ok((builder.several(&several).build(), Some(several)));
    }
    let (registry, resolver) = stage.open(Way::Callers)?;
    Ok((builder.registry(registry).resolver(resolver).build(), None))
}

fn client(callers: &Discovery) -> Result<EnhancedHttpClient> {
    let client = EnhancedHttpClient::builder().service(SERVICE);
    Ok(client.discovery(callers).build()?)
}

fn start(subject: &Subject, stage: &Stage) -> Result<Process> {
    let host = subject.host()?;
    Process::start_at(host, &stage.url(Way::Instances), SERVICE, LEASE)
}
