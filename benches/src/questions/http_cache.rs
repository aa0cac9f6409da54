//! What a call costs that is answered from the cache.
//!
//! Every peer answers the same thirty bytes of JSON with their headers, on one thread. Ours is a whole call of the client:
//! request, context, endpoint, key, look, head, body, metrics. moka alone is what only the memory costs, without HTTP:
//! no client can be faster. Without a cache the same client asks a server over the loopback.

use std::convert::Infallible;
use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use trunkline_core::task;
use trunkline_http::{CacheStatus, EnhancedHttpClient, HttpClientConfig};

use crate::entry::{Entry, Options};
use crate::race::{Better, Race};
use crate::report::Report;
use crate::stopwatch::Stopwatch;

pub(super) static ENTRY: Entry = Entry {
    name: "http-cache",
    about: "what does a call cost that is answered from the cache, beside the bare memory and beside asking?",
    run,
};

const OURS: &str = "trunkline, by the answer's word";
const BY_TTL: &str = "trunkline, by a ttl";
const FOR_ONE: &str = "trunkline, for an identity";
const MEMORY: &str = "moka alone";
const ASKED: &str = "trunkline, no cache";

const ANSWER: &[u8] = br#"{"id":1,"name":"Ada Lovelace"}"#;

/// Different answers that are kept.
const KEYS: usize = 1000;

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let calls = options.choose(200_000, 20_000);
    let results = Race::new("one call, one thread", "µs", Better::Lower)
        .peer(OURS, move || hits(calls, |_| {}, false))
        .peer(BY_TTL, move || {
            let ttl = |config: &mut HttpClientConfig| {
                config.cache.ttl = Some(Duration::from_secs(3600));
            };
            hits(calls, ttl, false)
        })
        .peer(FOR_ONE, move || hits(calls, |_| {}, true))
        .peer(MEMORY, move || memory(calls))
        .peer(ASKED, move || asked(calls / 20))
        .run(options.rounds())?;
    results.put_into(&mut report);
    results.target(&mut report, ASKED, 5.0)?;
    Ok(report)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

async fn answer(_: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    let hour = HeaderValue::from_static("max-age=3600");
    response.headers_mut().insert(CACHE_CONTROL, hour);
    Ok(response)
}

async fn server() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let accept = async move {
        while let Ok((socket, _)) = listener.accept().await {
            let server = hyper::server::conn::http1::Builder::new();
            let connection = server.serve_connection(TokioIo::new(socket), service_fn(answer));
            drop(task::spawn("bench connection", async move {
                drop(connection.await)
            }));
        }
    };
    drop(task::spawn("bench server", accept));
    Ok(url)
}

fn paths() -> Vec<String> {
    (0..KEYS).map(|number| format!("/users/{number}")).collect()
}

fn hits(calls: usize, change: impl FnOnce(&mut HttpClientConfig), identity: bool) -> Result<f64> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut config = HttpClientConfig::new(server().await?);
        change(&mut config);
        let client = EnhancedHttpClient::from_config(config)?;
        let paths = paths();
        let call = async |path: &str| {
            let request = client.get(path);
            let request = if identity {
                request.bearer("token-of-ada")
            } else {
                request
            };
            let response = request.send().await?;
            let status = response.cache_status();
            black_box(response.bytes().await?);
            Ok::<_, anyhow::Error>(status)
        };
        for path in &paths {
            call(path).await?;
        }
        let watch = Stopwatch::start();
        let mut hits = 0;
        for path in paths.iter().cycle().take(calls) {
            hits += usize::from(call(path).await? == Some(CacheStatus::Hit));
        }
        let each = micros(watch.elapsed(), calls);
        ensure!(
            hits == calls,
            "{hits} of {calls} were answered from the cache"
        );
        Ok(each)
    })
}

fn asked(calls: usize) -> Result<f64> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut config = HttpClientConfig::new(server().await?);
        config.cache.enabled = Some(false);
        let client = EnhancedHttpClient::from_config(config)?;
        let paths = paths();
        client.get("/").send().await?.bytes().await?;
        let watch = Stopwatch::start();
        for path in paths.iter().cycle().take(calls) {
            black_box(client.get(path).send().await?.bytes().await?);
        }
        Ok(micros(watch.elapsed(), calls))
    })
}

/// The memory alone: the key is made, the head and the body are copied, as any HTTP cache has to.
fn memory(calls: usize) -> Result<f64> {
    let cache = moka::sync::Cache::new(100_000);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    let paths = paths();
    let key = |path: &str| format!("GET {path}");
    for path in &paths {
        cache.insert(key(path), (headers.clone(), Bytes::from_static(ANSWER)));
    }
    let watch = Stopwatch::start();
    let mut hits = 0;
    for path in paths.iter().cycle().take(calls) {
        hits += usize::from(black_box(cache.get(&key(path))).is_some());
    }
    let each = micros(watch.elapsed(), calls);
    ensure!(hits == calls, "the memory forgot");
    Ok(each)
}

#[expect(clippy::cast_precision_loss, reason = "calls are few")]
fn micros(elapsed: Duration, calls: usize) -> f64 {
    elapsed.as_secs_f64() * 1e6 / calls as f64
}
