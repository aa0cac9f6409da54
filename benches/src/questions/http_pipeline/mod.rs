//! What the whole client pipeline costs a request beside bare HTTP clients.
//!
//! The server answers thirty bytes of JSON from a thread of its own over the loopback. Every client runs on one thread with
//! the same number of requests under way, reads each answer whole, and reuses its connections. Ours does all it does in
//! production: context, headers, retry, budget, breaker, bulkhead, choice of an instance, time limits, metrics, log. The
//! others do nothing of that, but for reqwest-retry, which retries; all are set up as their documentation shows, without
//! compression or TLS. Go's client is a program of its own, held to one thread that runs its code.

mod clients;
mod go;
mod measure;
mod server;

use std::cell::RefCell;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use self::go::GoClient;
use self::measure::Sample;
use crate::entry::{Entry, Options};
use crate::race::{Better, Race};
use crate::report::Report;

pub(super) static ENTRY: Entry = Entry {
    name: "http-pipeline",
    about: "what does a request cost with the whole client pipeline around it, beside bare HTTP clients?",
    run,
};

const OURS: &str = "trunkline, whole pipeline";
const TRANSPORT: &str = "trunkline, transport alone";
const HYPER_UTIL: &str = "hyper-util";
const REQWEST: &str = "reqwest";
const REQWEST_RETRYING: &str = "reqwest with reqwest-retry";
const GO: &str = "Go net/http";
const BARE: &str = "one bare connection each";

/// Requests under way at once.
const AT_ONCE: usize = 32;

const ANSWER: &[u8] = br#"{"id":1,"name":"Ada Lovelace"}"#;

/// Samples of every peer, in the order of the rounds.
type Samples = RefCell<Vec<(&'static str, Sample)>>;

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let server = server::server()?;
    let go = GoClient::build()?;
    let requests = options.choose(100_000, 20_000);
    let samples = Samples::default();
    let rounds = options.rounds();
    let results = race(server, requests, go.as_ref(), &samples).run(rounds)?;
    results.put_into(&mut report);
    results.target(&mut report, REQWEST, 1.0)?;
    results.target(&mut report, HYPER_UTIL, 0.95)?;
    results.target(&mut report, REQWEST_RETRYING, 1.0)?;
    if go.is_some() {
        results.target(&mut report, GO, 1.0)?;
    } else {
        report.note("Go is not installed: its client was not measured");
    }
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
    let mut peers = vec![OURS];
    for (name, _) in samples {
        if !peers.contains(name) {
            peers.push(name);
        }
    }
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

fn race<'a>(
    server: SocketAddr,
    requests: usize,
    go: Option<&'a GoClient>,
    samples: &'a Samples,
) -> Race<'a> {
    type Client = fn(SocketAddr, usize) -> Result<Sample>;
    let record = move |name, sample: Result<Sample>| {
        let sample = sample?;
        samples.borrow_mut().push((name, sample));
        Ok(sample.per_second)
    };
    let clients: [(&str, Client); 6] = [
        (OURS, clients::ours),
        (TRANSPORT, clients::transport),
        (HYPER_UTIL, clients::hyper_util),
        (REQWEST, clients::reqwest),
        (REQWEST_RETRYING, clients::reqwest_retrying),
        (BARE, clients::bare),
    ];
    let race = clients.into_iter().fold(
        Race::new("requests", "a second", Better::Higher),
        |race, (name, client)| race.peer(name, move || record(name, client(server, requests))),
    );
    match go {
        Some(go) => race.peer(GO, move || record(GO, go.measure(server, requests))),
        None => race,
    }
}
