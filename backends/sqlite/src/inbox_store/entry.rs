//! What may be done with a key, inside one transaction.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use trunkline_core::Error;
use trunkline_messaging::inbox::{Claim, ClaimRequest, ClaimToken};

use crate::engine::{Liveness, Stop};

/// Keys whose time is over that one claim clears away: more than it adds.
const CLEARED_AT_ONCE: i64 = 4;

type Outcome<T> = Result<T, Stop>;

/// A key as it stands.
struct Standing {
    done: bool,
    until: i64,
    fingerprint: Option<Vec<u8>>,
    result: Option<Vec<u8>>,
    owner: Option<String>,
}

impl Standing {
    /// Whether it still stands. A claim falls with its lease or its process, whichever ends first; of a claim without an
    /// owner only the lease is known.
    fn holds(&self, liveness: &Liveness, now: i64) -> bool {
        let is_alive = |owner: &String| liveness.is_alive(owner);
        self.until > now && (self.done || self.owner.as_ref().is_none_or(is_alive))
    }
}

pub(super) fn after(now: i64, span: Duration) -> i64 {
    now.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

/// How much the inbox may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) keys: u64,
    pub(super) bytes: u64,
}

pub(super) fn claim(
    connection: &Connection,
    request: &ClaimRequest,
    liveness: &Liveness,
    now: i64,
    room: Room,
) -> Outcome<Claim> {
    if let Some(standing) = find(connection, request)?
        && standing.holds(liveness, now)
    {
        return Ok(answer(standing, request, now));
    }
    clear(connection, now)?;
    remove(connection, &request.scope, &request.key)?;
    let size = request.scope.len()
        + request.key.len()
        + request.fingerprint.as_ref().map_or(0, Bytes::len);
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    make_room(connection, room, 1, size)?;
    let generation: i64 = connection
        .prepare_cached("UPDATE counter SET generation = generation + 1 RETURNING generation")?
        .query_row([], |row| row.get(0))?;
    connection
        .prepare_cached(
            "INSERT INTO entry (scope, key, generation, done, until, fingerprint, size, owner)
             VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            request.scope,
            request.key,
            generation,
            after(now, request.lease),
            request.fingerprint.as_deref(),
            size,
            &**liveness.token()
        ])?;
    count(connection, 1, size)?;
    Ok(Claim::Granted(ClaimToken::new(
        &request.scope,
        &request.key,
        generation.cast_unsigned(),
    )))
}

fn find(connection: &Connection, request: &ClaimRequest) -> rusqlite::Result<Option<Standing>> {
    connection
        .prepare_cached(
            "SELECT done, until, fingerprint, result, owner FROM entry WHERE scope = ?1 AND key = ?2",
        )?
        .query_row(params![request.scope, request.key], |row| {
            Ok(Standing {
                done: row.get(0)?,
                until: row.get(1)?,
                fingerprint: row.get(2)?,
                result: row.get(3)?,
                owner: row.get(4)?,
            })
        })
        .optional()
}

fn answer(standing: Standing, request: &ClaimRequest, now: i64) -> Claim {
    let both = request
        .fingerprint
        .as_deref()
        .zip(standing.fingerprint.as_deref());
    if both.is_some_and(|(asked, known)| asked != known) {
        return Claim::Mismatch;
    }
    if standing.done {
        return Claim::Done(standing.result.map(Bytes::from).unwrap_or_default());
    }
    let left = standing.until.saturating_sub(now).max(0).cast_unsigned();
    Claim::InProgress {
        retry_after: Duration::from_micros(left),
    }
}

/// Forgets some of what has had its time.
fn clear(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let over: Vec<(i64, i64)> = connection
        .prepare_cached("SELECT id, size FROM entry WHERE until <= ?1 ORDER BY until LIMIT ?2")?
        .query_map([now, CLEARED_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, size) in over {
        forget(connection, id, size)?;
    }
    Ok(())
}

/// Forgets a key that stands for nothing any more.
fn remove(connection: &Connection, scope: &str, key: &str) -> rusqlite::Result<()> {
    let known: Option<(i64, i64)> = connection
        .prepare_cached("SELECT id, size FROM entry WHERE scope = ?1 AND key = ?2")?
        .query_row([scope, key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    known.map_or(Ok(()), |(id, size)| forget(connection, id, size))
}

fn forget(connection: &Connection, id: i64, size: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM entry WHERE id = ?1")?
        .execute([id])?;
    count(connection, -1, -size)
}

/// Completed keys make room, the one that would be forgotten first before the others; claims that are held do not.
fn make_room(connection: &Connection, room: Room, keys: i64, size: i64) -> Outcome<()> {
    loop {
        let (entries, bytes): (i64, i64) = connection
            .prepare_cached("SELECT entries, bytes FROM counter")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let fits = (entries + keys).unsigned_abs() <= room.keys
            && bytes.saturating_add(size).unsigned_abs() <= room.bytes;
        if fits {
            return Ok(());
        }
        let oldest: Option<(i64, i64)> = connection
            .prepare_cached("SELECT id, size FROM entry WHERE done = 1 ORDER BY until LIMIT 1")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((id, size)) = oldest else {
            return Err(Stop::Refused(Error::exhausted(format!(
                "the inbox is full: {entries} keys are being worked on, {bytes} bytes"
            ))));
        };
        forget(connection, id, size)?;
    }
}

fn count(connection: &Connection, entries: i64, bytes: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE counter SET entries = entries + ?1, bytes = bytes + ?2")?
        .execute([entries, bytes])
        .map(|_| ())
}

pub(super) fn complete(
    connection: &Connection,
    token: &ClaimToken,
    result: &Bytes,
    until: i64,
    room: Room,
) -> Outcome<()> {
    let generation = token.generation.cast_signed();
    let done: Option<bool> = connection
        .prepare_cached("SELECT done FROM entry WHERE scope = ?1 AND key = ?2 AND generation = ?3")?
        .query_row(params![token.scope, token.key, generation], |row| {
            row.get(0)
        })
        .optional()?;
    match done {
        None => return Err(Stop::Refused(lost(token))),
        // Done twice with the same token is done: the first confirm may have got lost. The first result stays.
        Some(true) => return Ok(()),
        Some(false) => {}
    }
    let size = i64::try_from(result.len()).unwrap_or(i64::MAX);
    make_room(connection, room, 0, size)?;
    connection
        .prepare_cached(
            "UPDATE entry SET done = 1, until = ?4, result = ?5, size = size + ?6
             WHERE scope = ?1 AND key = ?2 AND generation = ?3",
        )?
        .execute(params![
            token.scope,
            token.key,
            generation,
            until,
            &result[..],
            size
        ])?;
    Ok(count(connection, 0, size)?)
}

pub(super) fn extend(
    connection: &Connection,
    token: &ClaimToken,
    now: i64,
    lease: Duration,
) -> Outcome<()> {
    let changed = connection
        .prepare_cached(
            "UPDATE entry SET until = ?4 WHERE scope = ?1 AND key = ?2 AND generation = ?3 AND done = 0",
        )?
        .execute(params![
            token.scope, token.key, token.generation.cast_signed(), after(now, lease)
        ])?;
    if changed == 0 {
        Err(Stop::Refused(lost(token)))
    } else {
        Ok(())
    }
}

pub(super) fn release(connection: &Connection, token: &ClaimToken) -> Outcome<()> {
    let held: Option<(i64, i64)> = connection
        .prepare_cached(
            "SELECT id, size FROM entry WHERE scope = ?1 AND key = ?2 AND generation = ?3 AND done = 0",
        )?
        .query_row(
            params![token.scope, token.key, token.generation.cast_signed()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    Ok(held.map_or(Ok(()), |(id, size)| forget(connection, id, size))?)
}

fn lost(token: &ClaimToken) -> Error {
    Error::conflict(format!(
        "the claim of `{}` was lost: its lease ran out or it is done",
        token.key
    ))
}
