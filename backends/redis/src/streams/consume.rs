//! The task of one subscription: makes its place on every new connection, fetches while somebody waits, and gives back
//! what nobody takes.

use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::Instant;
use trunkline_core::{Error, Id, Result};

use super::Core;
use super::desk::{Desk, HOLD};
use super::place::{Kind, Place};
use crate::error::is_no_group;
use crate::link::{Channel, Failure, Link, Listener, millis};
use crate::packed::Packed;
use crate::script::Script;
use crate::wire::{self, Entry};

/// A subscriber without a group is forgotten when it has not been heard of for so long.
const PLACE_KEPT: Duration = Duration::from_secs(60);
/// How often it is heard of, and what belongs to a group is looked after.
const UPKEEP: Duration = Duration::from_secs(15);
/// How long to wait after the server has refused something, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a fetch may take that is under way when the subscription ends.
const LAST_FETCH: Duration = Duration::from_secs(1);
/// Messages that are fetched in one step.
const MOST_AT_ONCE: usize = 500;

/// Why a connection is no longer served.
enum End {
    /// The subscription is dropped, or the broker disconnected.
    Over,
    /// The connection is lost.
    Lost(Error),
    /// The group is gone: somebody has flushed the server, or it has lost its data.
    NoGroup,
    /// The server refuses.
    Refused(Error),
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Answer(error) if is_no_group(&error) => Self::NoGroup,
            Failure::Answer(error) => Self::Refused(crate::error::mapped(error)),
            Failure::Lost(error) => Self::Lost(error),
        }
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// What is remembered from one connection to the next.
struct Memory {
    /// Behind which entry a group begins that has to be made again; none before it was made once.
    done_to: Option<String>,
    /// Where looking for what other clients have left behind goes on.
    stale_from: String,
    fetches: u64,
    /// The token of a fetch whose answer was lost with its connection: what it took goes back.
    abandoned: Option<String>,
    /// Tells this consumer's tokens from those of all others.
    name: String,
}

impl Memory {
    fn new() -> Self {
        Self {
            done_to: None,
            stale_from: "-".to_owned(),
            fetches: 0,
            abandoned: None,
            name: Id::new().to_string(),
        }
    }
}

/// Serves one subscription until it is dropped or the broker disconnected.
pub(super) async fn serve(core: Arc<Core>, desk: Arc<Desk>) {
    let mut memory = Memory::new();
    let listener: Arc<dyn Listener> = desk.clone();
    let channel = Channel::Exact(format!("{}:bell", desk.place.stream));
    core.listeners.add(channel.clone(), &listener);
    let stop = core.scope.token();
    let mut pause = FIRST_PAUSE;
    loop {
        let link = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = desk.dropped.cancelled() => break,
            link = linked(&core, &desk) => match link {
                Ok(link) => link,
                Err(_) => break,
            },
        };
        let began = Instant::now();
        let end = match attended(&core, &desk, &link, &channel, &mut memory).await {
            Ok(()) => End::Over,
            Err(end) => end,
        };
        let reason = match end {
            End::Over => break,
            // The connection is served again as soon as there is one; this one may live on.
            End::Lost(error) => error.report().to_string(),
            End::NoGroup => "the group is gone and is made again".to_owned(),
            End::Refused(error) => {
                let reason = error.report().to_string();
                tracing::warn!(target: "trunkline", source = %desk.subscribe.source, error = %reason, "cannot consume");
                reason
            }
        };
        desk.detach(reason);
        // What was fetched is held under leases that outlive connections; what was not handed out is told so.
        for held in desk.clear() {
            core.settler.give_back(held, false);
        }
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        let wait = pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = stop.cancelled() => break,
            () = desk.dropped.cancelled() => break,
            () = link.gone() => pause = FIRST_PAUSE,
            () = tokio::time::sleep(wait) => {}
        }
    }
    let last = core.listeners.remove(&channel, &listener);
    if !core.closed.is_cancelled() {
        for held in desk.clear() {
            core.settler.give_back(held, false);
        }
        if desk.place.temporary {
            settled(&core, &desk).await;
        }
        if let Ok((link, _)) = core.line.current() {
            part(&core, &desk, &link, last.then_some(&channel)).await;
        }
    }
}

/// Waits until what was handed out is settled, or its lease is over: till then its place is needed.
async fn settled(core: &Core, desk: &Desk) {
    let stop = core.scope.token();
    while let Some(until) = desk.out_until() {
        let now = Instant::now();
        if until <= now {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = desk.work.notified() => {}
            () = tokio::time::sleep_until(until.min(now + UPKEEP)) => {
                if let Ok((link, _)) = core.line.current() {
                    stay(core, desk, &link).await;
                }
            }
        }
    }
}

/// Lets the place of a subscriber without a group be.
async fn stay(core: &Core, desk: &Desk, link: &Link) {
    let mut memory = Memory::new();
    let kept = tokio::select! {
        kept = keep(core, desk, link, &mut memory) => kept,
        () = core.closed.cancelled() => return,
    };
    if kept.is_err() {
        tracing::debug!(target: "trunkline", source = %desk.subscribe.source, "a place may go before its deliveries");
    }
}

/// The subscription was dropped: what the server keeps for it alone goes.
async fn part(core: &Core, desk: &Desk, link: &Link, channel: Option<&Channel>) {
    let deadline = Instant::now() + core.settings.config.heartbeat;
    if desk.place.temporary {
        leave(core, link, &desk.place, deadline).await;
    }
    if let Some(channel) = channel
        && let Err(error) = link.unsubscribe(channel, deadline).await
    {
        tracing::debug!(target: "trunkline", error = %error.report(), "a channel stays subscribed");
    }
}

/// Removes a place. One that stays is removed by others when it has not been heard of for a while.
pub(super) async fn leave(core: &Core, link: &Link, place: &Place, deadline: Instant) {
    let left = link.run(Script::Leave, core.settings.prefix(), deadline, |command| {
        command.arg(&place.stream).arg(&place.group);
    });
    if let Err(failure) = left.await {
        let error = Error::from(failure);
        tracing::debug!(target: "trunkline", error = %error.report(), "a place stays for a while");
    }
}

/// Waits for a connection and says meanwhile that there is none.
async fn linked(core: &Core, desk: &Desk) -> Result<Link> {
    use trunkline_messaging::supervisor::LinkState;
    let mut state = core.line.state();
    loop {
        if let Ok((link, _)) = core.line.current() {
            if !link.is_gone() {
                return Ok(link);
            }
            // Lost a moment ago, and the supervisor has not noticed yet.
            tokio::time::sleep(crate::link::NOTICE).await;
            continue;
        }
        match state.borrow_and_update().clone() {
            LinkState::Up => continue,
            LinkState::Closed => return Err(super::cancelled()),
            LinkState::Connecting => {}
            LinkState::Down { reason } => desk.detach(reason),
        }
        if state.changed().await.is_err() {
            return Err(super::cancelled());
        }
    }
}

/// Ends what may end at any moment, when the subscription is over or the connection lost.
async fn while_served<T>(
    core: &Core,
    desk: &Desk,
    link: &Link,
    step: impl Future<Output = Result<T, End>>,
) -> Result<T, End> {
    let stop = core.scope.token();
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(End::Over),
        () = desk.dropped.cancelled() => Err(End::Over),
        () = link.gone() => Err(lost()),
        done = step => done,
    }
}

/// Lets a fetch that is under way come to its end: what it takes has to be put down, or it lies under a lease of nobody.
/// A server that does not answer is not waited for long.
async fn to_its_end<T>(
    core: &Core,
    desk: &Desk,
    fetch: impl Future<Output = Result<T, End>>,
) -> Result<T, End> {
    let stop = core.scope.token();
    let over = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = desk.dropped.cancelled() => {}
        }
        tokio::time::sleep(LAST_FETCH).await;
    };
    tokio::select! {
        biased;
        done = fetch => done,
        () = over => Err(End::Over),
    }
}

fn lost() -> End {
    End::Lost(Error::unavailable("the connection to Redis was lost"))
}

/// Serves one connection.
async fn attended(
    core: &Core,
    desk: &Arc<Desk>,
    link: &Link,
    channel: &Channel,
    memory: &mut Memory,
) -> Result<(), End> {
    let config = &core.settings.config;
    let limit = || Instant::now() + config.request_timeout;
    let listening = async { link.subscribe(channel, limit()).await.map_err(End::Lost) };
    while_served(core, desk, link, listening).await?;
    let from = memory.done_to.clone().unwrap_or_else(|| desk.place.from());
    let abandoned = memory.abandoned.take().unwrap_or_default();
    let attaching = async {
        let attached = link.run(Script::Attach, core.settings.prefix(), limit(), |command| {
            attach_arguments(&desk.place, &from, command);
            command.arg(&abandoned);
        });
        attached.await.map_err(End::from)
    };
    while_served(core, desk, link, attaching).await?;
    while_served(core, desk, link, keep(core, desk, link, memory)).await?;
    desk.attach();
    let mut upkeep = Instant::now() + UPKEEP;
    // When to look whether something has come, should nobody say so.
    let mut look = Instant::now();
    let mut found_nothing = false;
    loop {
        let wants = desk.wants();
        let now = Instant::now();
        if upkeep <= now {
            while_served(core, desk, link, keep(core, desk, link, memory)).await?;
            upkeep = Instant::now() + UPKEEP;
            continue;
        }
        if wants > 0 && (!found_nothing || look <= now) {
            let fetching = fetch(core, desk, link, memory, wants);
            let (fetched, wait) = to_its_end(core, desk, fetching).await?;
            // Who got less than it wanted is told when there is more.
            found_nothing = fetched < wants.min(MOST_AT_ONCE);
            let wait = wait.unwrap_or(config.poll_interval);
            look = Instant::now() + wait.min(config.poll_interval);
            continue;
        }
        let until = [
            Some(upkeep),
            desk.gives_back_at(),
            (wants > 0).then_some(look),
        ];
        let until = until.into_iter().flatten().min().unwrap_or(upkeep);
        let waiting = async {
            tokio::select! {
                () = desk.work.notified() => Ok(true),
                () = tokio::time::sleep_until(until) => Ok(false),
            }
        };
        if while_served(core, desk, link, waiting).await? && desk.has_rung() {
            found_nothing = false;
        }
        for held in desk.untaken() {
            core.settler.give_back(held, false);
        }
    }
}

pub(super) fn attach_arguments(place: &Place, from: &str, command: &mut Cmd) {
    let ttl = if place.temporary {
        PLACE_KEPT
    } else {
        Duration::ZERO
    };
    command
        .arg(place.kind.letter())
        .arg(&place.name)
        .arg(&place.group)
        .arg(from)
        .arg(millis(ttl));
}

/// Takes up to so many messages. How many there were, and how long nothing comes, if that is known.
async fn fetch(
    core: &Core,
    desk: &Arc<Desk>,
    link: &Link,
    memory: &mut Memory,
    wants: usize,
) -> Result<(usize, Option<Duration>), End> {
    let place = &desk.place;
    memory.fetches += 1;
    let token = format!("{}:{}", memory.name, memory.fetches);
    // The lease of its owner counts from the moment it is handed out, which is a little later.
    let lease = desk.subscribe.lease.saturating_add(HOLD);
    let began = Instant::now();
    let deadline = began + core.settings.config.request_timeout;
    memory.abandoned = Some(token.clone());
    let answer = link
        .run(Script::Fetch, core.settings.prefix(), deadline, |command| {
            command
                .arg(&place.stream)
                .arg(&place.group)
                .arg(wants.min(MOST_AT_ONCE))
                .arg(millis(lease))
                .arg(&token);
        })
        .await?;
    memory.abandoned = None;
    let mut answer = wire::list(answer)?.into_iter();
    let entries = wire::bytes(answer.next().unwrap_or(Value::Nil))?;
    let wait = wire::number(&answer.next().unwrap_or(Value::Nil))?;
    let mut packed = Packed::new(&entries);
    let count = packed.list()?;
    let mut fetched = Vec::with_capacity(count.min(MOST_AT_ONCE));
    for _ in 0..count {
        fetched.push(Entry::unpack(&mut packed)?);
    }
    if count > 0 {
        // A lease without end is one of about a thousand years.
        let until = began
            .checked_add(lease)
            .unwrap_or_else(|| began + Duration::from_secs(86_400 * 365));
        desk.put(fetched, &token, until);
    }
    let wait = u64::try_from(wait).ok().map(Duration::from_millis);
    Ok((count, wait))
}

/// Looks after what belongs to the group.
async fn keep(core: &Core, desk: &Desk, link: &Link, memory: &mut Memory) -> Result<(), End> {
    let (place, config) = (&desk.place, &core.settings.config);
    let ttl = if place.temporary {
        PLACE_KEPT
    } else {
        Duration::ZERO
    };
    let from = memory.stale_from.clone();
    let deadline = Instant::now() + config.request_timeout;
    let answer = link
        .run(Script::Keep, core.settings.prefix(), deadline, |command| {
            command
                .arg(&place.stream)
                .arg(&place.group)
                .arg(millis(ttl))
                .arg(millis(config.claim_after))
                .arg(&from);
            core.settings.limits(command);
        })
        .await?;
    let mut answer = wire::list(answer)?.into_iter();
    memory.stale_from = wire::text(answer.next().unwrap_or(Value::Nil))?;
    let done_to = wire::text(answer.next().unwrap_or(Value::Nil))?;
    // A group with a pattern is filled again from its topics, which have other entries than it.
    memory.done_to = Some(match place.kind {
        Kind::Topic | Kind::Wild => done_to,
        Kind::Queue => "0-0".to_owned(),
    });
    Ok(())
}

/// Removes the places of subscribers that died without a word.
pub(super) async fn sweep(core: Arc<Core>) {
    let stop = core.scope.token();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PLACE_KEPT) => {}
        }
        let Ok((link, _)) = core.line.current() else {
            continue;
        };
        // After an outage everybody gets time to be heard of again.
        if link.age() < PLACE_KEPT {
            continue;
        }
        let deadline = Instant::now() + core.settings.config.request_timeout;
        let swept = link.run(Script::Leave, core.settings.prefix(), deadline, |command| {
            command.arg("").arg("");
        });
        tokio::select! {
            () = stop.cancelled() => return,
            swept = swept => if let Err(failure) = swept {
                let error = Error::from(failure);
                tracing::debug!(target: "trunkline", error = %error.report(), "places were not swept");
            },
        }
    }
}
