//! The same acts, played to one peer.

use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::time::Instant;

use super::super::plan::Act;
use super::super::{MEMBERS, SLOWNESS, SPELL, publishing};
use super::lanes::Lanes;
use super::ledger::Ledger;
use super::process::{Event, Process};
use super::programs::{Program, Role};
use crate::proofs::brokers::{Stage, Subject};

/// One that has done nothing for so long, though there is work, is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);
/// One that handles nothing while others handle so much is stuck as well.
const WORK: u64 = 500;
/// Time until one that has ended is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// How long one that leaves in good order may take.
const LEAVING: Duration = Duration::from_secs(30);
/// How long processes may take to become ready after an act before the next one comes all the same.
const SETTLING: Duration = Duration::from_secs(30);
/// Time for clients to notice that the server is dead.
const DEAD_FOR: Duration = Duration::from_secs(1);
/// How long nothing has been handled when the rest is given up. Others claim what a dead consumer held a minute after.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(150);
/// How long new messages may take at the end.
const NEW_WITHIN: Duration = Duration::from_secs(60);
/// How long one peer may take for its acts.
const AT_MOST: Duration = Duration::from_secs(20 * 60);
/// How long it may take for what is left after the last act, to publish and to handle each.
const THE_REST: Duration = Duration::from_secs(5 * 60);
/// Time between two looks.
const EVERY: Duration = Duration::from_millis(20);
/// Most reasons that are told of a peer.
const REASONS: usize = 3;

/// What was seen of a peer.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) played: usize,
    pub(super) confirmed: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    pub(super) disordered: u64,
    pub(super) failed: u64,
    /// Processes that ended by themselves.
    pub(super) ended: u32,
    /// Processes that did nothing any more.
    pub(super) stuck: u32,
    /// New messages that were handled at the end, of how many.
    pub(super) new: (usize, usize),
    /// What ended processes complained of, and which were stuck.
    pub(super) reasons: Vec<String>,
}

/// A process, and since when it has done nothing.
#[derive(Debug)]
struct Worker {
    process: Process,
    ready: bool,
    /// The last time that it did something.
    since: Instant,
    /// When others handled something that time first, and how much they have handled by now.
    others: Option<(Instant, u64)>,
}

/// Everything that is under way.
pub(super) struct Run<'a> {
    program: &'a Program,
    stage: Stage,
    directory: TempDir,
    tell: Sender<Event>,
    events: Receiver<Event>,
    publisher: Option<Worker>,
    consumers: Vec<Worker>,
    /// Processes to start, and when.
    due: Vec<(Instant, Role)>,
    started: u32,
    lanes: Lanes,
    /// Batches to publish.
    until: u32,
    ledger: Ledger,
    /// The last time that a message was handled.
    handled_at: Instant,
    seen: Seen,
}

/// Plays the acts to a peer on a server of its own.
pub(super) fn play(
    program: &Program,
    subject: &'static Subject,
    acts: &[Act],
    messages: u32,
) -> Result<Seen> {
    let mut run = Run::open(program, subject)?;
    let rounds = publishing::rounds(messages);
    let share = rounds.div_ceil(acts.len() as u32 + 1);
    let keys = publishing::PUBLISHERS * publishing::KEYS;
    let limit = Instant::now() + AT_MOST;
    for act in acts {
        run.until = rounds.min(run.until + share);
        // Every act comes while messages are under way, however fast they are published.
        let goal = u64::from(run.until * keys - share * keys / 2);
        run.pump(limit, |run| run.ledger.confirmed() >= goal)?;
        if Instant::now() >= limit {
            break;
        }
        run.act(*act).with_context(|| act.to_string())?;
        run.seen.played += 1;
    }
    run.until = rounds;
    run.close(rounds)
}

impl<'a> Run<'a> {
    fn open(program: &'a Program, subject: &'static Subject) -> Result<Self> {
        let stage = Stage::set(subject)?;
        program.prepare(&stage.url)?;
        let directory = super::super::members::scratch()?;
        let (tell, events) = mpsc::channel();
        let now = Instant::now();
        let mut run = Self {
            program,
            stage,
            ledger: Ledger::open(directory.path())?,
            directory,
            tell,
            events,
            publisher: None,
            consumers: Vec::new(),
            due: vec![(now, Role::Consumer); MEMBERS],
            started: 0,
            lanes: Lanes::new(now),
            until: 0,
            handled_at: now,
            seen: Seen::default(),
        };
        let patience = now + STUCK_AFTER;
        run.pump(patience, |run| run.are_ready(MEMBERS))?;
        ensure!(
            run.are_ready(MEMBERS),
            "its consumers did not become ready: {:?}",
            run.seen.reasons
        );
        while !(subject.settled)(&run.stage)? {
            ensure!(Instant::now() < patience, "the queues are not on disk");
            run.pump(Instant::now() + EVERY, |_| false)?;
        }
        run.due.push((Instant::now(), Role::Publisher));
        Ok(run)
    }

    fn are_ready(&self, consumers: usize) -> bool {
        let ready = |worker: &&Worker| worker.ready;
        self.consumers.iter().filter(ready).count() >= consumers
    }

    /// Lets everything go on until something is so, or that time has come.
    fn pump(&mut self, limit: Instant, until: impl Fn(&Self) -> bool) -> Result<()> {
        loop {
            match self.events.recv_timeout(EVERY) {
                Ok(event) => {
                    self.hear(event)?;
                    while let Ok(event) = self.events.try_recv() {
                        self.hear(event)?;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let now = Instant::now();
            self.start_due(now)?;
            self.read(now)?;
            self.look_for_stuck(now)?;
            if let Some(publisher) = &mut self.publisher
                && publisher.ready
            {
                let lines = self.lanes.next(self.until, now);
                publisher.process.tell(&lines)?;
            }
            if until(self) || now >= limit {
                return Ok(());
            }
        }
    }

    fn hear(&mut self, event: Event) -> Result<()> {
        let now = Instant::now();
        match event {
            Event::Said(number, line) => self.hear_line(number, &line, now)?,
            Event::Ended(number) => {
                // One that was killed, or told to leave, is not among them any more.
                let publishes = |worker: &mut Worker| worker.process.number == number;
                let (worker, role) = if let Some(publisher) = self.publisher.take_if(publishes) {
                    self.lanes.abandon(now);
                    (publisher, Role::Publisher)
                } else {
                    let is = |worker: &Worker| worker.process.number == number;
                    let Some(at) = self.consumers.iter().position(is) else {
                        return Ok(());
                    };
                    (self.consumers.remove(at), Role::Consumer)
                };
                self.seen.ended += 1;
                self.note(format!("{role} ended: {}", worker.process.complaint()));
                self.due.push((now + RESTART_AFTER, role));
            }
        }
        Ok(())
    }

    fn hear_line(&mut self, number: u32, line: &str, now: Instant) -> Result<()> {
        let mut workers = self.publisher.iter_mut().chain(&mut self.consumers);
        let Some(worker) = workers.find(|worker| worker.process.number == number) else {
            return Ok(());
        };
        let mut words = line.split(' ');
        let confirmed = match words.next() {
            Some("ready") => {
                worker.ready = true;
                worker.since = now;
                return Ok(());
            }
            Some("ok") => true,
            Some("failed") => false,
            // Libraries print what they like.
            _ => return Ok(()),
        };
        if confirmed {
            worker.since = now;
        }
        let mut next = || words.next().and_then(|word| word.parse().ok());
        let (key, seq) = (next(), next());
        let numbered = key.zip(seq);
        let numbered = numbered.with_context(|| format!("the publisher said {line:?}"))?;
        if self.lanes.answer(numbered, confirmed, now) && confirmed {
            self.ledger.confirm(numbered, now);
        }
        Ok(())
    }

    fn note(&mut self, reason: String) {
        let reasons = &mut self.seen.reasons;
        if reasons.len() < REASONS && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    fn start_due(&mut self, now: Instant) -> Result<()> {
        while let Some(at) = self.due.iter().position(|(due, _)| *due <= now) {
            let (_, role) = self.due.remove(at);
            let worker = self.start(role, now)?;
            match role {
                Role::Publisher => self.publisher = Some(worker),
                Role::Consumer => self.consumers.push(worker),
            }
        }
        Ok(())
    }

    fn start(&mut self, role: Role, now: Instant) -> Result<Worker> {
        self.started += 1;
        let number = self.started;
        let (url, handled) = (&self.stage.url, self.ledger.path());
        let mut command = self.program.command(role, url, handled, number);
        let directory: &Path = self.directory.path();
        let process = Process::start(&mut command, number, directory, self.tell.clone())?;
        Ok(Worker {
            process,
            ready: false,
            since: now,
            others: None,
        })
    }

    /// Reads what was handled, and by whom.
    fn read(&mut self, now: Instant) -> Result<()> {
        let by = self.ledger.read()?;
        if !by.is_empty() {
            self.handled_at = now;
        }
        for worker in &mut self.consumers {
            if by.contains(&worker.process.number) {
                worker.since = now;
                worker.others = None;
            } else if !by.is_empty() {
                let (_, handled) = worker.others.get_or_insert((now, 0));
                *handled += by.len() as u64;
            }
        }
        Ok(())
    }

    fn look_for_stuck(&mut self, now: Instant) -> Result<()> {
        let idle = self.lanes.are_idle();
        if let Some(publisher) = &mut self.publisher {
            if publisher.ready && idle {
                publisher.since = now;
            }
            if now - publisher.since > STUCK_AFTER {
                publisher.process.kill()?;
                self.publisher = None;
                self.lanes.abandon(now);
                self.is_stuck(Role::Publisher, now);
            }
        }
        let mut at_work = Vec::new();
        for mut worker in std::mem::take(&mut self.consumers) {
            if self.does_nothing(&worker, now) {
                worker.process.kill()?;
                self.is_stuck(Role::Consumer, now);
            } else {
                at_work.push(worker);
            }
        }
        self.consumers = at_work;
        Ok(())
    }

    /// Whether a consumer is not ready, or leaves to others, or to nobody, what it should handle. Messages that were
    /// confirmed before it last handled one are lost, or held by somebody else.
    fn does_nothing(&self, worker: &Worker, now: Instant) -> bool {
        let Some(long_ago) = now.checked_sub(STUCK_AFTER) else {
            return false;
        };
        let overtaken = |(first, handled): (Instant, u64)| first < long_ago && handled > WORK;
        worker.since < long_ago
            && (!worker.ready
                || worker.others.is_some_and(overtaken)
                || self.ledger.has_left(worker.since, long_ago))
    }

    fn is_stuck(&mut self, role: Role, now: Instant) {
        self.seen.stuck += 1;
        let after = self.seen.played;
        self.note(format!("{role} stuck, the first time after {after} acts"));
        self.due.push((now, role));
    }

    fn pass(&mut self, span: Duration) -> Result<()> {
        self.pump(Instant::now() + span, |_| false)
    }

    fn act(&mut self, act: Act) -> Result<()> {
        let now = Instant::now();
        match act {
            Act::KillServer => {
                self.stage.server.kill()?;
                self.pass(DEAD_FOR)?;
                self.stage.server.restart()?;
                // Nobody is to blame for what could not be done meanwhile.
                for worker in self.publisher.iter_mut().chain(&mut self.consumers) {
                    worker.since = Instant::now();
                    worker.others = None;
                }
            }
            Act::PauseServer => {
                self.stage.server.pause()?;
                self.pass(SPELL)?;
                self.stage.server.resume()?;
            }
            Act::ResetLink => self.stage.link.reset_all(),
            Act::StallLink => {
                self.stage.link.stall(true);
                self.pass(SPELL)?;
                self.stage.link.stall(false);
            }
            Act::SlowLink => {
                self.stage.link.delay(SLOWNESS);
                self.pass(SPELL)?;
                self.stage.link.delay(Duration::ZERO);
            }
            Act::KillMember => {
                if !self.consumers.is_empty() {
                    self.consumers.remove(0).process.kill()?;
                }
                self.due.push((now, Role::Consumer));
            }
            Act::AddMember => self.due.push((now, Role::Consumer)),
            Act::RemoveMember => {
                if self.consumers.len() > 1 {
                    let leaving = self.consumers.remove(0);
                    self.dismiss(leaving)?;
                }
            }
        }
        let limit = Instant::now() + SETTLING;
        self.pump(limit, |run| {
            let mut workers = run.publisher.iter().chain(&run.consumers);
            run.due.is_empty() && workers.all(|worker| worker.ready)
        })
    }

    /// Lets a consumer leave in good order.
    fn dismiss(&mut self, mut worker: Worker) -> Result<()> {
        let number = worker.process.number;
        worker.process.dismiss();
        let limit = Instant::now() + LEAVING;
        while Instant::now() < limit {
            if worker.process.has_ended()? {
                return Ok(());
            }
            self.pass(EVERY)?;
        }
        self.seen.stuck += 1;
        self.note(format!(
            "consumer {number} did not leave when it was told to"
        ));
        worker.process.kill()
    }

    /// Waits for the last message, and looks at what there is.
    fn close(mut self, rounds: u32) -> Result<Seen> {
        let played_all = |run: &Self| run.lanes.are_done(rounds);
        self.pump(Instant::now() + THE_REST, played_all)?;
        self.handled_at = Instant::now();
        let limit = Instant::now() + THE_REST;
        self.pump(limit, |run| {
            run.ledger.missing() == 0 || run.handled_at.elapsed() > GIVEN_UP_AFTER
        })?;
        self.seen.confirmed = self.ledger.confirmed();
        self.seen.lost = self.ledger.missing();
        self.seen.repeated = self.ledger.repeated();
        self.seen.disordered = self.ledger.disordered;
        self.seen.failed = self.lanes.failed;
        let keys = (publishing::PUBLISHERS * publishing::KEYS) as usize;
        self.until = rounds + 1;
        let limit = Instant::now() + NEW_WITHIN;
        self.pump(limit, |run| run.ledger.handled_of(rounds) == keys)?;
        self.seen.new = (self.ledger.handled_of(rounds), keys);
        // All leave together: a group that is told of one after another takes its time for each.
        for worker in self.publisher.iter_mut().chain(&mut self.consumers) {
            worker.process.dismiss();
        }
        Ok(self.seen)
    }
}
