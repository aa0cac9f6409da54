//! What a user sees who tries a running demo with curl: an order, the health of every process, their metrics.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use trunkline::http::HttpClient;
use trunkline_testing::servers::PROMTOOL;

use super::system::{MEMBERS, System};
use crate::entry::{Entry, Options};
use crate::report::{Report, Table};

pub(super) static ENTRY: Entry = Entry {
    name: "by-hand",
    about: "requests by hand against a running demo: an order is placed, read back and listed; every `/health` has the documented shape; promtool accepts every `/metrics`.",
    run,
};

/// The fields of a health document, and of each component within.
const DOCUMENT: [&str; 3] = ["components", "overall_status", "timestamp"];
const COMPONENT: [&str; 7] = [
    "error_count",
    "last_error",
    "last_health_check",
    "metadata",
    "name",
    "status",
    "type",
];

fn run(options: &Options) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(prove(options))
}

async fn prove(options: &Options) -> Result<Report> {
    let system = System::start(options)?;
    let mut report = Report::new();
    order(&mut report, system.gateway()).await?;
    let mut table = Table::new("The processes", ["process", "components", "metrics, lines"]);
    for (member, url) in system.members() {
        let client = HttpClient::new(url)?;
        let health: Value = client.get("/health").send().await?.json().await?;
        let components = health["components"].as_object().map_or(0, |map| map.len());
        let wrong = misshapen(&health);
        report.check(
            format!("{member}: /health has the documented fields"),
            wrong.is_none(),
            wrong.unwrap_or_else(|| health["overall_status"].to_string()),
        );
        let metrics = client.get("/metrics").send().await?.text().await?;
        let complaint = promtool(&metrics)?;
        report.check(
            format!("{member}: promtool check metrics says nothing"),
            complaint.is_empty(),
            complaint.lines().next().unwrap_or("nothing said"),
        );
        table.row([
            member.clone(),
            components.to_string(),
            metrics.lines().count().to_string(),
        ]);
    }
    report.check(
        "every process was asked",
        system.members().len() == MEMBERS.len(),
        system.members().len().to_string(),
    );
    report.table(table);
    let ended = system.stop()?;
    report.check("the demo ends with 0", ended.success(), ended.to_string());
    Ok(report)
}

async fn order(report: &mut Report, gateway: &str) -> Result<()> {
    let client = HttpClient::new(gateway)?;
    let wanted = json!({ "user_id": 1, "item": "book", "amount": 1999 });
    let placed = client.post("/api/v1/orders").json(&wanted).send().await?;
    let (status, location) = (placed.status(), placed.headers().get("location").cloned());
    let placed: Value = placed.json().await?;
    report.check(
        "POST /api/v1/orders answers 201 with the order",
        status == 201 && placed["item"] == "book" && placed["email"].is_string(),
        format!("{status}: {placed}"),
    );
    let location = location.context("no Location")?;
    let path = location.to_str()?;
    let read: Value = client.get(path).send().await?.json().await?;
    report.check("its Location reads it back", read == placed, path);
    let listed: Vec<Value> = client.get("/api/v1/orders").send().await?.json().await?;
    report.check(
        "GET /api/v1/orders lists it once",
        listed.iter().filter(|order| **order == placed).count() == 1,
        format!("{} orders", listed.len()),
    );
    Ok(())
}

/// What is not as the document of the configuration reference has it.
fn misshapen(health: &Value) -> Option<String> {
    let fields = |value: &Value| -> Vec<String> {
        let fields = value.as_object().into_iter().flatten();
        fields
            .map(|(name, _)| (name.clone(), ()))
            .collect::<BTreeMap<_, _>>()
            .into_keys()
            .collect()
    };
    if fields(health) != DOCUMENT {
        return Some(format!("the document has {:?}", fields(health)));
    }
    let components = health["components"].as_object().into_iter().flatten();
    components
        .map(|(key, component)| (key, fields(component)))
        .find(|(_, fields)| *fields != COMPONENT)
        .map(|(key, fields)| format!("{key} has {fields:?}"))
}

/// What `promtool check metrics` says; nothing, if all is well.
fn promtool(metrics: &str) -> Result<String> {
    ensure!(!metrics.is_empty(), "no metrics");
    let mut check = Command::new(PROMTOOL.locate()?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start promtool")?;
    let mut input = check.stdin.take().context("promtool has no input")?;
    input.write_all(metrics.as_bytes())?;
    drop(input);
    let output = check.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    if output.status.success() || !said.is_empty() {
        Ok(said)
    } else {
        Ok(output.status.to_string())
    }
}
