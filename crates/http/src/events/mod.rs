//! Server-sent events: a stream that goes on by itself when the connection ends.

mod parser;

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body_util::BodyExt;
use tokio::time::{Instant, sleep_until};
use trunkline_core::size::ByteSize;
use trunkline_core::{Error, ErrorKind, Result, Retry};
use trunkline_resilience::timeout::DeadlineTooShort;

use crate::body::{Body, BodyTooLarge};
use crate::client::{Handle, IDEMPOTENCY_KEY, busy_for, refuses};
use crate::error::{ServiceError, StatusError};
use crate::limits::after;
use crate::options::{CallOptions, Draft};
use parser::{Found, Parser};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The wait before connecting again, unless the server says another one.
const RETRY: Duration = Duration::from_secs(3);

/// The shortest wait, whatever the server says.
const SHORTEST_AGAIN: Duration = Duration::from_millis(100);

/// Nobody who is busy makes us wait longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Longer ids are not sent back: no server would read such a header.
const LONGEST_ID: usize = 4096;

/// No server makes us wait longer, and no row of failures does.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerEvent {
    /// Its name; `message` unless the server gives one.
    pub event: String,
    /// Its data, lines set apart by `\n`.
    pub data: String,
    /// The id of the last event that had one; empty if none had.
    pub id: String,
}

impl ServerEvent {
    /// The data as a value, from JSON.
    ///
    /// # Errors
    /// `Invalid` of remote origin when it is not JSON of this form.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.data).map_err(|error| {
            Error::invalid(format!(
                "the data of an event `{}` cannot be read",
                self.event
            ))
            .with_origin(trunkline_core::Origin::Remote)
            .with_source(error)
        })
    }
}

/// Events of a server, one after the other ([`EventStream::next`]). When the connection ends or falls silent for longer than
/// `timeout.read`, it waits as long as the server asked for (`retry:`, else 3 s, longer after failures in a row, a minute at
/// most) and connects again, telling the server the last id it has seen. Made by
/// [`RequestBuilder::events`](crate::RequestBuilder::events).
///
/// A request that may do something each time it is made, such as a POST without `Idempotency-Key` that is not said to be
/// [`idempotent`](crate::RequestBuilder::idempotent), is made once: the end of its stream is the end, and what breaks off
/// ends in an error.
pub struct EventStream {
    handle: Handle,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    options: CallOptions,
    body: Body,
    /// Whether it may be asked again though the request may have been processed.
    repeats: bool,
    limit: usize,
    /// The connection there is.
    open: Option<Open>,
    last_id: String,
    retry: Duration,
    failures: u32,
    /// Not connected again before this.
    not_before: Option<Instant>,
    over: bool,
}

struct Open {
    body: Body,
    parser: Parser,
    /// Read and not handed over yet; what one piece of the answer holds.
    ready: VecDeque<Found>,
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("uri", &self.uri)
            .field("last_id", &self.last_id)
            .field("connected", &self.open.is_some())
            .finish_non_exhaustive()
    }
}

impl EventStream {
    pub(crate) fn new(handle: &Handle, draft: Draft, body: Body) -> Result<Self> {
        let mut headers = draft.headers;
        let accepted = HeaderValue::from_static("text/event-stream");
        headers.entry(ACCEPT).or_insert(accepted);
        let fresh = HeaderValue::from_static("no-store");
        headers.entry(CACHE_CONTROL).or_insert(fresh);
        if body.try_clone().is_none() {
            return Err(Error::invalid(
                "events are asked for again when the connection ends, so the body cannot be a stream",
            ));
        }
        let repeats = draft.options.idempotent.unwrap_or_else(|| {
            draft.method.is_idempotent() || headers.contains_key(IDEMPOTENCY_KEY)
        });
        let given = headers.remove(LAST_EVENT_ID);
        let last_id =
            given.and_then(|id| Some(std::str::from_utf8(id.as_bytes()).ok()?.to_owned()));
        Ok(Self {
            limit: handle.core().max_response_size,
            handle: handle.clone(),
            method: draft.method,
            uri: draft.uri,
            headers,
            options: CallOptions {
                endless: true,
                ..draft.options.with_open_end()
            },
            body,
            repeats,
            open: None,
            last_id: last_id.unwrap_or_default(),
            retry: RETRY,
            failures: 0,
            not_before: None,
            over: false,
        })
    }

    /// The id that the next connection asks to go on behind; empty if no event had one.
    #[must_use]
    pub fn last_event_id(&self) -> &str {
        &self.last_id
    }

    /// The next event; waits for it as long as it takes, over as many connections as it takes. `None` when the server says
    /// that there will be none (204), after an error, and at the end of the stream of a request that is made once.
    ///
    /// # Errors
    /// Ends with the error that connecting again would not mend: an answer that is no stream of events, a status of 4xx but
    /// 408 and 429, an event larger than the client's `max_response_size`. Of a request that is made once: with whatever
    /// breaks it off when it may have been processed.
    ///
    /// # Cancel safety
    /// Cancel safe: no event is lost. A connection that was being opened is given up.
    pub async fn next(&mut self) -> Option<Result<ServerEvent, ServiceError>> {
        while !self.over {
            match self.step().await {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                Err(error) => {
                    (self.over, self.open) = (true, None);
                    return Some(Err(error));
                }
            }
        }
        None
    }

    /// The same as a stream of `futures`.
    pub fn into_stream(
        self,
    ) -> impl futures_core::Stream<Item = Result<ServerEvent, ServiceError>> + Send {
        futures_util::stream::unfold(self, |mut events| async move {
            let next = events.next().await?;
            Some((next, events))
        })
    }

    async fn step(&mut self) -> Result<Option<ServerEvent>, ServiceError> {
        let Some(open) = &mut self.open else {
            return self.connect().await.map(|()| None);
        };
        if let Some(found) = open.ready.pop_front() {
            return self.take(found);
        }
        match open.body.frame().await {
            Some(Ok(frame)) => {
                if let Some(piece) = frame.data_ref() {
                    // A comment, too, shows that it works.
                    self.failures = 0;
                    let ready = &mut open.ready;
                    open.parser
                        .read(piece, &self.last_id, |found| ready.push_back(found));
                }
            }
            Some(Err(error)) if !self.repeats => return Err(error.into()),
            Some(Err(error)) => self.lost(&error),
            None if !self.repeats => (self.over, self.open) = (true, None),
            None => self.again(Duration::ZERO),
        }
        Ok(None)
    }

    fn take(&mut self, found: Found) -> Result<Option<ServerEvent>, ServiceError> {
        match found {
            Found::Event(event) => {
                self.failures = 0;
                self.last_id.clone_from(&event.id);
                return Ok(Some(event));
            }
            Found::Id(id) => self.last_id = id,
            Found::Retry(retry) => self.retry = retry.min(LONGEST_RETRY),
            Found::TooLarge => {
                let limit = u64::try_from(self.limit).unwrap_or(u64::MAX);
                return Err(Error::new(
                    ErrorKind::Exhausted,
                    format!("an event is larger than {}", ByteSize::new(limit)),
                )
                .with_source(BodyTooLarge { limit })
                .into());
            }
        }
        Ok(None)
    }

    fn lost(&mut self, error: &Error) {
        tracing::debug!(target: "trunkline", error = %error.report(), "a stream of events broke off");
        self.again(Duration::ZERO);
    }

    /// Plans another connection, after this pause at least.
    fn again(&mut self, pause: Duration) {
        self.open = None;
        // Who asks to come back at once and then ends again is not asked in a tight loop.
        let base = self.retry.max(SHORTEST_AGAIN);
        let longer = base.saturating_mul(1 << self.failures.min(6));
        let wait = longer.min(LONGEST_RETRY.max(self.retry));
        let wait = wait.max(pause.min(LONGEST_PAUSE));
        self.not_before = Some(after(Instant::now(), wait));
        self.failures = self.failures.saturating_add(1);
    }

    async fn connect(&mut self) -> Result<(), ServiceError> {
        if let Some(not_before) = self.not_before {
            sleep_until(not_before).await;
        }
        let mut draft = Draft::new(self.method.clone());
        draft.uri = self.uri.clone();
        draft.headers = self.headers.clone();
        draft.options = self.options.clone();
        if let Ok(id) = HeaderValue::from_bytes(self.last_id.as_bytes())
            && (1..=LONGEST_ID).contains(&id.len())
        {
            draft.headers.insert(LAST_EVENT_ID, id);
        }
        let body = self.body.try_clone().unwrap_or_default();
        let response = match self.handle.call(draft, body).await {
            Ok(response) => response,
            // What was refused here or cannot be reached may be there later.
            Err(error) if is_passing(&error) && (self.repeats || error.retry() == Retry::Safe) => {
                self.lost(&error);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let status = response.status();
        if status == StatusCode::NO_CONTENT {
            self.over = true;
            return Ok(());
        }
        let later = matches!(status.as_u16(), 408 | 429) || status.is_server_error();
        if later && (self.repeats || refuses(status)) {
            self.again(busy_for(&response).unwrap_or_default());
            return Ok(());
        }
        let service = self.handle.core().service.to_string();
        if status != StatusCode::OK {
            let reason = status.canonical_reason().unwrap_or("unknown status");
            let problem = trunkline_core::Problem::new(status.as_u16(), reason);
            let error = StatusError::new(service, status, problem);
            return Err(ServiceError::Status(Box::new(error)));
        }
        let kind = response.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Err(Error::invalid(format!(
                "{service} answered with `{essence}`, not with text/event-stream"
            ))
            .with_origin(trunkline_core::Origin::Remote)
            .into());
        }
        self.open = Some(Open {
            body: response.into_body(),
            parser: Parser::new(self.limit),
            ready: VecDeque::new(),
        });
        Ok(())
    }
}

/// Whether connecting again may do better: not where what leads there is forbidden, nor once the caller's own deadline has
/// passed.
fn is_passing(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Rejected => error.retry() != Retry::Never,
        ErrorKind::Timeout => error.find::<DeadlineTooShort>().is_none(),
        ErrorKind::Unavailable | ErrorKind::RateLimited => true,
        _ => false,
    }
}
