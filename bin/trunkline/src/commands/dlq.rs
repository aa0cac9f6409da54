//! `trunkline dlq`

use serde::Serialize;
use trunkline::Timestamp;
use trunkline::messaging::{DeadLetter, DeadLetters, Edit, LetterFilter, Replay, TopicPattern};

use super::subscribe::{Line, line, text_of};
use crate::cli::{Dlq, DlqFilter, DlqSource};
use crate::exit::{ExitCode, UsageError};
use crate::open;
use crate::output::{Output, table};

/// Letters that are asked for at once.
const PAGE: usize = 500;

/// A dead letter for programs.
#[derive(Serialize)]
struct Letter {
    position: u64,
    id: String,
    reason: String,
    error: String,
    attempts: u32,
    replays: u32,
    group: Option<String>,
    handler: Option<String>,
    at: Option<Timestamp>,
    #[serde(flatten)]
    message: Line,
}

pub(crate) async fn run(command: Dlq, output: &Output) -> anyhow::Result<ExitCode> {
    let source = match &command {
        Dlq::List { source, .. }
        | Dlq::Show { source, .. }
        | Dlq::Edit { source, .. }
        | Dlq::Replay { source, .. }
        | Dlq::Purge { source, .. } => source,
    };
    let broker = open::broker(&source.url).await?;
    let letters = DeadLetters::new(broker.clone());
    let done = carry_out(&command, &letters, output).await;
    open::close(&broker, output).await;
    done
}

async fn carry_out(
    command: &Dlq,
    letters: &DeadLetters,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    match command {
        Dlq::List { source, filter } => list(letters, source, filter, output).await,
        Dlq::Show { source, id } => show(letters, source, id, output).await,
        Dlq::Edit {
            source,
            id,
            payload,
            content_type,
            headers,
            remove_header,
        } => {
            let mut change = Edit::default();
            change.payload = payload
                .as_deref()
                .map(read_payload)
                .transpose()?
                .map(Into::into);
            change.content_type = content_type.clone();
            change.set = headers.clone();
            change.removed = remove_header.clone();
            edit(letters, source, id, &change, output).await
        }
        Dlq::Replay {
            source,
            filter,
            rate,
        } => replay(letters, source, filter, *rate, output).await,
        Dlq::Purge {
            source,
            filter,
            all,
        } => purge(letters, source, filter, *all, output).await,
    }
}

async fn list(
    letters: &DeadLetters,
    source: &DlqSource,
    filter: &DlqFilter,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let found = find(letters, &source.group, filter).await?;
    let found: Vec<Letter> = found.into_iter().map(letter).collect();
    output.result(&found, |found| {
        let rows = found.iter().map(|letter| {
            let at = letter
                .at
                .map(|at| at.to_seconds().to_string())
                .unwrap_or_default();
            [
                letter.id.clone(),
                letter.message.topic.clone(),
                letter.reason.clone(),
                letter.attempts.to_string(),
                at,
                letter.error.clone(),
            ]
        });
        table(["ID", "TOPIC", "REASON", "ATTEMPTS", "AT", "ERROR"], rows)
    })?;
    Ok(ExitCode::Done)
}

async fn show(
    letters: &DeadLetters,
    source: &DlqSource,
    id: &str,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let found = by_id(letters, source, id).await?;
    output.result(&letter(found), |letter| {
        let headers = letter
            .message
            .headers
            .iter()
            .map(|(name, value)| format!("  {name}: {value}"));
        let mut lines = vec![
            format!("id        {}", letter.id),
            format!("topic     {}", letter.message.topic),
            format!("reason    {}", letter.reason),
            format!("error     {}", letter.error),
            format!("attempts  {}", letter.attempts),
            format!("replays   {}", letter.replays),
            "headers".to_owned(),
        ];
        lines.extend(headers);
        lines.push(format!("payload\n  {}", text_of(&letter.message.payload)));
        lines.join("\n")
    })?;
    Ok(ExitCode::Done)
}

async fn by_id(letters: &DeadLetters, source: &DlqSource, id: &str) -> anyhow::Result<DeadLetter> {
    let mut filter = LetterFilter::default();
    filter.id = Some(id.to_owned());
    let page = letters.list(&source.group, &filter, 0, 1).await?;
    let found = page.letters.into_iter().next();
    found.ok_or_else(|| {
        let missing = format!("the group {} has no dead letter {id}", source.group);
        trunkline::Error::not_found(missing).into()
    })
}

async fn edit(
    letters: &DeadLetters,
    source: &DlqSource,
    id: &str,
    change: &Edit,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let found = by_id(letters, source, id).await?;
    letters.edit(&source.group, found.position, change).await?;
    let shown = serde_json::json!({ "edited": id });
    output.result(&shown, |_| format!("changed letter {id}"))?;
    Ok(ExitCode::Done)
}

/// A payload as it is given, or from the standard input.
fn read_payload(given: &str) -> anyhow::Result<Vec<u8>> {
    if given != "-" {
        return Ok(given.as_bytes().to_vec());
    }
    let mut payload = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut payload)?;
    Ok(payload)
}

async fn replay(
    letters: &DeadLetters,
    source: &DlqSource,
    filter: &DlqFilter,
    rate: Option<u32>,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let mut asked = Replay::default().with_filter(only(letters, source, filter).await?);
    if let Some(limit) = filter.limit {
        asked = asked.with_limit(limit as u64);
    }
    if let Some(rate) = rate {
        asked = asked.with_rate(f64::from(rate));
    }
    let report = letters.replay(&source.group, &asked).await?;
    let failed: Vec<String> = report
        .failed
        .iter()
        .map(|(position, error)| format!("letter {position}: {}", error.report()))
        .collect();
    let shown = serde_json::json!({ "replayed": report.replayed, "failed": failed });
    output.result(&shown, |_| {
        format!("replayed {} letter(s)", report.replayed)
    })?;
    failed.iter().for_each(|line| output.warn(line));
    Ok(if failed.is_empty() {
        ExitCode::Done
    } else {
        ExitCode::Failed
    })
}

async fn purge(
    letters: &DeadLetters,
    source: &DlqSource,
    filter: &DlqFilter,
    all: bool,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let narrowed = !filter.ids.is_empty()
        || filter.topic.is_some()
        || filter.reason.is_some()
        || filter.limit.is_some();
    if !narrowed && !all {
        return Err(UsageError(
            "say which letters by a filter, or --all to drop every one".to_owned(),
        )
        .into());
    }
    let purged = letters
        .purge(&source.group, &only(letters, source, filter).await?)
        .await?;
    let shown = serde_json::json!({ "purged": purged });
    output.result(&shown, |_| format!("dropped {purged} letter(s)"))?;
    Ok(ExitCode::Done)
}

/// The filter of the command line. What the broker is not asked for is settled into positions first.
async fn only(
    letters: &DeadLetters,
    source: &DlqSource,
    filter: &DlqFilter,
) -> anyhow::Result<LetterFilter> {
    let mut settled = plain(filter)?;
    if !filter.ids.is_empty() || filter.limit.is_some() || filter.reason.is_some() {
        let found = find(letters, &source.group, filter).await?;
        settled.positions = Some(found.into_iter().map(|letter| letter.position).collect());
    }
    Ok(settled)
}

fn plain(filter: &DlqFilter) -> anyhow::Result<LetterFilter> {
    let mut plain = LetterFilter::default();
    plain.topic = filter.topic.as_deref().map(TopicPattern::new).transpose()?;
    Ok(plain)
}

async fn find(
    letters: &DeadLetters,
    group: &str,
    filter: &DlqFilter,
) -> anyhow::Result<Vec<DeadLetter>> {
    let (asked, mut found, mut after) = (plain(filter)?, Vec::new(), 0);
    loop {
        let page = letters.list(group, &asked, after, PAGE).await?;
        found.extend(
            page.letters
                .into_iter()
                .filter(|letter| is_wanted(filter, letter)),
        );
        let enough = filter.limit.is_some_and(|limit| found.len() >= limit);
        match page.next.filter(|_| !enough) {
            Some(next) => after = next,
            None => break,
        }
    }
    found.truncate(filter.limit.unwrap_or(usize::MAX));
    Ok(found)
}

/// What the broker is not asked for.
fn is_wanted(filter: &DlqFilter, letter: &DeadLetter) -> bool {
    let says = |text: &String| letter.reason.contains(text) || letter.error.contains(text);
    (filter.ids.is_empty() || filter.ids.contains(&letter.message.id))
        && filter.reason.as_ref().is_none_or(says)
}

fn letter(letter: DeadLetter) -> Letter {
    // `topic order.created`, or `queue …`.
    let origin = letter.origin.as_deref().unwrap_or_default();
    let topic = origin
        .split_once(' ')
        .map_or(origin, |(_, name)| name)
        .to_owned();
    Letter {
        position: letter.position,
        id: letter.message.id.clone(),
        message: line(&letter.message, &topic, letter.attempts),
        reason: letter.reason,
        error: letter.error,
        attempts: letter.attempts,
        replays: letter.replays,
        group: letter.group,
        handler: letter.handler,
        at: letter.at,
    }
}
