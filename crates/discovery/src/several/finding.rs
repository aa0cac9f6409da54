//! Finding in several registries.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream, SelectAll};
use tokio::time::{Instant, sleep_until};
use trunkline_core::{Error, Result};

use super::gather::gather;
use super::known::Source;
use super::lists::lists;
use super::{PATIENCE, Purpose, Several};
use crate::instance::{ServiceInstance, ServiceName};
use crate::resolver::{InstanceList, InstanceWatch, Resolver};

impl Resolver for Several {
    fn kind(&self) -> &'static str {
        "several"
    }

    async fn resolve(&self, service: &ServiceName) -> Result<InstanceList> {
        self.check_open()?;
        let members = self.0.members.iter().enumerate();
        let questions = members.map(|(at, member)| (at, member.resolver.resolve(service)));
        let answers = gather(questions.collect::<Vec<_>>(), PATIENCE).await;
        let mut errors = Vec::new();
        let mut answered = false;
        for (at, answer) in answers {
            let answer = answer.unwrap_or_else(|| Err(Error::timeout("it has not answered yet")));
            match self.heard(service, at, answer, Source::Question) {
                Ok(()) => answered = true,
                Err(error) => errors.push((at, error)),
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
        let questions = members.map(|(at, member)| (at, member.resolver.services()));
        let answers = gather(questions.collect::<Vec<_>>(), PATIENCE).await;
        let mut errors = Vec::new();
        let mut names = BTreeSet::new();
        let mut answered = false;
        for (at, answer) in answers {
            let answer = answer.unwrap_or_else(|| Err(Error::timeout("it has not answered yet")));
            self.went(at, Purpose::Finding, answer.as_ref().err());
            match answer {
                Ok(some) => {
                    answered = true;
                    names.extend(some);
                }
                Err(error) => errors.push((at, error)),
            }
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
            lists(member.resolver.clone(), service.clone())
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
}

impl Several {
    /// Takes in what one of them answered.
    fn heard(
        &self,
        service: &ServiceName,
        at: usize,
        answer: Result<InstanceList>,
        from: Source,
    ) -> Result<()> {
        self.went(at, Purpose::Finding, answer.as_ref().err());
        let names = self.names();
        let mut known = self.known();
        let heard = match answer {
            Ok(list) => {
                known.says(service, at, list, from);
                Ok(())
            }
            Err(error) => {
                known.is_away(service, at);
                Err(error)
            }
        };
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
                let slow = Error::timeout("it has not answered yet");
                self.several.went(at, Purpose::Finding, Some(&slow));
                self.several.known().is_away(&self.service, at);
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
