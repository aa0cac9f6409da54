//! Looking at what is stored, and removing it.

use std::time::Duration;

use async_nats::HeaderMap;
use serde_json::json;
use tokio::time::Instant;
use trunkline_core::{Clock as _, Error, ErrorKind, Result, SystemClock, Timestamp};
use trunkline_messaging::{
    Browse, BrowsePage, DeliveryInfo, Destination, QueueInfo, StoredMessage, TopicName,
};

use super::api::{Api, is};
use crate::error::code;
use crate::link::{Link, Up};
use crate::names::Names;
use crate::wire;

/// Most messages of one page.
const MOST: usize = 1_000;

/// What looks.
pub(crate) struct Browser<'a> {
    pub(crate) link: &'a Link,
    pub(crate) api: &'a Api,
    pub(crate) names: &'a Names,
}

impl Browser<'_> {
    pub(crate) async fn page(&self, browse: &Browse, deadline: Instant) -> Result<BrowsePage> {
        let up = self.link.ready(deadline).await?;
        let stream = self.names.stream_of(&browse.destination);
        let info = match self.api.stream(&up, deadline, &stream).await {
            Err(error) if is(&error, &[code::STREAM_NOT_FOUND]) => match &browse.destination {
                Destination::Topic(_) => return Ok(BrowsePage::default()),
                Destination::Queue(queue) => {
                    return Err(Error::not_found(format!("there is no queue `{queue}`")));
                }
            },
            info => info?,
        };
        let mut page = BrowsePage::default();
        if matches!(browse.destination, Destination::Queue(_)) {
            page.total = Some(info.state.messages);
        }
        let subject = self.names.subject(&browse.destination);
        let mut after = browse.after;
        let limit = browse.limit.min(MOST);
        while page.messages.len() < limit {
            let Some((position, stored)) =
                self.next(&up, deadline, &stream, &subject, after).await?
            else {
                return Ok(page);
            };
            after = position;
            page.messages.extend(stored);
        }
        page.next = Some(after);
        Ok(page)
    }

    /// The next stored message behind a position; without it where it has expired.
    async fn next(
        &self,
        up: &Up,
        deadline: Instant,
        stream: &str,
        subject: &str,
        after: u64,
    ) -> Result<Option<(u64, Option<StoredMessage>)>> {
        let body = json!({ "seq": after + 1, "next_by_subj": subject });
        let asked = self.api.subject(&format!("DIRECT.GET.{stream}"));
        let limit = deadline.min(Instant::now() + Duration::from_secs(5));
        let payload = body.to_string().into();
        let answer = self.link.request(up, limit, asked, payload).await;
        let answer = answer.map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::unsupported(format!(
                "the stream `{stream}` cannot be looked at: set `allow_direct` for it"
            ))
            .with_source(error),
            _ => error,
        })?;
        match answer.status.map(|status| status.as_u16()) {
            None | Some(200) => {}
            Some(404) => return Ok(None),
            Some(other) => {
                let text = answer.description.unwrap_or_default();
                return Err(Error::internal(format!(
                    "the server does not show a message: {other} {text}"
                )));
            }
        }
        let unreadable = || Error::internal("a stored message has no position");
        let headers = answer.headers.as_ref().ok_or_else(unreadable)?;
        let position: u64 = text(headers, "Nats-Sequence")
            .and_then(|text| text.parse().ok())
            .ok_or_else(unreadable)?;
        let stored_at =
            text(headers, "Nats-Time-Stamp").and_then(|text| text.parse::<Timestamp>().ok());
        let stored_at = stored_at.unwrap_or_else(|| SystemClock.now());
        let Some(destination) =
            text(headers, "Nats-Subject").and_then(|subject| self.names.destination(subject))
        else {
            return Ok(Some((position, None)));
        };
        let id = || format!("{stream}-{position}");
        let arrived = wire::decode(Some(headers), answer.payload.clone(), id, Some(stored_at));
        let now = SystemClock.now().unix_millis();
        if arrived.expires.is_some_and(|expires| now >= expires) {
            return Ok(Some((position, None)));
        }
        let info = DeliveryInfo::new(destination).at(position);
        Ok(Some((
            position,
            Some(StoredMessage::new(arrived.message, info, stored_at)),
        )))
    }

    pub(crate) async fn queues(&self, deadline: Instant) -> Result<Vec<QueueInfo>> {
        let up = self.link.ready(deadline).await?;
        let prefix = format!("{}-Q-", self.names.stream);
        let streams = self
            .api
            .streams(&up, deadline, &self.names.all_queues())
            .await?;
        let mut queues: Vec<QueueInfo> = streams
            .into_iter()
            .filter_map(|stream| {
                let queue = stream.config.name.strip_prefix(&prefix)?.replace('=', ".");
                Some(QueueInfo::new(
                    TopicName::new(queue).ok()?,
                    stream.state.messages,
                ))
            })
            .collect();
        queues.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(queues)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(async_nats::HeaderValue::as_str)
}
