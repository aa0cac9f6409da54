//! Finding in several registries.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, SelectAll};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use trunkline_core::{Error, Result};

use super::gather::gather_each;
use super::known::{Asked, Source};
use super::lists::lists;
use super::{PATIENCE, Purpose, Several, answer_of, lock, no_answer_yet};
use crate::instance::{ServiceInstance, ServiceName};
use crate::resolver::{InstanceList, InstanceWatch, Resolver};

/// How long one is waited for that is known to be late, or of which a watch knows anyhow what it says.
const MOMENT: Duration = Duration::from_millis(100);
/// How long a question may go on.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Questions to one registry that may be under way.
const MOST_QUESTIONS: usize = 64;

impl Resolver for Several {
    fn kind(&self) -> &'static str {
        "several"
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        self.check_open()?;
        let asked = self.known().asks(service);
        let members = self.0.members.iter().enumerate();
        // A watch that polls asks when the time of an answer is over, and not before: what it told last is so still.
        let (standing, members): (Vec<_>, Vec<_>) = members.partition(|(at, member)| {
            member.resolver.polls() && self.known().is_watched(service, *at)
        });
        let questions = members.into_iter().map(|(at, _)| {
            let worth_it = self.known().is_worth_waiting_for(service, at);
            let patience = if worth_it { PATIENCE } else { MOMENT };
            (at, patience, self.question(service, at, asked))
        });
        let answers = gather_each(questions.collect::<Vec<_>>()).await;
        let mut errors = Vec::new();
        let mut answered = !standing.is_empty();
        for (at, answer) in answers {
            match answer {
                Some(Ok(())) => {
                    self.known().is_in_time(service, at);
                    answered = true;
                }
                Some(Err(error)) => errors.push((at, error)),
                None => errors.push((at, self.is_late(service, at))),
            }
        }
        if !answered {
            return Err(self.none_could("be asked", errors));
        }
        Ok(self.known().combined(service))
    }

    async fn services(&self) -> Result<Vec<ServiceName>> {
        self.check_open()?;
        let members = self.0.members.iter().enumerate();
        let questions = members.map(|(at, member)| {
            let patience = if member.listen(&self.0.scope).silent().is_some() {
                MOMENT
            } else {
                PATIENCE
            };
            (at, patience, member.resolver.services())
        });
        let answers = gather_each(questions.collect::<Vec<_>>()).await;
        let mut errors = Vec::new();
        let mut names = BTreeSet::new();
        let mut answered = false;
        for (at, answer) in answers {
            let answer = answer.unwrap_or_else(|| Err(no_answer_yet()));
            self.went(at, Purpose::Finding, answer.as_ref().err());
            let Some(member) = self.0.members.get(at) else {
                continue;
            };
            let mut listed = lock(&member.listed);
            match answer {
                Ok(some) => {
                    answered = true;
                    *listed = some;
                }
                Err(error) => errors.push((at, error)),
            }
            // What it listed last counts while it is away.
            names.extend(listed.iter().cloned());
        }
        if !answered {
            return Err(self.none_could("be asked", errors));
        }
        Ok(names.into_iter().collect())
    }

    async fn watch(&self, service: &ServiceName) -> Result<InstanceWatch> {
        self.check_open()?;
        let members = self.0.members.iter().enumerate();
        let streams = members.map(|(at, member)| {
            let pulse = member.listen(&self.0.scope);
            lists(member.resolver.clone(), service.clone(), pulse)
                .map(move |list| (at, list))
                .boxed()
        });
        self.known().watch_begins(service);
        let watching = Watching {
            several: self.clone(),
            service: service.clone(),
            lists: streams.collect(),
            standing: vec![Standing::Unheard; self.0.members.len()],
            complete_at: None,
            last: None,
        };
        let lists = stream::unfold(watching, async |mut watching| {
            let list = watching.next().await?;
            Some((list, watching))
        });
        Ok(InstanceWatch::new(lists))
    }

    fn polls(&self) -> bool {
        self.0.members.iter().all(|it| it.resolver.polls())
    }
}

impl Several {
    /// Asks one of them. It goes on when nobody waits any more: what it says then is there for the next time.
    fn question(
        &self,
        service: &ServiceName,
        at: usize,
        asked: Asked,
    ) -> impl Future<Output = Result<()>> + 'static {
        let (answer, answered) = oneshot::channel();
        if let Some(member) = self.0.members.get(at) {
            // Not ever more questions for one that hangs.
            if Arc::strong_count(&member.questions) > MOST_QUESTIONS {
                drop(answer.send(Err(no_answer_yet())));
            } else {
                let (several, service) = (self.clone(), service.clone());
                let (one_more, stop) = (Arc::clone(&member.questions), self.0.scope.token());
                self.0.scope.spawn("discovery-question", async move {
                    let told = tokio::select! {
                        told = several.ask(&service, at, asked) => told,
                        () = stop.cancelled() => Err(Error::cancelled("the registries were shut down")),
                    };
                    drop(one_more);
                    // Nobody may wait for the answer any more.
                    drop(answer.send(told));
                });
            }
        }
        answer_of(answered)
    }

    async fn ask(&self, service: &ServiceName, at: usize, asked: Asked) -> Result<()> {
        let Some(member) = self.0.members.get(at) else {
            return Err(Error::internal("a registry is missing"));
        };
        let answer = timeout(ANSWER_WITHIN, member.resolver.resolve(service)).await;
        let answer = answer.unwrap_or_else(|_| Err(no_answer_yet()));
        self.heard(service, at, answer, Source::Question(asked))
    }

    /// Whoever asked waits no longer for one of them.
    fn is_late(&self, service: &ServiceName, at: usize) -> Error {
        let error = no_answer_yet();
        let waited_for = {
            let mut known = self.known();
            let waited_for = known.is_worth_waiting_for(service, at);
            known.is_slow(service, at);
            waited_for
        };
        if waited_for {
            self.went(at, Purpose::Finding, Some(&error));
        }
        error
    }

    /// Takes in what one of them answered.
    fn heard(
        &self,
        service: &ServiceName,
        at: usize,
        answer: Result<InstanceList>,
        from: Source,
    ) -> Result<()> {
        let names = self.names();
        let mut known = self.known();
        let heard = answer.map(|list| known.says(service, at, list, from));
        let failed = heard.as_ref().err();
        // A question that failed beside a watch that stands says nothing; the pulse tells whether the registry is there.
        let believed = failed.is_none_or(|_| known.is_away(service, at, from));
        if believed {
            self.went(at, Purpose::Finding, failed);
        } else if let Some(member) = self.0.members.get(at) {
            member.listen(&self.0.scope).ask_now();
        }
        if let Some(differing) = known.differing_now(service, &names)
            && let Some(reporter) = self.0.reporter.get()
        {
            let told = differing.iter();
            let told: serde_json::Map<String, serde_json::Value> = told
                .map(|(service, how)| (service.to_string(), how.clone().into()))
                .collect();
            reporter.detail("disagreements", told);
        }
        heard
    }
}

/// What a watch has heard of one registry last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Unheard,
    Answers,
    Fails,
}

struct Watching {
    several: Several,
    service: ServiceName,
    lists: SelectAll<BoxStream<'static, (usize, Result<InstanceList>)>>,
    standing: Vec<Standing>,
    /// When those that were not heard of yet are no longer waited for.
    complete_at: Option<Instant>,
    last: Option<Vec<ServiceInstance>>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.several.known().watch_ends(&self.service);
    }
}

impl Watching {
    async fn next(&mut self) -> Option<Result<InstanceList>> {
        let stop = self.several.0.scope.token();
        loop {
            let patient = self.complete_at.filter(|_| self.is_waiting());
            let patient = async {
                match patient {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let heard = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                heard = self.lists.next() => Some(heard?),
                () = patient => None,
            };
            let Some((at, answer)) = heard else {
                self.give_up_waiting();
                if let Some(list) = self.news() {
                    return Some(Ok(list));
                }
                continue;
            };
            if let Some(error) = self.hear(at, answer) {
                return Some(Err(error));
            }
            if let Some(list) = self.news() {
                return Some(Ok(list));
            }
        }
    }

    /// Takes in what one said; an error when none answers now.
    fn hear(&mut self, at: usize, answer: Result<InstanceList>) -> Option<Error> {
        let answers = answer.is_ok();
        let heard = self.several.heard(&self.service, at, answer, Source::Watch);
        if let Some(standing) = self.standing.get_mut(at) {
            *standing = if answers {
                Standing::Answers
            } else {
                Standing::Fails
            };
        }
        if answers {
            let patience = Instant::now() + PATIENCE;
            self.complete_at.get_or_insert(patience);
        }
        let none = self
            .standing
            .iter()
            .all(|standing| *standing == Standing::Fails);
        let error = heard.err().filter(|_| none)?;
        // After an error the list is told again, changed or not.
        self.last = None;
        Some(self.several.none_could("be asked", vec![(at, error)]))
    }

    fn is_waiting(&self) -> bool {
        self.standing.contains(&Standing::Unheard)
    }

    fn give_up_waiting(&mut self) {
        for (at, standing) in self.standing.iter_mut().enumerate() {
            if *standing == Standing::Unheard {
                *standing = Standing::Fails;
                let slow = no_answer_yet();
                self.several.went(at, Purpose::Finding, Some(&slow));
                let mut known = self.several.known();
                known.is_away(&self.service, at, Source::Watch);
            }
        }
    }

    /// The list, if it is another one than last time and nobody is waited for.
    fn news(&mut self) -> Option<InstanceList> {
        if self.is_waiting() || !self.standing.contains(&Standing::Answers) {
            return None;
        }
        let list = self.several.known().combined(&self.service);
        if self.last.as_ref() == Some(&list.instances) {
            return None;
        }
        self.last = Some(list.instances.clone());
        Some(list)
    }
}
