//! Finding and choosing: what a pick costs, when a change is known, what it all holds in memory.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::stream;
use tokio::runtime::Runtime;
use tokio::time::{Instant, sleep};
use trunkline_core::Result as CoreResult;
use trunkline_discovery::{
    BalanceStrategy, Discovery, DiscoveryCacheConfig, InstanceList, InstanceWatch, Instances,
    LoadBalancerConfig, PickRequest, Resolver, ServiceInstance, ServiceName,
};

use crate::entry::{Entry, Options};
use crate::machine;
use crate::proofs::registries::{self, Stage, Subject, Way};
use crate::race::{Better, Race};
use crate::report::{Report, Spread, Table, short};
use crate::stopwatch::Stopwatch;

pub(super) static ENTRY: Entry = Entry {
    name: "discovery",
    about: "what does resolving a service and picking an instance cost, when is a change known, what do ten thousand services hold in memory?",
    run,
};

const COUNTS: [u32; 3] = [10_000, 1_000, 10];
/// What resolving and picking may take.
const NANOSECONDS: f64 = 200.0;
const LEASE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    // First, while little else is in memory.
    memory(options, &mut report)?;
    picking(options, &mut report)?;
    propagation(options, &mut report)?;
    Ok(report)
}

/// A registry in which every service has so many instances.
#[derive(Clone, Copy)]
struct Listed(u32);

impl Resolver for Listed {
    fn kind(&self) -> &'static str {
        "listed"
    }

    async fn resolve(&self, service: &ServiceName) -> CoreResult<InstanceList> {
        Ok(InstanceList::new(instances(service, self.0), 1))
    }

    async fn services(&self) -> CoreResult<Vec<ServiceName>> {
        Ok(Vec::new())
    }

    async fn watch(&self, service: &ServiceName) -> CoreResult<InstanceWatch> {
        let first = Ok(InstanceList::new(instances(service, self.0), 1));
        let lists = stream::once(async { first });
        Ok(InstanceWatch::new(futures_util::StreamExt::chain(
            lists,
            stream::pending(),
        )))
    }
}

fn instances(service: &ServiceName, count: u32) -> Vec<ServiceInstance> {
    let one = |n: u32| {
        let [_, a, b, c] = n.to_be_bytes();
        ServiceInstance::new(service.clone(), format!("10.{a}.{b}.{c}"), 8080)
    };
    (0..count).map(one).collect()
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn picking(options: &Options, report: &mut Report) -> Result<()> {
    let picks = options.choose(2_000_000, 100_000);
    let runtime = runtime()?;
    for strategy in [
        BalanceStrategy::PowerOfTwoChoices,
        BalanceStrategy::LeastRequests,
        BalanceStrategy::RoundRobin,
        BalanceStrategy::Random,
    ] {
        let name = |count: u32| format!("{count} instances");
        let mut race = Race::new(
            format!("resolve and pick, {}", strategy.as_str()),
            "ns",
            Better::Lower,
        );
        for count in COUNTS {
            let (discovery, service) = runtime.block_on(watched(count, strategy))?;
            race = race.peer(name(count), move || {
                time(picks / 10, &discovery, &service)?;
                time(picks, &discovery, &service)
            });
        }
        let results = race.run(options.rounds())?;
        results.put_into(report);
        for count in COUNTS {
            let took = results.spread(&name(count)).context("it was measured")?;
            let within = Spread {
                min: NANOSECONDS / took.max,
                median: NANOSECONDS / took.median,
                max: NANOSECONDS / took.min,
            };
            let what = format!("{}, {}: within 200 ns", strategy.as_str(), name(count));
            report.target(what, within, 1.0);
        }
    }
    report.note("resolving is looking the service up by its name; a client holds its instances and only picks");
    Ok(())
}

/// A service whose instances have answered already, as after a while of traffic.
async fn watched(count: u32, strategy: BalanceStrategy) -> Result<(Discovery, ServiceName)> {
    let discovery = Discovery::builder()
        .resolver(Listed(count))
        .load_balancer(LoadBalancerConfig::new(strategy))
        .build();
    let service = ServiceName::new("shop")?;
    let instances = discovery.instances(&service);
    instances.ready(Instant::now() + PATIENCE).await?;
    for _ in 0..count * 4 {
        let picked = instances.pick(&PickRequest::any())?;
        picked.finish(
            trunkline_resilience::Outcome::Success,
            Duration::from_millis(1),
        );
    }
    Ok((discovery, service))
}

fn time(picks: u64, discovery: &Discovery, service: &ServiceName) -> Result<f64> {
    let watch = Stopwatch::start();
    for _ in 0..picks {
        let picked = discovery.instances(service).pick(&PickRequest::any())?;
        black_box(picked.instance());
    }
    Ok(watch.nanoseconds_each(picks))
}

fn propagation(options: &Options, report: &mut Report) -> Result<()> {
    let times = options.choose(50, 3);
    let mut table = Table::new(
        "From an announcement to the callers' knowledge, ms",
        ["registry", "shortest", "median", "longest"],
    );
    for subject in [
        &registries::ON_EMBEDDED,
        &registries::ON_CONSUL,
        &registries::ON_ETCD,
        &registries::ON_KUBERNETES,
        &registries::ON_DNS,
        &registries::ON_SEVERAL,
    ] {
        let took = delays(subject, times)?;
        let took = Spread::of(&took).context("times")?;
        let shown = [took.min, took.median, took.max].map(short);
        table.row([subject.name.to_owned()].into_iter().chain(shown));
        report.figure(
            format!("{}: a change is known after", subject.name),
            "ms",
            took,
        );
    }
    report.table(table);
    report.note("announcing itself is part of it: it has succeeded when the registry shows it");
    report.note("where instances do not announce themselves it begins when the change is sent to the API server, or the server of DNS");
    report.note("DNS: records have a time to live of 1 s, before which nobody asks again");
    report.note("Consul and etcd at once: known when the first of them has told it");
    Ok(())
}

fn delays(subject: &Subject, times: u32) -> Result<Vec<f64>> {
    let stage = Stage::set(subject)?;
    let runtime = runtime()?;
    runtime.block_on(async {
        let (registry, _) = stage.open(Way::Direct)?;
        let (_, resolver) = stage.open(Way::Direct)?;
        let writer = stage.writer()?;
        let mut written = Vec::new();
        let announcing = Discovery::builder()
            .registry(registry)
            .lease_ttl(LEASE)
            .build();
        let callers = Discovery::builder().resolver(resolver).build();
        let service = ServiceName::new("shop")?;
        let known = callers.instances(&service);
        known.resolved(Instant::now() + PATIENCE).await?;
        let mut took = Vec::new();
        for (n, instance) in instances(&service, times).into_iter().enumerate() {
            // Not in step with anything that the registry does now and then.
            sleep(Duration::from_millis(fastrand::u64(20..120))).await;
            let watch = Stopwatch::start();
            match &writer {
                Some(writer) => {
                    written.push(SocketAddr::new(instance.host.parse()?, instance.port));
                    writer.write(written.clone());
                }
                None => drop(announcing.register(instance)?),
            }
            known_to_be(&known, n + 1).await;
            took.push(watch.seconds() * 1000.0);
        }
        let until = Instant::now() + PATIENCE;
        announcing.shutdown(until).await?;
        callers.shutdown(until).await?;
        Ok(took)
    })
}

async fn known_to_be(known: &Instances, count: usize) {
    while known.snapshot().len() < count {
        sleep(Duration::from_micros(200)).await;
    }
}

fn memory(options: &Options, report: &mut Report) -> Result<()> {
    let (services, each) = (options.choose(10_000_u32, 500), 10_u32);
    let runtime = runtime()?;
    let before = machine::resident()?;
    let held = runtime.block_on(async {
        let mut cache = DiscoveryCacheConfig::default();
        cache.capacity = services;
        let discovery = Discovery::builder()
            .resolver(Listed(each))
            .cache(cache)
            .build();
        let mut held = Vec::new();
        for n in 0..services {
            held.push(discovery.instances(&ServiceName::new(format!("service-{n}"))?));
        }
        for known in &held {
            known.ready(Instant::now() + PATIENCE).await?;
        }
        anyhow::Ok((discovery, held))
    })?;
    let mebibytes = (machine::resident()? - before).max(0.001);
    drop(held);
    let spread = |value: f64| Spread::of(&[value]).context("a size");
    let what = format!("memory of {services} services with {each} instances each");
    report.figure(what, "MiB", spread(mebibytes)?);
    let bytes = mebibytes * 1024.0 * 1024.0 / f64::from(services * each);
    report.figure(
        "memory of one instance, its share of the service included",
        "B",
        spread(bytes)?,
    );
    Ok(())
}
