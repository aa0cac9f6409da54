//! A call from its edge to its end: context, endpoint, policy, attempts, fallback, measures, log.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response};
use tokio::time::Instant;
use trunkline_core::{Context, Error, Propagation, Result};
use trunkline_discovery::{Discovery, NoInstance};
use trunkline_resilience::timeout::Deadline;
use trunkline_resilience::{Call, EffectivePolicy, Policy};
use trunkline_telemetry::metrics::{
    HttpClientEndpointMetrics, HttpClientMetrics, Rejection, ResilienceMetrics,
};

use super::destination::{Destination, Tried};
use super::endpoint::Endpoints;
use super::inject::Injector;
use super::judge::{Judge, no_connection};
use super::outgoing::{IDEMPOTENCY_KEY, Outgoing};
use crate::body::Body;
use crate::limits::Limits;
use crate::options::CallOptions;
use crate::transport::Transport;

/// What all clones of a client share.
pub(crate) struct Core {
    pub(crate) service: Arc<str>,
    pub(super) destination: Destination,
    /// Where the fallback's services are found.
    pub(super) discovery: Option<Discovery>,
    /// Path that every request begins with; without a slash at its end.
    pub(super) prefix: Box<str>,
    pub(crate) transport: Transport,
    pub(super) propagation: Propagation,
    pub(super) injector: Injector,
    /// Sent unless the request brings its own.
    pub(super) headers: HeaderMap,
    pub(super) endpoints: Endpoints<Endpoint>,
    pub(super) metrics: HttpClientMetrics,
    pub(super) refusals: ResilienceMetrics,
    pub(crate) max_response_size: usize,
    /// Bytes of a stream that are kept so that it can be sent again.
    pub(super) replay_limit: usize,
}

/// One endpoint of the service, or all of it.
pub(crate) struct Endpoint {
    pub(super) name: Arc<str>,
    pub(super) policy: Arc<Policy>,
    pub(super) metrics: HttpClientEndpointMetrics,
}

/// What is said about a request when it has gone.
pub(super) struct Seen {
    pub(super) method: Method,
    pub(super) path: Option<PathAndQuery>,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient")
            .field("service", &self.service)
            .field("prefix", &self.prefix)
            .field("endpoints", &self.endpoints)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// The context of the running scope, or a new one.
    pub(super) fn current_context(&self) -> Context {
        self.propagation.current_or_new()
    }

    /// Makes a call.
    pub(crate) async fn call(
        &self,
        request: Request<Body>,
        options: &CallOptions,
    ) -> Result<Response<Body>> {
        let began = Instant::now();
        let (parts, body) = request.into_parts();
        let named;
        let endpoint = match &options.endpoint {
            Some(name) => {
                named = self.endpoints.named(name);
                &*named
            }
            None => self.endpoints.of(&parts.method, parts.uri.path()),
        };
        let active = self.metrics.active();
        let seen = Seen {
            method: parts.method.clone(),
            path: parts.uri.path_and_query().cloned(),
        };
        let context = options.context.clone();
        let context = context.unwrap_or_else(|| self.current_context());
        let settings = endpoint.policy.settings();
        let total = options.timeout.unwrap_or(settings.timeout.total);
        let deadline = Deadline::of_call(began, total, context.deadline());
        let result = match self.outgoing(parts, body, context.clone(), &settings, options) {
            Ok(outgoing) => {
                let mut limits = Limits::from(&settings.timeout);
                if !options.open_end {
                    limits = limits.with_deadline(deadline.at);
                }
                self.by_policy(endpoint, &settings, &outgoing, options, limits)
                    .await
            }
            Err(error) => Err(error),
        };
        let elapsed = began.elapsed();
        match &result {
            Ok(response) => endpoint
                .metrics
                .answered(response.status().as_u16(), elapsed),
            Err(error) => {
                endpoint.metrics.failed(error.kind(), elapsed);
                self.count_refusal(error);
            }
        }
        self.log(endpoint, &seen, &context, &result, elapsed);
        match result {
            Ok(mut response) => {
                response.body_mut().hold(active);
                Ok(response)
            }
            Err(error) => Err(self.described(error, endpoint, &seen)),
        }
    }

    /// The policies count their refusals themselves.
    fn count_refusal(&self, error: &Error) {
        if no_connection(error) {
            self.refusals.rejected(Rejection::PoolExhausted);
        } else if error.find::<NoInstance>().is_some() {
            self.refusals.rejected(Rejection::NoInstance);
        }
    }

    fn outgoing(
        &self,
        mut parts: Parts,
        body: Body,
        context: Context,
        settings: &EffectivePolicy,
        options: &CallOptions,
    ) -> Result<Outgoing> {
        let path = self.path(&parts)?;
        for (name, value) in &self.headers {
            if !parts.headers.contains_key(name) {
                parts.headers.insert(name.clone(), value.clone());
            }
        }
        let idempotent = options.idempotent.unwrap_or_else(|| {
            let method = parts.method.as_str();
            let known = settings.retry.methods.iter().any(|known| known == method);
            known || parts.headers.contains_key(IDEMPOTENCY_KEY)
        });
        let body = body.replayable(self.replay_limit);
        Ok(Outgoing::new(parts, path, body, context, idempotent))
    }

    /// The path to send: behind the prefix, or of an absolute URI, which has to lead to where the client leads.
    fn path(&self, parts: &Parts) -> Result<PathAndQuery> {
        let written = parts.uri.path_and_query();
        if let Some(authority) = parts.uri.authority() {
            let fits = match &self.destination {
                Destination::Fixed(peer) => {
                    let scheme = parts
                        .uri
                        .scheme()
                        .is_none_or(|s| *s == peer.origin.scheme());
                    scheme && peer.origin.authority() == authority
                }
                Destination::Balanced(_) => false,
            };
            if !fits {
                return Err(Error::invalid(format!(
                    "this client leads to {}, not to {authority}: give a path",
                    self.service
                )));
            }
            return Ok(written
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")));
        }
        match written {
            None if self.prefix.is_empty() => Ok(PathAndQuery::from_static("/")),
            Some(written) if self.prefix.is_empty() => Ok(written.clone()),
            written => {
                let written = written.map_or("", PathAndQuery::as_str);
                let path = format!("{}{written}", self.prefix);
                PathAndQuery::from_maybe_shared(bytes::Bytes::from(path)).map_err(|error| {
                    Error::invalid("the path cannot stand in a URL").with_source(error)
                })
            }
        }
    }

    async fn by_policy(
        &self,
        endpoint: &Endpoint,
        settings: &EffectivePolicy,
        outgoing: &Outgoing,
        options: &CallOptions,
        limits: Limits,
    ) -> Result<Response<Body>> {
        let mut call = Call::new(&outgoing.context).repeatable(outgoing.idempotent);
        call.total = options.timeout;
        call.attempt = options.request_timeout;
        call.max_attempts = options.max_attempts;
        let judge = Judge {
            on_status: &settings.retry.on_status,
            repeatable: &|| outgoing.can_repeat(),
        };
        let tried = Tried::default();
        let attempt = |attempt| self.attempt(&self.destination, outgoing, &tried, attempt, limits);
        match &settings.fallback {
            None => endpoint.policy.run_with(call, &judge, attempt).await,
            Some(fallback) => {
                let answer =
                    |result, deadline| self.fall_back(fallback, outgoing, limits, result, deadline);
                // In a box of its own: few calls have a fallback, and all would be as large.
                Box::pin(endpoint.policy.run_or(call, &judge, attempt, answer)).await
            }
        }
    }
}
