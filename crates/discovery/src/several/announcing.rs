//! One announcement in several registries.
//!
//! Each registry is told by a task of its own, which nobody's waiting ends: a call that is dropped half way may leave an
//! announcement behind that nobody can withdraw.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use trunkline_core::{Error, ErrorKind, Result};

use super::gather::{Answers, gather};
use super::{ById, PATIENCE, Purpose, Several, answer_of, lock, no_answer_yet};
use crate::backoff::Backoff;
use crate::instance::ServiceInstance;
use crate::registry::{Lease, Registry};

/// Questions about one announcement that may wait for a registry.
const MOST_WAITING: usize = 128;

/// Longest wait before a registry that did not take it is told again.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// What takes longer is no answer to whether a registry works.
const HEALTH_WITHIN: Duration = Duration::from_millis(1500);

/// What was announced here, by id: the youngest announcement of each.
#[derive(Default)]
pub(super) struct Announcements {
    by_id: ById<(String, Arc<Announcement>)>,
    count: u64,
    /// Whoever registers an id holds its turn: which of two is the younger one must be the same everywhere.
    turns: ById<Arc<AsyncMutex<()>>>,
}

impl Announcements {
    fn turn(&mut self, id: &str) -> Arc<AsyncMutex<()>> {
        // Those that nobody waits for or holds.
        self.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(self.turns.entry(id.to_owned()).or_default())
    }
}

struct Announcement {
    ttl: Duration,
    /// What is to be known now.
    wanted: Mutex<ServiceInstance>,
    /// Nobody wants it any more: what is still on its way is taken back.
    withdrawn: CancellationToken,
    /// How it stands with each registry. Whoever tells one holds its lock.
    slots: Vec<Arc<AsyncMutex<Slot>>>,
}

#[derive(Default)]
struct Slot {
    lease: Option<Lease>,
    /// It took what it was told last.
    stands: bool,
    /// It did not, and is told again until it does.
    retried: bool,
    /// It announces nothing; it is not asked again.
    unsupported: bool,
}

/// How it stands with one registry after it was told.
enum Told {
    Stands,
    /// It did not know the lease.
    Forgotten,
}

impl Announcement {
    fn new(members: usize, instance: ServiceInstance, ttl: Duration) -> Arc<Self> {
        Arc::new(Self {
            ttl,
            wanted: Mutex::new(instance),
            withdrawn: CancellationToken::new(),
            slots: (0..members).map(|_| Arc::default()).collect(),
        })
    }

    fn is_withdrawn(&self) -> bool {
        self.withdrawn.is_cancelled()
    }

    fn withdraw(&self) {
        self.withdrawn.cancel();
    }

    /// Less than what a supervisor waits, so that one that hangs does not spoil what the others did.
    fn patience(&self) -> Duration {
        PATIENCE.min(self.ttl / 8)
    }
}

/// Takes an announcement back of which nobody was told.
struct Unless<'a>(Option<&'a Announcement>);

impl Drop for Unless<'_> {
    fn drop(&mut self) {
        if let Some(announcement) = self.0 {
            announcement.withdraw();
        }
    }
}

impl Registry for Several {
    fn kind(&self) -> &'static str {
        "several"
    }

    async fn register(&self, instance: ServiceInstance, ttl: Duration) -> Result<Lease> {
        self.check_open()?;
        instance.validate()?;
        if ttl.is_zero() {
            return Err(Error::invalid("a registration must last longer than 0 s"));
        }
        let turn = lock(&self.0.announcements).turn(&instance.id);
        let _turn = turn.lock().await;
        let announcement = Announcement::new(self.0.members.len(), instance.clone(), ttl);
        let mut unless = Unless(Some(&announcement));
        let everywhere = 0..self.0.members.len();
        let told = self.tell(&announcement, &instance, everywhere).await;
        self.judge("announce it", told)?;
        unless.0 = None;
        let id = instance.id;
        let mut announcements = lock(&self.0.announcements);
        announcements.count += 1;
        let token = announcements.count.to_string();
        let entry = (token.clone(), Arc::clone(&announcement));
        if let Some((_, older)) = announcements.by_id.insert(id.clone(), entry) {
            // The younger one has taken its place everywhere: nothing is tried again for it.
            older.withdraw();
        }
        Ok(Lease::new(id, token, ttl))
    }

    async fn renew(&self, lease: &Lease, instance: &ServiceInstance) -> Result<()> {
        self.check_open()?;
        instance.validate()?;
        let announcement = self.announcement(lease).ok_or_else(|| forgotten(lease))?;
        if instance.id != lease.instance_id {
            return Err(Error::invalid(
                "a renewal must be of the instance that was registered",
            ));
        }
        *lock(&announcement.wanted) = instance.clone();
        let everywhere = 0..self.0.members.len();
        let told = self.tell(&announcement, instance, everywhere).await;
        let stands = told
            .iter()
            .any(|(_, told)| matches!(told, Some(Ok(Told::Stands))));
        let again: Vec<usize> = told
            .iter()
            .filter(|(_, told)| matches!(told, Some(Ok(Told::Forgotten))))
            .map(|(at, _)| *at)
            .collect();
        if !stands && !again.is_empty() {
            announcement.withdraw();
            self.forget(lease);
            return Err(forgotten(lease));
        }
        self.judge("renew it", told)?;
        if !again.is_empty() {
            // The others still have it: it is announced again where it was forgotten.
            self.tell(&announcement, instance, again).await;
        }
        Ok(())
    }

    async fn deregister(&self, lease: &Lease) -> Result<()> {
        self.check_open()?;
        if lease.token.is_empty() {
            return self.deregister_whatever_stands(lease).await;
        }
        let Some(announcement) = self.announcement(lease) else {
            return Ok(());
        };
        announcement.withdraw();
        let patience = announcement.patience();
        let questions = announcement.slots.iter().enumerate().map(|(at, slot)| {
            let (several, slot) = (self.clone(), Arc::clone(slot));
            let (answer, answered) = oneshot::channel();
            self.0.scope.spawn("discovery-withdrawal", async move {
                // Somebody may be telling it something else still.
                let mut slot = slot.lock_owned().await;
                // Nobody may wait for the answer any more.
                drop(answer.send(several.withdraw_from(at, &mut slot).await));
            });
            (at, answer_of(answered))
        });
        let answers = gather(questions.collect::<Vec<_>>(), patience).await;
        let mut withdrawn = false;
        let mut errors = Vec::new();
        for (at, answer) in answers {
            match answer {
                Some(Ok(())) => withdrawn = true,
                Some(Err(error)) if error.kind() == ErrorKind::Unsupported => {}
                Some(Err(error)) => errors.push((at, error)),
                None => errors.push((at, no_answer_yet())),
            }
        }
        if withdrawn || errors.is_empty() {
            // Where it could not be withdrawn it goes when its time is over.
            self.forget(lease);
            return Ok(());
        }
        Err(self.none_could("withdraw it", errors))
    }

    async fn health_check(&self) -> Result<()> {
        self.check_open()?;
        let members = self.0.members.iter().enumerate();
        let questions = members.map(|(at, member)| {
            let answer = timeout(HEALTH_WITHIN, member.registry.health_check());
            (at, async {
                answer.await.unwrap_or_else(|_| Err(no_answer_yet()))
            })
        });
        let answers = gather(questions.collect::<Vec<_>>(), PATIENCE).await;
        let mut errors = Vec::new();
        let mut works = false;
        for (at, answer) in answers {
            let answer = answer.unwrap_or_else(|| Err(no_answer_yet()));
            let shortcoming = match &answer {
                Ok(()) => self
                    .0
                    .members
                    .get(at)
                    .and_then(|it| it.registry.shortcoming()),
                Err(_) => None,
            };
            let problem = answer.as_ref().err().or(shortcoming.as_ref());
            self.went(at, Purpose::Answering, problem);
            match answer {
                Ok(()) => works = true,
                Err(error) => errors.push((at, error)),
            }
        }
        if works {
            return Ok(());
        }
        Err(self.none_could("answer", errors))
    }
}

impl Several {
    fn announcement(&self, lease: &Lease) -> Option<Arc<Announcement>> {
        let announcements = lock(&self.0.announcements);
        let (token, announcement) = announcements.by_id.get(&lease.instance_id)?;
        (*token == lease.token).then(|| Arc::clone(announcement))
    }

    /// Forgets an announcement, unless a younger one has taken its place.
    fn forget(&self, lease: &Lease) {
        let mut announcements = lock(&self.0.announcements);
        let by_id = &mut announcements.by_id;
        if by_id
            .get(&lease.instance_id)
            .is_some_and(|(token, _)| *token == lease.token)
        {
            by_id.remove(&lease.instance_id);
        }
    }

    /// Announces or renews, each registry by a task of its own.
    async fn tell(
        &self,
        announcement: &Arc<Announcement>,
        instance: &ServiceInstance,
        members: impl IntoIterator<Item = usize>,
    ) -> Answers<Told> {
        let questions = members.into_iter().filter_map(|at| {
            let slot = announcement.slots.get(at)?;
            let (answer, answered) = oneshot::channel();
            // Every task that waits for its turn holds the slot: not ever more questions for one that hangs.
            if Arc::strong_count(slot) > MOST_WAITING {
                drop(answer.send(Err(no_answer_yet())));
            } else {
                let (several, announcement) = (self.clone(), Arc::clone(announcement));
                let (slot, instance) = (Arc::clone(slot), instance.clone());
                self.0.scope.spawn("discovery-announcement", async move {
                    let slot = slot.lock_owned().await;
                    let told = several.tell_one(at, &announcement, slot, &instance).await;
                    // Nobody may wait for the answer any more.
                    drop(answer.send(told));
                });
            }
            Some((at, answer_of(answered)))
        });
        gather(questions.collect::<Vec<_>>(), announcement.patience()).await
    }

    async fn tell_one(
        &self,
        at: usize,
        announcement: &Arc<Announcement>,
        mut slot: OwnedMutexGuard<Slot>,
        instance: &ServiceInstance,
    ) -> Result<Told> {
        let Some(member) = self.0.members.get(at) else {
            return Err(Error::internal("a registry is missing"));
        };
        if slot.unsupported {
            return Err(Error::unsupported("it announces nothing"));
        }
        if announcement.is_withdrawn() {
            return Err(Error::cancelled("it was withdrawn"));
        }
        let stop = self.0.scope.token();
        let telling = async {
            match slot.lease.clone() {
                Some(lease) => member
                    .registry
                    .renew(&lease, instance)
                    .await
                    .map(|()| lease),
                None => {
                    let ttl = announcement.ttl;
                    member.registry.register(instance.clone(), ttl).await
                }
            }
        };
        let told = tokio::select! {
            told = telling => told,
            () = stop.cancelled() => return Err(Error::cancelled("the registries were shut down")),
        };
        let told = match told {
            Ok(lease) => {
                slot.lease = Some(lease);
                Ok(Told::Stands)
            }
            Err(error) if error.kind() == ErrorKind::NotFound && slot.lease.is_some() => {
                slot.lease = None;
                Ok(Told::Forgotten)
            }
            Err(error) => {
                slot.unsupported = error.kind() == ErrorKind::Unsupported;
                Err(error)
            }
        };
        match &told {
            Err(error) if !slot.unsupported => self.went(at, Purpose::Announcing, Some(error)),
            _ => self.went(at, Purpose::Announcing, None),
        }
        slot.stands = matches!(told, Ok(Told::Stands));
        if !slot.stands && !slot.unsupported && !slot.retried {
            slot.retried = true;
            self.try_again(at, announcement);
        }
        if announcement.is_withdrawn() {
            // Withdrawn, or given up by whoever waited, while it was on its way.
            self.withdraw_from(at, &mut slot).await?;
        }
        told
    }

    /// Tells one registry again until it takes the announcement, without waiting for the next renewal.
    fn try_again(&self, at: usize, announcement: &Arc<Announcement>) {
        let Some(member) = self.0.members.get(at) else {
            return;
        };
        let mut pulse = member.listen(&self.0.scope);
        pulse.ask_now();
        let (shared, stop) = (Arc::downgrade(&self.0), self.0.scope.token());
        let announcement = Arc::clone(announcement);
        self.0.scope.spawn("discovery-announcement", async move {
            let mut backoff = Backoff::new(LONGEST_WAIT.min(announcement.ttl / 3));
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = announcement.withdrawn.cancelled() => return,
                    () = pulse.back() => backoff.reset(),
                    () = sleep(backoff.next()) => {}
                }
                let (Some(shared), Some(slot)) = (shared.upgrade(), announcement.slots.get(at))
                else {
                    return;
                };
                let mut slot = Arc::clone(slot).lock_owned().await;
                // Somebody may have told it meanwhile.
                if slot.stands || slot.unsupported || announcement.is_withdrawn() {
                    slot.retried = false;
                    return;
                }
                let wanted = lock(&announcement.wanted).clone();
                let several = Self(shared);
                match several.tell_one(at, &announcement, slot, &wanted).await {
                    Ok(_) => {}
                    Err(error) => tracing::debug!(
                        target: "trunkline::discovery",
                        registry = %several.name(at), instance = wanted.id, error = %error.report(),
                        "the registry still does not take the registration"
                    ),
                }
            }
        });
    }

    async fn withdraw_from(&self, at: usize, slot: &mut Slot) -> Result<()> {
        let (Some(member), Some(lease)) = (self.0.members.get(at), slot.lease.clone()) else {
            return Ok(());
        };
        let stop = self.0.scope.token();
        let withdrawn = tokio::select! {
            withdrawn = member.registry.deregister(&lease) => withdrawn,
            () = stop.cancelled() => Err(Error::cancelled("the registries were shut down")),
        };
        match &withdrawn {
            Ok(()) => slot.lease = None,
            Err(error) => tracing::warn!(
                target: "trunkline::discovery",
                registry = %member.name, instance = lease.instance_id, error = %error.report(),
                "the registration could not be withdrawn; it goes when its time is over"
            ),
        }
        withdrawn
    }

    /// What an operator withdraws is to be gone everywhere.
    async fn deregister_whatever_stands(&self, lease: &Lease) -> Result<()> {
        let members = self.0.members.iter().enumerate();
        let questions = members.map(|(at, member)| (at, member.registry.deregister(lease)));
        let mut errors = Vec::new();
        for (at, answer) in gather(questions.collect::<Vec<_>>(), PATIENCE).await {
            match answer.unwrap_or_else(|| Err(no_answer_yet())) {
                Err(error) if error.kind() != ErrorKind::Unsupported => errors.push((at, error)),
                _ => {}
            }
        }
        let Some((at, error)) = errors.into_iter().next() else {
            return Ok(());
        };
        let name = self.name(at);
        let text = format!("not withdrawn from {name}: {error}");
        Err(Error::new(error.kind(), text).with_source(error))
    }

    /// It stands when one took it.
    fn judge(&self, what: &str, told: Answers<Told>) -> Result<()> {
        let mut errors = Vec::new();
        let mut stands = false;
        for (at, told) in told {
            match told {
                Some(Ok(Told::Stands)) => stands = true,
                Some(Ok(Told::Forgotten)) => {}
                Some(Err(error)) => errors.push((at, error)),
                None => {
                    let error = no_answer_yet();
                    self.went(at, Purpose::Announcing, Some(&error));
                    errors.push((at, error));
                }
            }
        }
        if stands {
            return Ok(());
        }
        Err(self.none_could(what, errors))
    }
}

fn forgotten(lease: &Lease) -> Error {
    Error::not_found(format!(
        "no lease stands for instance {}",
        lease.instance_id
    ))
}
