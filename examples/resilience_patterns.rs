//! The policies, one after the other: alone around anything that may fail (retry, circuit breaker, bulkhead, deadline, rate
//! limit, adaptive concurrency, hedging, chaos), and all of them around a real service that fails (fallback).
//!
//! `cargo run -p trunkline-examples --example resilience_patterns`
#![expect(clippy::print_stdout, reason = "an example shows what it sees")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::Notify;
use trunkline::http::{EnhancedHttpClient, Fallback, HttpClientConfig};
use trunkline::resilience::config::{ConcurrencyAlgorithm, Strategy};
use trunkline::resilience::{
    Call, EffectivePolicy, Layer, Policy, PolicyConfig, PolicyLayers, PolicyRegistry, RateLimited,
    Target,
};
use trunkline::{Context, Error, ErrorKind, Retry};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    retry().await?;
    retry_strategies()?;
    circuit_breaker().await?;
    bulkhead().await?;
    deadline().await?;
    rate_limit().await?;
    adaptive_concurrency().await?;
    hedging().await?;
    chaos().await?;
    fallback().await
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

/// How the waits between attempts grow, here without chance.
fn retry_strategies() -> anyhow::Result<()> {
    for (strategy, waits) in [
        (Strategy::Fixed, [100, 100, 100]),
        (Strategy::Linear, [100, 200, 300]),
        (Strategy::Exponential, [100, 200, 400]),
    ] {
        let settings = policy(|config| {
            config.retry.strategy = Some(strategy);
            config.retry.delay = Some(Duration::from_millis(100));
            config.retry.jitter = Some(false);
        })?;
        let schedule = settings.retry.schedule();
        let planned = [2, 3, 4].map(|attempt| schedule.after(None, attempt));
        println!("{}: {planned:?}", strategy.as_str());
        ensure!(planned == waits.map(Duration::from_millis), "{planned:?}");
    }
    Ok(())
}

/// Who would have to wait for too long is refused at once, and told when to come back.
async fn rate_limit() -> anyhow::Result<()> {
    let mail = Policy::new(
        "mail",
        policy(|config| {
            config.retry.enabled = Some(false);
            config.rate_limit.limit = Some(2);
            config.rate_limit.per = Some(Duration::from_secs(3600));
            config.rate_limit.max_wait = Some(Duration::ZERO);
        })?,
    );
    let send = || mail.run(Call::default(), |_| async { Ok::<_, Error>(()) });
    send().await?;
    send().await?;
    let refused = send().await.err().context("a third one is too many")?;
    let limited: &RateLimited = refused.find().context("it says why")?;
    println!("{limited}");
    ensure!(refused.retry() == Retry::Safe);
    Ok(())
}

/// The limit finds itself: signs of overload lower it.
async fn adaptive_concurrency() -> anyhow::Result<()> {
    let settings = policy(|config| {
        config.retry.enabled = Some(false);
        config.circuit_breaker.enabled = Some(false);
        config.concurrency.algorithm = Some(ConcurrencyAlgorithm::Aimd);
        config.concurrency.initial = Some(20);
    })?;
    let search = Policy::new("search", settings);
    let limit = || search.concurrency().map(|limiter| limiter.measured().limit);
    ensure!(limit() == Some(20));
    let overloaded = |_| async { Err::<(), _>(Error::timeout("it took too long")) };
    // It looks at spans of time, not at single calls.
    for _ in 0..2000 {
        ensure!(search.run(Call::default(), overloaded).await.is_err());
        if limit() < Some(20) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let lowered = limit().context("there is a limit")?;
    println!("the limit went from 20 to {lowered}");
    ensure!(lowered < 20);
    Ok(())
}

/// A second request beside a first whose answer is late; the faster one counts.
async fn hedging() -> anyhow::Result<()> {
    let settings = policy(|config| config.hedge.delay = Some(Duration::from_millis(20)))?;
    let users = Policy::new("users", settings);
    let read = Call::default().repeatable(true).hedge(true);
    let answer = users
        .run(read, |attempt| async move {
            if attempt.hedge == 0 {
                std::future::pending::<()>().await;
            }
            Ok::<_, Error>(attempt.hedge)
        })
        .await?;
    ensure!(answer == 1);
    println!("the second request answered");
    Ok(())
}

/// What goes wrong on purpose, to see what the rest of a policy makes of it.
async fn chaos() -> anyhow::Result<()> {
    let settings = policy(|config| {
        config.chaos.enabled = Some(true);
        config.chaos.error.percent = Some(100.0);
        config.chaos.only.attempts = Some(vec![1]);
    })?;
    let users = Policy::new("users", settings);
    let answered = users
        .run(Call::default().repeatable(true), |attempt| async move {
            Ok::<_, Error>(attempt.number)
        })
        .await?;
    ensure!(
        answered == 2,
        "the first attempt fails on purpose, the retry makes it good"
    );
    println!("chaos took the first attempt, the retry answered");
    Ok(())
}

/// Around a real service: when all attempts have failed, something else answers.
async fn fallback() -> anyhow::Result<()> {
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let broken = move || {
        count.fetch_add(1, Ordering::Relaxed);
        async { StatusCode::SERVICE_UNAVAILABLE }
    };
    let service = trunkline_examples::serve(Router::new().route("/offers", get(broken))).await?;
    let mut config = HttpClientConfig::new(service.url());
    config.retry.delay = Some(Duration::from_millis(5));
    config.fallback.value = Some(serde_json::json!([]));
    let offers = EnhancedHttpClient::from_config(config)?;
    let answer = offers.get("/offers").await?;
    ensure!(answer.fallback() == Some(Fallback::Value));
    let offers: Vec<String> = answer.json().await?;
    ensure!(offers.is_empty());
    let asked = asked.load(Ordering::Relaxed);
    ensure!(asked == 3, "the service was asked {asked} times");
    println!("no offers today: {asked} attempts failed, the fallback answered");
    service.stop().await
}
