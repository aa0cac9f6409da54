//! What the whole client pipeline costs a request beside bare HTTP clients.
//!
//! The server answers thirty bytes of JSON from a thread of its own over the loopback. Every client runs on one thread with
//! the same number of requests under way, reads each answer whole, and reuses its connections. Ours does all it does in
//! production: context, headers, retry, budget, breaker, bulkhead, choice of an instance, time limits, metrics, log. The
//! others do nothing of that; reqwest and hyper-util are set up as their documentation shows, without compression or TLS.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::time::{ClockId, clock_gettime};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use trunkline_core::task;
use trunkline_discovery::{EndpointConfig, Instances, ServiceInstance, ServiceName};
use trunkline_http::{
    Body, EnhancedHttpClient, HttpClientConfig, Limits, Origin, Transport, TransportConfig,
};
use trunkline_telemetry::Metrics;

use crate::entry::{Entry, Options};
use crate::race::{Better, Race};
use crate::report::Report;
use crate::stopwatch::Stopwatch;

pub(super) static ENTRY: Entry = Entry {
    name: "http-pipeline",
    about: "what does a request cost with the whole client pipeline around it, beside bare HTTP clients?",
    run,
};

const OURS: &str = "trunkline, whole pipeline";
const TRANSPORT: &str = "trunkline, transport alone";
const HYPER_UTIL: &str = "hyper-util";
const REQWEST: &str = "reqwest";
const BARE: &str = "one bare connection each";

/// Requests under way at once.
const AT_ONCE: usize = 32;

const ANSWER: &[u8] = br#"{"id":1,"name":"Ada Lovelace"}"#;

/// What one measurement saw.
#[derive(Clone, Copy, Debug)]
struct Sample {
    per_second: f64,
    median: f64,
    p99: f64,
    cpu: f64,
}

/// Samples of every peer, in the order of the rounds.
type Samples = RefCell<Vec<(&'static str, Sample)>>;

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let server = server()?;
    let requests = options.choose(100_000, 20_000);
    let samples = Samples::default();
    let rounds = options.rounds();
    let results = race(server, requests, &samples).run(rounds)?;
    results.put_into(&mut report);
    results.target(&mut report, REQWEST, 1.0)?;
    results.target(&mut report, HYPER_UTIL, 0.95)?;
    let samples = samples.into_inner();
    let cpu = replay(
        &samples,
        "CPU time of the client, each request",
        "µs",
        |one| one.cpu,
    )
    .run(rounds)?;
    cpu.put_into(&mut report);
    let median = replay(&samples, "time to the whole answer, median", "µs", |one| {
        one.median
    });
    median.run(rounds)?.put_into(&mut report);
    let p99 = replay(
        &samples,
        "time to the whole answer, 99 of 100",
        "µs",
        |one| one.p99,
    )
    .run(rounds)?;
    p99.put_into(&mut report);
    for peer in [REQWEST, HYPER_UTIL] {
        p99.target(&mut report, peer, 1.0)?;
    }
    report.note(format!(
        "{AT_ONCE} requests under way at once, the client on one thread, the server on another"
    ));
    Ok(report)
}

/// The same measurements, looked at in another way.
fn replay<'a>(
    samples: &'a [(&'static str, Sample)],
    title: &str,
    unit: &str,
    look: impl Fn(&Sample) -> f64 + Copy + 'a,
) -> Race<'a> {
    let peers = [OURS, TRANSPORT, HYPER_UTIL, REQWEST, BARE];
    peers
        .into_iter()
        .fold(Race::new(title, unit, Better::Lower), |race, peer| {
            let mut own = samples.iter().filter(move |(name, _)| *name == peer);
            race.peer(peer, move || {
                let (_, sample) = own.next().context("it was measured in every round")?;
                Ok(look(sample))
            })
        })
}

fn race(server: SocketAddr, requests: usize, samples: &Samples) -> Race<'_> {
    let record = move |name, sample: Result<Sample>| {
        let sample = sample?;
        samples.borrow_mut().push((name, sample));
        Ok(sample.per_second)
    };
    Race::new("requests", "a second", Better::Higher)
        .peer(OURS, move || record(OURS, ours(server, requests)))
        .peer(TRANSPORT, move || {
            record(TRANSPORT, transport(server, requests))
        })
        .peer(HYPER_UTIL, move || {
            record(HYPER_UTIL, hyper_util(server, requests))
        })
        .peer(REQWEST, move || record(REQWEST, reqwest(server, requests)))
        .peer(BARE, move || record(BARE, bare(server, requests)))
}

fn ours(server: SocketAddr, requests: usize) -> Result<Sample> {
    let name = ServiceName::new("users")?;
    let instance = ServiceInstance::new(name.clone(), server.ip().to_string(), server.port());
    let mut config = HttpClientConfig::default();
    config.max_keepalive_connections = 100;
    config.bulkhead.max_concurrent = Some(1000);
    let client = EnhancedHttpClient::builder()
        .config(config)
        .instances(Instances::fixed(name, vec![instance]))
        .endpoint("GET /users/{id}", EndpointConfig::default())
        .metrics(&Metrics::new())
        .build()?;
    let connect = || {
        let client = client.clone();
        async { Ok(client) }
    };
    measure(requests, connect, |client| async move {
        let answer = client.get("/users/1").send().await?.bytes().await?;
        Ok((client, answer))
    })
}

fn transport(server: SocketAddr, requests: usize) -> Result<Sample> {
    let mut config = TransportConfig::default();
    config.max_keepalive_connections = 100;
    let transport = Transport::new(&config)?;
    let origin = Origin::http(&server.ip().to_string(), server.port())?;
    let connect = || {
        let client = (transport.clone(), origin.clone());
        async { Ok(client) }
    };
    measure(requests, connect, |(transport, origin)| async move {
        let request = Request::get("/users/1").body(Body::empty())?;
        let response = transport.send(&origin, request, &Limits::default()).await?;
        let answer = response.into_body().bytes(1 << 20).await?;
        Ok(((transport, origin), answer))
    })
}

fn hyper_util(server: SocketAddr, requests: usize) -> Result<Sample> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let uri: Uri = format!("http://{server}/users/1").parse()?;
    let connect = || {
        let client = (client.clone(), uri.clone());
        async { Ok(client) }
    };
    measure(requests, connect, |(client, uri)| async move {
        let request = Request::get(uri.clone()).body(Empty::new())?;
        let response = client.request(request).await?;
        let answer = response.into_body().collect().await?.to_bytes();
        Ok(((client, uri), answer))
    })
}

fn reqwest(server: SocketAddr, requests: usize) -> Result<Sample> {
    let client = reqwest::Client::builder().build()?;
    let url: reqwest::Url = format!("http://{server}/users/1").parse()?;
    let connect = || {
        let client = (client.clone(), url.clone());
        async { Ok(client) }
    };
    measure(requests, connect, |(client, url)| async move {
        let answer = client.get(url.clone()).send().await?.bytes().await?;
        Ok(((client, url), answer))
    })
}

fn bare(server: SocketAddr, requests: usize) -> Result<Sample> {
    let host = HeaderValue::try_from(server.to_string())?;
    let connect = || {
        let host = host.clone();
        async move {
            let socket = TcpStream::connect(server).await?;
            socket.set_nodelay(true)?;
            let io = TokioIo::new(socket);
            let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
            drop(task::spawn("bare-connection", connection));
            Ok((sender, host))
        }
    };
    measure(requests, connect, |(mut sender, host)| async move {
        sender.ready().await?;
        let request = Request::get("/users/1").header("host", host.clone());
        let response = sender
            .send_request(request.body(Empty::<Bytes>::new())?)
            .await?;
        let answer = response.into_body().collect().await?.to_bytes();
        Ok(((sender, host), answer))
    })
}

/// Makes so many requests, [`AT_ONCE`] at once, after a tenth of them as a warm-up.
fn measure<C, Connect, R>(
    requests: usize,
    connect: impl Fn() -> Connect,
    request: impl Fn(C) -> R + Clone + Send + 'static,
) -> Result<Sample>
where
    C: Send + 'static,
    R: Future<Output = Result<(C, Bytes)>> + Send,
    Connect: Future<Output = Result<C>>,
{
    runtime()?.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE {
            clients.push(connect().await?);
        }
        let (clients, _) = all(clients, requests / 10, &request).await?;
        let (watch, cpu) = (Stopwatch::start(), cpu_time());
        let (_, mut times) = all(clients, requests, &request).await?;
        let (seconds, cpu) = (watch.seconds(), cpu_time().saturating_sub(cpu));
        times.sort_unstable();
        let made = times.len();
        let at = |hundredths: usize| {
            let time = times.get(made * hundredths / 100);
            time.map(|time| time.as_secs_f64() * 1e6)
                .context("nothing was measured")
        };
        Ok(Sample {
            per_second: count(made) / seconds,
            median: at(50)?,
            p99: at(99)?,
            cpu: cpu.as_secs_f64() * 1e6 / count(made),
        })
    })
}

/// Each client makes its share of the requests, one after the other, on a task of its own.
async fn all<C, R>(
    clients: Vec<C>,
    requests: usize,
    request: &(impl Fn(C) -> R + Clone + Send + 'static),
) -> Result<(Vec<C>, Vec<Duration>)>
where
    C: Send + 'static,
    R: Future<Output = Result<(C, Bytes)>> + Send,
{
    let share = requests / clients.len();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let request = request.clone();
            task::spawn("requests", async move {
                let mut times = Vec::with_capacity(share);
                for _ in 0..share {
                    let watch = Stopwatch::start();
                    let (same, answer) = request(client).await?;
                    times.push(watch.elapsed());
                    ensure!(answer == ANSWER, "another answer came back");
                    client = same;
                }
                Ok((client, times))
            })
        })
        .collect();
    let (mut clients, mut times) = (Vec::new(), Vec::new());
    for task in tasks {
        let (client, own) = task.await??;
        clients.push(client);
        times.extend(own);
    }
    Ok((clients, times))
}

fn count(requests: usize) -> f64 {
    u32::try_from(requests).map_or(f64::NAN, f64::from)
}

/// What this thread, which is that of the client, has used.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
    Duration::new(seconds, nanoseconds)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A server of HTTP/1.1 on a thread of its own, which ends with this program.
fn server() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = runtime()?;
    std::thread::Builder::new()
        .name("server".into())
        .spawn(move || {
            if let Err(error) = runtime.block_on(accept(listener)) {
                eprintln!("  the server ended: {error}");
            }
        })?;
    Ok(address)
}

async fn accept(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        drop(task::spawn("connection", serve(socket)));
    }
}

async fn serve(socket: TcpStream) -> Result<()> {
    let service = service_fn(|_| async {
        let answer = Full::new(Bytes::from_static(ANSWER));
        let response = Response::builder().header("content-type", "application/json");
        response.body(answer)
    });
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .await?;
    Ok(())
}
