//! Measures the embedded broker with several processes: `cargo run --release -p trunkline-sqlite --example measure`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement at the command line"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use trunkline_messaging::{
    Destination, Message, MessageBroker, Publish, Start, Subscribe, TopicName,
};
use trunkline_sqlite::{EmbeddedBroker, EmbeddedBrokerConfig};

const PAYLOAD: usize = 256;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match words.as_slice() {
        ["publish", directory, batch, seconds] => {
            runtime.block_on(publish(directory, number(batch), number(seconds) as u64));
        }
        ["confirm", directory, publishers, seconds] => {
            runtime.block_on(confirm(
                directory,
                number(publishers),
                number(seconds) as u64,
            ));
        }
        ["consume", directory, count, prefetch] => {
            runtime.block_on(consume(directory, number(count), number(prefetch) as u32));
        }
        ["paced", directory, count, every] => {
            runtime.block_on(paced(directory, number(count), number(every) as u64));
        }
        ["times", directory, count] => runtime.block_on(times(directory, number(count))),
        ["idle", directory, subscriptions, seconds] => {
            runtime.block_on(idle(
                directory,
                number(subscriptions),
                number(seconds) as u64,
            ));
        }
        [] => all(&["pipe", "confirm", "latency", "writers", "idle"]),
        some => all(some),
    }
}

fn number(text: &str) -> usize {
    text.parse().unwrap()
}

fn all(which: &[&str]) {
    let root = PathBuf::from(std::env::var("MEASURE_DIR").unwrap_or("target".to_owned()))
        .join("measure-embedded");
    drop(std::fs::remove_dir_all(&root));
    for name in which {
        let directory = root.join(name);
        let d = directory.to_str().unwrap();
        println!("--- {name}");
        match *name {
            "pipe" => {
                for batch in [100, 1000] {
                    drop(std::fs::remove_dir_all(&directory));
                    let count = 1_000_000;
                    let consumer = start(&["consume", d, &count.to_string(), "2000"]);
                    let publisher = start(&["publish", d, &batch.to_string(), &count.to_string()]);
                    finish(publisher);
                    finish(consumer);
                }
            }
            "confirm" => {
                for publishers in ["1", "64"] {
                    finish(start(&["confirm", d, publishers, "5"]));
                }
            }
            "latency" => {
                let consumer = start(&["times", d, "1000"]);
                let publisher = start(&["paced", d, "1000", "5000"]);
                let confirmed = finish(publisher);
                let seen = finish(consumer);
                let parse = |text: &str| -> Vec<(u64, u64)> {
                    let pairs = text.lines().filter_map(|line| {
                        let (number, at) = line.strip_prefix("t ")?.split_once(' ')?;
                        Some((number.parse().unwrap(), at.parse().unwrap()))
                    });
                    pairs.collect()
                };
                let seen: std::collections::HashMap<u64, u64> = parse(&seen).into_iter().collect();
                let mut spans: Vec<u64> = parse(&confirmed)
                    .into_iter()
                    .filter_map(|(number, at)| Some(seen.get(&number)?.saturating_sub(at)))
                    .collect();
                println!("confirm -> handler: {}", percentiles(&mut spans));
            }
            "writers" => {
                for publishers in ["1", "16"] {
                    let writers: Vec<Child> = (0..4)
                        .map(|_| start(&["confirm", d, publishers, "10"]))
                        .collect();
                    writers.into_iter().for_each(|writer| drop(finish(writer)));
                }
            }
            "idle" => drop(finish(start(&["idle", d, "20", "10"]))),
            other => panic!("unknown: {other}"),
        }
    }
}

fn start(arguments: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn finish(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    for line in text.lines().filter(|line| !line.starts_with("t ")) {
        println!("{line}");
    }
    text
}

async fn open(directory: &str) -> EmbeddedBroker {
    let mut config = EmbeddedBrokerConfig::new(Path::new(directory));
    config.request_timeout = Duration::from_secs(60);
    let broker = EmbeddedBroker::new(config);
    broker.connect().await.unwrap();
    broker
}

async fn close(broker: impl MessageBroker) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    broker.disconnect(deadline).await.unwrap();
}

fn topic() -> TopicName {
    TopicName::new("bench").unwrap()
}

fn message() -> Publish {
    Publish::new(Destination::Topic(topic()), Message::new(vec![7; PAYLOAD]))
}

async fn publish(directory: &str, batch: usize, count: u64) {
    let broker = open(directory).await;
    let begin = Instant::now();
    let cpu = cpu_ms();
    let mut sent = 0;
    let mut spans = Vec::new();
    while sent < count {
        let messages = (0..batch).map(|_| message()).collect();
        let asked = Instant::now();
        for outcome in broker.publish_batch(messages).await {
            outcome.unwrap();
        }
        spans.push(asked.elapsed().as_micros() as u64);
        sent += batch as u64;
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "published {sent} in batches of {batch}: {:.0}/s, cpu {:.2} us each, batch {}",
        sent as f64 / seconds,
        (cpu_ms() - cpu) * 1000.0 / sent as f64,
        percentiles(&mut spans)
    );
    close(broker).await;
}

async fn consume(directory: &str, count: usize, prefetch: u32) {
    let broker = open(directory).await;
    let wanted = Subscribe::topics(topic())
        .with_group("g")
        .with_start(Start::Earliest)
        .with_prefetch(prefetch);
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    let mut begin = None;
    let mut cpu = 0.0;
    let mut done = 0;
    let mut acks = tokio::task::JoinSet::new();
    while done < count {
        let mut batch = vec![subscription.next().await.unwrap()];
        if begin.is_none() {
            begin = Some(Instant::now());
            cpu = cpu_ms();
        }
        while batch.len() < 500 {
            let next = futures_util::FutureExt::now_or_never(subscription.next());
            let Some(Some(delivery)) = next else { break };
            batch.push(delivery);
        }
        done += batch.len();
        acks.spawn(async move {
            for outcome in join_all(batch.into_iter().map(|delivery| delivery.ack())).await {
                outcome.unwrap();
            }
        });
        while acks.try_join_next().is_some() {}
    }
    while acks.join_next().await.is_some() {}
    let seconds = begin.unwrap().elapsed().as_secs_f64();
    println!(
        "consumed and acked {done}: {:.0}/s, cpu {:.2} us each",
        done as f64 / seconds,
        (cpu_ms() - cpu) * 1000.0 / done as f64
    );
    close(broker).await;
}

async fn confirm(directory: &str, publishers: usize, seconds: u64) {
    let broker = Arc::new(open(directory).await);
    let begin = Instant::now();
    let cpu = cpu_ms();
    let tasks = (0..publishers).map(|_| {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            let mut spans = Vec::new();
            while begin.elapsed().as_secs() < seconds {
                let asked = Instant::now();
                broker.publish(message()).await.unwrap();
                spans.push(asked.elapsed().as_micros() as u64);
            }
            spans
        })
    });
    let mut spans: Vec<u64> = join_all(tasks)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    let elapsed = begin.elapsed().as_secs_f64();
    println!(
        "{publishers} publishers awaiting each confirm: {:.0}/s, cpu {:.2} us each, confirm {}",
        spans.len() as f64 / elapsed,
        (cpu_ms() - cpu) * 1000.0 / spans.len() as f64,
        percentiles(&mut spans)
    );
    close(Arc::try_unwrap(broker).unwrap()).await;
}

async fn paced(directory: &str, count: usize, every: u64) {
    let broker = open(directory).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut spans = Vec::new();
    for number in 0..count {
        let mut publish = message();
        publish.message = publish.message.with_id(number.to_string());
        let asked = Instant::now();
        broker.publish(publish).await.unwrap();
        println!("t {number} {}", now());
        spans.push(asked.elapsed().as_micros() as u64);
        tokio::time::sleep(Duration::from_micros(every)).await;
    }
    println!("publish alone {}", percentiles(&mut spans));
    close(broker).await;
}

async fn times(directory: &str, count: usize) {
    let broker = open(directory).await;
    let wanted = Subscribe::topics(topic())
        .with_group("g")
        .with_start(Start::Earliest);
    let mut subscription = broker.subscribe(wanted).await.unwrap();
    let cpu = cpu_ms();
    let begin = Instant::now();
    for _ in 0..count {
        let delivery = subscription.next().await.unwrap();
        println!("t {} {}", delivery.message().id, now());
        tokio::spawn(delivery.ack());
    }
    println!(
        "consumer cpu {:.1} %",
        (cpu_ms() - cpu) / begin.elapsed().as_millis() as f64 * 100.0
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    close(broker).await;
}

async fn idle(directory: &str, subscriptions: usize, seconds: u64) {
    let broker = open(directory).await;
    let mut streams = Vec::new();
    for number in 0..subscriptions {
        let name = TopicName::new(format!("topic-{number}")).unwrap();
        let wanted = Subscribe::topics(name).with_group("g");
        let mut stream = broker.subscribe(wanted).await.unwrap();
        streams.push(tokio::spawn(async move {
            stream.next().await;
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let cpu = cpu_ms();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    println!(
        "idle with {subscriptions} subscriptions: {:.3} % cpu, {} KiB",
        (cpu_ms() - cpu) / (seconds as f64 * 1000.0) * 100.0,
        resident_kib()
    );
    close(broker).await;
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_micros() as u64
}

fn percentiles(spans: &mut [u64]) -> String {
    spans.sort_unstable();
    let at = |share: f64| {
        let last = spans.len().saturating_sub(1) as f64;
        spans.get((last * share) as usize).copied().unwrap_or(0)
    };
    format!(
        "p50 {} us, p90 {} us, p99 {} us, max {} us",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    )
}

/// Processor time of this process; the kernel counts in hundredths of a second.
fn cpu_ms() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: f64 = [11, 12]
        .iter()
        .map(|at| fields[*at].parse::<f64>().unwrap())
        .sum();
    ticks * 10.0
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
