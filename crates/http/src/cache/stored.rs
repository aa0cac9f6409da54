//! One answer that is kept: what it is, whom it answers, and until when.
//!
//! Whether it may be kept, how old it is and whether it answers a request is for `http-cache-semantics` to say. It is
//! given the few headers that speak of that, in the one form that it reads well: it takes words in lower case only, does
//! not look at `Date` for the age, overflows on a large `Age`, and of a header with several values sees one. What is
//! answered are the headers as they came.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    AGE, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG,
    EXPIRES, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
    PRAGMA, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE, VARY,
};
use http::{Method, StatusCode, Uri};
use http_cache_semantics::{BeforeRequest, CacheOptions, CachePolicy, RequestLike, ResponseLike};
use trunkline_resilience::cache::{CacheMode, CacheSettings};

use super::directives::Directives;

/// Headers that speak of one connection.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Headers that say whether an answer may be used.
const TELLING: [HeaderName; 3] = [ETAG, PRAGMA, SET_COOKIE];

/// Age beyond which nobody counts.
const OLDEST: u64 = 1 << 31;

/// What an entry takes beside its texts.
const OVERHEAD: usize = 1024;

/// One answer that is kept.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) policy: CachePolicy,
    /// When it came.
    pub(super) at: SystemTime,
    /// Its age then.
    pub(super) age: Duration,
    pub(super) expires: SystemTime,
    /// Whether its time was given to it here, not by itself.
    pub(super) by_ttl: bool,
    pub(super) varies: bool,
    pub(super) shared: bool,
    pub(super) asked: Asked,
    pub(super) windows: Windows,
    pub(super) about: About,
}

/// How long it may be used past its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Windows {
    pub(super) revalidate: Duration,
    pub(super) error: Duration,
    /// It must not be used past its time at all.
    pub(super) never: bool,
}

/// Whose answer it is and what clears it.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) service: Arc<str>,
    /// The path without its query.
    pub(super) path: Box<str>,
    /// The key as users know it.
    pub(super) key: Box<str>,
    pub(super) tags: Box<[String]>,
}

/// A request as the rules see it; HEAD is answered by what GET got.
///
/// Where it leads is part of the key, so the rules need not compare it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) headers: HeaderMap,
}

impl Asked {
    pub(super) fn new(headers: &HeaderMap) -> Self {
        let mut joined = HeaderMap::with_capacity(headers.len());
        for name in headers.keys() {
            if let Some(value) = all_values(headers, name) {
                joined.insert(name.clone(), value);
            }
        }
        if joined.contains_key(CACHE_CONTROL) {
            set(
                &mut joined,
                CACHE_CONTROL,
                &Directives::of(headers).text_of_request(),
            );
        }
        Self { headers: joined }
    }
}

impl RequestLike for Asked {
    fn uri(&self) -> Uri {
        Uri::from_static("/")
    }

    fn is_same_uri(&self, _: &Uri) -> bool {
        true
    }

    fn method(&self) -> &Method {
        &Method::GET
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// An answer as the rules see it.
struct Told {
    status: StatusCode,
    headers: HeaderMap,
}

impl ResponseLike for Told {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }
}

/// An answer, and how the rules are to look at it.
pub(super) struct Seen<'a> {
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    pub(super) said: &'a Directives,
    pub(super) age: Duration,
    pub(super) varies: bool,
    pub(super) shared: bool,
    pub(super) at: SystemTime,
}

impl Seen<'_> {
    /// What the rules say of it as the answer to a request.
    pub(super) fn by(&self, asked: &Asked) -> CachePolicy {
        let mut told = told(self.status, self.headers, self.said, self.age);
        if !self.varies {
            told.headers.remove(VARY);
        }
        let options = CacheOptions {
            shared: self.shared,
            // Only what says itself how long it holds.
            cache_heuristic: 0.0,
            ..CacheOptions::default()
        };
        CachePolicy::new_options(asked, &told, self.at, options)
    }
}

/// When a request was sent and answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) sent: SystemTime,
    pub(super) answered: SystemTime,
}

/// What is known of an answer that may be kept, before its body has been read.
#[derive(Debug)]
pub(super) struct Keepable {
    status: StatusCode,
    headers: HeaderMap,
    policy: CachePolicy,
    /// The request, of its headers only those that the answer depends on: no tokens.
    asked: Asked,
    at: SystemTime,
    age: Duration,
    expires: SystemTime,
    by_ttl: bool,
    varies: bool,
    shared: bool,
    windows: Windows,
    /// Anybody may have it.
    pub(super) public: bool,
}

impl Keepable {
    /// Whether an answer may be kept, and for how long.
    pub(super) fn new(
        settings: &CacheSettings,
        ttl: Option<Duration>,
        asked: &Asked,
        status: StatusCode,
        headers: &HeaderMap,
        times: Times,
    ) -> Option<Self> {
        let said = Directives::of(headers);
        let ttl = ttl.and_then(|_| ttl_of(settings, ttl, status));
        if status == StatusCode::PARTIAL_CONTENT {
            return None;
        }
        if said.has("no-store") && (ttl.is_none() || settings.respect_no_store) {
            return None;
        }
        let vary_on = settings.vary_on.is_some() && ttl.is_some();
        let varies = !vary_on && headers.contains_key(VARY);
        if varies && vary_names(headers).any(|name| name == "*") {
            return None;
        }
        let age = age_of(headers, times);
        let shared = settings.mode == CacheMode::Shared;
        let seen = Seen {
            status,
            headers,
            said: &said,
            age,
            varies,
            shared,
            at: times.answered,
        };
        let explicit = || is_explicit(&said, headers, settings.mode);
        if ttl.is_none() && !(explicit() && seen.by(asked).is_storable()) {
            return None;
        }
        let mut selecting = HeaderMap::new();
        for name in vary_names(headers).filter(|_| varies) {
            if let Ok(name) = HeaderName::try_from(name)
                && let Some(value) = asked.headers.get(&name)
            {
                selecting.insert(name, value.clone());
            }
        }
        let asked = Asked { headers: selecting };
        let policy = seen.by(&asked);
        let left = ttl.unwrap_or_else(|| policy.time_to_live(times.answered));
        Some(Self {
            status,
            headers: without_hops(headers),
            at: times.answered,
            age,
            expires: later(times.answered, left),
            by_ttl: ttl.is_some(),
            varies,
            shared,
            windows: windows(&said, settings, ttl.is_some()),
            public: settings.public || said.has("public"),
            policy,
            asked,
        })
    }

    /// An answer that is not kept: only those who wait for it get it.
    pub(super) fn passing(status: StatusCode, headers: &HeaderMap, times: Times) -> Self {
        let said = Directives::of(headers);
        let age = age_of(headers, times);
        let seen = Seen {
            status,
            headers,
            said: &said,
            age,
            varies: false,
            shared: false,
            at: times.answered,
        };
        let asked = Asked {
            headers: HeaderMap::new(),
        };
        Self {
            policy: seen.by(&asked),
            status,
            headers: without_hops(headers),
            asked,
            at: times.answered,
            age,
            expires: times.answered,
            by_ttl: true,
            varies: false,
            shared: false,
            windows: Windows::default(),
            public: false,
        }
    }

    pub(super) fn with_body(self, body: Bytes, about: About) -> Stored {
        Stored {
            status: self.status,
            headers: self.headers,
            body,
            policy: self.policy,
            at: self.at,
            age: self.age,
            expires: self.expires,
            by_ttl: self.by_ttl,
            varies: self.varies,
            shared: self.shared,
            asked: self.asked,
            windows: self.windows,
            about,
        }
    }
}

/// What a stored answer is to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It answers another request.
    No,
    Fresh,
    /// It answers this request, but its time is over, or the request wants it confirmed.
    Stale,
}

impl Stored {
    /// Whether it answers a request now.
    /// `plain` says that the request has no wishes of its own.
    pub(super) fn answers(&self, headers: &HeaderMap, plain: bool, now: SystemTime) -> Use {
        // The usual case, without building what the rules would build.
        if !self.varies && plain {
            return if now < self.expires {
                Use::Fresh
            } else {
                Use::Stale
            };
        }
        let asked = Asked::new(headers);
        match self.policy.before_request(&asked, now) {
            BeforeRequest::Fresh(_) if !self.by_ttl => Use::Fresh,
            BeforeRequest::Stale { matches: false, .. } => Use::No,
            _ if self.by_ttl && now < self.expires => {
                let said = Directives::of_request(&asked.headers);
                if said.has("no-cache") {
                    Use::Stale
                } else {
                    Use::Fresh
                }
            }
            _ => Use::Stale,
        }
    }

    /// How long its time has been over.
    pub(super) fn past(&self, now: SystemTime) -> Duration {
        now.duration_since(self.expires).unwrap_or_default()
    }

    /// Its age, as `Age` tells it.
    pub(super) fn age_at(&self, now: SystemTime) -> Duration {
        self.age + now.duration_since(self.at).unwrap_or_default()
    }

    /// The headers that ask whether it still holds; none where it cannot be asked.
    pub(super) fn validators(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        if let Some(tag) = self.headers.get(ETAG) {
            headers.insert(IF_NONE_MATCH, tag.clone());
        }
        if let Some(date) = self.headers.get(LAST_MODIFIED) {
            headers.insert(IF_MODIFIED_SINCE, date.clone());
        }
        (!headers.is_empty()).then_some(headers)
    }

    /// Whether an answer "not modified" speaks of this one.
    pub(super) fn is_confirmed_by(&self, headers: &HeaderMap) -> bool {
        match (headers.get(ETAG), self.headers.get(ETAG)) {
            (Some(new), Some(old)) => strong(new) == strong(old),
            (Some(_), None) => false,
            (None, _) => true,
        }
    }

    /// Its headers with what "not modified" brought in their place (RFC 9111, 3.2).
    pub(super) fn updated_headers(&self, new: &HeaderMap) -> HeaderMap {
        const OF_THE_BODY: [HeaderName; 4] = [
            CONTENT_LENGTH,
            CONTENT_ENCODING,
            CONTENT_RANGE,
            HeaderName::from_static("content-md5"),
        ];
        let mut headers = self.headers.clone();
        // The age was that of the answer before.
        headers.remove(AGE);
        for name in new.keys().filter(|name| !OF_THE_BODY.contains(name)) {
            headers.remove(name);
            for value in new.get_all(name) {
                headers.append(name.clone(), value.clone());
            }
        }
        headers
    }

    /// Bytes that it takes, about.
    pub(super) fn weight(&self) -> usize {
        let headers: usize = self
            .headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 64)
            .sum();
        let tags: usize = self.about.tags.iter().map(String::len).sum();
        OVERHEAD + self.body.len() + headers + self.about.key.len() + self.about.path.len() + tags
    }
}

/// The names that an answer says it depends on, in lower case.
pub(super) fn vary_names(headers: &HeaderMap) -> impl Iterator<Item = String> {
    headers.get_all(VARY).into_iter().flat_map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        names.into_iter().filter(|name| !name.is_empty())
    })
}

/// How long an answer is kept that is kept by a time given here: errors shorter, or not at all.
fn ttl_of(settings: &CacheSettings, ttl: Option<Duration>, status: StatusCode) -> Option<Duration> {
    match status.as_u16() {
        200..=299 => ttl,
        401 | 403 | 429 => None,
        400..=599 => settings
            .error_ttl
            .map(|most| ttl.map_or(most, |ttl| ttl.min(most))),
        _ => None,
    }
}

/// Whether the answer itself gives its time, or wants to be confirmed each time and can be.
fn is_explicit(said: &Directives, headers: &HeaderMap, mode: CacheMode) -> bool {
    let can_be_confirmed = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    said.has("max-age")
        || (mode == CacheMode::Shared && said.has("s-maxage"))
        || headers.contains_key(EXPIRES)
        || (said.has("no-cache") && can_be_confirmed)
}

fn windows(said: &Directives, settings: &CacheSettings, by_ttl: bool) -> Windows {
    let shared = settings.mode == CacheMode::Shared;
    let never = !by_ttl
        && (said.has("must-revalidate")
            || said.has("no-cache")
            || (shared && (said.has("proxy-revalidate") || said.has("s-maxage"))));
    if never {
        return Windows {
            never,
            ..Windows::default()
        };
    }
    let span = |own: Option<Duration>, name| own.or_else(|| said.span(name)).unwrap_or_default();
    Windows {
        revalidate: span(settings.stale_while_revalidate, "stale-while-revalidate"),
        error: span(settings.stale_if_error, "stale-if-error"),
        never,
    }
}

/// RFC 9111, 4.2.3: the larger of what `Age` says and what `Date` shows.
fn age_of(headers: &HeaderMap, times: Times) -> Duration {
    let first = |name: &HeaderName| headers.get(name)?.to_str().ok();
    // What cannot be read may be any age, so it is taken for old.
    let read = |text: &str| match text.trim() {
        "" => None,
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        _ => None,
    };
    let said = all_values(headers, &AGE);
    let said = said.map_or(0, |value| {
        value.to_str().ok().and_then(read).unwrap_or(OLDEST)
    });
    let said = said.min(OLDEST);
    let delay = times
        .answered
        .duration_since(times.sent)
        .unwrap_or_default();
    let date = first(&DATE).and_then(|text| httpdate::parse_http_date(text).ok());
    let apparent = date.and_then(|date| times.answered.duration_since(date).ok());
    let apparent = apparent.map_or(0, |age| age.as_secs().min(OLDEST));
    (Duration::from_secs(said) + delay).max(Duration::from_secs(apparent))
}

/// The headers that say whether an answer may be used, each once and in the usual form.
fn told(status: StatusCode, headers: &HeaderMap, said: &Directives, age: Duration) -> Told {
    let mut telling = HeaderMap::with_capacity(10);
    for name in TELLING {
        if let Some(value) = headers.get(&name) {
            telling.insert(name, value.clone());
        }
    }
    if headers.contains_key(CACHE_CONTROL) {
        set(&mut telling, CACHE_CONTROL, &said.text());
    }
    if let Some(value) = all_values(headers, &VARY) {
        telling.insert(VARY, value);
    }
    for name in [DATE, EXPIRES, LAST_MODIFIED] {
        if let Some(value) = headers.get(&name) {
            let read = value.to_str().ok();
            let read = read.and_then(|text| httpdate::parse_http_date(text).ok());
            let text = read.map_or_else(|| "0".to_owned(), httpdate::fmt_http_date);
            set(&mut telling, name, &text);
        }
    }
    set(&mut telling, AGE, &age.as_secs().to_string());
    Told {
        status,
        headers: telling,
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    match HeaderValue::from_str(text) {
        Ok(value) => drop(headers.insert(name, value)),
        Err(_) => drop(headers.remove(name)),
    }
}

fn all_values(headers: &HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    let mut rest = values.peekable();
    if rest.peek().is_none() {
        return Some(first.clone());
    }
    let mut joined = first.as_bytes().to_vec();
    for value in rest {
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(value.as_bytes());
    }
    HeaderValue::from_bytes(&joined).ok()
}

fn without_hops(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for value in headers.get_all(CONNECTION) {
        for name in String::from_utf8_lossy(value.as_bytes()).split(',') {
            kept.remove(name.trim());
        }
    }
    for name in &HOP_BY_HOP {
        kept.remove(name);
    }
    // Meant for the one who asked first.
    kept.remove(SET_COOKIE);
    kept
}

fn strong(tag: &HeaderValue) -> &[u8] {
    let bytes = tag.as_bytes().trim_ascii();
    bytes.strip_prefix(b"W/").unwrap_or(bytes)
}

/// Whether the tags or the date that a request brings fit a stored answer, which then need not be sent.
pub(super) fn caller_has_it(headers: &HeaderMap, stored: &Stored) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        let Some(own) = stored.headers.get(ETAG) else {
            return false;
        };
        return headers.get_all(IF_NONE_MATCH).iter().any(|value| {
            let mut tags = value.as_bytes().split(|byte| *byte == b',');
            tags.any(|tag| {
                let tag = tag.trim_ascii();
                tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == strong(own)
            })
        });
    }
    let date = |value: Option<&HeaderValue>| httpdate::parse_http_date(value?.to_str().ok()?).ok();
    // Without `Last-Modified` it is as old as its `Date` (RFC 9111, 4.3.2).
    let changed = [LAST_MODIFIED, DATE].map(|name| date(stored.headers.get(name)));
    let changed = changed.into_iter().flatten().next();
    match (date(headers.get(IF_MODIFIED_SINCE)), changed) {
        (Some(known), Some(changed)) => changed <= known,
        _ => false,
    }
}

/// A point in time that can be represented, however long the span.
pub(super) fn later(at: SystemTime, span: Duration) -> SystemTime {
    at.checked_add(span).unwrap_or(at)
}
