//! A process that is an instance of a service, for proofs that kill it: `service-instance <registry> <service> <lease> <host>`.
//!
//! It serves `/work`, which takes as many milliseconds as `ms` says, and announces itself to the registry of the URL. It
//! says `ready` and its address when it serves, whether the registry is there or not, and leaves in good order when its
//! input ends.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::extract::Query;
use axum::routing::get;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep};
use trunkline::backends;
use trunkline::core::{Lifecycle as _, duration};
use trunkline::discovery::{Discovery, ServiceDiscoveryConfig};
use trunkline::server::{MicroserviceApp, ServerConfig};

/// How long callers have to see that it leaves.
const DRAIN_DELAY: Duration = Duration::from_millis(300);
/// How long running requests may take to finish when it leaves.
const LEAVING: Duration = Duration::from_secs(10);

/// The program.
#[must_use]
pub fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run(&words)),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("service-instance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Deserialize)]
struct Work {
    ms: u64,
}

async fn run(words: &[String]) -> Result<()> {
    let [url, service, lease, host] = words else {
        bail!("usage: service-instance <registry> <service> <lease> <host>");
    };
    let config = ServiceDiscoveryConfig::from_url(url)?.with_lease_ttl(duration::parse(lease)?);
    let (registry, resolver) = backends::open_discovery(&config)?;
    let discovery = Discovery::builder()
        .config(&config)
        .registry(registry)
        .resolver(resolver)
        .build();
    let work = async |Query(work): Query<Work>| {
        sleep(Duration::from_millis(work.ms)).await;
        "done"
    };
    let app = MicroserviceApp::builder(service)
        .config(ServerConfig::default().with_listen(host, 0))
        .router(Router::new().route("/work", get(work)))
        .discovery(discovery.clone())
        .drain_delay(DRAIN_DELAY)
        .build()?;
    app.start().await?;
    let address = app.local_addr().context("it does not listen")?;
    let mut out = std::io::stdout();
    writeln!(out, "ready {address}").and_then(|()| out.flush())?;
    // Whoever started this holds the other end.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    let deadline = Instant::now() + LEAVING;
    app.drain(deadline).await?;
    app.shutdown(deadline).await?;
    discovery.shutdown(deadline).await?;
    Ok(())
}
