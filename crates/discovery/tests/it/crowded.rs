//! Very many instances are checked in time, however many of them do not answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use trunkline_core::Result;
use trunkline_discovery::{Discovery, HealthCheckConfig, Probe, ServiceInstance};

use crate::balance::{instance, name};
use crate::scripted::Scripted;

#[derive(Clone, Default)]
struct Clocked(Arc<Mutex<Times>>);

#[derive(Default)]
struct Times {
    asked: HashMap<String, Vec<Instant>>,
    under_way: usize,
    most_under_way: usize,
    /// None answers from now on, though its name says so.
    all_hang: bool,
}

struct UnderWay(Clocked);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().under_way -= 1;
    }
}

impl Probe for Clocked {
    async fn probe(&self, instance: &ServiceInstance) -> Result<()> {
        let all_hang = {
            let mut times = self.0.lock().unwrap();
            let asked = times.asked.entry(instance.id.clone()).or_default();
            asked.push(Instant::now());
            times.under_way += 1;
            times.most_under_way = times.most_under_way.max(times.under_way);
            times.all_hang
        };
        let _under_way = UnderWay(self.clone());
        if all_hang || instance.id.starts_with("hangs") {
            std::future::pending::<()>().await;
        }
        sleep(Duration::from_millis(20)).await;
        Ok(())
    }
}

fn checked(answer: usize, hang: usize, config: HealthCheckConfig) -> (Clocked, Discovery) {
    let answer = (0..answer).map(|n| instance(&format!("answers-{n}")));
    let hang = (0..hang).map(|n| instance(&format!("hangs-{n}")));
    let probe = Clocked::default();
    let discovery = Discovery::builder()
        .resolver(Scripted::with(answer.chain(hang).collect()))
        .probe(probe.clone())
        .health_check(config)
        .build();
    (probe, discovery)
}

#[tokio::test(start_paused = true)]
async fn those_that_hang_keep_nobody_waiting() {
    let (probe, discovery) = checked(100, 400, HealthCheckConfig::default());
    discovery.discover_services(&name()).await.unwrap();
    // Until it is known who hangs.
    sleep(Duration::from_secs(90)).await;
    let from = Instant::now();
    sleep(Duration::from_secs(300)).await;
    let until = Instant::now();
    let times = probe.0.lock().unwrap();
    for (id, asked) in &times.asked {
        if !id.starts_with("answers") {
            continue;
        }
        let mut last = from - Duration::from_secs(33);
        let later = asked.iter().filter(|at| **at >= from).copied();
        for at in later.chain([until]) {
            let gap = at.saturating_duration_since(last);
            // The interval, and the jitter both ways.
            assert!(gap <= Duration::from_secs(34 + 33), "{id}: {gap:?}");
            last = at;
        }
        let count = asked.iter().filter(|at| **at >= from).count();
        assert!((8..=12).contains(&count), "{id}: {count} in ten intervals");
    }
}

#[tokio::test(start_paused = true)]
async fn all_are_asked_in_the_interval_though_none_answers() {
    let (probe, discovery) = checked(500, 0, HealthCheckConfig::default());
    discovery.discover_services(&name()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    probe.0.lock().unwrap().all_hang = true;
    let before: HashMap<String, usize> = {
        let times = probe.0.lock().unwrap();
        let counts = times.asked.iter();
        counts
            .map(|(id, asked)| (id.clone(), asked.len()))
            .collect()
    };
    sleep(Duration::from_secs(45)).await;
    let times = probe.0.lock().unwrap();
    for (id, asked) in &times.asked {
        assert!(asked.len() > before[id], "{id}");
    }
    // Twice what the interval takes: 500 × 5 s / 30 s.
    assert!(times.most_under_way <= 168, "{}", times.most_under_way);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_asked_at_a_time_than_is_configured() {
    let config = HealthCheckConfig::default().with_max_concurrent(5);
    let (probe, discovery) = checked(50, 50, config);
    discovery.discover_services(&name()).await.unwrap();
    sleep(Duration::from_secs(100)).await;
    assert_eq!(probe.0.lock().unwrap().most_under_way, 5);
}
