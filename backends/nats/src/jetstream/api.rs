//! Asking JetStream: JSON in requests and answers.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use trunkline_core::{Error, Result, Retry};

use crate::error::{JetStreamError, code, of_jetstream};
use crate::link::{Link, Up};

/// One answer may take so long, whatever the deadline of all.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// JetStream's own subjects.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    link: Arc<Link>,
    prefix: String,
}

/// What is asked of a stream.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) config: StreamConfig,
    #[serde(default)]
    pub(crate) state: StreamState,
    /// When it was made: another stream of the same name has another time.
    #[serde(default)]
    pub(crate) created: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct StreamConfig {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) subjects: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct StreamState {
    #[serde(default)]
    pub(crate) messages: u64,
    #[serde(default)]
    pub(crate) last_seq: u64,
}

/// What is asked of a consumer.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ConsumerInfo {
    pub(crate) config: ConsumerConfig,
    #[serde(default)]
    pub(crate) ack_floor: Floor,
    #[serde(default)]
    pub(crate) delivered: Floor,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Floor {
    #[serde(default)]
    pub(crate) stream_seq: u64,
}

/// A consumer's settings; those that are not set here keep the server's defaults, and those that are not known here are
/// kept as they are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ConsumerConfig {
    pub(crate) ack_wait: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filter_subject: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) filter_subjects: Vec<String>,
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, Value>,
}

impl ConsumerConfig {
    /// The subjects it wants, in order.
    pub(crate) fn filters(&self) -> Vec<String> {
        let mut all = self.filter_subjects.clone();
        all.extend(
            self.filter_subject
                .clone()
                .filter(|filter| !filter.is_empty()),
        );
        all.sort();
        all
    }
}

#[derive(Deserialize)]
struct Answer<T> {
    error: Option<JetStreamError>,
    #[serde(flatten)]
    value: Option<T>,
}

#[derive(Deserialize)]
struct Done {}

#[derive(Deserialize)]
struct StreamPage {
    #[serde(default)]
    total: usize,
    #[serde(default)]
    streams: Option<Vec<StreamInfo>>,
}

impl Api {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let prefix = match &link.config().domain {
            Some(domain) => format!("$JS.{domain}.API"),
            None => "$JS.API".to_owned(),
        };
        Self { link, prefix }
    }

    pub(crate) fn subject(&self, rest: &str) -> String {
        format!("{}.{rest}", self.prefix)
    }

    /// Asks on one connection and reads the answer.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        up: &Up,
        deadline: Instant,
        rest: &str,
        body: &Value,
    ) -> Result<T> {
        let deadline = deadline.min(Instant::now() + ANSWER_WITHIN);
        let payload = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = self
            .link
            .request(up, deadline, self.subject(rest), payload.into())
            .await;
        let answer = answer.map_err(|error| match error.kind() {
            // Nobody answers for JetStream: it is still coming up, or it is not there at all.
            trunkline_core::ErrorKind::NotFound => {
                Error::unavailable("JetStream does not answer on this server")
                    .with_retry(Retry::Safe)
                    .with_source(error)
            }
            _ => error,
        })?;
        read(&answer.payload)
    }

    pub(crate) async fn stream(
        &self,
        up: &Up,
        deadline: Instant,
        name: &str,
    ) -> Result<StreamInfo> {
        self.ask(up, deadline, &format!("STREAM.INFO.{name}"), &Value::Null)
            .await
    }

    /// Makes a stream; one that is there is left as it is.
    pub(crate) async fn ensure_stream(
        &self,
        up: &Up,
        deadline: Instant,
        name: &str,
        wanted: impl FnOnce() -> Value,
    ) -> Result<StreamInfo> {
        match self.stream(up, deadline, name).await {
            Err(error) if is(&error, &[code::STREAM_NOT_FOUND]) => {}
            known => return known,
        }
        match self
            .ask(up, deadline, &format!("STREAM.CREATE.{name}"), &wanted())
            .await
        {
            // Somebody else was faster, with other settings.
            Err(error) if is(&error, &[code::STREAM_NAME_IN_USE]) => {
                self.stream(up, deadline, name).await
            }
            made => made,
        }
    }

    pub(crate) async fn consumer(
        &self,
        up: &Up,
        deadline: Instant,
        stream: &str,
        name: &str,
    ) -> Result<ConsumerInfo> {
        let rest = format!("CONSUMER.INFO.{stream}.{name}");
        self.ask(up, deadline, &rest, &Value::Null).await
    }

    /// Makes a consumer, or changes one.
    pub(crate) async fn put_consumer(
        &self,
        up: &Up,
        deadline: Instant,
        stream: &str,
        name: &str,
        config: &ConsumerConfig,
    ) -> Result<ConsumerInfo> {
        let body = json!({ "stream_name": stream, "config": config });
        let rest = format!("CONSUMER.CREATE.{stream}.{name}");
        self.ask(up, deadline, &rest, &body).await
    }

    pub(crate) async fn delete_consumer(
        &self,
        up: &Up,
        deadline: Instant,
        stream: &str,
        name: &str,
    ) -> Result<()> {
        let rest = format!("CONSUMER.DELETE.{stream}.{name}");
        let _: Done = self.ask(up, deadline, &rest, &Value::Null).await?;
        Ok(())
    }

    pub(crate) async fn delete_message(
        &self,
        up: &Up,
        deadline: Instant,
        stream: &str,
        position: u64,
    ) -> Result<()> {
        let body = json!({ "seq": position, "no_erase": true });
        let rest = format!("STREAM.MSG.DELETE.{stream}");
        let _: Done = self.ask(up, deadline, &rest, &body).await?;
        Ok(())
    }

    /// The streams with a subject under a pattern.
    pub(crate) async fn streams(
        &self,
        up: &Up,
        deadline: Instant,
        subject: &str,
    ) -> Result<Vec<StreamInfo>> {
        let mut all = Vec::new();
        loop {
            let body = json!({ "offset": all.len(), "subject": subject });
            let page: StreamPage = self.ask(up, deadline, "STREAM.LIST", &body).await?;
            let streams = page.streams.unwrap_or_default();
            let end = streams.is_empty();
            all.extend(streams);
            if end || all.len() >= page.total {
                return Ok(all);
            }
        }
    }
}

/// Reads an answer, or the error in its place.
pub(crate) fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T> {
    let wrong = |what: &dyn std::fmt::Display| {
        Error::internal(format!("JetStream's answer cannot be read: {what}"))
            .with_retry(Retry::IfIdempotent)
    };
    // An error stands alone: the rest of what was asked for is missing then.
    let answer: Answer<Value> = serde_json::from_slice(payload).map_err(|error| wrong(&error))?;
    if let Some(error) = answer.error {
        return Err(of_jetstream(error));
    }
    serde_json::from_value(answer.value.unwrap_or_default()).map_err(|error| wrong(&error))
}

/// Whether an error is one of these of the server.
pub(crate) fn is(error: &Error, codes: &[u64]) -> bool {
    error
        .find::<JetStreamError>()
        .is_some_and(|error| codes.contains(&error.err_code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_in_an_answer_is_an_error() {
        let text = br#"{"type":"x","error":{"code":404,"err_code":10059,"description":"stream not found"}}"#;
        let error = read::<StreamInfo>(text).unwrap_err();
        assert!(is(&error, &[code::STREAM_NOT_FOUND]), "{error}");
    }

    #[test]
    fn settings_that_are_not_known_here_are_kept() {
        let text = r#"{"ack_wait":5,"filter_subject":"a","novel":{"x":1}}"#;
        let config: ConsumerConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.filters(), ["a"]);
        let again = serde_json::to_value(&config).unwrap();
        assert_eq!(again["novel"]["x"], 1);
    }

    #[test]
    fn what_cannot_be_read_is_no_panic() {
        for text in ["", "[]", "null", "7", "{\"config\":7}"] {
            assert!(read::<StreamInfo>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
