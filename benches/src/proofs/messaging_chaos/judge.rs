//! What came of it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use trunkline::messaging::OrderingGuarantee;

use super::plan::{Act, EVERY_ACT};
use crate::member;
use crate::report::{Report, Table};

/// The effects, as the database has them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Messages that had an effect.
    pub(super) effects: u64,
    /// Of those, the ones that had more than one.
    pub(super) twice: u64,
    /// Runs of handlers beyond one for each message: at-least-once allows them.
    pub(super) repeated: u64,
    /// Effects that came after a later one of the same key.
    pub(super) disordered: u64,
    /// What had an effect, by key and number.
    pub(super) seen: HashSet<(u32, u32)>,
}

/// Everything that was seen.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) seed: u64,
    pub(super) ordered: OrderingGuarantee,
    pub(super) total: u64,
    pub(super) failed: u64,
    pub(super) ledger: Ledger,
    /// What is known of what is missing.
    pub(super) missing: Vec<String>,
    /// How long health stayed green after each death of the server.
    pub(super) noticed: Vec<Duration>,
    /// How long it stayed red after each restart.
    pub(super) recovered: Vec<Duration>,
    pub(super) connections_before: usize,
    pub(super) connections_after: usize,
    pub(super) tasks_before: usize,
    pub(super) tasks_after: usize,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            ordered: OrderingGuarantee::None,
            seed: 0,
            total: 0,
            failed: 0,
            ledger: Ledger::default(),
            missing: Vec::new(),
            noticed: Vec::new(),
            recovered: Vec::new(),
            connections_before: 0,
            connections_after: 0,
            tasks_before: 0,
            tasks_after: 0,
        }
    }
}

/// Waits until every message had its effect, or none had one for so long, and reads the ledger.
pub(super) async fn settled(directory: &str, total: u64, patience: Duration) -> Result<Ledger> {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        let ledger = read(directory).await?;
        // What is slow is not lost.
        if ledger.effects > seen {
            (seen, since) = (ledger.effects, Instant::now());
        }
        if ledger.effects >= total || since.elapsed() >= patience {
            return Ok(ledger);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn read(directory: &str) -> Result<Ledger> {
    let database = member::effects(directory).await?;
    let (rows, runs) = database
        .read(|connection| {
            let mut select = connection.prepare("SELECT key, seq FROM effect ORDER BY id")?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let rows = rows.collect::<Result<Vec<(u32, u32)>, _>>()?;
            let runs: u64 = connection.query_row("SELECT count(*) FROM run", [], |row| {
                Ok(row.get::<_, i64>(0)?.unsigned_abs())
            })?;
            Ok((rows, runs))
        })
        .await?;
    let mut ledger = Ledger::default();
    let mut times: HashMap<(u32, u32), u64> = HashMap::new();
    let mut latest: HashMap<u32, u32> = HashMap::new();
    for (key, seq) in rows {
        *times.entry((key, seq)).or_default() += 1;
        let last = latest.entry(key).or_insert(seq);
        ledger.disordered += u64::from(seq < *last);
        *last = seq.max(*last);
    }
    ledger.effects = times.len() as u64;
    ledger.twice = times.values().filter(|count| **count > 1).count() as u64;
    ledger.repeated = runs.saturating_sub(ledger.effects);
    ledger.seen = times.into_keys().collect();
    Ok(ledger)
}

pub(super) fn judge(report: &mut Report, evidence: &Evidence, acts: &[Act]) {
    let mut table = Table::new("What was done", ["what", "how often"]);
    table.row(["seed".to_owned(), evidence.seed.to_string()]);
    table.row(["messages confirmed".to_owned(), evidence.total.to_string()]);
    for act in EVERY_ACT {
        let times = acts.iter().filter(|played| **played == act).count();
        table.row([act.to_string(), times.to_string()]);
    }
    table.row(["publishes repeated".to_owned(), evidence.failed.to_string()]);
    table.row([
        "handlers run again".to_owned(),
        evidence.ledger.repeated.to_string(),
    ]);
    report.table(table);
    let mut table = Table::new(
        "How health followed the server",
        ["what", "shortest", "longest"],
    );
    for (what, spans) in [
        ("red after its death", &evidence.noticed),
        ("green after its return", &evidence.recovered),
    ] {
        let text = |span: Option<&Duration>| {
            span.map_or_else(String::new, |s| format!("{:.1} s", s.as_secs_f64()))
        };
        table.row([
            what.to_owned(),
            text(spans.iter().min()),
            text(spans.iter().max()),
        ]);
    }
    report.table(table);
    let Evidence { ledger, total, .. } = evidence;
    report.check(
        "no confirmed message is lost",
        ledger.effects == *total,
        format!(
            "{} of {total} missing",
            total.saturating_sub(ledger.effects)
        ),
    );
    for line in &evidence.missing {
        report.note(line);
    }
    report.check(
        "none has an effect twice",
        ledger.twice == 0,
        format!("{} of {total}", ledger.twice),
    );
    match evidence.ordered {
        OrderingGuarantee::PerKey => report.check(
            "the order of each key is kept",
            ledger.disordered == 0,
            format!("{} out of order", ledger.disordered),
        ),
        OrderingGuarantee::None => report.note(format!(
            "the broker promises no order among consumers that compete: {} effects came after a later one of their key",
            ledger.disordered
        )),
    }
    report.check(
        "health is red while the server is down, and green after",
        evidence.noticed.len() == evidence.recovered.len() && !evidence.noticed.is_empty(),
        format!("{} deaths", evidence.noticed.len()),
    );
    report.check(
        "no more connections at the end than at the beginning",
        evidence.connections_after <= evidence.connections_before,
        format!(
            "{} before, {} after",
            evidence.connections_before, evidence.connections_after
        ),
    );
    report.check(
        "no more tasks at the end than at the beginning",
        evidence.tasks_after <= evidence.tasks_before,
        format!(
            "{} before, {} after",
            evidence.tasks_before, evidence.tasks_after
        ),
    );
}
