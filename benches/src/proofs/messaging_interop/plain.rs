//! Messages as they are.

use anyhow::{Result, ensure};
use trunkline::messaging::{Destination, MessageBroker as _, Publish};

use super::cases::{self, Case};
use super::wire::Told;
use super::{Meeting, Outcome, Row};

/// Every case, both ways.
pub(super) fn exchange(meeting: &Meeting<'_>) -> Result<Vec<Row>> {
    let client = meeting.client;
    let (possible, lacking): (Vec<Case>, Vec<Case>) = cases::cases()
        .into_iter()
        .partition(|case| client.lacks(case.name).is_none());
    let theirs = meeting.insist(|| read_by_them(meeting, &possible))?;
    let ours = read_by_us(meeting, &possible)?;
    let both = theirs.into_iter().zip(ours);
    let done = possible.iter().zip(both).map(|(case, (theirs, ours))| Row {
        what: case.name.to_owned(),
        theirs: Outcome::of(theirs),
        ours: Outcome::of(ours),
    });
    let mut rows: Vec<Row> = done.collect();
    for case in lacking {
        let why = Outcome::Lacking(client.lacks(case.name).unwrap_or_default());
        rows.push(Row {
            what: case.name.to_owned(),
            theirs: why.clone(),
            ours: why,
        });
    }
    if client.typed_headers {
        let told = cases::typed_headers();
        let differences = write_and_read(meeting, std::slice::from_ref(&told))?;
        rows.push(Row {
            what: "headers that are numbers".to_owned(),
            theirs: Outcome::Lacking("Trunkline's are text or bytes"),
            ours: Outcome::of(differences.into_iter().flatten().next()),
        });
    }
    Ok(rows)
}

/// What differs in each case that Trunkline writes and the client reads.
fn read_by_them(meeting: &Meeting<'_>, cases: &[Case]) -> Result<Vec<Option<String>>> {
    let (client, topic) = (meeting.client, meeting.topic()?);
    let place = client.place(topic.as_str());
    let reader = meeting
        .foreign
        .read(client.script, &meeting.url, &place, cases.len())?;
    for case in cases {
        let destination = Destination::Topic(topic.clone());
        let publish = Publish::new(destination, case.message.clone());
        meeting.runtime.block_on(meeting.broker.publish(publish))?;
    }
    compare(&wanted(meeting, cases), &reader.finish()?)
}

/// What differs in each case that the client writes and Trunkline reads.
fn read_by_us(meeting: &Meeting<'_>, cases: &[Case]) -> Result<Vec<Option<String>>> {
    write_and_read(meeting, &wanted(meeting, cases))
}

fn wanted(meeting: &Meeting<'_>, cases: &[Case]) -> Vec<Told> {
    let told = |case: &Case| Told::of(&case.message, meeting.client.attributes);
    cases.iter().map(told).collect()
}

fn write_and_read(meeting: &Meeting<'_>, told: &[Told]) -> Result<Vec<Option<String>>> {
    let (client, topic) = (meeting.client, meeting.topic()?);
    let mut subscription = meeting.listen(&topic)?;
    let place = client.place(topic.as_str());
    meeting
        .foreign
        .write(client.script, &meeting.url, &place, told)?;
    let seen = meeting.take(&mut subscription, told.len())?;
    let seen: Vec<Told> = seen
        .iter()
        .map(|message| Told::of(message, client.attributes))
        .collect();
    compare(told, &seen)
}

/// By id: partitions have no order between them.
fn compare(wanted: &[Told], seen: &[Told]) -> Result<Vec<Option<String>>> {
    ensure!(
        wanted.len() == seen.len(),
        "{} of {} messages came",
        seen.len(),
        wanted.len()
    );
    let difference = |wanted: &Told| match seen.iter().find(|seen| seen.id == wanted.id) {
        Some(seen) => wanted.differs(seen),
        None => {
            let ids: Vec<_> = seen.iter().filter_map(|seen| seen.id.as_deref()).collect();
            Some(format!("no message with its id among {}", ids.join(", ")))
        }
    };
    Ok(wanted.iter().map(difference).collect())
}
