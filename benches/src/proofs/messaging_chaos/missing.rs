//! Where a message is that had no effect: not stored, not handed out, handed out and not handled, or given up.

use std::collections::HashMap;

use anyhow::Result;
use trunkline::messaging::{AnyBroker, DeadLetters, LetterFilter};
use trunkline::sqlite::params;

use super::brokers::{Stage, Subject};
use super::judge::Ledger;
use super::members::Terms;
use super::publishing::Confirm;
use crate::member;

/// Most that are told of one by one.
const MOST: usize = 20;

/// What its publisher, its handlers and the server know of each, a line each.
pub(super) async fn tell(
    subject: &Subject,
    stage: &Stage,
    broker: &AnyBroker,
    terms: &Terms,
    confirms: &HashMap<(u32, u32), Confirm>,
    ledger: &Ledger,
) -> Result<Vec<String>> {
    let mut missing: Vec<_> = confirms
        .iter()
        .filter(|(numbered, _)| !ledger.seen.contains(numbered))
        .collect();
    missing.sort_by_key(|(numbered, _)| **numbered);
    let database = member::effects(&terms.directory.display().to_string()).await?;
    let letters = DeadLetters::new(broker.clone());
    let given_up = letters
        .list(&terms.group, &LetterFilter::default(), 0, usize::MAX)
        .await;
    let mut lines = Vec::new();
    let letters = match given_up {
        Ok(page) => page.letters,
        Err(error) => {
            lines.push(format!("no dead letters can be seen: {}", error.report()));
            Vec::new()
        }
    };
    let mut positions = Vec::new();
    for ((key, seq), confirm) in missing.into_iter().take(MOST) {
        let (key, seq, id) = (*key, *seq, confirm.receipt.id.clone());
        let known = database.read(move |connection| {
            let runs = "SELECT count(*) FROM run WHERE key = ?1 AND seq = ?2";
            let runs: i64 = connection.query_row(runs, params![key, seq], |row| row.get(0))?;
            let inbox = "SELECT count(*) FROM trunkline_inbox WHERE message_id = ?1";
            let inbox: i64 = connection.query_row(inbox, [id], |row| row.get(0))?;
            Ok((runs, inbox))
        });
        let (runs, inbox) = known.await?;
        let place = match confirm.receipt.position {
            Some(position) => format!("at position {position}"),
            None => "at no position".to_owned(),
        };
        positions.extend(confirm.receipt.position);
        let id = &confirm.receipt.id;
        let letter = letters.iter().find(|letter| letter.message.id == *id);
        let letter = letter.map_or_else(
            || "it is no dead letter".to_owned(),
            |letter| format!("it is a dead letter: {}", letter.error),
        );
        lines.push(format!(
            "missing: number {seq} of key {key}, id {id}, confirmed {place} when sent for the {}. time; its handler ran {runs} times, the inbox has it {inbox} times, {letter}",
            confirm.sent,
        ));
    }
    lines.extend((subject.look)(stage, &positions)?);
    Ok(lines)
}
