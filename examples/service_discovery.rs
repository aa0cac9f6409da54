//! Service discovery: two processes' worth of services, found by name, balanced, and gone when they stop.
//!
//! `cargo run -p trunkline-examples --example service_discovery`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::routing::get;
use tokio::time::Instant;
use trunkline::discovery::{
    BalanceStrategy, Discovery, LoadBalancerConfig, ServiceInstance, ServiceName,
};
use trunkline::http::EnhancedHttpClient;
use trunkline::sqlite::EmbeddedRegistry;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let users = ServiceName::new("user-service")?;
    let until = Instant::now() + Duration::from_secs(10);

    // What two service processes do when they start; `manager.serve` does it for you.
    let first = trunkline_examples::serve(names("first")).await?;
    let second = trunkline_examples::serve(names("second")).await?;
    let services = discovery(directory.path());
    let mut registrations = Vec::new();
    for (service, version) in [(&first, "1.0.0"), (&second, "1.1.0")] {
        let address = service.address();
        let mut instance =
            ServiceInstance::new(users.clone(), address.ip().to_string(), address.port());
        instance.version = version.into();
        instance.metadata.insert("team".into(), "core".into());
        let registration = services.register(instance)?;
        registration.registered(until).await?;
        registrations.push(registration);
    }

    // What a caller in another process does.
    let callers = discovery(directory.path());
    let found = callers.discover_services(&users).await?;
    ensure!(found.len() == 2, "{found:?}");
    let client = EnhancedHttpClient::builder()
        .service("user-service")
        .discovery(&callers)
        .build()?;
    let mut answered = BTreeSet::new();
    for _ in 0..4 {
        answered.insert(client.get("/name").send().await?.text().await?);
    }
    ensure!(answered.len() == 2, "only {answered:?} were asked");
    println!("asked {answered:?} in turn");

    // Whoever watches is told when an instance withdraws.
    let mut changes = callers.watch(&users);
    let now = changes.next().await.context("the present state")?;
    ensure!(now.set.instances().count() == 2, "{now:?}");
    let leaving = registrations.pop().context("two were registered")?;
    leaving.deregister(until).await?;
    loop {
        let change = changes.next().await.context("the watch ended")?;
        if let Some(gone) = change.removed.first() {
            ensure!(gone.version == "1.1.0", "{gone:?}");
            println!("{} withdrew", gone.authority());
            break;
        }
    }

    for discovery in [services, callers] {
        discovery.shutdown(until).await?;
    }
    second.stop().await?;
    first.stop().await
}

/// Discovery over a directory that any number of processes share.
fn discovery(directory: &std::path::Path) -> Discovery {
    let registry = EmbeddedRegistry::new(directory);
    let mut balance = LoadBalancerConfig::default();
    balance.strategy = BalanceStrategy::RoundRobin;
    Discovery::builder()
        .resolver(registry.clone())
        .registry(registry)
        .load_balancer(balance)
        .build()
}

fn names(name: &'static str) -> Router {
    Router::new().route("/name", get(move || async move { name }))
}
