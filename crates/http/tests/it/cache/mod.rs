//! What is kept, for whom and until when, seen from the server.

mod asked;
mod stale;
mod tier;
mod together;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use trunkline_core::size::ByteSize;
use trunkline_core::{
    Clock, Context, Error, ErrorKind, Identity, ManualClock, Result, SystemClock,
};
use trunkline_http::{
    CacheStatus, Clear, ClientBuilder, EnhancedHttpClient, Fallback, HttpClient, HttpClientConfig,
    Next, ResponseCache, ServiceRequest,
};
use trunkline_resilience::cache::{CacheMode, CacheTier, MemoryTier, Selector, TierEntry};
use trunkline_resilience::config::CacheConfig;
use trunkline_telemetry::{Format, Metrics};

use crate::rig::{Server, in_time, spawn};

/// One answer of the server: status, headers, body.
type Answer = (u16, Vec<(&'static str, String)>, String);

fn ok(headers: &[(&'static str, &str)], body: &str) -> Answer {
    let headers = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()));
    (200, headers.collect(), body.to_owned())
}

fn max_age(seconds: u32, body: &str) -> Answer {
    ok(&[("cache-control", &format!("max-age={seconds}"))], body)
}

/// The time, without the parts that a date of HTTP does not have.
fn whole_seconds() -> ManualClock {
    ManualClock::new(SystemClock.now().to_seconds())
}

/// A server that answers in turn, and then the last answer again; it remembers what it saw.
struct Shop {
    server: Server,
    clock: ManualClock,
    seen: Arc<Mutex<Vec<(Method, String, HeaderMap)>>>,
}

impl Shop {
    async fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect::<VecDeque<_>>()));
        Self::with(move |_| {
            let mut answers = answers.lock().unwrap();
            match answers.len() {
                0 | 1 => answers.front().cloned().unwrap(),
                _ => answers.pop_front().unwrap(),
            }
        })
        .await
    }

    async fn with(answer: impl Fn(&Request<Incoming>) -> Answer + Send + Sync + 'static) -> Self {
        let clock = whole_seconds();
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let (answer, now, saw) = (Arc::new(answer), clock.clone(), Arc::clone(&seen));
        let server = Server::start(move |request: Request<Incoming>| {
            let (method, uri) = (request.method().clone(), request.uri().to_string());
            saw.lock()
                .unwrap()
                .push((method, uri, request.headers().clone()));
            let (status, headers, body) = answer(&request);
            let mut response = Response::builder().status(status);
            let date = httpdate::fmt_http_date(SystemTime::from(now.now()));
            if !headers.iter().any(|(name, _)| *name == "date") {
                response = response.header("date", date);
            }
            for (name, value) in headers {
                response = response.header(name, value);
            }
            async move { response.body(Full::new(Bytes::from(body))).unwrap() }
        })
        .await;
        Self {
            server,
            clock,
            seen,
        }
    }

    fn memory(&self) -> ResponseCache {
        ResponseCache::builder()
            .clock(Arc::new(self.clock.clone()))
            .build()
    }

    fn client(&self, change: impl FnOnce(&mut CacheConfig)) -> EnhancedHttpClient {
        self.builder(change).cache(self.memory()).build().unwrap()
    }

    fn builder(&self, change: impl FnOnce(&mut CacheConfig)) -> ClientBuilder<EnhancedHttpClient> {
        let mut config = HttpClientConfig::new(self.server.url());
        config.retry.enabled = Some(false);
        config.circuit_breaker.enabled = Some(false);
        change(&mut config.cache);
        EnhancedHttpClient::builder().config(config).service("shop")
    }

    fn after(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    fn requests(&self) -> usize {
        self.server.count.requests()
    }

    fn header(&self, number: usize, name: &str) -> Option<String> {
        let seen = self.seen.lock().unwrap();
        seen[number]
            .2
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    }
}

async fn get(client: &EnhancedHttpClient, path: &str) -> (String, Option<CacheStatus>) {
    let response = in_time(client.get(path).send()).await.unwrap();
    let status = response.cache_status();
    (response.text().await.unwrap(), status)
}

const HIT: Option<CacheStatus> = Some(CacheStatus::Hit);
const MISS: Option<CacheStatus> = Some(CacheStatus::Miss);
const STALE: Option<CacheStatus> = Some(CacheStatus::Stale);

/// The answer at the end of a redirect is that of another URL.
#[tokio::test]
async fn what_a_redirect_led_to_is_not_kept_for_where_it_began() {
    let shop = Shop::with(|request| match request.uri().path() {
        "/old" => (302, vec![("location", "/new".to_owned())], String::new()),
        _ => max_age(60, "new"),
    })
    .await;
    let redirects = trunkline_http::RedirectConfig::same_origin();
    let builder = shop.builder(|_| {}).redirects(redirects);
    let client = builder.cache(shop.memory()).build().unwrap();
    for _ in 0..2 {
        let (text, status) = get(&client, "/old").await;
        assert_eq!(text, "new");
        assert_ne!(status, HIT);
    }
    assert_eq!(shop.requests(), 4);
    assert_eq!(get(&client, "/new").await, ("new".to_owned(), MISS));
    assert_eq!(get(&client, "/new").await, ("new".to_owned(), HIT));
}

#[tokio::test]
async fn an_answer_is_used_for_as_long_as_it_says() {
    let shop = Shop::new([max_age(60, "one"), max_age(60, "two")]).await;
    let client = shop.client(|_| {});
    assert_eq!(get(&client, "/a").await.0, "one");
    shop.after(59);
    let response = client.get("/a").await.unwrap();
    assert_eq!(response.cache_status(), HIT);
    assert_eq!(response.header("age"), Some("59"));
    assert_eq!(response.text().await.unwrap(), "one");
    shop.after(1);
    assert_eq!(get(&client, "/a").await, ("two".to_owned(), MISS));
    assert_eq!(shop.requests(), 2);
    assert_eq!(get(&client, "/a?x=1").await.1, MISS, "another query");
}

///
#[tokio::test]
async fn x_35_only_what_says_how_long_it_holds_is_kept_unasked() {
    for headers in [
        vec![],
        vec![("etag", "\"a\"")],
        vec![("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")],
        vec![("cache-control", "public")],
        vec![("cache-control", "no-store, max-age=60")],
        vec![("cache-control", "NO-STORE, max-age=60")],
        vec![("cache-control", "max-age=60"), ("vary", "*")],
        vec![("cache-control", "max-age=60"), ("vary", "Traceparent")],
        vec![("cache-control", "max-age=0")],
        vec![("expires", "0")],
    ] {
        let shop = Shop::new([ok(&headers, "hello")]).await;
        let client = shop.client(|_| {});
        for _ in 0..3 {
            assert_ne!(get(&client, "/a").await.1, HIT, "{headers:?}");
        }
        assert_eq!(shop.requests(), 3, "{headers:?}");
    }
}

#[tokio::test]
async fn a_plain_client_keeps_nothing_and_neither_does_one_that_is_told_so() {
    let shop = Shop::new([max_age(60, "hello")]).await;
    let plain = HttpClient::new(shop.server.url()).unwrap();
    let off = shop.client(|cache| cache.enabled = Some(false));
    for _ in 0..2 {
        plain.get("/a").await.unwrap();
        off.get("/a").await.unwrap();
    }
    assert_eq!(shop.requests(), 4);
}

#[tokio::test]
async fn what_is_stale_is_confirmed_and_its_headers_renewed() {
    let first = ok(
        &[
            ("cache-control", "max-age=10"),
            ("etag", "\"v1\""),
            ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("x-two", "a"),
        ],
        "one",
    );
    let confirmed = |etag: &str| {
        (
            304,
            ok(&[("etag", etag), ("x-two", "b")], "").1,
            String::new(),
        )
    };
    let other = ok(
        &[("cache-control", "max-age=10"), ("etag", "\"v3\"")],
        "three",
    );
    let shop = Shop::new([first, confirmed("W/\"v1\""), confirmed("\"v2\""), other]).await;
    let client = shop.client(|_| {});
    get(&client, "/a").await;
    shop.after(11);
    let response = client.get("/a").await.unwrap();
    assert_eq!(response.cache_status(), Some(CacheStatus::Revalidated));
    assert_eq!(response.status(), 200);
    assert_eq!(response.header("x-two"), Some("b"));
    assert_eq!(response.text().await.unwrap(), "one");
    assert_eq!(shop.header(1, "if-none-match").as_deref(), Some("\"v1\""));
    assert!(shop.header(1, "if-modified-since").is_some());
    shop.after(9);
    assert_eq!(get(&client, "/a").await.1, HIT, "fresh again");
    shop.after(2);
    // Another tag speaks of another answer: it is asked for whole.
    assert_eq!(get(&client, "/a").await, ("three".to_owned(), MISS));
    assert_eq!(shop.requests(), 4);
    assert_eq!(shop.header(3, "if-none-match"), None);
}

#[tokio::test]
async fn the_callers_own_question_is_answered_from_what_is_kept() {
    let kept = ok(
        &[("cache-control", "max-age=10"), ("etag", "\"v1\"")],
        "one",
    );
    let shop = Shop::new([kept]).await;
    let client = shop.client(|_| {});
    get(&client, "/a").await;
    for (tag, status) in [("W/\"v1\"", 304), ("\"x\", \"v1\"", 304), ("\"x\"", 200)] {
        let response = client.get("/a").header("if-none-match", tag).await.unwrap();
        assert_eq!(response.status(), status, "{tag}");
    }
    // Without `Last-Modified` it is as new as its `Date`.
    for (before, status) in [(0, 304), (1, 200)] {
        let known = SystemTime::from(shop.clock.now()) - Duration::from_secs(before);
        let known = httpdate::fmt_http_date(known);
        let request = client.get("/a").header("if-modified-since", known);
        assert_eq!(request.await.unwrap().status(), status, "{before}");
    }
    assert_eq!(shop.requests(), 1);
}

#[tokio::test]
async fn the_wishes_of_a_request_count() {
    let shop = Shop::new([max_age(60, "hello")]).await;
    let client = shop.client(|_| {});
    let with = async |value: &str| {
        let response = client
            .get("/a")
            .header("cache-control", value)
            .await
            .unwrap();
        (response.status().as_u16(), response.cache_status())
    };
    assert_eq!(with("only-if-cached").await, (504, None));
    assert_eq!(shop.requests(), 0);
    assert_eq!(with("no-store").await, (200, None));
    assert_eq!(get(&client, "/a").await.1, MISS);
    shop.after(30);
    assert_eq!(with("only-if-cached").await.1, HIT);
    assert_eq!(with("max-age=40").await.1, HIT);
    assert_eq!(with("min-fresh=40").await.1, MISS);
    shop.after(30);
    assert_eq!(with("max-age=20").await.1, MISS);
    assert_eq!(with("no-cache").await.1, MISS);
    shop.after(70);
    assert_eq!(with("max-stale=20").await.1, HIT);
}

#[tokio::test]
async fn requests_that_differ_where_the_answer_says_so_have_answers_of_their_own() {
    let shop = Shop::with(|request| {
        let language = request.headers().get("accept-language");
        let language = language.map_or("none", |value| value.to_str().unwrap());
        let headers = [("cache-control", "max-age=60"), ("vary", "Accept-Language")];
        ok(&headers, language)
    })
    .await;
    let client = shop.client(|_| {});
    for round in [MISS, HIT] {
        for language in ["es", "en"] {
            let request = client.get("/a").header("accept-language", language);
            let response = request.await.unwrap();
            assert_eq!(response.cache_status(), round);
            assert_eq!(response.text().await.unwrap(), language);
        }
        assert_eq!(get(&client, "/a").await, ("none".to_owned(), round));
    }
    assert_eq!(shop.requests(), 3);
}

#[tokio::test]
async fn nobody_sees_the_answer_of_another_identity() {
    let shop = Shop::with(|request| {
        let who = request.headers().get("authorization");
        let who = who.map_or("nobody", |value| value.to_str().unwrap());
        max_age(60, who)
    })
    .await;
    for ttl in [None, Some(Duration::from_secs(60))] {
        let client = shop.client(|cache| {
            cache.ttl = ttl;
            cache.key = Some("me".to_owned());
        });
        for round in [MISS, HIT] {
            for who in ["ada", "bob"] {
                let response = client.get("/me").bearer(who).await.unwrap();
                assert_eq!(response.cache_status(), round);
                assert_eq!(response.text().await.unwrap(), format!("Bearer {who}"));
            }
            assert_eq!(get(&client, "/me").await, ("nobody".to_owned(), round));
        }
        let of = |name: &str| {
            let context = Context::new().with_identity(Identity::claimed(name));
            client.get("/me").context(context)
        };
        assert_eq!(of("a").await.unwrap().cache_status(), MISS);
        assert_eq!(of("b").await.unwrap().cache_status(), MISS);
        assert_eq!(of("a").await.unwrap().cache_status(), HIT);
        // One word clears it for all of them.
        let key = if ttl.is_some() { "me" } else { "GET /me" };
        assert_eq!(client.clear_cache(key).await.unwrap(), 5);
    }
}

#[tokio::test]
async fn what_is_public_is_kept_once_for_all() {
    let public = ok(&[("cache-control", "public, max-age=60")], "hello");
    let shop = Shop::new([public.clone()]).await;
    let client = shop.client(|_| {});
    assert_eq!(
        client.get("/a").bearer("ada").await.unwrap().cache_status(),
        MISS
    );
    assert_eq!(
        client.get("/a").bearer("bob").await.unwrap().cache_status(),
        HIT
    );
    assert_eq!(get(&client, "/a").await.1, HIT);

    let said = Shop::new([max_age(60, "hello")]).await;
    let client = said.client(|cache| cache.public = Some(true));
    client.get("/a").bearer("ada").await.unwrap();
    assert_eq!(
        client.get("/a").bearer("bob").await.unwrap().cache_status(),
        HIT
    );
}

#[tokio::test]
async fn a_cookie_is_for_the_one_who_asked_first() {
    let shop = Shop::new([ok(
        &[("cache-control", "max-age=60"), ("set-cookie", "s=1")],
        "hi",
    )])
    .await;
    let client = shop.client(|_| {});
    assert!(
        client
            .get("/a")
            .await
            .unwrap()
            .header("set-cookie")
            .is_some()
    );
    let second = client.get("/a").await.unwrap();
    assert_eq!(
        (second.cache_status(), second.header("set-cookie")),
        (HIT, None)
    );
}

#[tokio::test]
async fn a_shared_cache_keeps_what_may_be_shared() {
    for (words, authorized, kept) in [
        ("max-age=60", false, true),
        ("private, max-age=60", false, false),
        ("max-age=60", true, false),
        ("public, max-age=60", true, true),
        ("s-maxage=60", false, true),
        ("max-age=60, s-maxage=0", false, false),
    ] {
        let shop = Shop::new([ok(&[("cache-control", words)], "hello")]).await;
        let client = shop.client(|cache| cache.mode = Some(CacheMode::Shared));
        let ask = || match authorized {
            true => client.get("/a").bearer("ada"),
            false => client.get("/a"),
        };
        ask().await.unwrap();
        let second = ask().await.unwrap().cache_status();
        assert_eq!(second == HIT, kept, "{words} {authorized}");
    }
}

#[tokio::test]
async fn a_change_clears_what_leads_to_it() {
    let shop = Shop::with(
        |request| match (request.method().as_str(), request.uri().path()) {
            ("POST", "/failed") => (500, Vec::new(), String::new()),
            ("POST", "/moved") => (
                201,
                vec![
                    ("location", "/orders/7".to_owned()),
                    ("content-location", "http://elsewhere.example/a".to_owned()),
                ],
                String::new(),
            ),
            ("GET", path) => max_age(60, path),
            _ => ok(&[], ""),
        },
    )
    .await;
    let client = shop.client(|_| {});
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
        get(&client, "/a").await;
        get(&client, "/a?page=2").await;
        get(&client, "/b").await;
        client.request(method.clone(), "/a").await.unwrap();
        assert_eq!(get(&client, "/a").await.1, MISS, "{method}");
        assert_eq!(get(&client, "/a?page=2").await.1, MISS, "{method}");
        assert_eq!(get(&client, "/b").await.1, HIT, "{method}");
    }
    for path in ["/failed", "/moved", "/orders/7"] {
        get(&client, path).await;
    }
    client.post("/failed").await.unwrap();
    assert_eq!(get(&client, "/failed").await.1, HIT, "it changed nothing");
    client.post("/moved").await.unwrap();
    assert_eq!(get(&client, "/orders/7").await.1, MISS);
    assert_eq!(get(&client, "/a").await.1, HIT, "another host's");
    client.request(Method::OPTIONS, "/a").await.unwrap();
    assert_eq!(
        get(&client, "/a").await.1,
        HIT,
        "a question changes nothing"
    );
}
