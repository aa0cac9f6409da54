//! A durable broker, and everything that happens to one: no confirmed message is lost, the order of a key is kept where the
//! broker promises it, and nothing has an effect twice.
//!
//! Publishers send each message until it is confirmed; consumers are processes that write what they did into a database,
//! in one transaction with the record that the message was handled. All of them go over a link that fails on demand.

mod health;
mod judge;
mod members;
mod missing;
mod peers;
mod plan;
mod publishing;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use trunkline::core::Id;
use trunkline::messaging::{AnyBroker, MessageBroker as _, TopicName};

use self::health::Health;
use self::judge::Evidence;
use self::members::{Member, Terms};
use self::plan::Act;
use self::publishing::Progress;
use super::brokers::{self, Stage, Subject};
use crate::entry::{Entry, Options};
use crate::report::Report;

pub(super) static ON_REDIS: Entry = Entry {
    name: "messaging-chaos-redis",
    about: "Redis Streams killed, paused, cut off and slowed down while consumers come, go and die: no confirmed message is lost, none has an effect twice.",
    run: |options| prove(options, &brokers::ON_REDIS),
};

pub(super) static ON_NATS: Entry = Entry {
    name: "messaging-chaos-nats",
    about: "NATS JetStream killed, paused, cut off and slowed down while consumers come, go and die: no confirmed message is lost, none has an effect twice.",
    run: |options| prove(options, &brokers::ON_NATS),
};

pub(super) static ON_RABBITMQ: Entry = Entry {
    name: "messaging-chaos-rabbitmq",
    about: "RabbitMQ killed, paused, cut off and slowed down while consumers come, go and die: no confirmed message is lost, none has an effect twice.",
    run: |options| prove(options, &brokers::ON_RABBITMQ),
};

pub(super) static ON_KAFKA: Entry = Entry {
    name: "messaging-chaos-kafka",
    about: "Kafka killed, paused, cut off and slowed down while consumers come, go and die: no confirmed message is lost, none has an effect twice.",
    run: |options| prove(options, &brokers::ON_KAFKA),
};

/// Consumers at the beginning.
const MEMBERS: usize = 3;
/// How long something is paused, stalled or slow.
const SPELL: Duration = Duration::from_secs(3);
/// How much a slow link delays, each way.
const SLOWNESS: Duration = Duration::from_millis(20);
/// How long anything may take to be noticed, or to recover.
const PATIENCE: Duration = Duration::from_secs(120);

fn prove(options: &Options, subject: &'static Subject) -> Result<Report> {
    let seed = options.seed();
    let acts = plan::acts(options.choose(10, 2), options.choose(3, 1), seed);
    let played = play(options, subject, &acts);
    let mut evidence = played.with_context(|| format!("with the seed {seed}"))?;
    evidence.seed = seed;
    let mut report = Report::new();
    judge::judge(&mut report, &evidence, &acts);
    if options.quick {
        report.note("the peers are left to a run without --quick");
    } else {
        peers::compare(&mut report, subject, &evidence, &acts);
    }
    Ok(report)
}

fn play(options: &Options, subject: &'static Subject, acts: &[Act]) -> Result<Evidence> {
    let mut show = Show::open(subject, options.choose(100_000, 10_000))?;
    for act in acts {
        show.go_on(acts.len())?;
        show.play(*act).with_context(|| act.to_string())?;
    }
    show.close()
}

/// Everything that is under way.
struct Show {
    runtime: Runtime,
    subject: &'static Subject,
    stage: Stage,
    broker: AnyBroker,
    health: Health,
    terms: Terms,
    members: Vec<Member>,
    publishing: JoinHandle<Result<()>>,
    progress: Arc<Progress>,
    total: u64,
    /// Confirmed when the last act was over.
    reached: u64,
    evidence: Evidence,
    data: tempfile::TempDir,
}

impl Show {
    fn open(subject: &'static Subject, messages: u32) -> Result<Self> {
        let stage = Stage::set(subject)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let broker = stage.broker()?;
        runtime.block_on(broker.connect())?;
        let data = members::scratch()?;
        let terms = Terms {
            url: stage.url.clone(),
            topic: format!("chaos.t{}", Id::new()),
            group: "members".to_owned(),
            directory: data.path().to_owned(),
        };
        let members = (0..MEMBERS).map(|_| Member::start(&terms));
        let members = members.collect::<Result<Vec<_>>>()?;
        let since = Instant::now();
        while !(subject.settled)(&stage)? {
            ensure!(since.elapsed() < PATIENCE, "the queues are not on disk");
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
        }
        let health = Health::watch(broker.clone(), runtime.handle());
        health.until(true, PATIENCE)?;
        // What the broker keeps for publishing is there from the first publish on.
        runtime.block_on(publishing::warm_up(&broker))?;
        let evidence = Evidence {
            ordered: broker.capabilities().ordering,
            connections_before: stage.link.open(),
            tasks_before: runtime.metrics().num_alive_tasks(),
            ..Evidence::default()
        };
        let progress = Arc::<Progress>::default();
        let topic = TopicName::new(&terms.topic)?;
        let publishing =
            publishing::publish_all(broker.clone(), topic, messages, Arc::clone(&progress));
        let publishing = trunkline::core::task::spawn("publishing", publishing);
        drop(entered);
        Ok(Self {
            runtime,
            subject,
            stage,
            broker,
            health,
            terms,
            members,
            publishing,
            progress,
            total: u64::from(publishing::rounded(messages)),
            reached: 0,
            evidence,
            data,
        })
    }

    /// Waits until so much more is confirmed that the acts are spread over the whole run.
    fn go_on(&mut self, acts: usize) -> Result<()> {
        let goal = self.reached + self.total / (acts as u64 + 1);
        let since = Instant::now();
        while self.confirmed() < goal.min(self.total) {
            ensure!(
                !self.publishing.is_finished(),
                "the publishers stopped early"
            );
            if since.elapsed() > PATIENCE {
                let confirmed = self.confirmed();
                bail!(
                    "nothing is confirmed any more: {confirmed} of {} so far",
                    self.total
                );
            }
            self.pass(Duration::from_millis(10));
        }
        self.reached = self.confirmed();
        Ok(())
    }

    /// Lets some time pass.
    fn pass(&self, span: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(span).await });
    }

    fn confirmed(&self) -> u64 {
        self.progress.confirmed.load(Ordering::Acquire)
    }

    /// What ends here is killed, or told to.
    fn no_member_has_ended(&mut self) -> Result<()> {
        for member in &mut self.members {
            ensure!(!member.has_ended()?, "a consumer ended by itself");
        }
        Ok(())
    }

    fn play(&mut self, act: Act) -> Result<()> {
        self.no_member_has_ended()?;
        match act {
            Act::KillServer => {
                self.stage.server.kill()?;
                let noticed = self.health.until(false, PATIENCE)?;
                self.stage.server.restart()?;
                let recovered = self.health.until(true, PATIENCE)?;
                self.evidence.noticed.push(noticed);
                self.evidence.recovered.push(recovered);
            }
            Act::PauseServer => {
                self.stage.server.pause()?;
                self.pass(SPELL);
                self.stage.server.resume()?;
            }
            Act::ResetLink => self.stage.link.reset_all(),
            Act::StallLink => {
                self.stage.link.stall(true);
                self.pass(SPELL);
                self.stage.link.stall(false);
            }
            Act::SlowLink => {
                self.stage.link.delay(SLOWNESS);
                self.pass(SPELL);
                self.stage.link.delay(Duration::ZERO);
            }
            Act::KillMember => {
                if !self.members.is_empty() {
                    self.members.remove(0).kill()?;
                }
                self.members.push(Member::start(&self.terms)?);
            }
            Act::AddMember => self.members.push(Member::start(&self.terms)?),
            Act::RemoveMember => {
                if self.members.len() > 1 {
                    self.members.remove(0).leave()?;
                }
            }
        }
        self.health.until(true, PATIENCE)?;
        Ok(())
    }

    /// Waits for the publishers and for the last effect, and looks at what there is.
    fn close(mut self) -> Result<Evidence> {
        self.runtime.block_on(&mut self.publishing)??;
        let directory = self.data.path().display().to_string();
        let settled = judge::settled(&directory, self.total, PATIENCE);
        let ledger = self.runtime.block_on(settled)?;
        if ledger.effects < self.total {
            // Now, while everything is as it was when the wait ended.
            let confirms = self.progress.confirms();
            let (subject, stage) = (self.subject, &self.stage);
            let (broker, terms) = (&self.broker, &self.terms);
            let tell = missing::tell(subject, stage, broker, terms, &confirms, &ledger);
            self.evidence.missing = self.runtime.block_on(tell)?;
        }
        self.no_member_has_ended()?;
        while self.members.len() > MEMBERS {
            self.members.remove(0).leave()?;
        }
        while self.members.len() < MEMBERS {
            self.members.push(Member::start(&self.terms)?);
        }
        // Connections end and begin behind the scenes: what counts is where that settles.
        let since = Instant::now();
        while self.stage.link.open() > self.evidence.connections_before
            && since.elapsed() < PATIENCE
        {
            self.pass(Duration::from_millis(100));
        }
        self.evidence.connections_after = self.stage.link.open();
        self.evidence.tasks_after = self.runtime.metrics().num_alive_tasks();
        self.evidence.total = self.total;
        self.evidence.failed = self.progress.failed.load(Ordering::Acquire);
        self.evidence.ledger = ledger;
        for member in self.members.drain(..) {
            member.leave()?;
        }
        drop(self.health);
        let deadline = Instant::now() + Duration::from_secs(30);
        self.runtime.block_on(self.broker.disconnect(deadline))?;
        Ok(self.evidence)
    }
}
