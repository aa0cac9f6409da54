//! What answers when a call has failed for good: the last known answer, the same request to another service, else a fixed
//! value.

use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use trunkline_core::{Error, Result};
use trunkline_discovery::ServiceName;
use trunkline_resilience::fallback::FallbackSettings;
use trunkline_resilience::timeout::Deadline;
use trunkline_resilience::{Attempt, Call, CircuitOpen, Outcome, Refusal};

use super::attempt::Asked;
use super::core::Core;
use super::destination::{Balanced, Tried};
use super::judge::{Judge, outcome_of_status, was_not_processed};
use super::outgoing::Outgoing;
use crate::body::Body;
use crate::coding;
use crate::limits::Limits;
use crate::transport::Reply;

/// Marks an answer as that of a fallback: in the extensions of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fallback {
    /// Another service answered.
    Service,
    /// It is the fixed value.
    Value,
    /// It is the last answer that the cache still held.
    Cache,
}

impl Core {
    /// Answers in place of a result, which is handed on where there is nothing to answer with.
    pub(super) async fn fall_back(
        &self,
        settings: &FallbackSettings,
        outgoing: &Outgoing<'_>,
        limits: Limits,
        result: Result<Reply>,
        deadline: Deadline,
        last_known: impl FnOnce() -> Option<Reply>,
    ) -> Result<Reply> {
        if settings.cache
            && let Some(response) = last_known()
        {
            return Ok(marked(response, Fallback::Cache));
        }
        if let Some(service) = &settings.service
            && outgoing.can_repeat()
            && (outgoing.idempotent || was_not_processed(&result))
        {
            let all = settings.forward_headers;
            match self.ask(service, all, outgoing, limits, deadline).await {
                Ok(response) if is_an_answer(response.status()) => {
                    return Ok(marked(response, Fallback::Service));
                }
                Ok(response) => tracing::debug!(
                    target: "trunkline", service = %service, status = response.status().as_u16(),
                    "the fallback's service failed, too"
                ),
                Err(error) => tracing::debug!(
                    target: "trunkline", service = %service, error = %error.report(),
                    "the fallback's service failed, too"
                ),
            }
        }
        match &settings.value {
            Some(value) => {
                let mut response = Response::new(Body::json(value)?);
                *response.status_mut() = StatusCode::OK;
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                Ok(marked(Box::new(response), Fallback::Value))
            }
            None => result,
        }
    }

    async fn ask(
        &self,
        service: &str,
        with_all_headers: bool,
        outgoing: &Outgoing<'_>,
        limits: Limits,
        deadline: Deadline,
    ) -> Result<Reply> {
        let discovery = self.discovery.as_ref().ok_or_else(|| {
            Error::config(format!(
                "fallback.service {service} cannot be found without discovery"
            ))
        })?;
        let instances = discovery.instances(&ServiceName::new(service)?);
        let balanced = Balanced::new(instances, self.metrics.clone());
        let tried = Tried::default();
        // It has a circuit and limits of its own: a spare that is down as well is not asked by each call that fails.
        let policy = self.maker.of_service(service);
        let settings = policy.settings();
        let judge = Judge {
            on_status: &settings.retry.on_status,
            repeatable: &|| false,
            tried: &tried,
        };
        let mut call = Call::new(outgoing.context);
        call.deadline = Some(deadline.at);
        call.max_attempts = Some(1);
        let current = policy.current();
        let once = |attempt: Attempt| {
            let (balanced, tried, circuits) = (&balanced, &tried, current.instance_circuits());
            let policy = &policy;
            async move {
                let mut now = Some(attempt.began);
                let circuits = circuits.map(Arc::as_ref);
                let found = balanced
                    .pick(tried, circuits, attempt.deadline, &mut now)
                    .await;
                let (picked, peer, permit) = found.inspect_err(|error| {
                    if error.find::<CircuitOpen>().is_some() {
                        policy.refuses(Refusal::CircuitOpen);
                    }
                })?;
                let request = match with_all_headers {
                    true => outgoing.request(&self.injector, now.map(|now| deadline.left(now)))?,
                    false => outgoing.to_another(&self.injector, deadline.at)?,
                };
                let asked = Asked::begin(&peer, (Some(picked), permit), tried, attempt);
                let sent = self.transport.send_boxed(&peer.origin, request, &limits);
                let result = deadline.limit(sent).await?;
                asked.ended(if outgoing.decodes {
                    result.and_then(coding::decode)
                } else {
                    result
                })
            }
        };
        policy.run_as(&current, call, &judge, once).await
    }
}

/// Whether an answer of the other service is one to give in place of the first: not that it cannot, or will not for whom it
/// does not know, as the middleware that would say who asks is the first service's.
fn is_an_answer(status: StatusCode) -> bool {
    let unknown = matches!(status.as_u16(), 401 | 403 | 407 | 408);
    outcome_of_status(status) == Outcome::Success && !unknown
}

fn marked(mut response: Reply, fallback: Fallback) -> Reply {
    response.extensions_mut().insert(fallback);
    response
}
