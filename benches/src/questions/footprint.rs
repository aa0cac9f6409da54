//! What Trunkline costs before it has done anything: building it, starting it, having it run idle.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::entry::{Entry, Options};
use crate::fresh_clone::FreshClone;
use crate::proofs::system::{MEMBERS, System};
use crate::report::{Report, Spread, Table, short};
use crate::stopwatch::Stopwatch;

pub(super) static ENTRY: Entry = Entry {
    name: "footprint",
    about: "how long does a fresh clone build, how long does the program take to start, what does an idle service hold in memory?",
    run,
};

/// What a newcomer may wait for the build, on two cores.
const BUILD_SECONDS: f64 = 300.0;
/// What the program may take to start.
const START_MILLISECONDS: f64 = 50.0;
/// What an idle service may hold.
const IDLE_MEBIBYTES: f64 = 20.0;
/// After this much peace a service is idle.
const PEACE: Duration = Duration::from_secs(3);
/// How many of the longest compilations are shown.
const SHOWN: usize = 10;

fn run(options: &Options) -> Result<Report> {
    let mut report = Report::new();
    if options.quick {
        report.note("a quick run builds nothing");
    } else {
        build(&mut report)?;
    }
    start(options, &mut report)?;
    idle(options, &mut report)?;
    report.note("a target is the allowed value divided by the measured one: 1 is just enough");
    Ok(report)
}

/// One compilation, as cargo times it.
#[derive(Deserialize)]
struct Unit {
    name: String,
    version: String,
    duration: f64,
}

fn build(report: &mut Report) -> Result<()> {
    let clone = FreshClone::of_this_repository()?;
    let (built, seconds) = clone.build(&["--timings"])?;
    if !built.success() {
        bail!("the build of a fresh clone ended with {built}");
    }
    let took = Spread::of(&[seconds]).context("a time")?;
    report.figure("build of a fresh clone", "s", took);
    let allowed = Spread::of(&[BUILD_SECONDS / seconds]).context("a ratio")?;
    report.target("a fresh clone builds in 300 s", allowed, 1.0);
    let page = fs::read_to_string(clone.path("target/cargo-timings/cargo-timing.html"))?;
    let mut crates: BTreeMap<String, f64> = BTreeMap::new();
    for unit in units(&page)? {
        *crates
            .entry(format!("{} {}", unit.name, unit.version))
            .or_default() += unit.duration;
    }
    let all: f64 = crates.values().sum();
    let mut longest: Vec<_> = crates.iter().collect();
    longest.sort_by(|one, other| other.1.total_cmp(one.1));
    let mut table = Table::new(
        format!("A fresh clone builds in {seconds:.0} s; what costs most"),
        ["crate", "s of one core", "% of all"],
    );
    for (name, seconds) in longest.into_iter().take(SHOWN) {
        table.row([name.clone(), short(*seconds), short(100.0 * seconds / all)]);
    }
    report.table(table);
    Ok(())
}

/// The data within the page that `cargo build --timings` writes.
fn units(page: &str) -> Result<Vec<Unit>> {
    let data = page
        .split_once("const UNIT_DATA = ")
        .and_then(|(_, rest)| rest.split_once("];"))
        .context("cargo's page of timings has another form")?
        .0;
    serde_json::from_str(&format!("{data}]")).context("cargo's timings have another form")
}

fn start(options: &Options, report: &mut Report) -> Result<()> {
    let program = options.trunkline()?;
    let mut times = Vec::new();
    for _ in 0..options.choose(40, 10) {
        let watch = Stopwatch::start();
        let ended = Command::new(&program)
            .arg("--version")
            .stdout(Stdio::null())
            .status()?;
        times.push(watch.seconds() * 1000.0);
        if !ended.success() {
            bail!("`trunkline --version` ended with {ended}");
        }
    }
    let times = Spread::of(&times).context("times")?;
    let mut table = Table::new("Start", ["what", "min ms", "median", "max"]);
    let row = |what: &str, spread: Spread| {
        let cells = [spread.min, spread.median, spread.max].map(short);
        [what.to_owned()].into_iter().chain(cells)
    };
    table.row(row("`trunkline --version`, until it has ended", times));
    report.figure("start of the program", "ms", times);
    let allowed = Spread::of(&[START_MILLISECONDS / times.median]).context("a ratio")?;
    report.target("the program starts within 50 ms", allowed, 1.0);
    let mut all_up = Vec::new();
    for _ in 0..options.rounds() {
        let watch = Stopwatch::start();
        let system = System::start(options)?;
        all_up.push(watch.seconds() * 1000.0);
        drop(system);
    }
    let all_up = Spread::of(&all_up).context("times")?;
    table.row(row("demo, until all five processes are ready", all_up));
    report.figure("start of the demo", "ms", all_up);
    report.table(table);
    Ok(())
}

fn idle(options: &Options, report: &mut Report) -> Result<()> {
    let system = System::start(options)?;
    std::thread::park_timeout(PEACE);
    let mut table = Table::new("Idle", ["process", "resident MiB"]);
    for member in MEMBERS {
        let pid = system
            .pid(member)?
            .with_context(|| format!("{member} is not running"))?;
        let mebibytes = resident(pid)?;
        table.row([member.to_owned(), short(mebibytes)]);
        let spread = Spread::of(&[mebibytes]).context("a size")?;
        report.figure(format!("resident memory of {member}, idle"), "MiB", spread);
        let allowed = Spread::of(&[IDLE_MEBIBYTES / mebibytes]).context("a ratio")?;
        report.target(
            format!("{member} holds at most 20 MiB when idle"),
            allowed,
            1.0,
        );
    }
    report.table(table);
    Ok(())
}

/// Memory that a process holds, in MiB, as the kernel counts it.
fn resident(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .context("the kernel does not say VmRSS")?;
    Ok(kibibytes.trim().parse::<f64>()? / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_read_from_cargos_page() {
        let page = "<script>\nconst UNIT_DATA = [\n  {\n    \"i\": 0,\n    \"name\": \"ring\",\n    \"version\": \"0.17.14\",\n    \"duration\": 3.5,\n    \"unlocked_units\": []\n  }\n];\nconst CONCURRENCY_DATA = [];";
        let units = units(page).unwrap();
        assert_eq!(units.len(), 1);
        assert_eq!((units[0].name.as_str(), units[0].duration), ("ring", 3.5));
        assert!(super::units("<html>").is_err());
    }
}
