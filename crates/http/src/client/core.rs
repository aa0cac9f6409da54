//! A call from its edge to its end: context, endpoint, policy, attempts, fallback, measures, log.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Uri};
use tokio::time::Instant;
use trunkline_core::{Context, Error, ErrorKind, Propagation, Result};
use trunkline_discovery::{Discovery, NoInstance};
use trunkline_resilience::timeout::Deadline;
use trunkline_resilience::{Attempt, Call, Current, Declared, EffectivePolicy, Policy};
use trunkline_telemetry::metrics::{
    HttpClientEndpointMetrics, HttpClientMetrics, Rejection, ResilienceMetrics,
};

use super::affinity::key_of;
use super::attempt::{Allowance, Way};
use super::builder::Maker;
use super::destination::{Destination, Tried};
use super::endpoint::Endpoints;
use super::health::Checked;
use super::inject::Injector;
use super::judge::{Judge, goes_on, no_connection};
use super::outgoing::{Dressed, IDEMPOTENCY_KEY, Outgoing};
use super::versions::{Leg, VersionPolicies, asked_versions};
use crate::body::{Body, End, Ended};
use crate::cache::{ClientCache, EndpointCache};
use crate::coding::Codings;
use crate::limits::Limits;
use crate::options::Draft;
use crate::redirect::RedirectConfig;
use crate::transport::{Reply, Transport};

/// What all clones of a client share.
pub(crate) struct Core {
    pub(crate) service: Arc<str>,
    pub(crate) destination: Destination,
    pub(super) checked: Checked,
    /// Where the fallback's services are found.
    pub(super) discovery: Option<Discovery>,
    /// Path that every request begins with; without a slash at its end.
    pub(crate) prefix: Box<str>,
    pub(crate) transport: Transport,
    pub(super) propagation: Propagation,
    pub(super) injector: Injector,
    /// Sent unless the request brings its own.
    pub(super) headers: HeaderMap,
    pub(super) endpoints: Endpoints<Endpoint>,
    pub(super) maker: Arc<Maker>,
    pub(super) metrics: HttpClientMetrics,
    pub(super) refusals: ResilienceMetrics,
    pub(super) codings: Codings,
    /// `None` where none is followed.
    pub(super) redirects: Option<RedirectConfig>,
    pub(crate) max_response_size: usize,
    /// Bytes of a stream that are kept so that it can be sent again.
    pub(super) replay_limit: usize,
    pub(crate) cache: ClientCache,
    /// Whether somebody closes connections to instances that leave.
    pub(super) closes_departed: AtomicBool,
}

/// One call on its way: whose, what, and within which limits.
pub(crate) struct Trip<'a> {
    #[cfg_attr(not(feature = "cache"), expect(dead_code, reason = "for the cache"))]
    pub(crate) endpoint: &'a Endpoint,
    /// The endpoint's, or that of the version that is asked.
    policy: &'a Policy,
    current: &'a Current,
    pub(crate) settings: &'a Arc<EffectivePolicy>,
    pub(crate) outgoing: &'a Outgoing<'a>,
    pub(crate) limits: Limits,
    #[cfg_attr(not(feature = "cache"), expect(dead_code, reason = "for the cache"))]
    pub(crate) began: Instant,
}

/// One endpoint of the service, or all of it.
pub(crate) struct Endpoint {
    pub(crate) name: Arc<str>,
    pub(super) policy: Arc<Policy>,
    /// Those of the versions that were asked.
    pub(super) versions: VersionPolicies,
    pub(super) metrics: HttpClientEndpointMetrics,
    #[cfg_attr(not(feature = "cache"), expect(dead_code, reason = "for the cache"))]
    pub(crate) cache: EndpointCache,
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
    /// Takes what the author of an interface wrote at a method, and says by which name its endpoint goes.
    pub(crate) fn declare(&self, endpoint: &str, declared: Declared) -> Arc<str> {
        let name = self.endpoints.name_of(endpoint);
        self.maker.declare(&name, declared);
        name
    }

    /// The context of the running scope, or a new one.
    pub(crate) fn current_context(&self) -> Context {
        self.propagation.current_or_new()
    }

    /// The name of the endpoint that a request belongs to.
    pub(crate) fn endpoint_name(&self, method: &Method, path: &str) -> Arc<str> {
        Arc::clone(&self.endpoints.of(method, path).name)
    }

    /// The limit of a whole call to an endpoint.
    #[cfg(feature = "graphql")]
    pub(super) fn total(&self, endpoint: Option<&str>) -> Duration {
        let endpoint = endpoint.unwrap_or(crate::observe::WHOLE);
        self.endpoints
            .named(endpoint)
            .policy
            .settings()
            .timeout
            .total
    }

    /// Makes a call.
    pub(crate) async fn call(&self, mut draft: Box<Draft>, body: Body) -> Result<Reply> {
        let began = Instant::now();
        let named;
        let endpoint = match &draft.options.endpoint {
            Some(name) => {
                named = self.endpoints.named(name);
                &*named
            }
            None => self.endpoints.of(&draft.method, draft.uri.path()),
        };
        let active = self.metrics.active();
        let context = draft.options.context.take();
        let context = context.unwrap_or_else(|| self.current_context());
        let current = endpoint.policy.current();
        let settings = current.settings();
        let at_once = self.codings.sends_as_it_is(&draft);
        let prepared = if at_once {
            Ok(body)
        } else {
            self.codings.prepare(&mut draft, body).await
        };
        // In a block of its own, as what is only passed through here would be kept until the end.
        let outgoing = {
            let dressed = prepared.and_then(|body| Ok((body, self.dress(&mut draft, settings)?)));
            match dressed {
                Ok((body, dressed)) => {
                    let body = body.replayable(self.replay_limit);
                    Outgoing::new(&draft, dressed, body, &context)
                }
                Err(error) => {
                    return self.ended(endpoint, &draft, &context, Err(error), began, active);
                }
            }
        };
        // In boxes of their own: few calls name a version, and all would be as large.
        let versions = asked_versions(settings, outgoing.options()).map(Box::new);
        let result = if let Some(versions) = &versions {
            Box::pin(self.by_version(endpoint, settings, versions, &outgoing, began)).await
        } else {
            let mut whole = Leg::whole(outgoing.options());
            whole.began = at_once.then_some(began);
            self.by_policy(
                endpoint,
                (&endpoint.policy, &current),
                settings,
                &outgoing,
                began,
                whole,
            )
            .await
        };
        drop(outgoing);
        self.ended(endpoint, &draft, &context, result, began, active)
    }

    /// The end of a call: measures, log, and what holds on to the answer as long as it is read.
    fn ended(
        &self,
        endpoint: &Endpoint,
        draft: &Draft,
        context: &Context,
        mut result: Result<Reply>,
        began: Instant,
        active: impl Send + 'static,
    ) -> Result<Reply> {
        let elapsed = began.elapsed();
        let on_its_way = result.as_mut().is_ok_and(|reply| goes_on(reply));
        match &mut result {
            // Counted when its body ends: one that breaks off is a failure. The latency is that of the head.
            Ok(response) if on_its_way => {
                let (metrics, status) = (endpoint.metrics.clone(), response.status().as_u16());
                let tell = move |ended: &mut Ended| match ended.end {
                    End::Broken(kind) | End::OwnFault(kind) => metrics.failed(kind, elapsed),
                    End::Late => metrics.failed(ErrorKind::Timeout, elapsed),
                    End::Whole | End::Overslept | End::Dropped { .. } => {
                        metrics.answered(status, elapsed);
                    }
                };
                response.body_mut().when_ended(tell);
            }
            _ => self.count(endpoint, &result, elapsed),
        }
        self.log(endpoint, draft, context, &result, elapsed);
        match result {
            Ok(mut response) => {
                if !draft.options.endless {
                    self.codings.bound_stream(&mut response);
                }
                response.body_mut().hold(active);
                Ok(response)
            }
            Err(error) => Err(self.described(error, endpoint, draft)),
        }
    }

    fn count(&self, endpoint: &Endpoint, result: &Result<Reply>, elapsed: Duration) {
        match result {
            Ok(response) => endpoint
                .metrics
                .answered(response.status().as_u16(), elapsed),
            Err(error) => {
                endpoint.metrics.failed(error.kind(), elapsed);
                self.count_refusal(error);
            }
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

    /// Adds what the client sends with every request, and says how this one is sent.
    fn dress(&self, draft: &mut Draft, settings: &EffectivePolicy) -> Result<Dressed> {
        let path = self.path(&draft.uri)?;
        for (name, value) in &self.headers {
            if !draft.headers.contains_key(name) {
                draft.headers.insert(name.clone(), value.clone());
            }
        }
        let idempotent = draft.options.idempotent.unwrap_or_else(|| {
            let method = draft.method.as_str();
            let known = settings.retry.methods.iter().any(|known| known == method);
            known || draft.headers.contains_key(IDEMPOTENCY_KEY)
        });
        let decodes = self.codings.ask(&draft.method, &mut draft.headers);
        Ok(Dressed {
            path,
            idempotent,
            decodes,
        })
    }

    /// The path to send: behind the prefix, or of an absolute URI, which has to lead to where the client leads.
    fn path(&self, uri: &Uri) -> Result<PathAndQuery> {
        let written = uri.path_and_query();
        if let Some(authority) = uri.authority() {
            let fits = match &self.destination {
                Destination::Fixed(peer) => {
                    let scheme = uri.scheme().is_none_or(|s| *s == peer.origin.scheme());
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

    pub(super) async fn by_policy(
        &self,
        endpoint: &Endpoint,
        (policy, current): (&Policy, &Current),
        settings: &Arc<EffectivePolicy>,
        outgoing: &Outgoing<'_>,
        began: Instant,
        leg: Leg,
    ) -> Result<Reply> {
        let options = outgoing.options();
        let mut call = Call::new(outgoing.context).repeatable(outgoing.idempotent);
        call.total = leg.total;
        call.attempt = options.request_timeout;
        call.max_attempts = options.max_attempts;
        if let Some(hedge) = &settings.hedge {
            let method = outgoing.method().as_str();
            call.hedge = hedge.methods.iter().any(|known| known == method) && outgoing.is_whole();
        }
        let mut limits = Limits::from(&settings.timeout);
        if !options.open_end {
            let total = options.timeout.unwrap_or(settings.timeout.total);
            let deadline = Deadline::of_call(began, total, outgoing.context.deadline());
            limits.deadline = Some(deadline.at);
        }
        let trip = Trip {
            endpoint,
            policy,
            current,
            settings,
            outgoing,
            limits,
            began,
        };
        let plan = self.cache.plan(self, endpoint, settings, outgoing);
        let watches = self.cache.watches_since(plan.as_ref());
        let through = plan.as_ref().filter(|_| watches.is_none());
        match (settings.fallback.as_ref().filter(|_| leg.is_last), through) {
            (None, None) => {
                let mut now = call;
                now.began = leg.began;
                let result = self.forward(&trip, &now).await;
                match watches {
                    None => result,
                    Some(since) => self.watched(&trip, call, result, since).await,
                }
            }
            // In boxes of their own: few calls have either, and all would be as large.
            (None, Some(plan)) => Box::pin(self.through_cache(plan, &trip, call)).await,
            (Some(fallback), _) => {
                let within = async |call| match &plan {
                    None => self.forward(&trip, &call).await,
                    Some(plan) => self.through_cache(plan, &trip, call).await,
                };
                let answer = |result, deadline| {
                    let last_known = || self.last_known(plan.as_ref(), &trip);
                    self.fall_back(
                        fallback,
                        outgoing,
                        trip.limits,
                        result,
                        deadline,
                        last_known,
                    )
                };
                let repeatable = || outgoing.will_repeat();
                let judge = Judge {
                    on_status: &settings.retry.on_status,
                    repeatable: &repeatable,
                    tried: &Tried::default(),
                };
                Box::pin(policy.answer_for(call, &judge, within, answer)).await
            }
        }
    }

    /// Makes a call through retry, breaker, bulkhead and the rest inside them.
    pub(crate) async fn forward(&self, trip: &Trip<'_>, call: &Call) -> Result<Reply> {
        let outgoing = trip.outgoing;
        self.close_departed();
        let tried = Tried::of(call.hedge && call.repeatable, self.key_of(outgoing));
        let judge = Judge {
            on_status: &trip.settings.retry.on_status,
            repeatable: &|| outgoing.will_repeat(),
            tried: &tried,
        };
        let attempts = call.max_attempts.unwrap_or(trip.settings.retry.attempts());
        let allowance = Allowance {
            policy: trip.policy,
            attempts,
            elsewhere: false,
        };
        // An attempt that is disturbed may be held up between its beginning and here.
        let at_once = trip.settings.chaos.is_none();
        let attempt = |attempt: Attempt| {
            let mut way = Way {
                outgoing,
                tried: &tried,
                attempt,
                limits: trip.limits,
                allowance,
                circuits: trip.current.instance_circuits().map(Arc::as_ref),
            };
            way.limits.now = at_once.then_some(attempt.began);
            async move { self.attempt(&self.destination, &mut way).await }
        };
        let run = trip.policy.run_as(trip.current, *call, &judge, attempt);
        let mut result = run.await;
        if outgoing.idempotent && attempts > 1 {
            judge.mark(&mut result);
        }
        result
    }

    /// From the first call on, connections to instances that leave are closed, and their circuits forgotten.
    fn close_departed(&self) {
        if let Destination::Balanced(balanced) = &self.destination
            && !self.closes_departed.load(Ordering::Relaxed)
            && !self.closes_departed.swap(true, Ordering::Relaxed)
        {
            let departures = balanced.instances().departures();
            let forget = self.maker.forgetting();
            self.transport.close_departed(departures, forget);
        }
    }

    /// Whom a call is about: as it says itself, or as its headers do where that is configured.
    fn key_of(&self, outgoing: &Outgoing<'_>) -> Option<Arc<str>> {
        if let Some(key) = &outgoing.options().affinity {
            return Some(Arc::clone(key));
        }
        match &self.destination {
            Destination::Balanced(balanced) => {
                let config = balanced.instances().load_balancer();
                key_of(config, outgoing.headers())
            }
            Destination::Fixed(_) => None,
        }
    }

    /// The origin that a request leads to, as a URL; one that leads nowhere else where instances are balanced.
    #[cfg_attr(not(feature = "cache"), expect(dead_code, reason = "for the cache"))]
    pub(crate) fn origin_text(&self) -> String {
        match &self.destination {
            Destination::Fixed(peer) => {
                let (scheme, authority) = (peer.origin.scheme(), peer.origin.authority());
                format!("{scheme}://{authority}")
            }
            Destination::Balanced(_) => "http://service.invalid".to_owned(),
        }
    }

    /// Whether every attempt writes this header anew; its name is in lower case.
    #[cfg_attr(not(feature = "cache"), expect(dead_code, reason = "for the cache"))]
    pub(crate) fn injects(&self, name: &str) -> bool {
        self.injector.writes_anew(name)
    }
}
