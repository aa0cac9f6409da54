//! Which topics there are, and how they are made.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use tokio::time::Instant;
use trunkline_core::{Error, ErrorKind, Result, Retry};

use crate::error::{closed, kind_of, of_question};
use crate::link::{self, Link, Reports, Scout, of_client, retire};

/// One question may take so long, whatever the deadline.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The pause before a question that may have another answer soon.
const PAUSE: Duration = Duration::from_millis(100);

/// How a topic is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    /// Default: as configured.
    pub(crate) partitions: Option<u32>,
    /// How long messages are kept. Default: as the servers say.
    pub(crate) kept_for: Option<Duration>,
}

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
                Err(error) => self.again(&error, deadline).await?,
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
    async fn again(&self, error: &KafkaError, deadline: Instant) -> Result<()> {
        let kind = error.rdkafka_error_code().map(kind_of);
        let passing = matches!(kind, Some(ErrorKind::Unavailable | ErrorKind::Timeout));
        if !passing || Instant::now() + PAUSE >= deadline {
            return Err(of_question("asking for a topic", error));
        }
        self.link.doubt();
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    /// Makes a topic unless it is there.
    pub(crate) async fn ensure(&self, topic: &str, deadline: Instant) -> Result<()> {
        self.ensure_as(topic, Shape::default(), deadline).await
    }

    /// Makes a topic in this way unless it is there, however it was made.
    pub(crate) async fn ensure_as(
        &self,
        topic: &str,
        shape: Shape,
        deadline: Instant,
    ) -> Result<()> {
        loop {
            if self.exists(topic, deadline).await? {
                return Ok(());
            }
            match self.create(topic, shape, deadline).await? {
                Ok(()) | Err(Code::TopicAlreadyExists) => {
                    // The servers learn of it one after the other.
                    while !self.exists(topic, deadline).await? {
                        if Instant::now() + PAUSE >= deadline {
                            let text = format!("the topic `{topic}` does not appear");
                            return Err(Error::timeout(text).with_retry(Retry::Safe));
                        }
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    return Ok(());
                }
                // Not as the driver names it, an `AdminOp`: of these it does not tell the code.
                Err(code) => self.again(&KafkaError::Global(code), deadline).await?,
            }
        }
    }

    async fn create(
        &self,
        topic: &str,
        shape: Shape,
        deadline: Instant,
    ) -> Result<std::result::Result<(), Code>> {
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
        let config = self.link.config();
        let partitions = shape
            .partitions
            .or(config.partitions)
            .and_then(|number| i32::try_from(number).ok());
        let copies = config.replication.map(i32::from);
        // Less than one is: as the servers say.
        let kept_for = shape.kept_for.map(|span| span.as_millis().to_string());
        let mut new = NewTopic::new(
            topic,
            partitions.unwrap_or(-1),
            TopicReplication::Fixed(copies.unwrap_or(-1)),
        );
        if let Some(kept_for) = &kept_for {
            new = new.set("cleanup.policy", "delete");
            new = new
                .set("retention.ms", kept_for)
                .set("retention.bytes", "-1");
        }
        let within = deadline
            .saturating_duration_since(Instant::now())
            .min(ANSWER_WITHIN);
        let options = AdminOptions::new()
            .request_timeout(Some(within))
            .operation_timeout(Some(within));
        let made = client.create_topics([&new], &options).await;
        match made {
            Ok(results) => {
                *admin = Some(client);
                Ok(match results.into_iter().next() {
                    Some(Err((_, code))) => Err(code),
                    Some(Ok(_)) | None => Ok(()),
                })
            }
            Err(error) => {
                // What it has to report is read by nobody: a new one begins without it.
                drop(admin);
                retire(client).await;
                let code = error.rdkafka_error_code();
                Ok(Err(code.unwrap_or(Code::OperationTimedOut)))
            }
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
