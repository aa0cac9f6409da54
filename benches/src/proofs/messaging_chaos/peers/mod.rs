//! What the same acts do to others: the bare driver, RustStream, FastStream and Watermill, used as their documentation says.
//!
//! Each peer has a fresh server, the same link and the same acts in the same order; its messages are fewer. Publishers
//! are told which messages to publish, and those that fail are told again; consumers note each message before they
//! acknowledge it. What ends by itself is started again, as a supervisor would, and so is what does nothing any more.

mod lanes;
mod ledger;
mod process;
mod programs;
mod run;

use self::programs::Program;
use self::run::Seen;
use super::judge::Evidence;
use super::plan::Act;
use crate::proofs::brokers::Subject;
use crate::report::{Report, Table};

/// Messages for a peer.
const MESSAGES: u32 = 20_000;

/// Plays the acts to all peers, and puts what was seen beside ours.
pub(super) fn compare(
    report: &mut Report,
    subject: &'static Subject,
    ours: &Evidence,
    acts: &[Act],
) {
    let mut table = Table::new(
        "The same acts, played to others",
        [
            "on this broker",
            "confirmed",
            "of these lost",
            "handlers run again",
            "out of order in their key",
            "publishes failed",
            "processes ended",
            "processes stuck",
            "new ones handled at the end",
        ],
    );
    let ledger = &ours.ledger;
    let lost = ours.total.saturating_sub(ledger.effects);
    table.row([
        "Trunkline".to_owned(),
        ours.total.to_string(),
        lost.to_string(),
        format!("{}, {} with an effect", ledger.repeated, ledger.twice),
        ledger.disordered.to_string(),
        ours.failed.to_string(),
        // Had one, the proof would have ended with it.
        "0".to_owned(),
        "–".to_owned(),
        if lost == 0 { "all" } else { "not all" }.to_owned(),
    ]);
    let mut notes = Vec::new();
    for (name, program) in programs::all(subject) {
        eprintln!("the same acts for {name}");
        let played = program.and_then(|program| match program {
            Some(program) => Ok(Some((
                run::play(&program, subject, acts, MESSAGES)?,
                program,
            ))),
            None => Ok(None),
        });
        match played {
            Ok(Some((seen, program))) => {
                table.row(row(&program, &seen));
                notes.extend(remarks(&program, &seen, acts.len()));
            }
            Ok(None) => notes.push(format!("{name}: what it is written in is not installed")),
            Err(error) => notes.push(format!("{name} could not be run: {error:#}")),
        }
    }
    report.table(table);
    report.note(
        "the peers' handlers append a line to a file, Trunkline's write to a database in a transaction; a process is stuck when \
         it has confirmed or handled nothing of its work for 60 seconds, and is started again, which is not looked for in \
         Trunkline's: there, a message that takes 120 seconds is missing",
    );
    for note in notes {
        report.note(note);
    }
}

fn row(program: &Program, seen: &Seen) -> [String; 9] {
    let (handled, new) = seen.new;
    let new = match handled {
        0 => "none".to_owned(),
        _ if handled == new => "all".to_owned(),
        _ => format!("{handled} of {new}"),
    };
    [
        program.name.clone(),
        seen.confirmed.to_string(),
        seen.lost.to_string(),
        seen.repeated.to_string(),
        seen.disordered.to_string(),
        seen.failed.to_string(),
        seen.ended.to_string(),
        seen.stuck.to_string(),
        new,
    ]
}

fn remarks(program: &Program, seen: &Seen, acts: usize) -> Vec<String> {
    let name = &program.name;
    let mut remarks = Vec::new();
    if seen.played < acts {
        let played = seen.played;
        remarks.push(format!(
            "{name}: only {played} of {acts} acts in the time that a peer has"
        ));
    }
    if !seen.reasons.is_empty() {
        remarks.push(format!("{name}: {}", seen.reasons.join("; ")));
    }
    remarks
}
