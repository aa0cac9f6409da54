//! The cache of a client, and what it has to do with one call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderValue, Method};
use trunkline_core::Result;
use trunkline_resilience::EffectivePolicy;
use trunkline_resilience::cache::CacheSettings;
use trunkline_telemetry::Metrics;
use trunkline_telemetry::metrics::CacheMetrics;

use super::directives::Directives;
use super::key::{ANYBODY, Parts, Telling, full_key, identity};
use super::store::Cleared;
use super::{CallCache, Clear, ResponseCache};
use crate::client::{ClientBuilder, Core, Endpoint, EnhancedHttpClient, Outgoing};
use crate::response::Response;

use super::CacheStatus;

/// Requests with these are between their caller and the other side.
const PRIVATE_MATTERS: [HeaderName; 4] = [RANGE, IF_RANGE, IF_MATCH, IF_UNMODIFIED_SINCE];

/// The cache of a client.
#[derive(Debug)]
pub(crate) struct ClientCache {
    /// `None` for a plain client.
    memory: Option<OnceLock<ResponseCache>>,
    metrics: CacheMetrics,
    all_metrics: Metrics,
    pub(super) core: OnceLock<Weak<Core>>,
    warned: AtomicBool,
}

/// What is remembered of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct EndpointCache {
    /// An answer of it has been kept.
    pub(super) warm: AtomicBool,
}

/// What the cache has to do with a call.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Look, and keep what comes.
    Look(Box<Look>),
    /// Nothing of this endpoint has ever been kept: keep what says that it may be.
    Watch,
    /// What leads there has changed once it is done.
    Change,
}

/// What is looked for.
#[derive(Debug)]
pub(crate) struct Look {
    pub(super) policy: Arc<EffectivePolicy>,
    pub(super) ttl: Option<Duration>,
    /// As users know it.
    pub(super) user_key: Box<str>,
    /// The version of the service that is asked, where one is named.
    pub(super) version: Option<Arc<str>>,
    /// What makes answers differ although the same was asked for: version, and whether codings are left as they come.
    form: Box<str>,
    pub(super) key: Arc<str>,
    pub(super) tags: Box<[String]>,
    pub(super) mode: Mode,
    /// The request has no wishes of its own about what is kept.
    pub(super) plain: bool,
    pub(super) only_if_cached: bool,
    pub(super) coalesce: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Usual,
    Refresh,
    Renew,
}

impl Look {
    /// The key of answers that anybody may have.
    pub(super) fn public_key(&self, service: &str) -> Arc<str> {
        full_key(service, &self.user_key, &self.form, ANYBODY)
    }

    pub(super) fn settings(&self) -> &CacheSettings {
        static USUAL: OnceLock<CacheSettings> = OnceLock::new();
        let own = self.policy.cache.as_ref();
        own.unwrap_or_else(|| USUAL.get_or_init(CacheSettings::default))
    }
}

impl ClientCache {
    pub(crate) fn new(
        given: Option<ResponseCache>,
        enhanced: bool,
        service: &str,
        metrics: &Metrics,
    ) -> Self {
        let memory = enhanced.then(|| given.map_or_else(OnceLock::new, OnceLock::from));
        Self {
            memory,
            metrics: metrics.cache(service),
            all_metrics: metrics.clone(),
            core: OnceLock::new(),
            warned: AtomicBool::new(false),
        }
    }

    /// Says whose cache it is, for what is asked in the background.
    pub(crate) fn belongs_to(&self, core: &Arc<Core>) {
        self.core.get_or_init(|| Arc::downgrade(core));
    }

    pub(super) fn metrics(&self) -> &CacheMetrics {
        &self.metrics
    }

    /// The memory if there is one already.
    fn known(&self) -> Option<&ResponseCache> {
        self.memory.as_ref()?.get()
    }

    /// Counts what was cleared: what was asked before is not kept after.
    pub(super) fn moment(&self) -> u64 {
        self.known().map_or(0, |cache| cache.0.store.moment())
    }

    /// The memory, made now if need be.
    pub(super) fn memory(&self) -> Option<&ResponseCache> {
        let make = || ResponseCache::builder().metrics(&self.all_metrics).build();
        self.memory.as_ref().map(|memory| memory.get_or_init(make))
    }

    /// The moment to remember where the cache does nothing but watch for what may be kept; `None` where it does more, or
    /// nothing.
    pub(crate) fn watches_since(&self, plan: Option<&Plan>) -> Option<u64> {
        matches!(plan, Some(Plan::Watch)).then(|| self.moment())
    }

    /// What the cache has to do with a call; `None` for nothing.
    pub(crate) fn plan(
        &self,
        core: &Core,
        endpoint: &Endpoint,
        policy: &Arc<EffectivePolicy>,
        outgoing: &Outgoing<'_>,
    ) -> Option<Plan> {
        self.memory.as_ref()?;
        let draft = outgoing.draft();
        // Whoever keeps nothing itself changes what others keep all the same.
        if !matches!(draft.method, Method::GET | Method::HEAD) {
            let safe = matches!(draft.method, Method::OPTIONS | Method::TRACE);
            let kept = || self.known().is_some_and(|cache| cache.holds_anything());
            return (!safe && kept()).then_some(Plan::Change);
        }
        let settings = policy.cache.as_ref()?;
        let call = outgoing.options().cache.as_deref();
        if call.is_some_and(|call| call.bypass) {
            return None;
        }
        let asked = settings.asked || call.is_some();
        // What a middleware adds to an attempt may say who asks, and is not seen here. That the cache is on says nothing of
        // that: it is on anyway.
        let chosen = settings.ttl.is_some() || settings.public || call.is_some();
        if !chosen && outgoing.options().around.is_some() {
            return None;
        }
        let wishes = || draft.headers.contains_key(http::header::CACHE_CONTROL);
        if !asked && !endpoint.cache.warm.load(Ordering::Relaxed) && !wishes() {
            let quiet = draft.method == Method::GET;
            return quiet.then_some(Plan::Watch);
        }
        self.look(core, endpoint, policy, outgoing).map(Plan::Look)
    }

    pub(super) fn look(
        &self,
        core: &Core,
        endpoint: &Endpoint,
        policy: &Arc<EffectivePolicy>,
        outgoing: &Outgoing<'_>,
    ) -> Option<Box<Look>> {
        let settings = policy.cache.as_ref()?;
        let usual = CallCache::default();
        let call = outgoing.options().cache.as_deref().unwrap_or(&usual);
        let draft = outgoing.draft();
        let headers = &draft.headers;
        if PRIVATE_MATTERS
            .iter()
            .any(|name| headers.contains_key(name))
        {
            return None;
        }
        let plain = !headers.contains_key(http::header::CACHE_CONTROL)
            && !headers.contains_key(http::header::PRAGMA);
        let mut only_if_cached = false;
        if !plain {
            let said = Directives::of_request(headers);
            only_if_cached = said.has("only-if-cached");
            if said.has("no-store") {
                return None;
            }
        }
        let ttl = call.ttl.or(settings.ttl);
        let parts = Parts {
            endpoint: &endpoint.name,
            asked: draft.uri.path(),
            target: outgoing.path(),
            headers,
        };
        let given = call.key.as_deref().filter(|_| ttl.is_some());
        let user_key = parts.user_key(settings, ttl.is_some(), given);
        let tags = settings.tags.iter().map(|tag| parts.fill(tag));
        let tags: Result<Vec<_>, _> = tags.collect();
        let (user_key, mut tags) = match (user_key, tags) {
            (Ok(key), Ok(tags)) => (key, tags),
            (Err(name), _) | (_, Err(name)) => {
                self.warn_once(&core.service, endpoint, &name);
                return None;
            }
        };
        tags.extend_from_slice(&call.tags);
        let identity = match settings.public {
            true => ANYBODY.to_owned(),
            false => {
                let telling = match (ttl, &settings.vary_on) {
                    (None, _) => Telling::Speaking,
                    (Some(_), Some(_)) => Telling::Chosen,
                    (Some(_), None) => Telling::Unknown,
                };
                identity(headers, outgoing.context, telling)
            }
        };
        let mode = match call {
            CallCache { renew: true, .. } => Mode::Renew,
            CallCache {
                force_refresh: true,
                ..
            } => Mode::Refresh,
            _ => Mode::Usual,
        };
        // Whoever asks for codings by name reads them as they come.
        let raw = headers.contains_key(ACCEPT_ENCODING) && !outgoing.decodes;
        let version = outgoing.version();
        let mut form = version.map(ToString::to_string).unwrap_or_default();
        if raw {
            form.push_str("+raw");
        }
        Some(Box::new(Look {
            policy: Arc::clone(policy),
            ttl,
            key: full_key(&core.service, &user_key, &form, &identity),
            user_key: user_key.into(),
            version: version.cloned(),
            form: form.into(),
            tags: tags.into(),
            mode,
            plain,
            only_if_cached,
            coalesce: mode == Mode::Usual
                && draft.method == Method::GET
                && !headers.contains_key(IF_NONE_MATCH)
                && !headers.contains_key(IF_MODIFIED_SINCE),
        }))
    }

    /// A key that lacks a part would be that of other answers as well.
    fn warn_once(&self, service: &str, endpoint: &Endpoint, name: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                target: "trunkline", service, endpoint = %endpoint.name, parameter = name,
                "an answer is not kept: its key names a parameter that the call does not have"
            );
        }
    }
}

impl ResponseCache {
    pub(super) fn holds_anything(&self) -> bool {
        self.0.store.is_used() || self.0.tier.is_some()
    }
}

impl ClientBuilder<EnhancedHttpClient> {
    /// The memory in which answers are kept; several clients may share one. Default: one of its own, of 64 MiB at most,
    /// made when the first answer is kept. What is kept is said by `cache` in the policies; nothing but what says itself
    /// how long it holds, unless something else is asked for.
    pub fn cache(mut self, cache: ResponseCache) -> Self {
        self.cache = Some(cache);
        self.keeps_answers = true;
        self
    }

    /// Keeps nothing, whatever the policies say: for what stands between strangers.
    pub fn without_cache(mut self) -> Self {
        self.keeps_answers = false;
        self
    }
}

impl EnhancedHttpClient {
    /// The memory in which answers are kept.
    #[must_use]
    pub fn cache(&self) -> Option<&ResponseCache> {
        self.handle.core().cache.memory()
    }

    /// Clears answers of this client's service: by key (`"product:123"`), prefix or tag. Says how many keys there were in
    /// this process.
    ///
    /// # Errors
    /// When the tier that processes share cannot be reached; this process has cleared its memory all the same.
    ///
    /// # Cancel safety
    /// Dropping it leaves open what the shared tier has cleared.
    pub async fn clear_cache(&self, what: impl Into<Clear>) -> Result<u64> {
        let core = self.handle.core();
        match core.cache.known() {
            Some(cache) => cache.cleared(&core.service, Cleared::By(what.into())).await,
            None => Ok(0),
        }
    }
}

impl Response {
    /// How the call met the cache; `None` where it had nothing to do with it.
    #[must_use]
    pub fn cache_status(&self) -> Option<CacheStatus> {
        self.inner.extensions().get().copied()
    }
}

/// Streams of events have no end to be kept.
pub(super) fn is_endless(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.to_ascii_lowercase().starts_with(b"text/event-stream"))
}
