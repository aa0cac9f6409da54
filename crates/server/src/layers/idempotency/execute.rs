//! Claim, do, complete.

use std::any::Any;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::request::Parts;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::sync::oneshot;
use tokio::time::{Instant, interval_at, timeout, timeout_at};
use tower_service::Service;
use trunkline_core::task::{catch_panic_raw, panic_error};
use trunkline_core::{Error, ErrorKind};
use trunkline_messaging::inbox::{AnyInbox, Claim, ClaimRequest, ClaimToken, InboxStore as _};

use super::Settings;
use super::key::fingerprint;
use super::stored::Stored;
use crate::ProblemResponse;
use crate::extract::too_large;
use crate::layers::in_flight::Place;

/// Says that an answer is a repetition.
const REPLAYED: &str = "idempotency-replayed";

/// Longest wait that is proposed to a repetition; the claim may run for much longer, the handler hardly ever does.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often, and with which pause, an answer is tried to be stored.
const STORE_ATTEMPTS: u32 = 3;
const STORE_PAUSE: Duration = Duration::from_millis(100);

/// Time for a handler to produce the body of its answer. Only its beginning is held when it takes longer: a body that
/// goes on and on is not to be kept.
const COLLECT_TIME: Duration = Duration::from_secs(10);

/// Time for the store to give a key back.
const RELEASE_TIME: Duration = Duration::from_secs(5);

const TARGET: &str = "trunkline::server";

/// What the task tells the request: an answer, the handler's own error, or its panic.
type Told<E> = Result<Result<Response, E>, Box<dyn Any + Send>>;

/// Does it in a task of the layer: neither a client that leaves nor a deadline undoes what a handler has begun, so
/// neither may give its key back.
pub(super) async fn once<S>(
    settings: Arc<Settings>,
    service: S,
    key: String,
    parts: Parts,
    body: Body,
) -> Result<Response, S::Error>
where
    S: Service<Request<Body>, Response = Response> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
{
    let body = match to_bytes(body, settings.body_limit).await {
        Ok(body) => body,
        Err(error) => return Ok(unread(&error).into_response()),
    };
    let claim = ClaimRequest::new(settings.scope(&parts), key)
        .with_fingerprint(fingerprint(&parts, &body))
        .with_lease(settings.config.reservation);
    let (asking, told) = oneshot::channel();
    let tasks = settings.tasks.clone();
    let place = parts.extensions.get::<Place>().and_then(Place::hold);
    tasks.spawn("idempotency", async move {
        // To the end: what goes on without its client is under way all the same.
        let _place = place;
        let request = Request::from_parts(parts, Body::from(body));
        let told = claim_and_do(&settings, service, claim, request, &asking).await;
        if let Err(Err(panic)) = asking.send(told) {
            let error = panic_error(panic.as_ref());
            tracing::error!(target: TARGET, error = %error, "a handler panicked whose client had left");
        }
    });
    match told.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Ok(ProblemResponse::from(Error::cancelled(
            "the service stopped before the answer was stored",
        ))
        .into_response()),
    }
}

async fn claim_and_do<S>(
    settings: &Settings,
    mut service: S,
    claim: ClaimRequest,
    request: Request<Body>,
    asking: &oneshot::Sender<Told<S::Error>>,
) -> Told<S::Error>
where
    S: Service<Request<Body>, Response = Response>,
{
    let token = match settings.inbox.claim(claim).await {
        Ok(Claim::Granted(token)) => token,
        Ok(answered) => return Ok(Ok(repeated(answered))),
        // Without the store nothing is protected: better not to do it at all.
        Err(error) => return Ok(Ok(ProblemResponse::from(error).into_response())),
    };
    if asking.is_closed() {
        // Nobody waits any more, and nothing was done yet.
        release(&settings.inbox, token).await;
        let left = Error::cancelled("the client left before anything was done");
        return Ok(Ok(ProblemResponse::from(left).into_response()));
    }
    let kept = token.clone();
    let doing = async move {
        match catch_panic_raw(async { service.call(request).await }).await {
            Ok(Ok(response)) if is_final(response.status()) => {
                Ok(Ok(store(settings, token, response).await))
            }
            ended => {
                release(&settings.inbox, token).await;
                ended
            }
        }
    };
    renewed_while(settings, &kept, doing).await
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
            "the request was done; its answer was too large, or took too long, to be kept",
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

/// Keeps the claim for as long as that takes.
async fn renewed_while<F: Future>(settings: &Settings, token: &ClaimToken, doing: F) -> F::Output {
    let period = settings.renewal();
    let mut tick = interval_at(Instant::now() + period, period);
    let renewal = async {
        loop {
            tick.tick().await;
            let renewed = settings.inbox.extend(token, settings.config.reservation);
            let Err(error) = renewed.await else { continue };
            tracing::warn!(target: TARGET, error = %error.report(), "an idempotency key could not be kept for longer");
            if error.kind() == ErrorKind::Conflict {
                // It is another's now, or done.
                break;
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        output = doing => output,
        never = renewal => never,
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
    let deadline = Instant::now() + COLLECT_TIME;
    let mut read = BytesMut::new();
    while read.len() <= most {
        let Ok(frame) = timeout_at(deadline, body.frame()).await else {
            break;
        };
        let Some(frame) = frame else {
            return Ok(Collected::Whole(read.freeze()));
        };
        // Trailers are not kept.
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data);
        }
    }
    let begun = futures_util::stream::iter([Ok(read.freeze())]);
    let rest = futures_util::StreamExt::chain(begun, body.into_data_stream());
    Ok(Collected::Large(Body::from_stream(rest)))
}
