//! Carries a call through the cache.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt};
use http::header::{
    ACCEPT_ENCODING, AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_LOCATION, DATE, EXPIRES,
    HeaderMap, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LOCATION,
};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use trunkline_core::{BoxFuture, Error, ErrorKind, Result, Retry};
use trunkline_resilience::cache::CacheTier;
use trunkline_resilience::timeout::Deadline;
use trunkline_resilience::{Call, DeadlineTooShort, Elapsed};
use trunkline_telemetry::metrics::CacheOutcome;

use super::client::{Look, Mode, Plan, is_endless};
use super::flight::{Entered, Landed, Lead, shared};
use super::store::Cleared;
use super::stored::{About, Asked, Keepable, Stored, Times, Use, caller_has_it, later, vary_names};
use super::{CacheStatus, CallCache, ResponseCache, encode, shared_tags};
use crate::body::Body;
use crate::client::{Core, Trip};
use crate::options::Draft;
use crate::redirect::Redirected;
use crate::transport::Reply;

/// How long nobody waits for another's answer where it turned out to be for one caller alone.
const PASS: Duration = Duration::from_secs(10);

impl Core {
    /// Makes a call with what is kept in mind.
    pub(crate) async fn through_cache(
        &self,
        plan: &Plan,
        trip: &Trip<'_>,
        call: Call,
    ) -> Result<Reply> {
        match plan {
            Plan::Change => {
                let result = self.forward(trip, &call).await;
                let paths = self.changed_by(trip, &result);
                self.changed(paths).await;
                result
            }
            Plan::Watch => {
                let since = self.cache.moment();
                let result = self.forward(trip, &call).await;
                self.watched(trip, call, result, since).await
            }
            Plan::Look(look) => match self.cache.memory() {
                Some(cache) => Visit::new(self, cache, look, trip, call).run().await,
                None => self.forward(trip, &call).await,
            },
        }
    }

    /// Takes what came of a call that was only watched.
    pub(crate) async fn watched(
        &self,
        trip: &Trip<'_>,
        call: Call,
        result: Result<Reply>,
        since: u64,
    ) -> Result<Reply> {
        match result {
            // In a box of its own: most answers say nothing, and all calls would be as large.
            Ok(response) if speaks_of_time(response.headers()) => {
                Box::pin(self.first(trip, call, response, since)).await
            }
            result => result,
        }
    }

    /// The first answer of an endpoint that may be kept.
    async fn first(
        &self,
        trip: &Trip<'_>,
        call: Call,
        response: Reply,
        since: u64,
    ) -> Result<Reply> {
        let look = self
            .cache
            .look(self, trip.endpoint, trip.settings, trip.outgoing);
        let (Some(look), Some(cache)) = (look, self.cache.memory()) else {
            return Ok(response);
        };
        let visit = Visit::new(self, cache, &look, trip, call);
        let (response, kept) = visit.keep(response, since, visit.times()).await;
        match kept.ok().flatten() {
            Some(_) => Ok(visit.missed(response)),
            None => Ok(response),
        }
    }

    /// The last answer that is known, however old, in place of one that failed.
    pub(crate) fn last_known(&self, plan: Option<&Plan>, trip: &Trip<'_>) -> Option<Reply> {
        let (Some(Plan::Look(look)), Some(cache)) = (plan, self.cache.memory()) else {
            return None;
        };
        let visit = Visit::new(self, cache, look, trip, Call::default());
        let now = cache.now();
        let (stored, _) = visit.find(now)?;
        (!stored.windows.never).then(|| visit.serve(&stored, CacheStatus::Stale, now))
    }

    /// What a request has changed: what leads to its path, and to the places that the answer names.
    fn changed_by(&self, trip: &Trip<'_>, result: &Result<Reply>) -> Vec<String> {
        if !may_have_changed(result) {
            return Vec::new();
        }
        let own = trip.outgoing.path().path().to_owned();
        let mut paths = vec![own.clone()];
        for name in [LOCATION, CONTENT_LOCATION] {
            let response = result.as_ref().ok();
            let value = response.and_then(|response| response.headers().get(name));
            let value = value.and_then(|value| value.to_str().ok());
            let path = value.and_then(|value| self.own_path(&own, value));
            paths.extend(path.filter(|path| *path != own));
        }
        paths
    }

    async fn changed(&self, paths: Vec<String>) {
        let Some(cache) = self.cache.memory() else {
            return;
        };
        for path in paths {
            let cleared = cache.cleared(&self.service, Cleared::Path(path));
            match tokio::time::timeout(cache.0.tier_timeout, cleared).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => not_shared("clear", &error),
                Err(_) => not_shared("clear", &"no answer in time"),
            }
        }
    }

    /// The path of a reference, if it leads to the same origin.
    fn own_path(&self, base: &str, reference: &str) -> Option<String> {
        let origin = self.origin_text();
        let base = url::Url::parse(&origin).ok()?.join(base).ok()?;
        let to = base.join(reference).ok()?;
        (to.origin() == base.origin()).then(|| to.path().to_owned())
    }

    /// The same request in the background, to renew what is kept. In a box: a call would contain itself.
    fn renewed(self: Arc<Self>, draft: Box<Draft>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move { self.call(draft, Body::empty()).await.map(drop) })
    }
}

/// Whether an unsafe request may have changed something: it was not refused, or nobody knows.
fn may_have_changed(result: &Result<Reply>) -> bool {
    match result {
        Ok(response) => response.status().is_success() || response.status().is_redirection(),
        Err(error) => error.retry() != Retry::Safe,
    }
}

fn speaks_of_time(headers: &HeaderMap) -> bool {
    headers.contains_key(CACHE_CONTROL) || headers.contains_key(EXPIRES)
}

fn not_shared(what: &'static str, error: &dyn std::fmt::Display) {
    tracing::warn!(
        target: "trunkline", what, %error,
        "the shared tier of the cache did not answer; the call goes on without it"
    );
}

/// One call at the cache.
struct Visit<'a> {
    core: &'a Core,
    cache: &'a ResponseCache,
    look: &'a Look,
    trip: &'a Trip<'a>,
    call: Call,
    deadline: Deadline,
}

impl<'a> Visit<'a> {
    fn new(
        core: &'a Core,
        cache: &'a ResponseCache,
        look: &'a Look,
        trip: &'a Trip<'a>,
        call: Call,
    ) -> Self {
        let total = call.total.unwrap_or(trip.settings.timeout.total);
        Self {
            deadline: Deadline::of_call(trip.began, total, call.deadline),
            core,
            cache,
            look,
            trip,
            call,
        }
    }

    fn headers(&self) -> &HeaderMap {
        &self.trip.outgoing.draft().headers
    }

    async fn run(&self) -> Result<Reply> {
        let now = self.cache.now();
        let mut old = None;
        if self.look.mode != Mode::Refresh
            && let Some((stored, is)) = self.find(now)
        {
            if self.look.mode == Mode::Usual {
                if is == Use::Fresh {
                    return Ok(self.serve(&stored, CacheStatus::Hit, now));
                }
                let window = stored.windows.revalidate;
                if self.look.plain && !window.is_zero() && stored.past(now) < window {
                    self.renew();
                    return Ok(self.serve(&stored, CacheStatus::Stale, now));
                }
            }
            old = Some(stored);
        }
        if self.look.only_if_cached {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
            return Ok(Box::new(response));
        }
        if !self.look.coalesce || self.passes(now) {
            return self.ask(old, None).await;
        }
        let enter = self.cache.0.flights.enter(&self.look.key);
        match self.deadline.limit(enter).await.map_err(Error::from)? {
            Entered::Landed(Landed::Answer(stored)) => {
                let now = self.cache.now();
                if stored.answers(self.headers(), self.look.plain, now) == Use::No {
                    return self.ask(old, None).await;
                }
                Ok(self.serve(&stored, CacheStatus::Shared, now))
            }
            Entered::Landed(Landed::Failed(error)) => self.in_place_of(old, Err(shared(&error))),
            Entered::Landed(Landed::Pass) => self.ask(old, None).await,
            Entered::Lead(lead) => self.lead(old, lead).await,
        }
    }

    async fn lead(&self, old: Option<Arc<Stored>>, lead: Lead) -> Result<Reply> {
        // Another may have been before us between the look and the queue.
        let now = self.cache.now();
        match self.find(now) {
            Some((stored, Use::Fresh)) => {
                lead.land(Landed::Answer(Arc::clone(&stored)));
                Ok(self.serve(&stored, CacheStatus::Hit, now))
            }
            Some((stored, _)) => self.ask(Some(stored), Some(lead)).await,
            None => self.ask(old, Some(lead)).await,
        }
    }

    /// The newest answer to this request, and what it is to it.
    fn find(&self, now: SystemTime) -> Option<(Arc<Stored>, Use)> {
        let of = |key: &Arc<str>| {
            let slot = self.cache.0.store.get(key)?;
            slot.find(self.headers(), self.look.plain, now)
        };
        let own = of(&self.look.key);
        match own {
            Some((_, Use::Fresh)) => own,
            own => of(&self.look.public_key(&self.core.service)).or(own),
        }
    }

    fn passes(&self, now: SystemTime) -> bool {
        let slot = self.cache.0.store.get(&self.look.key);
        slot.is_some_and(|slot| slot.passes(now))
    }

    /// Asks the tier that processes share, then the other side.
    async fn ask(&self, old: Option<Arc<Stored>>, lead: Option<Lead>) -> Result<Reply> {
        let since = self.cache.0.store.moment();
        let mut old = old;
        if old.is_none() && self.look.mode == Mode::Usual {
            let now = self.cache.now();
            match self.others_have(since, now).await {
                Some((stored, Use::Fresh)) => {
                    if let Some(lead) = lead {
                        lead.land(Landed::Answer(Arc::clone(&stored)));
                    }
                    return Ok(self.serve(&stored, CacheStatus::Hit, now));
                }
                Some((stored, _)) => old = Some(stored),
                None => {}
            }
        }
        let (mut result, mut times) = self.exchange(old.as_deref()).await;
        if let (Ok(response), Some(stored)) = (&result, &old)
            && response.status() == StatusCode::NOT_MODIFIED
            && !self.caller_asks()
        {
            if stored.is_confirmed_by(response.headers()) {
                let new = response.headers().clone();
                let stored = Arc::clone(stored);
                drop(result);
                return Ok(self.confirmed(&stored, &new, since, times, lead).await);
            }
            (result, times) = self.exchange(None).await;
        }
        self.settle(result, old, since, times, lead).await
    }

    /// Sends the request, with the question whether what is kept still holds.
    async fn exchange(&self, old: Option<&Stored>) -> (Result<Reply>, Times) {
        let outgoing = self.trip.outgoing;
        let wanted = !self.caller_asks() && self.look.mode != Mode::Refresh;
        let validators = old.filter(|_| wanted).and_then(Stored::validators);
        let sent = self.cache.now();
        let result = match validators {
            Some(validators) => {
                outgoing.ask_whether(Some(validators));
                let result = self.core.forward(self.trip, &self.call).await;
                outgoing.ask_whether(None);
                result
            }
            None => self.core.forward(self.trip, &self.call).await,
        };
        let answered = self.cache.now();
        (result, Times { sent, answered })
    }

    /// Whether the request asks by itself whether something still holds.
    fn caller_asks(&self) -> bool {
        let headers = self.headers();
        headers.contains_key(IF_NONE_MATCH) || headers.contains_key(IF_MODIFIED_SINCE)
    }

    async fn confirmed(
        &self,
        stored: &Arc<Stored>,
        new: &HeaderMap,
        since: u64,
        times: Times,
        lead: Option<Lead>,
    ) -> Reply {
        let mut headers = stored.updated_headers(new);
        if !new.contains_key(DATE) {
            headers.remove(DATE);
        }
        let keepable = self.keepable(stored.status, &headers, times);
        let renewed = match keepable {
            Some(keepable) => {
                let public = keepable.public;
                let renewed = Arc::new(keepable.with_body(stored.body.clone(), self.about()));
                self.put(&renewed, public, since).await;
                renewed
            }
            None => {
                self.forget();
                Arc::new(
                    Keepable::passing(stored.status, &headers, times)
                        .with_body(stored.body.clone(), self.about()),
                )
            }
        };
        if let Some(lead) = lead {
            lead.land(Landed::Answer(Arc::clone(&renewed)));
        }
        self.serve(&renewed, CacheStatus::Revalidated, times.answered)
    }

    /// Keeps what came, tells those who wait, and answers with what is kept where nothing came.
    async fn settle(
        &self,
        result: Result<Reply>,
        old: Option<Arc<Stored>>,
        since: u64,
        times: Times,
        lead: Option<Lead>,
    ) -> Result<Reply> {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                let shared_error = lead
                    .as_ref()
                    .is_some_and(|lead| lead.is_awaited() && is_of_all(&error));
                let error = match lead {
                    Some(lead) if shared_error => {
                        let error = Arc::new(error);
                        lead.land(Landed::Failed(Arc::clone(&error)));
                        shared(&error)
                    }
                    // Dropped: the next who waits asks within its own time.
                    _ => error,
                };
                return self.in_place_of(old, Err(error));
            }
        };
        let status = response.status();
        let (response, kept) = match self.keep(response, since, times).await {
            (response, Ok(kept)) => (response, kept),
            // It is here only in part: as long as what is kept may stand in, it does.
            (response, Err(error)) => {
                drop(lead);
                return match self.in_place_of(old, Err(error)) {
                    Ok(stale) => Ok(stale),
                    Err(_) => Ok(self.missed(response)),
                };
            }
        };
        let (response, landed) = match kept {
            Some(stored) => (response, Landed::Answer(stored)),
            None if status.is_server_error() && lead.as_ref().is_some_and(Lead::is_awaited) => {
                self.passing(response, times).await
            }
            None => {
                if !status.is_server_error() && status != StatusCode::NOT_MODIFIED {
                    self.not_kept(old.is_some(), times.answered);
                }
                (response, Landed::Pass)
            }
        };
        if let Some(lead) = lead {
            lead.land(landed);
        }
        if status.is_server_error() {
            return self.in_place_of(old, Ok(self.missed(response)));
        }
        Ok(self.missed(response))
    }

    fn missed(&self, mut response: Reply) -> Reply {
        self.core.cache.metrics().met(CacheOutcome::Miss);
        response.extensions_mut().insert(CacheStatus::Miss);
        response
    }

    /// What was kept is no longer what is answered; and nobody need wait for the next answer.
    fn not_kept(&self, had: bool, now: SystemTime) {
        if had {
            self.forget();
        }
        if self.trip.outgoing.draft().method == Method::GET {
            let store = &self.cache.0.store;
            store.pass(&self.look.key, later(now, PASS));
        }
    }

    fn forget(&self) {
        self.cache.0.store.forget(&self.look.key);
        let public = self.look.public_key(&self.core.service);
        self.cache.0.store.forget(&public);
    }

    /// What is kept in place of a failure, for as long as that is allowed (RFC 5861, 4).
    fn in_place_of(&self, old: Option<Arc<Stored>>, result: Result<Reply>) -> Result<Reply> {
        let now = self.cache.now();
        let Some(stored) = old.filter(|old| old.past(now) < old.windows.error) else {
            return result;
        };
        let stands_in = match &result {
            Ok(response) => matches!(response.status().as_u16(), 500 | 502 | 503 | 504),
            Err(error) => !matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Config),
        };
        if !stands_in || self.look.mode == Mode::Renew {
            return result;
        }
        Ok(self.serve(&stored, CacheStatus::Stale, now))
    }

    fn about(&self) -> About {
        About {
            service: Arc::clone(&self.core.service),
            path: self.trip.outgoing.path().path().into(),
            key: self.look.user_key.clone(),
            tags: self.look.tags.clone(),
        }
    }

    /// When the request was sent and answered, where nobody looked before.
    fn times(&self) -> Times {
        let answered = self.cache.now();
        let took = self.trip.began.elapsed();
        Times {
            sent: answered.checked_sub(took).unwrap_or(answered),
            answered,
        }
    }

    fn keepable(&self, status: StatusCode, headers: &HeaderMap, times: Times) -> Option<Keepable> {
        // What differs in what every attempt writes anew answers nobody else.
        if vary_names(headers).any(|name| self.core.injects(&name)) && self.look.ttl.is_none() {
            return None;
        }
        let asked = Asked::new(self.headers());
        let settings = self.look.settings();
        Keepable::new(settings, self.look.ttl, &asked, status, headers, times)
    }

    /// Keeps an answer if it may be kept, whole. What the caller sees is the same either way. An error where it breaks off.
    async fn keep(
        &self,
        response: Reply,
        since: u64,
        times: Times,
    ) -> (Reply, Result<Option<Arc<Stored>>>) {
        let get = self.trip.outgoing.draft().method == Method::GET;
        let too_large = length(response.headers()).is_some_and(|length| length > self.most());
        // Where redirects were followed, it is the answer of another URL, whose life says nothing of theirs.
        let led_on = response.extensions().get::<Redirected>().is_some();
        if !get || too_large || led_on || is_endless(response.headers()) {
            return (response, Ok(None));
        }
        let Some(keepable) = self.keepable(response.status(), response.headers(), times) else {
            return (response, Ok(None));
        };
        let (head, body) = response.into_parts();
        match whole(body, self.cache.0.max_entry).await {
            Ok(bytes) => {
                let public = keepable.public;
                let stored = Arc::new(keepable.with_body(bytes.clone(), self.about()));
                self.put(&stored, public, since).await;
                let response = Box::new(Response::from_parts(head, Body::from(bytes)));
                (response, Ok(Some(stored)))
            }
            Err((body, broke)) => {
                let response = Box::new(Response::from_parts(head, body));
                (response, broke.map_or(Ok(None), Err))
            }
        }
    }

    /// An answer that is not kept, for those who wait as well.
    async fn passing(&self, response: Reply, times: Times) -> (Reply, Landed) {
        let (head, body) = response.into_parts();
        match whole(body, self.cache.0.max_entry).await {
            Ok(bytes) => {
                let passing = Keepable::passing(head.status, &head.headers, times);
                let stored = passing.with_body(bytes.clone(), self.about());
                let response = Box::new(Response::from_parts(head, Body::from(bytes)));
                (response, Landed::Answer(Arc::new(stored)))
            }
            Err((body, _)) => (Box::new(Response::from_parts(head, body)), Landed::Pass),
        }
    }

    fn most(&self) -> u64 {
        u64::try_from(self.cache.0.max_entry).unwrap_or(u64::MAX)
    }

    async fn put(&self, stored: &Arc<Stored>, public: bool, since: u64) {
        let memory = &self.cache.0;
        let key = match public {
            true => &self.look.public_key(&self.core.service),
            false => &self.look.key,
        };
        self.trip.endpoint.cache.warm.store(true, Ordering::Relaxed);
        let kept = memory.store.put(key, Arc::clone(stored), since);
        let Some(tier) = memory.tier.as_ref().filter(|_| kept) else {
            return;
        };
        let now = stored.at;
        let windows = stored.windows.revalidate.max(stored.windows.error);
        let left = stored.expires.duration_since(now).unwrap_or_default() + windows;
        let Some(bytes) = encode::encode(stored).filter(|_| !left.is_zero()) else {
            return;
        };
        let entry = trunkline_resilience::cache::TierEntry::new(bytes, left)
            .with_tags(shared_tags(&stored.about));
        match tokio::time::timeout(memory.tier_timeout, tier.put(key, entry)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => not_shared("put", &error),
            Err(_) => not_shared("put", &"no answer in time"),
        }
        // Cleared meanwhile: the tier may have been first.
        if memory.store.is_cleared(&stored.about, since) {
            let key = trunkline_resilience::cache::Selector::Key(key.to_string());
            match tokio::time::timeout(memory.tier_timeout, tier.remove(&key)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => not_shared("remove", &error),
                Err(_) => not_shared("remove", &"no answer in time"),
            }
        }
    }

    /// What another process has kept.
    async fn others_have(&self, since: u64, now: SystemTime) -> Option<(Arc<Stored>, Use)> {
        let memory = &self.cache.0;
        let tier = memory.tier.as_ref()?;
        let public = self.look.public_key(&self.core.service);
        for key in [&self.look.key, &public] {
            let bytes = match tokio::time::timeout(memory.tier_timeout, tier.get(key)).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => continue,
                Ok(Err(error)) => {
                    not_shared("get", &error);
                    return None;
                }
                Err(_) => {
                    not_shared("get", &"no answer in time");
                    return None;
                }
            };
            let Some(stored) = encode::decode(&self.core.service, &bytes) else {
                continue;
            };
            let is = stored.answers(self.headers(), self.look.plain, now);
            if is != Use::No {
                let stored = Arc::new(stored);
                self.trip.endpoint.cache.warm.store(true, Ordering::Relaxed);
                memory.store.put(key, Arc::clone(&stored), since);
                return Some((stored, is));
            }
        }
        None
    }

    /// Answers with what is kept.
    fn serve(&self, stored: &Stored, status: CacheStatus, now: SystemTime) -> Reply {
        self.core.cache.metrics().met(match status {
            CacheStatus::Hit => CacheOutcome::Hit,
            CacheStatus::Stale => CacheOutcome::Stale,
            CacheStatus::Revalidated => CacheOutcome::Revalidated,
            CacheStatus::Miss => CacheOutcome::Miss,
            CacheStatus::Shared => CacheOutcome::Shared,
        });
        let mut headers = stored.headers.clone();
        headers.insert(AGE, HeaderValue::from(stored.age_at(now).as_secs()));
        let has_it = stored.status.is_success() && caller_has_it(self.headers(), stored);
        let head_only = self.trip.outgoing.draft().method == Method::HEAD;
        let mut response = Response::new(match has_it || head_only {
            true => Body::empty(),
            false => Body::from(stored.body.clone()),
        });
        *response.status_mut() = match has_it {
            true => StatusCode::NOT_MODIFIED,
            false => stored.status,
        };
        if has_it {
            headers.remove(CONTENT_LENGTH);
        }
        *response.headers_mut() = headers;
        response.extensions_mut().insert(status);
        Box::new(response)
    }

    /// Asks in the background whether what is kept still holds, unless that is being done.
    fn renew(&self) {
        let core = self
            .core
            .cache
            .core
            .get()
            .and_then(std::sync::Weak::upgrade);
        let (Some(core), Some(right)) = (core, self.cache.renewing(&self.look.key)) else {
            return;
        };
        let outgoing = self.trip.outgoing;
        let known = outgoing.draft();
        let mut draft = Draft::new(Method::GET);
        draft.uri = known.uri.clone();
        draft.headers = known.headers.clone();
        draft.headers.remove(IF_NONE_MATCH);
        draft.headers.remove(IF_MODIFIED_SINCE);
        if outgoing.decodes {
            // The client's own wish, which it adds anew: else the answer would be left as it comes.
            draft.headers.remove(ACCEPT_ENCODING);
        }
        let mut options = known.options.clone();
        // The caller is gone by then: neither its time nor its wishes bind what is done for the next.
        options.context = Some(outgoing.context.clone().without_deadline());
        options.timeout = None;
        if let Some(version) = &self.look.version {
            options.versions = Some([Arc::clone(version)].into());
        }
        let mut cache = options
            .cache
            .take()
            .map_or_else(CallCache::default, |cache| *cache);
        cache.renew = true;
        options.cache = Some(Box::new(cache));
        draft.options = options;
        let service = Arc::clone(&core.service);
        self.cache.0.tasks.spawn("http cache", async move {
            if let Err(error) = core.renewed(draft).await {
                tracing::debug!(
                    target: "trunkline", %service, error = %error.report(),
                    "what is kept could not be renewed"
                );
            }
            drop(right);
        });
    }
}

/// Whether an error says something about the other side, and not only about the time of one caller.
fn is_of_all(error: &Error) -> bool {
    error.find::<Elapsed>().is_none()
        && error.find::<DeadlineTooShort>().is_none()
        && !matches!(error.kind(), ErrorKind::Cancelled | ErrorKind::Timeout)
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Reads a body whole; one that is longer, has trailers or breaks off stays what it is to its reader.
async fn whole(mut body: Body, limit: usize) -> Result<Bytes, (Body, Option<Error>)> {
    let (mut pieces, mut read) = (Vec::new(), 0_usize);
    while let Some(frame) = body.frame().await {
        let mut broke = None;
        let rest = match frame.map(Frame::into_data) {
            Ok(Ok(piece)) => {
                read = read.saturating_add(piece.len());
                pieces.push(piece);
                if read <= limit {
                    continue;
                }
                None
            }
            Ok(Err(trailers)) => Some(Ok(trailers)),
            Err(error) => {
                let error = Arc::new(error);
                broke = Some(shared(&error));
                Some(Err(shared(&error)))
            }
        };
        let before = pieces.into_iter().map(|piece| Ok(Frame::data(piece)));
        let frames = stream::iter(before.chain(rest)).chain(BodyStream::new(body));
        return Err((Body::new(StreamBody::new(frames)), broke));
    }
    if pieces.len() == 1 {
        return Ok(pieces.pop().unwrap_or_default());
    }
    let mut all = BytesMut::with_capacity(read);
    for piece in pieces {
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}
