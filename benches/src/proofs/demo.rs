//! The main job: a small system of services comes up with nothing installed, and a scripted day holds step by step.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::entry::{Entry, Options};
use crate::fresh_clone::FreshClone;
use crate::report::{Report, Table};
use crate::stopwatch::Stopwatch;

pub(super) static ENTRY: Entry = Entry {
    name: "demo",
    about: "`trunkline demo --check`: services killed and restarted under load, every step of a scripted day holds.",
    run,
};

/// What a clone may take to run the scenario, once built.
const SECONDS_ALLOWED: f64 = 90.0;
/// What a clone may take to build, on two cores.
const BUILD_SECONDS_ALLOWED: f64 = 300.0;

#[derive(Deserialize)]
struct Scenario {
    held: bool,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    step: String,
    held: bool,
    seen: String,
    seconds: f64,
}

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    let clone = if options.quick {
        None
    } else {
        Some(built_clone(&mut report)?)
    };
    let mut demo = match &clone {
        Some(clone) => clone.cargo_run(),
        None => Command::new(options.trunkline()?),
    };
    let orders = options.choose("1000", "200");
    let watch = Stopwatch::start();
    let ended = demo
        .args([
            "demo", "--check", "--port", "0", "--orders", orders, "--output", "json",
        ])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the demo")?;
    let seconds = watch.seconds();
    let scenario: Scenario = serde_json::from_slice(&ended.stdout).with_context(|| {
        format!(
            "the demo printed {:?}",
            String::from_utf8_lossy(&ended.stdout)
        )
    })?;
    let mut steps = Table::new("The scenario", ["step", "s", "seen"]);
    for step in &scenario.steps {
        report.check(&step.step, step.held, &step.seen);
        steps.row([
            step.step.clone(),
            format!("{:.2}", step.seconds),
            step.seen.clone(),
        ]);
    }
    report.table(steps);
    report.check(
        "every step held and the demo ended with 0",
        scenario.held && ended.status.success(),
        format!("{}, {} steps", ended.status, scenario.steps.len()),
    );
    report.check(
        "the scenario takes at most 90 s",
        seconds <= SECONDS_ALLOWED,
        format!("{seconds:.1} s"),
    );
    Ok(report)
}

fn built_clone(report: &mut Report) -> Result<FreshClone> {
    let clone = FreshClone::of_this_repository()?;
    let (built, seconds) = clone.build(&[])?;
    report.check(
        "a fresh clone builds in at most 5 minutes",
        built.success() && seconds <= BUILD_SECONDS_ALLOWED,
        format!("{seconds:.0} s, {built}"),
    );
    Ok(clone)
}
