//! What may be done with a key, inside one transaction.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, params};
use trunkline_core::Error;
use trunkline_messaging::inbox::{Claim, ClaimRequest, ClaimToken};

use crate::engine::Stop;

/// Keys whose time is over that one claim clears away: more than it adds.
const CLEARED_AT_ONCE: i64 = 4;

type Outcome<T> = Result<T, Stop>;

/// A key as it stands.
struct Standing {
    done: bool,
    until: i64,
    fingerprint: Option<Vec<u8>>,
    result: Option<Vec<u8>>,
}

pub(super) fn after(now: i64, span: Duration) -> i64 {
    now.saturating_add(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
}

pub(super) fn claim(
    connection: &Connection,
    request: &ClaimRequest,
    now: i64,
    max_keys: u64,
) -> Outcome<Claim> {
    if let Some(standing) = find(connection, request)?.filter(|standing| standing.until > now) {
        return Ok(answer(standing, request, now));
    }
    let cleared = clear(connection, now)?;
    make_room(connection, request, max_keys)?;
    let generation: i64 = connection
        .prepare_cached("UPDATE counter SET generation = generation + 1 RETURNING generation")?
        .query_row([], |row| row.get(0))?;
    let replaced = connection
        .prepare_cached(
            "UPDATE entry SET generation = ?3, done = 0, until = ?4, fingerprint = ?5, result = NULL
             WHERE scope = ?1 AND key = ?2",
        )?
        .execute(params![
            request.scope, request.key, generation, after(now, request.lease), request.fingerprint.as_deref()
        ])?;
    if replaced == 0 {
        connection
            .prepare_cached(
                "INSERT INTO entry (scope, key, generation, done, until, fingerprint) VALUES (?1, ?2, ?3, 0, ?4, ?5)",
            )?
            .execute(params![
                request.scope, request.key, generation, after(now, request.lease), request.fingerprint.as_deref()
            ])?;
    }
    count(connection, i64::from(replaced == 0) - cleared)?;
    Ok(Claim::Granted(ClaimToken::new(&request.scope, &request.key, generation.cast_unsigned())))
}

fn find(connection: &Connection, request: &ClaimRequest) -> rusqlite::Result<Option<Standing>> {
    connection
        .prepare_cached(
            "SELECT done, until, fingerprint, result FROM entry WHERE scope = ?1 AND key = ?2",
        )?
        .query_row(params![request.scope, request.key], |row| {
            Ok(Standing {
                done: row.get(0)?,
                until: row.get(1)?,
                fingerprint: row.get(2)?,
                result: row.get(3)?,
            })
        })
        .optional()
}

fn answer(standing: Standing, request: &ClaimRequest, now: i64) -> Claim {
    let both = request.fingerprint.as_deref().zip(standing.fingerprint.as_deref());
    if both.is_some_and(|(asked, known)| asked != known) {
        return Claim::Mismatch;
    }
    if standing.done {
        return Claim::Done(standing.result.map(Bytes::from).unwrap_or_default());
    }
    let left = standing.until.saturating_sub(now).max(0).cast_unsigned();
    Claim::InProgress { retry_after: Duration::from_micros(left) }
}

/// Forgets some of what has had its time.
fn clear(connection: &Connection, now: i64) -> rusqlite::Result<i64> {
    let cleared = connection
        .prepare_cached(
            "DELETE FROM entry WHERE id IN (SELECT id FROM entry WHERE until <= ?1 ORDER BY until LIMIT ?2)",
        )?
        .execute([now, CLEARED_AT_ONCE])?;
    Ok(i64::try_from(cleared).unwrap_or(i64::MAX))
}

/// Completed keys make room, the one that would be forgotten first; claims that are held do not.
fn make_room(connection: &Connection, request: &ClaimRequest, max_keys: u64) -> Outcome<()> {
    let entries: i64 =
        connection.prepare_cached("SELECT entries FROM counter")?.query_row([], |row| row.get(0))?;
    if entries.cast_unsigned() < max_keys || find(connection, request)?.is_some() {
        return Ok(());
    }
    let removed = connection
        .prepare_cached(
            "DELETE FROM entry WHERE id = (SELECT id FROM entry WHERE done = 1 ORDER BY until LIMIT 1)",
        )?
        .execute([])?;
    if removed == 0 {
        return Err(Stop::Refused(Error::exhausted(format!(
            "the inbox holds {max_keys} claims that are not completed yet"
        ))));
    }
    Ok(count(connection, -1)?)
}

fn count(connection: &Connection, change: i64) -> rusqlite::Result<()> {
    if change != 0 {
        connection
            .prepare_cached("UPDATE counter SET entries = entries + ?1")?
            .execute([change])?;
    }
    Ok(())
}

pub(super) fn complete(
    connection: &Connection,
    token: &ClaimToken,
    result: &Bytes,
    until: i64,
) -> Outcome<()> {
    // Done twice with the same token is done: the first confirm may have got lost. The first result stays.
    let changed = connection
        .prepare_cached(
            "UPDATE entry SET until = iif(done, until, ?4), result = iif(done, result, ?5), done = 1
             WHERE scope = ?1 AND key = ?2 AND generation = ?3",
        )?
        .execute(params![
            token.scope, token.key, token.generation.cast_signed(), until, &result[..]
        ])?;
    if changed == 0 { Err(Stop::Refused(lost(token))) } else { Ok(()) }
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
    if changed == 0 { Err(Stop::Refused(lost(token))) } else { Ok(()) }
}

pub(super) fn release(connection: &Connection, token: &ClaimToken) -> Outcome<()> {
    let removed = connection
        .prepare_cached(
            "DELETE FROM entry WHERE scope = ?1 AND key = ?2 AND generation = ?3 AND done = 0",
        )?
        .execute(params![token.scope, token.key, token.generation.cast_signed()])?;
    Ok(count(connection, -i64::try_from(removed).unwrap_or(0))?)
}

fn lost(token: &ClaimToken) -> Error {
    Error::conflict(format!("the claim of `{}` was lost: its lease ran out or it is done", token.key))
}
