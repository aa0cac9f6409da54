//! A registry and resolver that do as a test tells them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::stream;
use tokio::sync::mpsc;
use trunkline_core::{Context, Error, Result};
use trunkline_discovery::{
    InstanceList, InstanceWatch, Lease, Registry, Resolver, ServiceInstance, ServiceName,
};

/// What a watch yields next.
pub(crate) enum Item {
    List(Vec<ServiceInstance>),
    Fail,
    End,
    Panic,
}

/// Answers as told: every opened watch begins with the present list, unless the registry is away.
#[derive(Clone, Default)]
pub(crate) struct Scripted(Arc<State>);

#[derive(Default)]
struct State {
    present: Mutex<Vec<ServiceInstance>>,
    away: Mutex<bool>,
    hangs: Mutex<bool>,
    /// How long each answer takes; what it says is from when it was asked.
    takes: Mutex<Duration>,
    /// Lists are not counted.
    counts_nothing: Mutex<bool>,
    panics: Mutex<bool>,
    /// Questions that were asked under a deadline.
    deadlines: AtomicU32,
    revision: AtomicU32,
    open_watches: Mutex<Vec<mpsc::UnboundedSender<Item>>>,
    watches: AtomicU32,
    resolves: AtomicU32,
    polls: AtomicBool,
}

impl Scripted {
    pub(crate) fn with(instances: Vec<ServiceInstance>) -> Self {
        let scripted = Self::default();
        *scripted.0.present.lock().unwrap() = instances;
        scripted
    }

    /// Changes the list and tells the watches.
    pub(crate) fn change(&self, instances: Vec<ServiceInstance>) {
        self.change_unnoticed(instances);
        self.tell(|| Item::List(self.0.present.lock().unwrap().clone()));
    }

    /// Changes the list; watches miss it.
    pub(crate) fn change_unnoticed(&self, instances: Vec<ServiceInstance>) {
        self.0.revision.fetch_add(1, Ordering::SeqCst);
        *self.0.present.lock().unwrap() = instances;
    }

    pub(crate) fn set_away(&self, away: bool) {
        *self.0.away.lock().unwrap() = away;
    }

    pub(crate) fn set_hanging(&self, hangs: bool) {
        *self.0.hangs.lock().unwrap() = hangs;
    }

    pub(crate) fn set_taking(&self, takes: Duration) {
        *self.0.takes.lock().unwrap() = takes;
    }

    pub(crate) fn count_nothing(&self) {
        *self.0.counts_nothing.lock().unwrap() = true;
    }

    fn revision(&self) -> u64 {
        if *self.0.counts_nothing.lock().unwrap() {
            return 0;
        }
        u64::from(self.0.revision.load(Ordering::SeqCst) + 1)
    }

    pub(crate) fn set_panicking(&self, panics: bool) {
        *self.0.panics.lock().unwrap() = panics;
    }

    pub(crate) fn panic_in_watches(&self) {
        self.tell(|| Item::Panic);
    }

    /// How many questions were asked under a deadline.
    pub(crate) fn deadlines(&self) -> u32 {
        self.0.deadlines.load(Ordering::SeqCst)
    }

    pub(crate) fn break_watches(&self) {
        self.tell(|| Item::Fail);
    }

    pub(crate) fn end_watches(&self) {
        self.tell(|| Item::End);
    }

    /// Its watches are taken to ask by themselves.
    pub(crate) fn set_polling(&self) {
        self.0.polls.store(true, Ordering::SeqCst);
    }

    /// How often the whole list was asked for besides the watches.
    pub(crate) fn resolves(&self) -> u32 {
        self.0.resolves.load(Ordering::SeqCst)
    }

    pub(crate) fn watches_opened(&self) -> u32 {
        self.0.watches.load(Ordering::SeqCst)
    }

    /// Watches that are still listened to.
    pub(crate) fn watches_open(&self) -> usize {
        let mut open = self.0.open_watches.lock().unwrap();
        open.retain(|watch| !watch.is_closed());
        open.len()
    }

    fn tell(&self, item: impl Fn() -> Item) {
        for watch in &*self.0.open_watches.lock().unwrap() {
            drop(watch.send(item()));
        }
    }

    async fn answer(&self) -> Result<InstanceList> {
        let panics = *self.0.panics.lock().unwrap();
        assert!(!panics, "as the test says");
        let context = Context::current();
        if context.is_some_and(|context| context.deadline().is_some()) {
            self.0.deadlines.fetch_add(1, Ordering::SeqCst);
        }
        let hangs = *self.0.hangs.lock().unwrap();
        if hangs {
            std::future::pending::<()>().await;
        }
        if *self.0.away.lock().unwrap() {
            return Err(Error::unavailable("the registry is away"));
        }
        let revision = self.revision();
        let list = InstanceList::new(self.0.present.lock().unwrap().clone(), revision);
        let takes = *self.0.takes.lock().unwrap();
        if !takes.is_zero() {
            tokio::time::sleep(takes).await;
        }
        Ok(list)
    }
}

impl Resolver for Scripted {
    fn kind(&self) -> &'static str {
        "scripted"
    }

    async fn resolve(&self, _: &ServiceName) -> Result<InstanceList> {
        self.0.resolves.fetch_add(1, Ordering::SeqCst);
        self.answer().await
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        let list = self.answer().await?;
        let mut names: Vec<_> = list.instances.into_iter().map(|it| it.name).collect();
        names.dedup();
        Ok(names)
    }

    fn polls(&self) -> bool {
        self.0.polls.load(Ordering::SeqCst)
    }

    async fn watch(&self, _: &ServiceName) -> Result<InstanceWatch> {
        self.0.watches.fetch_add(1, Ordering::SeqCst);
        let first = self.answer().await?;
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.open_watches.lock().unwrap().push(sender);
        let state = (Some(first), receiver, self.clone());
        let lists = stream::unfold(state, async |(first, mut receiver, scripted)| {
            if let Some(first) = first {
                return Some((Ok(first), (None, receiver, scripted)));
            }
            let item = match receiver.recv().await? {
                Item::List(list) => {
                    let revision = scripted.revision();
                    Ok(InstanceList::new(list, revision))
                }
                Item::Fail => Err(Error::unavailable("the watch broke")),
                Item::Panic => panic!("as the test says"),
                Item::End => return None,
            };
            Some((item, (None, receiver, scripted)))
        });
        Ok(InstanceWatch::new(lists))
    }
}

/// What a registry was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Register(ServiceInstance),
    Renew(ServiceInstance),
    Deregister(String),
}

/// Records what it was asked, and fails as told.
#[derive(Clone, Default)]
pub(crate) struct Recording(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    asked: Vec<Asked>,
    /// Answers in order; success when there are none left.
    answers: VecDeque<Result<()>>,
    away: bool,
    hangs: bool,
    tokens: u32,
    /// What it passes by although it works.
    falls_short: Option<&'static str>,
}

impl Recording {
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.0.lock().unwrap().asked.clone()
    }

    /// What it was asked since the last time.
    pub(crate) fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    pub(crate) fn answer_next(&self, answer: Result<()>) {
        self.0.lock().unwrap().answers.push_back(answer);
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }

    pub(crate) fn set_hanging(&self, hangs: bool) {
        self.0.lock().unwrap().hangs = hangs;
    }

    pub(crate) fn set_falling_short(&self, of: Option<&'static str>) {
        self.0.lock().unwrap().falls_short = of;
    }

    async fn hang(&self) {
        while self.0.lock().unwrap().hangs {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn ask(&self, asked: Asked) -> Result<u32> {
        self.hang().await;
        let mut record = self.0.lock().unwrap();
        record.asked.push(asked);
        if record.away {
            return Err(Error::unavailable("the registry is away"));
        }
        record.answers.pop_front().unwrap_or(Ok(()))?;
        record.tokens += 1;
        Ok(record.tokens)
    }
}

impl Registry for Recording {
    fn kind(&self) -> &'static str {
        "recording"
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        let id = instance.id.clone();
        let token = self.ask(Asked::Register(instance)).await?;
        Ok(Lease::new(id, token.to_string(), ttl))
    }

    async fn renew(&self, _: &Lease, instance: &ServiceInstance) -> Result<()> {
        self.ask(Asked::Renew(instance.clone())).await.map(drop)
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        let withdrawn = self.ask(Asked::Deregister(lease.instance_id.clone()));
        withdrawn.await.map(drop)
    }

    async fn health_check(&self) -> Result<()> {
        self.hang().await;
        if self.0.lock().unwrap().away {
            return Err(Error::unavailable("the registry is away"));
        }
        Ok(())
    }

    fn shortcoming(&self) -> Option<Error> {
        self.0.lock().unwrap().falls_short.map(Error::denied)
    }
}
