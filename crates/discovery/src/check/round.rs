//! Asking all instances of a service at once, on demand: one round at a time, whoever asks for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::timeout;
use trunkline_core::task::Scope;
use trunkline_core::{Error, Result};

use super::plan::AT_ONCE;
use super::run::ask;
use super::{AnyProbe, CheckPlan, EndpointCheck};
use crate::balance::Member;
use crate::set::InstanceSet;

/// A round takes no longer than so many instances one after the other that do not answer.
const ONE_AFTER_THE_OTHER: u32 = 2;

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// One of them is well.
    Well,
    /// All were asked, and none is.
    NoneWell,
    /// None was until the time was over, and so many of them were not asked to the end.
    OutOfTime { left: usize },
}

/// The round that is under way, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Rounds(Mutex<Option<watch::Receiver<Option<Found>>>>);

impl Rounds {
    /// Joins the round that is under way, or begins one.
    fn join(&self, scope: &Scope, begin: impl FnOnce() -> Round) -> watch::Receiver<Option<Found>> {
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = under_way.as_ref().filter(|it| {
            let is_over = it.borrow().is_some() || it.has_changed().is_err();
            !is_over
        });
        if let Some(known) = known {
            return known.clone();
        }
        let (told, found) = watch::channel(None);
        let round = begin();
        // Nobody's own: who began it may leave while others wait.
        scope.spawn("discovery-health-round", async move {
            let found = round.run().await;
            told.send_replace(Some(found));
        });
        *under_way = Some(found.clone());
        found
    }

    /// What a round says that is under way, or begins now. Takes as long as that; the caller bounds its own waiting.
    pub(super) async fn ask(&self, scope: &Scope, begin: impl FnOnce() -> Round) -> Result<Found> {
        let mut found = self.join(scope, begin);
        let found = found.wait_for(Option::is_some).await;
        let found = found.ok().and_then(|found| *found);
        found.ok_or_else(|| Error::cancelled("discovery was shut down"))
    }
}

/// Whom to ask, and for what.
pub(super) struct Round {
    members: Vec<Arc<Member>>,
    own: Option<(AnyProbe, CheckPlan)>,
    endpoints: Vec<EndpointCheck>,
}

impl Round {
    pub(super) fn of(
        set: &InstanceSet,
        own: Option<(AnyProbe, CheckPlan)>,
        endpoints: Vec<EndpointCheck>,
    ) -> Self {
        let usable = set.members.iter().filter(|member| member.is_usable());
        let mut members: Vec<_> = usable.cloned().collect();
        // One that is well is enough: those come first against which nothing is known.
        members.sort_by_key(|member| !member.is_sound());
        Self {
            members,
            own,
            endpoints,
        }
    }

    /// What one instance may take that answers nothing.
    fn longest(&self) -> Duration {
        let own = self.own.iter().map(|(_, plan)| plan.config.timeout);
        let endpoints = self.endpoints.iter().map(|check| check.config.timeout);
        own.chain(endpoints)
            .fold(Duration::ZERO, Duration::saturating_add)
    }

    /// So many that all of them can be asked in the time that a round takes.
    fn at_once(&self) -> usize {
        let own = self.own.iter().map(|(_, plan)| plan.config.max_concurrent);
        let endpoints = self.endpoints.iter().map(|it| it.config.max_concurrent);
        let most = own.chain(endpoints).min();
        let most = most.map_or(usize::MAX, |it| usize::try_from(it).unwrap_or(usize::MAX));
        let needed = self.members.len().div_ceil(ONE_AFTER_THE_OTHER as usize);
        needed.max(AT_ONCE).min(most.max(1))
    }

    async fn run(self) -> Found {
        let left = AtomicUsize::new(self.members.len());
        let (round, to_do) = (&self, &left);
        let asked = stream::iter(self.members.clone())
            .map(|member| async move {
                let answer = round.ask(&member).await;
                to_do.fetch_sub(1, Ordering::Relaxed);
                answer.is_ok()
            })
            .buffer_unordered(self.at_once());
        let asked = std::pin::pin!(asked);
        let any = asked.any(async |well| well);
        match timeout(self.longest().saturating_mul(ONE_AFTER_THE_OTHER), any).await {
            Ok(true) => Found::Well,
            Ok(false) => Found::NoneWell,
            Err(_) => Found::OutOfTime {
                left: left.load(Ordering::Relaxed),
            },
        }
    }

    async fn ask(&self, member: &Member) -> Result<()> {
        let own = self.own.as_ref();
        if let Some((probe, plan)) = own.filter(|it| it.1.asked().asks(&member.instance)) {
            ask(probe.clone(), Arc::clone(&member.instance), &plan.config).await?;
        }
        for check in &self.endpoints {
            let probe = check.probe.clone();
            ask(probe, Arc::clone(&member.instance), &check.config).await?;
        }
        Ok(())
    }
}
