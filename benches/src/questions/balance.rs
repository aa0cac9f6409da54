//! How long callers wait where instances are not alike.
//!
//! A simulation on virtual time: the balancers are the real ones, the servers queue and take as long as they are told. All
//! peers are given the same requests at the same moments.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use fastrand::Rng;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::ServiceList;
use tower::load::{CompleteOnResponse, PeakEwma, PendingRequests};
use trunkline_discovery::{
    BalanceStrategy, Instances, LoadBalancerConfig, PickRequest, ServiceInstance, ServiceName,
};
use trunkline_resilience::Outcome;

use crate::entry::{Entry, Options};
use crate::race::{Better, Race};
use crate::report::Report;

pub(super) static ENTRY: Entry = Entry {
    name: "balance",
    about: "how long does one call of a hundred wait where instances differ, by our rules and by those of tower?",
    run,
};

/// Requests that a server works on at a time; others wait their turn.
const AT_ONCE: usize = 4;
/// What a usual request takes at a usual server, on the average.
const USUAL: Duration = Duration::from_millis(20);

/// Servers that are not alike.
struct Scene {
    title: &'static str,
    /// How many times as long as usual each takes.
    slowness: &'static [f64],
    /// From the middle on the first one is so many times slower still.
    breaks_down: f64,
    /// Of what all servers together can do.
    load: f64,
}

static SCENES: &[Scene] = &[
    Scene {
        title: "two of ten three times as slow, one ten times",
        slowness: &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3.0, 3.0, 10.0],
        breaks_down: 1.0,
        load: 0.6,
    },
    Scene {
        title: "one of ten becomes twenty times as slow",
        slowness: &[1.0; 10],
        breaks_down: 20.0,
        load: 0.5,
    },
];

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let requests = options.choose(30_000, 3_000);
    let rule = |strategy| move |scene: &Scene, load: &Load| ours(scene, load, strategy);
    for scene in SCENES {
        let mut race = Race::new(format!("p99, {}", scene.title), "ms", Better::Lower);
        type Simulate = Box<dyn Fn(&Scene, &Load) -> Result<f64>>;
        let peers: [(&str, Simulate); 6] = [
            (OURS, Box::new(rule(BalanceStrategy::PowerOfTwoChoices))),
            (LEAST, Box::new(rule(BalanceStrategy::LeastRequests))),
            (ROUND, Box::new(rule(BalanceStrategy::RoundRobin))),
            ("random", Box::new(rule(BalanceStrategy::Random))),
            (TOWER_EWMA, Box::new(tower_by_latency)),
            (TOWER_PENDING, Box::new(tower_by_requests)),
        ];
        let seed = fastrand::u64(..);
        for (name, simulate) in peers {
            let mut round = 0;
            race = race.peer(name, move || {
                round += 1;
                let load = Load::of(scene, requests, seed.wrapping_add(round));
                simulate(scene, &load)
            });
        }
        let results = race.run(options.rounds())?;
        results.put_into(&mut report);
        for peer in [ROUND, LEAST, TOWER_EWMA, TOWER_PENDING] {
            results.target(&mut report, peer, 1.0)?;
        }
    }
    report.note("least requests of ours looks at all ten instances, power of two choices at two");
    Ok(report)
}

const OURS: &str = "power of two choices";
const LEAST: &str = "least requests";
const ROUND: &str = "round robin";
const TOWER_EWMA: &str = "tower p2c, peak EWMA";
const TOWER_PENDING: &str = "tower p2c, pending requests";

/// When requests come, and what each takes at a usual server.
struct Load(Vec<(Duration, Duration)>);

impl Load {
    fn of(scene: &Scene, requests: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let capacity: f64 = scene
            .slowness
            .iter()
            .map(|slow| AT_ONCE as f64 / (USUAL.as_secs_f64() * slow))
            .sum();
        let between = 1.0 / (capacity * scene.load);
        let mut by_chance = |mean: f64| Duration::from_secs_f64(-mean * (1.0 - rng.f64()).ln());
        let mut at = Duration::ZERO;
        let one = |_| {
            at += by_chance(between);
            (at, by_chance(USUAL.as_secs_f64()))
        };
        Self((0..requests).map(one).collect())
    }

    fn middle(&self) -> Duration {
        self.0
            .get(self.0.len() / 2)
            .map_or(Duration::ZERO, |it| it.0)
    }
}

/// A server that works on some requests at a time and takes its time.
#[derive(Clone)]
struct Server {
    places: Arc<Semaphore>,
    slowness: f64,
    breaks_down: Option<(Instant, f64)>,
}

impl Server {
    fn all(scene: &Scene, load: &Load, began: Instant) -> Vec<Self> {
        let one = |(n, slowness): (usize, &f64)| Self {
            places: Arc::new(Semaphore::new(AT_ONCE)),
            slowness: *slowness,
            breaks_down: (n == 0).then(|| (began + load.middle(), scene.breaks_down)),
        };
        scene.slowness.iter().enumerate().map(one).collect()
    }

    async fn work(self, usual: Duration) -> Result<(), tower::BoxError> {
        let _place = self.places.acquire().await?;
        let slower = match self.breaks_down {
            Some((at, times)) if Instant::now() >= at => times,
            _ => 1.0,
        };
        sleep(usual.mul_f64(self.slowness * slower)).await;
        Ok(())
    }
}

impl Service<Duration> for Server {
    type Response = ();
    type Error = tower::BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<(), tower::BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, usual: Duration) -> Self::Future {
        Box::pin(self.clone().work(usual))
    }
}

/// Runs on virtual time.
fn simulated<T>(what: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    runtime.block_on(what)
}

/// The wait that one request of a hundred exceeds, in milliseconds.
async fn p99(mut waits: JoinSet<Result<Duration>>) -> Result<f64> {
    let mut all = Vec::with_capacity(waits.len());
    while let Some(wait) = waits.join_next().await {
        all.push(wait??);
    }
    all.sort_unstable();
    let at = all.len() * 99 / 100;
    Ok(all.get(at).context("there were requests")?.as_secs_f64() * 1000.0)
}

fn ours(scene: &Scene, load: &Load, strategy: BalanceStrategy) -> Result<f64> {
    simulated(async {
        let began = Instant::now();
        let servers = Server::all(scene, load, began);
        let name = ServiceName::new("simulated")?;
        let instances = (0..servers.len())
            .map(|n| {
                ServiceInstance::new(name.clone(), format!("10.0.0.{n}"), 80).with_id(n.to_string())
            })
            .collect();
        let instances = Instances::fixed_with(name, instances, &LoadBalancerConfig::new(strategy));
        let mut waits = JoinSet::new();
        for (at, usual) in load.0.iter().copied() {
            sleep_until(began + at).await;
            let picked = instances.pick(&PickRequest::any())?;
            let n: usize = picked.instance().id.parse()?;
            let server = servers.get(n).context("a server")?.clone();
            waits.spawn(async move {
                let came = Instant::now();
                server.work(usual).await.map_err(|error| anyhow!(error))?;
                picked.finish(Outcome::Success, came.elapsed());
                Ok(came.elapsed())
            });
        }
        p99(waits).await
    })
}

fn tower_by_latency(scene: &Scene, load: &Load) -> Result<f64> {
    simulated(async {
        let began = Instant::now();
        // What is assumed of a server that nothing is known of, and how fast the past is forgotten: as ours.
        let servers = Server::all(scene, load, began).into_iter().map(|server| {
            let (first, memory) = (USUAL, Duration::from_secs(10));
            PeakEwma::new(
                server,
                first,
                memory.as_nanos() as f64,
                CompleteOnResponse::default(),
            )
        });
        let balance = Balance::new(ServiceList::new(servers.collect::<Vec<_>>()));
        through(balance, load, began).await
    })
}

fn tower_by_requests(scene: &Scene, load: &Load) -> Result<f64> {
    simulated(async {
        let began = Instant::now();
        let servers = Server::all(scene, load, began)
            .into_iter()
            .map(|server| PendingRequests::new(server, CompleteOnResponse::default()));
        let balance = Balance::new(ServiceList::new(servers.collect::<Vec<_>>()));
        through(balance, load, began).await
    })
}

async fn through<S>(mut balance: S, load: &Load, began: Instant) -> Result<f64>
where
    S: Service<Duration, Response = (), Error = tower::BoxError>,
    S::Future: Send + 'static,
{
    let mut waits = JoinSet::new();
    for (at, usual) in load.0.iter().copied() {
        sleep_until(began + at).await;
        let ready = poll_fn(|cx| balance.poll_ready(cx)).await;
        ready.map_err(|error| anyhow!(error))?;
        let answer = balance.call(usual);
        waits.spawn(async move {
            let came = Instant::now();
            answer.await.map_err(|error| anyhow!(error))?;
            Ok(came.elapsed())
        });
    }
    p99(waits).await
}
