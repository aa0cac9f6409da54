//! Which topics there are, and how they are made.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigEntry, ConfigSource, NewPartitions, NewTopic,
    ResourceSpecifier, TopicReplication,
};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Id, Result, Retry};

use crate::error::{closed, kind_of, no_topic, of_question};
use crate::link::{self, Link, Reports, Scout, of_client, retire};
use crate::topics::{TopicDescription, TopicPlan};

/// One question may take so long, whatever the deadline.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The servers learn so soon of a change.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);
/// The pause before a question that may have another answer soon.
const PAUSE: Duration = Duration::from_millis(100);

/// The topics that are known to be there.
pub(crate) struct Catalog {
    link: Arc<Link>,
    /// Until the end.
    scout: Mutex<Option<Arc<Scout>>>,
    known: Mutex<HashSet<String>>,
    /// Made when it is needed.
    admin: tokio::sync::Mutex<Option<AdminClient<Reports>>>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").finish_non_exhaustive()
    }
}

impl Catalog {
    pub(crate) fn new(link: Arc<Link>, scout: Arc<Scout>) -> Self {
        Self {
            link,
            scout: Mutex::new(Some(scout)),
            known: Mutex::default(),
            admin: tokio::sync::Mutex::default(),
        }
    }

    /// The client that only asks.
    pub(crate) fn scout(&self) -> Result<Arc<Scout>> {
        let scout = self.scout.lock().unwrap_or_else(PoisonError::into_inner);
        scout.clone().ok_or_else(closed)
    }

    fn known(&self) -> MutexGuard<'_, HashSet<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_known(&self, topic: &str) -> bool {
        self.known().contains(topic)
    }

    /// It is not there any more.
    pub(crate) fn forget(&self, topic: &str) {
        self.known().remove(topic);
    }

    /// Whether a topic is there; asks until the servers say one or the other.
    pub(crate) async fn exists(&self, topic: &str, deadline: Instant) -> Result<bool> {
        if self.is_known(topic) {
            return Ok(true);
        }
        loop {
            self.link.ready(deadline).await?;
            match self.look(topic).await? {
                Ok(there) => {
                    if there {
                        self.known().insert(topic.to_owned());
                    }
                    return Ok(there);
                }
                Err(error) => self.again("asking for a topic", &error, deadline).await?,
            }
        }
    }

    async fn look(&self, topic: &str) -> Result<std::result::Result<bool, KafkaError>> {
        let name = topic.to_owned();
        link::ask(&self.scout()?, move |scout| {
            let metadata = scout.fetch_metadata(Some(&name), ANSWER_WITHIN)?;
            let found = metadata.topics().iter().find(|topic| topic.name() == name);
            let error = found.and_then(rdkafka::metadata::MetadataTopic::error);
            match error.map(Code::from) {
                None => Ok(found.is_some_and(|topic| !topic.partitions().is_empty())),
                Some(Code::UnknownTopicOrPartition | Code::UnknownTopic) => Ok(false),
                Some(other) => Err(KafkaError::MetadataFetch(other)),
            }
        })
        .await
    }

    /// Waits before the next attempt, unless it cannot help.
    async fn again(&self, what: &str, error: &KafkaError, deadline: Instant) -> Result<()> {
        let kind = error.rdkafka_error_code().map(kind_of);
        let passing = matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::Timeout));
        if !passing || Instant::now() + PAUSE >= deadline {
            return Err(of_question(what, error));
        }
        self.link.doubt();
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Makes a topic unless it is there.
    pub(crate) async fn ensure(&self, topic: &str, deadline: Instant) -> Result<()> {
        self.ensure_as(topic, &TopicPlan::default(), deadline)
            .await
            .map(drop)
    }

    /// Makes a topic in this way unless it is there, however it was made; whether it was made here.
    pub(crate) async fn ensure_as(
        &self,
        topic: &str,
        plan: &TopicPlan,
        deadline: Instant,
    ) -> Result<bool> {
        loop {
            if self.exists(topic, deadline).await? {
                return Ok(false);
            }
            let made = self.create(topic, plan, deadline).await?;
            match made {
                Ok(()) | Err(Code::TopicAlreadyExists) => {
                    // The servers learn of it one after the other.
                    while !self.exists(topic, deadline).await? {
                        if Instant::now() + PAUSE >= deadline {
                            let text = format!("the topic `{topic}` does not appear");
                            return Err(Error::timeout(text).with_retry(Retry::Safe));
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    return Ok(made.is_ok());
                }
                // Not as the driver names it, an `AdminOp`: of these it does not tell the code.
                Err(code) => {
                    let error = KafkaError::Global(code);
                    self.again("making a topic", &error, deadline).await?;
                }
            }
        }
    }

    async fn create(&self, topic: &str, plan: &TopicPlan, deadline: Instant) -> Result<Answer<()>> {
        let config = self.link.config();
        let partitions = plan.partitions.or(config.partitions);
        let partitions = partitions.and_then(|number| i32::try_from(number).ok());
        let copies = plan.replication.or(config.replication).map(i32::from);
        // Less than one is: as the servers say.
        let copies = TopicReplication::Fixed(copies.unwrap_or(-1));
        let mut new = NewTopic::new(topic, partitions.unwrap_or(-1), copies);
        for (name, value) in &plan.config {
            new = new.set(name, value);
        }
        self.administer(deadline, |client, options| {
            let made = client.create_topics([&new], &options);
            async { made.await.map(first) }
        })
        .await
    }

    /// Lets the client that administers do something. What the servers refuse is the inner error, which has a code always.
    async fn administer<T, F>(
        &self,
        deadline: Instant,
        ask: impl FnOnce(&AdminClient<Reports>, AdminOptions) -> F,
    ) -> Result<Answer<T>>
    where
        F: Future<Output = std::result::Result<Answer<T>, KafkaError>>,
    {
        self.link.ready(deadline).await?;
        let mut admin = self.admin.lock().await;
        let client = match admin.take() {
            Some(client) => client,
            None => {
                let mut config = self.link.config().quick();
                // Nobody reads what it logs.
                config.set_log_level(RDKafkaLogLevel::Emerg);
                AdminClient::from_config_and_context(&config, self.link.reports())
                    .map_err(|error| of_client(&error))?
            }
        };
        let within = deadline
            .saturating_duration_since(Instant::now())
            .min(ANSWER_WITHIN);
        let options = AdminOptions::new()
            .request_timeout(Some(within))
            .operation_timeout(Some(within));
        match ask(&client, options).await {
            Ok(answer) => {
                *admin = Some(client);
                Ok(answer)
            }
            Err(error) => {
                // What it has to report is read by nobody: a new one begins without it.
                drop(admin);
                retire(client).await;
                // Not as the driver names it, an `AdminOp`: of these it does not tell the code.
                let code = error.rdkafka_error_code();
                Ok(Err(code.unwrap_or(Code::OperationTimedOut)))
            }
        }
    }

    /// Deletes a topic, and waits a moment until it is gone.
    pub(crate) async fn delete(&self, topic: &str, deadline: Instant) -> Result<()> {
        loop {
            let deleted = self.administer(deadline, |client, options| {
                let deleted = client.delete_topics(&[topic], &options);
                async { deleted.await.map(first) }
            });
            match deleted.await? {
                Ok(()) => break,
                Err(code) => {
                    let error = KafkaError::Global(code);
                    self.again("deleting a topic", &error, deadline).await?;
                }
            }
        }
        let limit = deadline.min(Instant::now() + KNOWN_WITHIN);
        while matches!(self.look(topic).await?, Ok(true) | Err(_)) && Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.forget(topic);
        Ok(())
    }

    /// Gives a topic so many partitions in all.
    pub(crate) async fn grow(&self, topic: &str, to: u32, deadline: Instant) -> Result<()> {
        let new = NewPartitions::new(topic, usize::try_from(to).unwrap_or(usize::MAX));
        loop {
            let grown = self.administer(deadline, |client, options| {
                let grown = client.create_partitions([&new], &options);
                async { grown.await.map(first) }
            });
            match grown.await? {
                Ok(()) => return Ok(()),
                Err(code) => {
                    let error = KafkaError::Global(code);
                    self.again("adding partitions", &error, deadline).await?;
                }
            }
        }
    }

    /// How a topic is; `None` where it is not there.
    pub(crate) async fn describe(
        &self,
        topic: &str,
        deadline: Instant,
    ) -> Result<Option<TopicDescription>> {
        loop {
            self.link.ready(deadline).await?;
            let name = topic.to_owned();
            let scout = self.scout()?;
            let counted = link::ask(&scout, move |scout| {
                let metadata = scout.fetch_metadata(Some(&name), ANSWER_WITHIN)?;
                let found = metadata.topics().iter().find(|topic| topic.name() == name);
                let Some(found) = found else {
                    return Ok(None);
                };
                if let Some(code) = found.error().map(Code::from) {
                    return Err(KafkaError::MetadataFetch(code));
                }
                let copies = found.partitions().iter().map(|one| one.replicas().len());
                Ok(Some((found.partitions().len(), copies.min().unwrap_or(0))))
            });
            let (partitions, copies) = match counted.await? {
                Ok(Some((partitions @ 1.., copies))) => (partitions, copies),
                Ok(_) => return Ok(None),
                Err(error)
                    if error.rdkafka_error_code().map(kind_of) == Some(ErrorKind::NotFound) =>
                {
                    self.forget(topic);
                    return Ok(None);
                }
                Err(error) => {
                    self.again("asking for a topic", &error, deadline).await?;
                    continue;
                }
            };
            let resource = ResourceSpecifier::Topic(topic);
            let described = self.administer(deadline, |client, options| {
                let described = client.describe_configs([&resource], &options);
                async {
                    let described = described.await?.into_iter().next();
                    Ok(described.unwrap_or(Err(Code::UnknownTopic)))
                }
            });
            let entries = match described.await? {
                Ok(described) => described.entries,
                Err(code) if kind_of(code) == ErrorKind::NotFound => return Ok(None),
                Err(code) => {
                    let error = KafkaError::Global(code);
                    self.again("asking for a topic", &error, deadline).await?;
                    continue;
                }
            };
            let own = entries.iter();
            let own = own.filter(|entry| entry.source == ConfigSource::DynamicTopic);
            let values = |entry: &ConfigEntry| Some((entry.name.clone(), entry.value.clone()?));
            return Ok(Some(TopicDescription {
                name: topic.to_owned(),
                partitions: u32::try_from(partitions).unwrap_or(u32::MAX),
                replication: u16::try_from(copies).unwrap_or(u16::MAX),
                config: own.filter_map(values).collect(),
                effective: entries.iter().filter_map(values).collect(),
            }));
        }
    }

    /// Changes settings of a topic. The driver says of these changes only that they were answered, not what: wrong ones are
    /// refused before by making a topic that is not made, and what came of the others is read.
    pub(crate) async fn configure(
        &self,
        topic: &str,
        changes: &BTreeMap<String, Option<String>>,
        deadline: Instant,
    ) -> Result<()> {
        let before = self.describe(topic, deadline).await?;
        let before = before.ok_or_else(|| no_topic(topic))?.config;
        let mut wanted = before.clone();
        for (name, value) in changes {
            match value {
                Some(value) => drop(wanted.insert(name.clone(), value.clone())),
                None => drop(wanted.remove(name)),
            }
        }
        self.validate(&wanted, deadline).await?;
        let mut new = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in &wanted {
            new = new.set(name, value);
        }
        loop {
            let changed = self.administer(deadline, |client, options| {
                let changed = client.alter_configs([&new], &options);
                async { changed.await.map(|_| Ok(())) }
            });
            match changed.await? {
                Ok(()) => break,
                Err(code) => {
                    let error = KafkaError::Global(code);
                    self.again("setting up a topic", &error, deadline).await?;
                }
            }
        }
        let limit = deadline.min(Instant::now() + KNOWN_WITHIN);
        loop {
            let found = self.describe(topic, deadline).await?;
            let found = found.ok_or_else(|| no_topic(topic))?.config;
            let taken = changes.iter().all(|(name, value)| {
                let there = found.get(name);
                // In the servers' own way of writing it.
                there == value.as_ref()
                    || value.is_some() && there.is_some() && there != before.get(name)
            });
            if taken {
                return Ok(());
            }
            if Instant::now() >= limit {
                let text = "the servers did not take the settings, and do not say why: a missing right, or a policy of theirs";
                return Err(Error::new(ErrorKind::Denied, text).with_retry(Retry::Never));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Asks whether a topic could have these settings.
    async fn validate(&self, config: &BTreeMap<String, String>, deadline: Instant) -> Result<()> {
        let name = format!("trunkline-{}", Id::new());
        let mut new = NewTopic::new(&name, -1, TopicReplication::Fixed(-1));
        for (name, value) in config {
            new = new.set(name, value);
        }
        let tried = self.administer(deadline, |client, options| {
            let tried = client.create_topics([&new], &options.validate_only(true));
            async { tried.await.map(first) }
        });
        match tried.await? {
            Err(code) if kind_of(code) == ErrorKind::Invalid => {
                let error = KafkaError::Global(code);
                Err(of_question("setting up a topic", &error))
            }
            // Who may change a topic may perhaps make none.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Ends its clients.
    pub(crate) async fn close(&self) {
        if let Some(client) = self.admin.lock().await.take() {
            retire(client).await;
        }
        let scout = {
            let mut scout = self.scout.lock().unwrap_or_else(PoisonError::into_inner);
            scout.take()
        };
        retire(scout).await;
    }
}

/// What the servers say: done, or the code of their refusal.
type Answer<T> = std::result::Result<T, Code>;

/// The answer for the one topic that was asked for.
fn first(results: Vec<rdkafka::admin::TopicResult>) -> Answer<()> {
    match results.into_iter().next() {
        Some(Err((_, code))) => Err(code),
        Some(Ok(_)) | None => Ok(()),
    }
}
