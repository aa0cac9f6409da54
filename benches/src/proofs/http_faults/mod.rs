//! The client against a server that does everything wrong that a server can do, on raw sockets.
//!
//! Every fault is tried with every method, once (the server behaves afterwards) and for ever, each with a client and a
//! server of its own. What comes of it and how often the server saw the request is compared with a table that is kept
//! beside this file: any difference fails the proof.

mod call;
mod faults;
mod frames;
mod golden;
mod server;

use anyhow::Result;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::entry::{Entry, Options};
use crate::report::{Report, Table};
use call::{Method, Seen};
use faults::Fault;

pub(super) static ENTRY: Entry = Entry {
    name: "http-faults",
    about: "Against a server that misbehaves in every way, each call ends as it should, and no POST without a key is ever seen twice.",
    run,
};

/// Calls under way at once.
const AT_ONCE: usize = 32;

/// What came of one fault with one method.
struct Row {
    fault: Fault,
    method: Method,
    once: Option<Seen>,
    always: Option<Seen>,
}

fn run(_: &Options) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let rows = runtime.block_on(rows())?;
    let mut report = Report::new();
    let mut table = Table::new(
        "What came of each call, and how often the server took the request up",
        ["fault", "method", "the server recovers", "it does not"],
    );
    let actual: Vec<[String; 4]> = rows.iter().map(Row::cells).collect();
    for row in &actual {
        table.row(row);
    }
    report.table(table);
    golden::compare(&mut report, &actual);
    judge(&mut report, &rows);
    Ok(report)
}

async fn rows() -> Result<Vec<Row>> {
    let cells: Vec<(Fault, Method)> = faults::all()
        .into_iter()
        .flat_map(|fault| Method::ALL.map(|method| (fault.clone(), method)))
        .collect();
    stream::iter(cells)
        .map(|(fault, method)| async move {
            Ok(Row {
                once: call::once(&fault, method).await?,
                always: call::always(&fault, method).await?,
                fault,
                method,
            })
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

impl Row {
    fn cells(&self) -> [String; 4] {
        let shown = |seen: &Option<Seen>| {
            seen.as_ref()
                .map_or_else(|| "—".to_owned(), Seen::to_string)
        };
        [
            self.fault.name.to_owned(),
            self.method.name().to_owned(),
            shown(&self.once),
            shown(&self.always),
        ]
    }

    fn both(&self) -> impl Iterator<Item = &Seen> {
        self.once.iter().chain(&self.always)
    }
}

/// What must hold whatever the table says.
fn judge(report: &mut Report, rows: &[Row]) {
    let unkeyed = || rows.iter().filter(|row| row.method == Method::Post);
    let most = |count: &dyn Fn(&Seen) -> usize, rows: &mut dyn Iterator<Item = &Row>| {
        let counts = rows.flat_map(|row| row.both().map(count).collect::<Vec<_>>());
        counts.max().unwrap_or(0)
    };
    let taken_up = most(&|seen| seen.taken_up, &mut unkeyed());
    report.check(
        "no POST without a key is taken up twice",
        taken_up <= 1,
        format!("at most {taken_up} time(s)"),
    );
    let arrived = most(
        &|seen| seen.arrived,
        &mut unkeyed().filter(|row| !row.fault.turns_away()),
    );
    report.check(
        "no POST without a key arrives twice, unless the server says itself that it did not process it",
        arrived <= 1,
        format!("at most {arrived} time(s)"),
    );
    let keyed = || rows.iter().filter(|row| row.method != Method::Post);
    let repeated = keyed()
        .filter(|row| row.both().any(|seen| seen.arrived > 1))
        .count();
    report.check(
        "what may be repeated is repeated",
        repeated > 0,
        format!("{repeated} cells with more than one attempt"),
    );
    let fresh = most(
        &|seen| seen.arrived,
        &mut rows.iter().filter(|row| !row.fault.reused),
    );
    let reused = most(
        &|seen| seen.arrived,
        &mut rows.iter().filter(|row| row.fault.reused),
    );
    report.check(
        "no call makes more than three attempts, and one more where it found a reused connection closed",
        fresh <= 3 && reused <= 4,
        format!("at most {fresh}, and {reused}"),
    );
    let early: Vec<String> = rows
        .iter()
        .flat_map(|row| row.both().map(move |seen| (row, seen)))
        .filter(|(row, seen)| call::came_back_early(&row.fault, seen))
        .map(|(row, _)| format!("{} {}", row.fault.name, row.method.name()))
        .collect();
    report.check(
        "Retry-After is kept to",
        early.is_empty(),
        if early.is_empty() {
            "never earlier than a second".to_owned()
        } else {
            early.join(", ")
        },
    );
    let mut lost = rows
        .iter()
        .filter(|row| row.both().any(|seen| !seen.next_is_good));
    let first = lost.next().map(|row| row.fault.name);
    report.check(
        "the next call on the same client gets its own answer",
        first.is_none(),
        first.map_or_else(|| "200 `hello` each time".to_owned(), ToOwned::to_owned),
    );
}
