//! The main job: a small system of services comes up with nothing installed, and a scripted day holds step by step.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::entry::{Entry, Options};
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
    let trunkline = if options.quick {
        options.trunkline()?
    } else {
        from_fresh_clone(&mut report)?
    };
    let orders = options.choose("1000", "200");
    let watch = Stopwatch::start();
    let ended = Command::new(trunkline)
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

/// Clones the repository, builds the command with an empty target directory, and says how long that took.
fn from_fresh_clone(report: &mut Report) -> Result<PathBuf> {
    let scratch = std::env::temp_dir().join(format!("trunkline-clone-{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the crate lies in a workspace")?;
    let clone = Command::new("git")
        .arg("clone")
        .arg("--quiet")
        .arg(source)
        .arg(&scratch)
        .status()?;
    if !clone.success() {
        bail!("git clone ended with {clone}");
    }
    // Downloads are the network's time, not the compiler's.
    let fetched = Command::new("cargo")
        .args(["fetch", "--locked", "--quiet"])
        .current_dir(&scratch)
        .status()?;
    if !fetched.success() {
        bail!("cargo fetch ended with {fetched}");
    }
    let watch = Stopwatch::start();
    let built = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--target-dir",
            "target",
        ])
        .current_dir(&scratch)
        .env_remove("CARGO_TARGET_DIR")
        .status()?;
    let seconds = watch.seconds();
    report.check(
        "a fresh clone builds in at most 5 minutes",
        built.success() && seconds <= BUILD_SECONDS_ALLOWED,
        format!("{seconds:.0} s, {built}"),
    );
    Ok(scratch.join("target/release/trunkline"))
}
