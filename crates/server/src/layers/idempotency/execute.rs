//! Claim, do, complete.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at, timeout};
use tower_service::Service;
use trunkline_core::{Error, ErrorKind};
use trunkline_messaging::inbox::{AnyInbox, Claim, ClaimRequest, ClaimToken, InboxStore as _};

use super::Settings;
use super::key::fingerprint;
use super::stored::Stored;
use crate::ProblemResponse;
use crate::extract::too_large;

/// Says that an answer is a repetition.
const REPLAYED: &str = "idempotency-replayed";

/// Longest wait that is proposed to a repetition; the claim may run for much longer, the handler hardly ever does.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often, and with which pause, an answer is tried to be stored.
const STORE_ATTEMPTS: u32 = 3;
const STORE_PAUSE: Duration = Duration::from_millis(100);

/// Time for the store to give a key back.
const RELEASE_TIME: Duration = Duration::from_secs(5);

const TARGET: &str = "trunkline::server";

pub(super) async fn once<S>(
    settings: Arc<Settings>,
    mut service: S,
    key: String,
    parts: Parts,
    body: Body,
) -> Result<Response, S::Error>
where
    S: Service<Request<Body>, Response = Response>,
{
    let body = match to_bytes(body, settings.body_limit).await {
        Ok(body) => body,
        Err(error) => return Ok(unread(&error).into_response()),
    };
    let request = ClaimRequest::new(settings.scope(&parts), key)
        .with_fingerprint(fingerprint(&parts, &body))
        .with_lease(settings.config.reservation);
    let token = match settings.inbox.claim(request).await {
        Ok(Claim::Granted(token)) => token,
        Ok(answered) => return Ok(repeated(answered)),
        // Without the store nothing is protected: better not to do it at all.
        Err(error) => return Ok(ProblemResponse::from(error).into_response()),
    };
    let held = Held {
        settings: Arc::clone(&settings),
        token: Some(token),
    };
    let handler = service.call(Request::from_parts(parts, Body::from(body)));
    let response = held.renewed_while(handler).await?;
    if !is_final(response.status()) {
        held.release().await;
        return Ok(response);
    }
    Ok(held.complete(response).await)
}

fn unread(error: &axum::Error) -> ProblemResponse {
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        if next.is::<LengthLimitError>() {
            return too_large();
        }
        cause = next.source();
    }
    ProblemResponse::bad_request("the body could not be read to its end")
}

/// Whether the same request would be answered the same way again.
fn is_final(status: StatusCode) -> bool {
    let again = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    !status.is_server_error() && !again.contains(&status)
}

fn repeated(claim: Claim) -> Response {
    match claim {
        Claim::Done(record) => replay(record),
        Claim::Mismatch => ProblemResponse::unprocessable(
            "this Idempotency-Key was used for another request; take a new one",
        )
        .into_response(),
        Claim::InProgress { retry_after } => ProblemResponse::conflict(
            "the first request with this Idempotency-Key is still being handled",
        )
        .with_retry_after(retry_after.min(LONGEST_WAIT))
        .into_response(),
        Claim::Granted(_) => ProblemResponse::from(Error::internal(
            "a granted claim was taken for a repetition",
        ))
        .into_response(),
    }
}

fn replay(record: Bytes) -> Response {
    let Some(stored) = Stored::decode(record) else {
        let error =
            Error::internal("a stored answer cannot be read; another program may share the store");
        return ProblemResponse::from(error).into_response();
    };
    let Some(body) = stored.body else {
        return ProblemResponse::conflict(
            "the request was done; its answer was too large to be kept",
        )
        .with_extension("original_status", stored.status.as_u16())
        .into_response();
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = stored.status;
    *response.headers_mut() = stored.headers;
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

/// A claim that is given back when it is dropped.
struct Held {
    settings: Arc<Settings>,
    token: Option<ClaimToken>,
}

impl Held {
    /// Runs the handler and keeps the claim for as long as that takes.
    async fn renewed_while<F: Future>(&self, handler: F) -> F::Output {
        let period = self.settings.renewal();
        let mut tick = interval_at(Instant::now() + period, period);
        let renewal = async {
            loop {
                tick.tick().await;
                self.renew().await;
            }
        };
        tokio::select! {
            biased;
            output = handler => output,
            never = renewal => never,
        }
    }

    async fn renew(&self) {
        let Some(token) = &self.token else { return };
        let Settings { inbox, config, .. } = &*self.settings;
        if let Err(error) = inbox.extend(token, config.reservation).await {
            tracing::warn!(target: TARGET, error = %error.report(), "an idempotency key could not be kept for longer");
        }
    }

    async fn release(mut self) {
        if let Some(token) = self.token.take() {
            release(&self.settings.inbox, token).await;
        }
    }

    /// Stores the answer, then hands it out. From here on it goes on although the request be dropped: what the handler
    /// did stands.
    async fn complete(mut self, response: Response) -> Response {
        let Some(token) = self.token.take() else {
            return response;
        };
        let settings = Arc::clone(&self.settings);
        let (sender, answer) = oneshot::channel();
        self.settings.tasks.spawn("idempotency", async move {
            let response = store(&settings, token, response).await;
            // Nobody waits when the request was dropped; the answer is stored all the same.
            drop(sender.send(response));
        });
        answer.await.unwrap_or_else(|_| {
            ProblemResponse::from(Error::cancelled(
                "the service stopped before the answer was stored",
            ))
            .into_response()
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else {
            return;
        };
        // Dropped together with its runtime nothing can be given back: the claim runs out by itself.
        if tokio::runtime::Handle::try_current().is_ok() {
            let inbox = self.settings.inbox.clone();
            self.settings
                .tasks
                .spawn("idempotency-release", async move {
                    release(&inbox, token).await
                });
        }
    }
}

async fn release(inbox: &AnyInbox, token: ClaimToken) {
    let released = timeout(RELEASE_TIME, inbox.release(token)).await;
    let error = match released {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error,
        Err(_) => Error::timeout("the store did not answer"),
    };
    tracing::warn!(
        target: TARGET, error = %error.report(),
        "an idempotency key could not be given back; it comes free when its reservation runs out"
    );
}

async fn store(settings: &Settings, token: ClaimToken, response: Response) -> Response {
    let (head, body) = response.into_parts();
    let (record, body) = match collect(body, settings.config.max_response.as_usize()).await {
        Ok(Collected::Whole(body)) => (Stored::of(&head, Some(body.clone())), Body::from(body)),
        Ok(Collected::Large(body)) => (Stored::of(&head, None), body),
        Err(cause) => {
            let error = Error::internal("the body of an answer broke off").with_source(cause);
            release(&settings.inbox, token).await;
            return ProblemResponse::from(error).into_response();
        }
    };
    let record = record.encode();
    for attempt in 1..=STORE_ATTEMPTS {
        let Err(error) = settings
            .inbox
            .complete(token.clone(), record.clone(), settings.config.ttl)
            .await
        else {
            break;
        };
        let last = attempt == STORE_ATTEMPTS || error.kind() == ErrorKind::Conflict;
        tracing::warn!(
            target: TARGET, attempt, error = %error.report(),
            "an answer could not be stored: a repetition of its request may be done again"
        );
        if last {
            break;
        }
        tokio::time::sleep(STORE_PAUSE).await;
    }
    Response::from_parts(head, body)
}

enum Collected {
    Whole(Bytes),
    /// What was read already, and the rest.
    Large(Body),
}

async fn collect(mut body: Body, most: usize) -> Result<Collected, axum::Error> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers are not kept.
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        read.extend_from_slice(&data);
        if read.len() > most {
            let begun = futures_util::stream::iter([Ok(read.freeze())]);
            let rest = futures_util::StreamExt::chain(begun, body.into_data_stream());
            return Ok(Collected::Large(Body::from_stream(rest)));
        }
    }
    Ok(Collected::Whole(read.freeze()))
}
