//! The policies alone, around anything that may fail: retry, circuit breaker, bulkhead, deadline.
//!
//! `cargo run -p trunkline-examples --example resilience_patterns`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::sync::Notify;
use trunkline::resilience::{
    Call, EffectivePolicy, Layer, Policy, PolicyConfig, PolicyLayers, PolicyRegistry, Target,
};
use trunkline::{Context, Error, ErrorKind, Retry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    retry().await?;
    circuit_breaker().await?;
    bulkhead().await?;
    deadline().await
}

/// The values of a policy: what is not set comes from the defaults.
fn policy(change: impl FnOnce(&mut PolicyConfig)) -> anyhow::Result<EffectivePolicy> {
    let mut config = PolicyConfig::default();
    config.retry.delay = Some(Duration::from_millis(5));
    change(&mut config);
    let layers = PolicyLayers::new();
    let own = Layer::Service("services.users".into());
    Ok(layers.push(own, config, |_| None).resolve()?.policy)
}

/// What may be repeated is: here because nothing was processed.
async fn retry() -> anyhow::Result<()> {
    let users = Policy::new(
        "users",
        policy(|config| config.retry.max_attempts = Some(3))?,
    );
    let answer = users
        .run(Call::default(), |attempt| async move {
            if attempt.number < 3 {
                return Err(Error::unavailable("connection refused").with_retry(Retry::Safe));
            }
            Ok(attempt.number)
        })
        .await?;
    ensure!(answer == 3, "answered at attempt {answer}");
    println!("answered at attempt {answer}");
    Ok(())
}

/// After two failures in a row nobody is asked until the time is over.
async fn circuit_breaker() -> anyhow::Result<()> {
    let settings = policy(|config| {
        config.retry.enabled = Some(false);
        config.circuit_breaker.failure_threshold = Some(2);
        config.circuit_breaker.success_threshold = Some(1);
        config.circuit_breaker.recovery_timeout = Some(Duration::from_millis(50));
    })?;
    let registry = PolicyRegistry::builder().build();
    let settings = Arc::new(settings);
    let payments = registry.policy(&Target::service("payments"), |_| Arc::clone(&settings));
    let fail = |_| async { Err::<(), _>(Error::unavailable("payments is down")) };
    for _ in 0..2 {
        ensure!(payments.run(Call::default(), fail).await.is_err());
    }
    let refused = payments.run(Call::default(), fail).await;
    let refused = refused
        .err()
        .context("an open circuit let a call through")?;
    ensure!(refused.kind() == ErrorKind::Rejected, "{refused}");
    for circuit in registry.circuit_states() {
        println!("{}: {:?}", circuit.target, circuit.circuit.state);
    }

    // The first call after that is the probe that closes it again.
    tokio::time::sleep(Duration::from_millis(60)).await;
    payments
        .run(Call::default(), |_| async { Ok::<_, Error>(()) })
        .await?;
    println!("payments is back");
    Ok(())
}

/// One caller that is slow does not use up everything.
async fn bulkhead() -> anyhow::Result<()> {
    let settings = policy(|config| {
        config.bulkhead.max_concurrent = Some(1);
        config.bulkhead.max_queue = Some(0);
    })?;
    let reports = Arc::new(Policy::new("reports", settings));
    let (begun, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = trunkline::task::spawn("slow-report", {
        let (reports, begun, done) = (reports.clone(), begun.clone(), done.clone());
        async move {
            let wait = |_| async {
                begun.notify_one();
                done.notified().await;
                Ok::<_, Error>(())
            };
            reports.run(Call::default(), wait).await
        }
    });
    begun.notified().await;
    let refused = reports
        .run(Call::default(), |_| async { Ok::<_, Error>(()) })
        .await;
    let refused = refused.err().context("there was no place")?;
    ensure!(refused.kind() == ErrorKind::Rejected, "{refused}");
    println!("{refused}");
    done.notify_one();
    slow.await??;
    Ok(())
}

/// The deadline of the context holds for all attempts together.
async fn deadline() -> anyhow::Result<()> {
    let users = Policy::new("users", policy(|_| ())?);
    let context = Context::new().with_timeout(Duration::from_millis(50));
    let late = users
        .run(Call::new(&context), |_| async {
            std::future::pending::<()>().await;
            Ok::<_, Error>(())
        })
        .await;
    let late = late.err().context("it waited for ever")?;
    ensure!(late.kind() == ErrorKind::Timeout, "{late}");
    println!("{late}");
    Ok(())
}
