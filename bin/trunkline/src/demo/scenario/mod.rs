//! `demo --check`: a scripted day in the life of the system, every step of which must hold.

mod burst;
mod calls;
mod correlation;
mod health;
mod outage;
mod shop;

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use self::shop::Shop;
use super::members::Member;
use super::system::System;
use crate::exit::ExitCode;
use crate::output::{Output, table};

/// What one step did and saw.
#[derive(Serialize)]
struct Step {
    step: &'static str,
    held: bool,
    seen: String,
    seconds: f64,
}

/// What the whole scenario saw.
#[derive(Serialize)]
struct Report {
    held: bool,
    steps: Vec<Step>,
}

/// Runs the steps in order; a step that does not hold ends the scenario.
pub(super) async fn run(
    system: &mut System,
    dir: &Path,
    orders: usize,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let shop = Shop::new(&system.gateway_url())?;
    let mut script = Script {
        steps: Vec::new(),
        output: *output,
    };
    let ended = play(&mut script, system, &shop, dir, orders).await;
    let held = ended.is_ok();
    let report = Report {
        held,
        steps: script.steps,
    };
    output.result(&report, |report| {
        let rows = report.steps.iter().map(|step| {
            let held = if step.held {
                output.good("held")
            } else {
                output.bad("FAILED")
            };
            [
                step.step.to_owned(),
                held,
                format!("{:.2} s", step.seconds),
                step.seen.clone(),
            ]
        });
        table(["STEP", "", "TIME", "SEEN"], rows)
    })?;
    Ok(if held {
        ExitCode::Done
    } else {
        ExitCode::Failed
    })
}

async fn play(
    script: &mut Script,
    system: &mut System,
    shop: &Shop,
    dir: &Path,
    orders: usize,
) -> Result<(), Stopped> {
    script
        .step(
            "orders are placed, read back and listed",
            calls::place_and_read(shop),
        )
        .await?;
    script
        .step(
            "an unknown user is a 404 problem",
            calls::unknown_user(shop),
        )
        .await?;
    script
        .step(
            "a malformed body is a 422 that names the field",
            calls::malformed(shop),
        )
        .await?;
    script
        .step("a repeated request is one order and one charge", async {
            calls::repeated(shop, &system.url(Member::Payments).await?).await
        })
        .await?;
    script
        .step(
            "one correlation id is in the logs of all processes",
            correlation::traced(shop, dir),
        )
        .await?;
    script
        .step(
            "payments killed: 503 in time, the circuit opens",
            outage::begins(system, shop),
        )
        .await?;
    script
        .step(
            "payments back: the circuit closes",
            outage::ends(system, shop),
        )
        .await?;
    script
        .step(
            "notifications killed amid a burst: each told once",
            burst::run(system, shop, orders),
        )
        .await
}

/// The script was ended by a step that did not hold.
struct Stopped;

struct Script {
    steps: Vec<Step>,
    output: Output,
}

impl Script {
    async fn step(
        &mut self,
        step: &'static str,
        work: impl Future<Output = anyhow::Result<String>>,
    ) -> Result<(), Stopped> {
        self.output.note(self.output.faint(&format!("… {step}")));
        let begun = Instant::now();
        let done = match tokio::time::timeout(Duration::from_secs(60), work).await {
            Ok(done) => done,
            Err(_) => Err(anyhow::anyhow!("not done within 60 s")),
        };
        let seconds = begun.elapsed().as_secs_f64();
        let held = done.is_ok();
        let seen = done.unwrap_or_else(|error| format!("{error:#}"));
        self.steps.push(Step {
            step,
            held,
            seen,
            seconds,
        });
        if held { Ok(()) } else { Err(Stopped) }
    }
}
